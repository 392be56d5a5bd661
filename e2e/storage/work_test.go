package storage_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const version = "api-version=2025-06-01"

// state is all that a client has stored, as it reads it again: "" stands for what is not there.
type state map[string]string

// step is a call of a client and what it changes.
type step struct {
	request request
	changes state
}

// client makes its calls one after the other, on objects of its own. So of any moment it is known
// what must be there: all steps that were answered, and the next one wholly or not at all.
type client struct {
	number int
	steps  []step
	done   int
	random *rand.Rand
	want   state // after all steps
	reads  func(context.Context, *server, int) (state, error)
}

func (c *client) add(q request, changes state) {
	c.steps = append(c.steps, step{q, changes})
	for key, value := range changes {
		c.want[key] = value
	}
}

// run makes the calls up to a number.
func (c *client) run(ctx context.Context, s *server, until int) error {
	for ; c.done < min(until, len(c.steps)); c.done++ {
		q := c.steps[c.done].request
		for name, value := range q.header { // the port of the source is not known earlier
			q.header[name] = strings.ReplaceAll(value, "{storage}", s.BlobEndpoint)
		}
		status, body, _, err := s.send(ctx, q, requestID(c.number, c.done))
		if err != nil {
			return err
		}
		if status >= 300 || strings.Contains(string(body), "clienterror") {
			return fmt.Errorf("%s %s: %d %.500s", q.method, q.path, status, body)
		}
	}
	return nil
}

// after is what is there after so many steps.
func (c *client) after(steps int) state {
	s := state{}
	for _, step := range c.steps[:min(steps, len(c.steps))] {
		maps.Copy(s, step.changes)
	}
	maps.DeleteFunc(s, func(_, value string) bool { return value == "" })
	return s
}

// taskClient adds, changes and deletes jobs and tasks. Padding is how large a task is.
func taskClient(number, steps, padding int, random *rand.Rand) *client {
	c := &client{number: number, random: random, want: state{}, reads: readTasks}
	c.add(request{method: http.MethodPost, path: "/pools?" + version, body: `{"id":"` + c.pool() + `","vmSize":"custom_1c_1g","targetDedicatedNodes":0,
		"virtualMachineConfiguration":{"nodeAgentSKUId":"batch.node.ubuntu 22.04",
		"imageReference":{"publisher":"canonical","offer":"0001-com-ubuntu-server-jammy","sku":"22_04-lts"}}}`}, nil)
	job := c.addJob(0)
	var tasks []string
	next := 0
	for len(c.steps) < steps {
		switch n := c.random.IntN(12); {
		case n < 4:
			tasks = append(tasks, c.addTask(job, next, padding))
			next++
		case n < 7:
			many := 2 + c.random.IntN(60)
			tasks = append(tasks, c.addTasks(job, next, many, padding)...)
			next += many
		case n < 9 && len(tasks) > 0:
			id := tasks[c.random.IntN(len(tasks))]
			retries := strconv.Itoa(1 + c.random.IntN(90))
			c.add(request{method: http.MethodPut, path: "/jobs/" + job + "/tasks/" + id + "?" + version,
				body: `{"constraints":{"maxTaskRetryCount":` + retries + `}}`}, state{"task " + job + "/" + id: retries})
		case n < 10 && len(tasks) > 0:
			at := c.random.IntN(len(tasks))
			c.add(request{method: http.MethodDelete, path: "/jobs/" + job + "/tasks/" + tasks[at] + "?" + version},
				state{"task " + job + "/" + tasks[at]: ""})
			tasks = slices.Delete(tasks, at, at+1)
		case n < 11:
			priority := strconv.Itoa(1 + c.random.IntN(900))
			c.add(request{method: http.MethodPatch, path: "/jobs/" + job + "?" + version,
				body: `{"priority":` + priority + `}`}, state{"job " + job: priority})
		case n == 11 && len(tasks) > 300:
			gone := state{"job " + job: ""}
			for _, id := range tasks {
				gone["task "+job+"/"+id] = ""
			}
			c.add(request{method: http.MethodDelete, path: "/jobs/" + job + "?" + version}, gone)
			job, tasks, next = c.addJob(len(c.steps)), nil, 0
		}
	}
	return c
}

func (c *client) pool() string { return "pool-" + strconv.Itoa(c.number) }

func (c *client) addJob(n int) string {
	id := fmt.Sprintf("job-%d-%d", c.number, n)
	c.add(request{method: http.MethodPost, path: "/jobs?" + version,
		body: `{"id":"` + id + `","priority":7,"poolInfo":{"poolId":"` + c.pool() + `"}}`}, state{"job " + id: "7"})
	return id
}

func taskBody(id string, retries, padding int) string {
	body, _ := json.Marshal(map[string]any{ // strings and numbers encode
		"id": id, "commandLine": "/bin/true " + strings.Repeat("x", padding),
		"constraints": map[string]any{"maxTaskRetryCount": retries},
	})
	return string(body)
}

func (c *client) addTask(job string, n, padding int) string {
	id := fmt.Sprintf("t%05d", n)
	c.add(request{method: http.MethodPost, path: "/jobs/" + job + "/tasks?" + version, body: taskBody(id, n%50, padding)},
		state{"task " + job + "/" + id: strconv.Itoa(n % 50)})
	return id
}

func (c *client) addTasks(job string, first, many, padding int) []string {
	var ids, bodies []string
	changes := state{}
	for n := first; n < first+many; n++ {
		id := fmt.Sprintf("t%05d", n)
		ids, bodies = append(ids, id), append(bodies, taskBody(id, n%50, padding))
		changes["task "+job+"/"+id] = strconv.Itoa(n % 50)
	}
	c.add(request{method: http.MethodPost, path: "/jobs/" + job + "/addtaskcollection?" + version,
		body: `{"value":[` + strings.Join(bodies, ",") + `]}`}, changes)
	return ids
}

// readTasks reads the jobs of a client and their tasks.
func readTasks(ctx context.Context, s *server, number int) (state, error) {
	found := state{}
	jobs, err := list[struct {
		ID, State string
		Priority  int
	}](ctx, s, "/jobs?"+version)
	if err != nil {
		return nil, err
	}
	for _, job := range jobs {
		if job.State == "deleting" || !strings.HasPrefix(job.ID, fmt.Sprintf("job-%d-", number)) {
			continue
		}
		found["job "+job.ID] = strconv.Itoa(job.Priority)
		tasks, err := list[struct {
			ID          string
			Constraints struct{ MaxTaskRetryCount int }
		}](ctx, s, "/jobs/"+job.ID+"/tasks?$select=id,constraints&"+version)
		if err != nil {
			return nil, err
		}
		for _, task := range tasks {
			found["task "+job.ID+"/"+task.ID] = strconv.Itoa(task.Constraints.MaxTaskRetryCount)
		}
	}
	return found, nil
}

const (
	storageAccount = "devstoreaccount1"
	blobsOfClient  = 4
)

// blobClient writes and deletes blobs of all kinds.
func blobClient(number, steps int, random *rand.Rand) *client {
	c := &client{number: number, random: random, want: state{}, reads: readBlobs}
	c.add(request{method: http.MethodPut, path: c.blob("") + "?restype=container"}, nil)
	blocks := map[string]map[string]string{} // contents that are in no list yet, by blob and block
	for len(c.steps) < steps {
		name := "b" + strconv.Itoa(c.random.IntN(blobsOfClient))
		there := c.want["blob "+name] != ""
		switch n := c.random.IntN(12); {
		case n < 2:
			c.put(name, c.bytes(8<<10))
			delete(blocks, name)
		case n < 5:
			c.put(name, c.bytes(150_000))
			delete(blocks, name)
		case n < 8:
			id, content := base64.StdEncoding.EncodeToString([]byte{'0' + byte(c.random.IntN(8))}), c.bytes(60_000)
			if blocks[name] == nil {
				blocks[name] = map[string]string{}
			}
			blocks[name][id] = content
			c.add(request{method: http.MethodPut, path: c.blob(name) + "?comp=block&blockid=" + strings.ReplaceAll(id, "=", "%3D"), body: content},
				state{"blocks " + name: digest(joined(blocks[name]))})
		case n < 9 && len(blocks[name]) > 0:
			meta := c.meta()
			c.add(commit(c.blob(name), blocks[name], meta), state{"blob " + name: meta + digest(joined(blocks[name])), "blocks " + name: ""})
			delete(blocks, name)
		case n < 10 && there:
			meta := c.meta()
			_, sum, _ := strings.Cut(c.want["blob "+name], " ")
			c.add(request{method: http.MethodPut, path: c.blob(name) + "?comp=metadata", header: map[string]string{"X-Ms-Meta-Round": strings.TrimSpace(meta)}},
				state{"blob " + name: meta + sum})
		case n < 11 && there:
			c.add(request{method: http.MethodDelete, path: c.blob(name)}, state{"blob " + name: "", "blocks " + name: ""})
			delete(blocks, name)
		case n < 12 && there:
			to, meta := "b"+strconv.Itoa(c.random.IntN(blobsOfClient)), c.meta()
			_, sum, _ := strings.Cut(c.want["blob "+name], " ")
			if to == name {
				continue
			}
			source := "{storage}" + strings.TrimPrefix(c.blob(name), "/"+storageAccount)
			c.add(request{method: http.MethodPut, path: c.blob(to),
				header: map[string]string{"X-Ms-Copy-Source": source, "X-Ms-Meta-Round": strings.TrimSpace(meta)}},
				state{"blob " + to: meta + sum, "blocks " + to: ""})
			delete(blocks, to)
		}
	}
	return c
}

func (c *client) blob(name string) string {
	path := fmt.Sprintf("/%s/client-%d", storageAccount, c.number)
	if name != "" {
		path += "/" + name
	}
	return path
}

func (c *client) meta() string { return fmt.Sprintf("round-%d ", len(c.steps)) }

// bytes are up to so many, never the same.
func (c *client) bytes(most int) string {
	text := fmt.Sprintf("%d of %d: %x.", len(c.steps), c.number, c.random.Uint64())
	return strings.Repeat(text, 1+c.random.IntN(most)/len(text))
}

func (c *client) put(name, content string) {
	meta := c.meta()
	c.add(request{method: http.MethodPut, path: c.blob(name), body: content,
		header: map[string]string{"X-Ms-Blob-Type": "BlockBlob", "X-Ms-Meta-Round": strings.TrimSpace(meta)}},
		state{"blob " + name: meta + digest(content), "blocks " + name: ""})
}

// commit makes blocks the content of a blob, in the order of their names.
func commit(path string, blocks map[string]string, meta string) request {
	body := `<?xml version="1.0" encoding="utf-8"?><BlockList>`
	for _, id := range slices.Sorted(maps.Keys(blocks)) {
		body += "<Uncommitted>" + id + "</Uncommitted>"
	}
	return request{method: http.MethodPut, path: path + "?comp=blocklist", body: body + "</BlockList>",
		header: map[string]string{"X-Ms-Meta-Round": strings.TrimSpace(meta)}}
}

func joined(blocks map[string]string) string {
	var all strings.Builder
	for _, id := range slices.Sorted(maps.Keys(blocks)) {
		all.WriteString(blocks[id])
	}
	return all.String()
}

func digest(content string) string {
	return fmt.Sprintf("%d bytes %x", len(content), sha256.Sum256([]byte(content)))
}

// readBlobs reads the blobs of a client whole, and its uncommitted blocks by committing them.
func readBlobs(ctx context.Context, s *server, number int) (state, error) {
	c, found := &client{number: number}, state{}
	listed, _, there, err := s.get(ctx, c.blob("")+"?restype=container&comp=list")
	if err != nil || !there {
		return found, err
	}
	for n := range blobsOfClient {
		name := "b" + strconv.Itoa(n)
		content, header, there, err := s.get(ctx, c.blob(name))
		if err != nil {
			return nil, err
		}
		if there {
			found["blob "+name] = header.Get("X-Ms-Meta-Round") + " " + digest(string(content))
		}
		if there != strings.Contains(string(listed), "<Name>"+name+"</Name>") {
			found["list of "+name] = "other than the blob"
		}
		blocks, err := readBlocks(ctx, s, c.blob(name))
		if err != nil {
			return nil, err
		}
		if blocks != "" {
			found["blocks "+name] = blocks
		}
	}
	return found, nil
}

func readBlocks(ctx context.Context, s *server, path string) (string, error) {
	body, _, there, err := s.get(ctx, path+"?comp=blocklist&blocklisttype=uncommitted")
	if err != nil || !there {
		return "", err
	}
	blocks := map[string]string{}
	for part := range strings.SplitSeq(string(body), "<Name>") {
		if id, _, ok := strings.Cut(part, "</Name>"); ok {
			blocks[id] = ""
		}
	}
	if len(blocks) == 0 {
		return "", nil
	}
	status, answer, _, err := s.send(ctx, commit(path, blocks, "read"), "read")
	if err != nil || status != http.StatusCreated {
		return "", fmt.Errorf("commit blocks of %s: %d %s %w", path, status, answer, err)
	}
	content, _, _, err := s.get(ctx, path)
	return digest(string(content)), err
}
