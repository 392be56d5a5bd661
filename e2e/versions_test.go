package e2e_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/batchyard/batchyard/api/shapetest"
)

// versions are all that were published with pools and jobs, oldest first.
var versions = []string{
	"2015-06-01.2.0", "2015-11-01.2.1", "2015-12-01.2.2", "2016-02-01.3.0", "2016-07-01.3.1", "2017-01-01.4.0",
	"2017-05-01.5.0", "2017-06-01.5.1", "2017-09-01.6.0", "2018-03-01.6.1", "2018-08-01.7.0", "2018-12-01.8.0",
	"2019-06-01.9.0", "2019-08-01.10.0", "2020-03-01.11.0", "2020-09-01.12.0", "2021-06-01.14.0", "2022-01-01.15.0",
	"2022-10-01.16.0", "2023-05-01.17.0", "2023-11-01.18.0", "2024-02-01.19.0", "2024-07-01.20.0", "2025-06-01",
}

// TestVersions reads the same pool, job and tasks in the shapes of every version, and adds and
// deletes a task in each.
func TestVersions(t *testing.T) {
	t.Parallel()
	s := commonServer(t)
	target, err := url.Parse(s.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	var problems findings
	proxy := httptest.NewServer(shapetest.Proxy(target, problems.add))
	defer proxy.Close()
	c := &caller{endpoint: proxy.URL, account: s.Account, key: s.AccountKey}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := prepareVersions(ctx, c); err != nil {
		t.Fatal(err)
	}
	for _, version := range versions {
		if err := readAll(ctx, c, version); err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
	if err := joined(
		c.call(ctx, "DELETE", "jobs/versions", versions[len(versions)-1], "", 202),
		c.call(ctx, "DELETE", "pools/versions", versions[len(versions)-1], "", 202),
	); err != nil {
		t.Error(err)
	}
	for _, problem := range problems.list() {
		t.Error(problem)
	}
}

// prepareVersions makes a pool, a job, and a task of each fate: succeeded, failed, and running.
func prepareVersions(ctx context.Context, c *caller) error {
	const version = "2022-10-01.16.0"
	for _, request := range []struct{ path, body string }{
		{"pools", `{
			"id": "versions", "displayName": "all versions", "vmSize": "standard_d1_v2", "targetDedicatedNodes": 1,
			"taskSlotsPerNode": 2, "metadata": [{"name": "a", "value": "b"}],
			"startTask": {"commandLine": "/bin/true", "waitForSuccess": true},
			"virtualMachineConfiguration": {"nodeAgentSKUId": "batch.node.ubuntu 22.04", "imageReference":
				{"publisher": "canonical", "offer": "0001-com-ubuntu-server-jammy", "sku": "22_04-lts"}}
		}`},
		{"jobs", `{"id": "versions", "poolInfo": {"poolId": "versions"}, "commonEnvironmentSettings": [{"name": "A", "value": "b"}]}`},
		{"jobs/versions/tasks", `{"id": "good", "commandLine": "/bin/echo hello", "environmentSettings": [{"name": "C", "value": "d"}]}`},
		{"jobs/versions/tasks", `{"id": "bad", "commandLine": "/bin/false", "userIdentity": {"autoUser": {"elevationLevel": "nonadmin", "scope": "task"}}}`},
		{"jobs/versions/tasks", `{"id": "ugly", "commandLine": "/bin/sleep 600"}`},
	} {
		if err := c.call(ctx, "POST", request.path, version, request.body, http.StatusCreated); err != nil {
			return err
		}
	}
	for task, state := range map[string]string{"good": "completed", "bad": "completed", "ugly": "running"} {
		if err := c.awaitTask(ctx, task, state); err != nil {
			return err
		}
	}
	return nil
}

// readAll asks for everything that a version has.
func readAll(ctx context.Context, c *caller, version string) error {
	node, err := c.node(ctx, version)
	if err != nil {
		return err
	}
	gets := []string{
		"pools", "pools/versions", "pools/versions/nodes", "pools/versions/nodes/" + node,
		"pools/versions/nodes/" + node + "/files?recursive=true", "pools/versions/nodes/" + node + "/files/startup%2Fstderr.txt",
		"jobs", "jobs/versions", "jobs/versions/tasks", "jobs/versions/tasks/good", "jobs/versions/tasks/bad", "jobs/versions/tasks/ugly",
		"jobs/versions/tasks/good/files?recursive=true", "jobs/versions/tasks/good/files/stdout.txt", "jobs/versions/tasks/ugly/files",
		"jobs/versions/tasks?$filter=state%20eq%20'completed'&$select=id,state&maxresults=1",
	}
	if version >= "2017-06-01" {
		gets = append(gets, "jobs/versions/taskcounts")
	}
	if version >= "2018-03-01" {
		gets = append(gets, "nodecounts")
	}
	if version >= "2019-08-01" {
		gets = append(gets, "supportedimages")
	} else {
		gets = append(gets, "nodeagentskus")
	}
	var failed []error
	for _, path := range gets {
		failed = append(failed, c.call(ctx, "GET", path, version, "", http.StatusOK))
	}
	failed = append(failed,
		c.call(ctx, "HEAD", "pools/versions", version, "", http.StatusOK),
		c.call(ctx, "HEAD", "jobs/versions/tasks/good/files/stdout.txt", version, "", http.StatusOK),
		c.call(ctx, "HEAD", "pools/none", version, "", http.StatusNotFound),
		c.call(ctx, "GET", "pools/none", version, "", http.StatusNotFound),
		c.call(ctx, "POST", "jobs/versions/tasks", version, `{"id": "short", "commandLine": "/bin/true"}`, http.StatusCreated),
		c.call(ctx, "POST", "jobs/versions/tasks", version, `{"id": "short", "commandLine": "/bin/true"}`, http.StatusConflict),
		c.call(ctx, "DELETE", "jobs/versions/tasks/short", version, "", http.StatusOK),
		c.call(ctx, "POST", "jobs/versions/addtaskcollection", version,
			`{"value": [{"id": "short", "commandLine": "/bin/true"}, {"id": "good", "commandLine": "/bin/true"}]}`, http.StatusOK),
		c.call(ctx, "DELETE", "jobs/versions/tasks/short", version, "", http.StatusOK),
		c.call(ctx, "PATCH", "jobs/versions", version, `{"priority": 3}`, http.StatusOK),
	)
	return joined(failed...)
}

func joined(errs ...error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%d calls failed, the first: %w", len(errs), errs[0])
}

// caller makes requests of any api-version, signed with an account's key.
type caller struct{ endpoint, account, key string }

// call makes a request and wants the answer to have a status.
func (c *caller) call(ctx context.Context, method, path, version, body string, status int) error {
	_, err := c.do(ctx, method, path, version, body, status)
	return err
}

func (c *caller) do(ctx context.Context, method, path, version, body string, status int) ([]byte, error) {
	address := c.endpoint + "/" + path + "?"
	if strings.Contains(path, "?") {
		address = c.endpoint + "/" + path + "&"
	}
	request, err := http.NewRequestWithContext(ctx, method, address+"api-version="+version, bytes.NewReader([]byte(body)))
	if err != nil {
		return nil, err
	}
	if err := c.sign(request); err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != status {
		return nil, fmt.Errorf("%s %s: status %d, want %d: %s", method, path, answer.StatusCode, status, text)
	}
	return text, nil
}

// sign adds the Shared Key of the account.
func (c *caller) sign(r *http.Request) error {
	key, err := base64.StdEncoding.DecodeString(c.key)
	if err != nil {
		return err
	}
	r.Header.Set("ocp-date", time.Now().UTC().Format(http.TimeFormat))
	length, contentType := "", ""
	if r.ContentLength > 0 {
		contentType = "application/json; odata=minimalmetadata"
		r.Header.Set("Content-Type", contentType)
		length = fmt.Sprint(r.ContentLength)
	}
	text := strings.Join([]string{r.Method, "", "", length, "", contentType, "", "", "", "", "", ""}, "\n") +
		"\nocp-date:" + r.Header.Get("ocp-date") + "\n/" + c.account + r.URL.EscapedPath()
	query := r.URL.Query()
	names := make([]string, 0, len(query))
	for name := range query {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		text += "\n" + strings.ToLower(name) + ":" + query.Get(name)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	r.Header.Set("Authorization", "SharedKey "+c.account+":"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return nil
}

// node is the id of the pool's only node.
func (c *caller) node(ctx context.Context, version string) (string, error) {
	text, err := c.do(ctx, "GET", "pools/versions/nodes?$select=id", version, "", http.StatusOK)
	if err != nil {
		return "", err
	}
	var list struct{ Value []struct{ ID string } }
	if err := json.Unmarshal(text, &list); err != nil {
		return "", err
	}
	if len(list.Value) != 1 {
		return "", fmt.Errorf("%d nodes, want one", len(list.Value))
	}
	return list.Value[0].ID, nil
}

// awaitTask asks until a task has come to a state.
func (c *caller) awaitTask(ctx context.Context, id, state string) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range 1200 {
		text, err := c.do(ctx, "GET", "jobs/versions/tasks/"+id, "2022-10-01.16.0", "", http.StatusOK)
		if err != nil {
			return err
		}
		var task struct{ State string }
		if err := json.Unmarshal(text, &task); err != nil {
			return err
		}
		if task.State == state {
			return nil
		}
		<-tick.C
	}
	return fmt.Errorf("task %s does not become %s", id, state)
}
