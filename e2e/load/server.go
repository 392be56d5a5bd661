package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
	"github.com/batchyard/batchyard/e2e/nodelogs"
)

// The accounts, and what is prepared in them.
const (
	account   = "acme"
	storage   = "acmestore"
	container = "load"
	bigBlob   = "big"
	pageJob   = batch.JobID("pages") // has a thousand tasks that no node may run
	taskJob   = batch.JobID("tasks") // has those that run
	idlePool  = batch.PoolID("empty")
	workPool  = batch.PoolID("work")
)

// server is the process under load.
type server struct {
	*client.Client // of the one who prepares and runs tasks

	folder  string
	address string // of the API
	storage string // of the storage
	debug   string
	key     auth.Key
	trust   *tls.Config
	command *exec.Cmd
	ended   chan struct{} // closed when the process has ended
	logs    *nodelogs.Watch
}

func startServer(ctx context.Context, o options) (*server, error) {
	folder, err := os.MkdirTemp(o.data, "batchyard-load-")
	if err != nil {
		return nil, err
	}
	s := &server{folder: folder, key: auth.NewKey(), ended: make(chan struct{})}
	if err := errors.Join(os.Chmod(folder, 0o711), s.configure(o)); err != nil {
		return nil, err
	}
	if s.logs, err = nodelogs.Begin(filepath.Join(folder, "data")); err != nil {
		return nil, err
	}
	log := o.log
	if log == nil {
		if log, err = os.Create(s.logFile()); err != nil {
			return nil, err
		}
		defer log.Close()
	}
	line := []string{o.binary, "server", "--config", filepath.Join(folder, "server.toml")}
	if o.files > 0 {
		line = append([]string{"/bin/sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, o.files), "sh"}, line...)
	}
	s.command = exec.CommandContext(context.WithoutCancel(ctx), line[0], line[1:]...)
	s.command.Stdout, s.command.Stderr = log, log
	if err := s.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = s.command.Wait() // its state is asked for elsewhere
		close(s.ended)
	}()
	if err := s.await(ctx, o.patient, s.ready); err != nil {
		return nil, errors.Join(fmt.Errorf("the server does not serve: %w\n%s", err, s.tail()), s.stop())
	}
	s.Client = s.newClient()
	return s, nil
}

func (s *server) configure(o options) error {
	for _, address := range []*string{&s.address, &s.storage, &s.debug} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		*address = listener.Addr().String()
		listener.Close()
	}
	key := base64.StdEncoding.EncodeToString(s.key)
	text := fmt.Sprintf(`
		data = %q
		listen = {api = %q, blob = %q, debug = %q}
		%s
		[[accounts]]
		name = %q
		key1 = %q
		[[storage]]
		name = %q
		key1 = %q
		`, filepath.Join(s.folder, "data"), s.address, s.storage, s.debug, o.config, account, key, storage, key)
	return os.WriteFile(filepath.Join(s.folder, "server.toml"), []byte(text), 0o600)
}

func (s *server) logFile() string { return filepath.Join(s.folder, "server.log") }

// tail is the end of the server's log.
func (s *server) tail() string {
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4096):])
}

// transport is for one client with one connection, as if it were a process of its own.
func (s *server) transport() *http.Transport {
	return &http.Transport{
		TLSClientConfig: s.trust, MaxConnsPerHost: 1, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Hour,
		ResponseHeaderTimeout: 2 * time.Minute, // longer than any server makes one wait
	}
}

func (s *server) newClient() *client.Client {
	return &client.Client{Endpoint: "https://" + s.address, Account: account, Key: s.key, HTTP: &http.Client{Transport: s.transport()}}
}

func (s *server) ready(ctx context.Context) error {
	authority, err := os.ReadFile(filepath.Join(s.folder, "data", "tls", "ca.pem"))
	if err != nil {
		return err
	}
	trusted := x509.NewCertPool()
	if !trusted.AppendCertsFromPEM(authority) {
		return errors.New("the authority is not written yet")
	}
	s.trust = &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}
	body, err := fetch(ctx, s.debug+"/readyz")
	if err != nil {
		return err
	}
	return body.Close()
}

func fetch(ctx context.Context, url string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, fmt.Errorf("%s answers %s", url, response.Status)
	}
	return response.Body, nil
}

// await tries until there is no error.
func (s *server) await(ctx context.Context, patience time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-s.ended:
			return errors.New("the server has ended")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// prepare makes what the clients ask for.
func (s *server) prepare(ctx context.Context, o options) error {
	for pool, nodes := range map[batch.PoolID]int{idlePool: 0, workPool: 1} {
		if err := s.AddPool(ctx, poolBody(pool, nodes)); err != nil {
			return err
		}
	}
	if err := errors.Join(s.AddJob(ctx, pageJob, idlePool), s.AddJob(ctx, taskJob, workPool)); err != nil {
		return err
	}
	for first := range 10 {
		tasks := make([]map[string]any, 100)
		for i := range tasks {
			tasks[i] = map[string]any{
				"id": fmt.Sprintf("t%04d", first*100+i), "commandLine": "/bin/true",
				"environmentSettings": []map[string]any{{"name": "FILL", "value": strings.Repeat("x", 400)}},
			}
		}
		if _, err := s.AddTasks(ctx, pageJob, tasks); err != nil {
			return err
		}
	}
	w := newWorker(s, newTally(), 0)
	if err := errors.Join(w.blob(ctx, http.MethodPut, "?restype=container", nil), w.blob(ctx, http.MethodPut, "/"+bigBlob, make([]byte, 4<<20))); err != nil {
		return err
	}
	return s.await(ctx, o.patient, func(ctx context.Context) error {
		nodes, err := s.Nodes(ctx, workPool)
		if err == nil && (len(nodes) != 1 || nodes[0].State != batch.NodeIdle) {
			err = errors.New("the node does not come")
		}
		return err
	})
}

func poolBody(id batch.PoolID, nodes int) map[string]any {
	return map[string]any{
		"id": id, "vmSize": "custom_1c_1g", "targetDedicatedNodes": nodes, "taskSlotsPerNode": 2,
		"virtualMachineConfiguration": map[string]any{
			"nodeAgentSKUId": "batch.node.ubuntu 22.04",
			"imageReference": map[string]any{"publisher": "canonical", "offer": "0001-com-ubuntu-server-jammy", "sku": "22_04-lts"},
		},
	}
}

// stop deletes the pool, so that nothing of its node is left, ends the server and removes its
// folder.
func (s *server) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if s.Client != nil {
		if err := s.DeletePool(ctx, workPool); err != nil && batch.CodeOf(err) != batch.CodePoolNotFound {
			errs = append(errs, err)
		} else {
			errs = append(errs, s.await(ctx, time.Minute, func(context.Context) error {
				entries, err := os.ReadDir(filepath.Join(s.folder, "data", "nodes"))
				if err == nil && len(entries) > 0 {
					err = errors.New("the node does not go")
				}
				return err
			}))
		}
	}
	errs = append(errs, s.command.Process.Signal(syscall.SIGTERM))
	select {
	case <-s.ended:
		if code := s.command.ProcessState.ExitCode(); code != 0 {
			errs = append(errs, fmt.Errorf("the server ended with code %d\n%s", code, s.tail()))
		}
	case <-ctx.Done():
		errs = append(errs, errors.New("the server does not end"), s.command.Process.Kill())
	}
	_, panics, err := s.logs.End()
	errs = append(errs, err)
	for _, text := range panics {
		errs = append(errs, errors.New("a process of a node has panicked: "+text))
	}
	if err := errors.Join(errs...); err != nil {
		return err // its folder is worth a look
	}
	return os.RemoveAll(s.folder)
}

// sample is what the server needs at one moment.
type sample struct {
	resident, heap    float64 // bytes
	goroutines, files float64
	agents            float64 // bytes that the node's own processes have resident
	refused, lines    float64 // requests refused, lines of the log lost
	processor         float64 // seconds used so far
}

func (s *server) sample(ctx context.Context) (sample, error) {
	body, err := fetch(ctx, s.debug+"/metrics")
	if err != nil {
		return sample{}, err
	}
	defer body.Close()
	var v sample
	scanner := bufio.NewScanner(body)
	for scanner.Scan() {
		name, value, _ := strings.Cut(scanner.Text(), " ")
		base, _, _ := strings.Cut(name, "{")
		to := map[string]*float64{
			"process_resident_memory_bytes": &v.resident, "go_memstats_heap_inuse_bytes": &v.heap, "go_goroutines": &v.goroutines,
			"process_open_fds": &v.files, "batchyard_gate_refused_total": &v.refused,
			"batchyard_log_dropped_lines_total": &v.lines, "process_cpu_seconds_total": &v.processor,
		}[base]
		if to == nil {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return v, err
		}
		*to += n
	}
	v.agents = s.agentMemory()
	return v, scanner.Err()
}

// agentMemory sums what the processes of the node have resident, tasks not included.
func (s *server) agentMemory() float64 {
	var sum int64
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, err := os.ReadFile(file)
		words := strings.Split(string(line), "\x00")
		if err != nil || len(words) < 3 || words[1] != "agent" {
			continue
		}
		folder, _ := os.Readlink(filepath.Join(filepath.Dir(file), "cwd"))
		if !strings.HasPrefix(folder, s.folder) && !strings.Contains(string(line), s.folder) {
			continue
		}
		text, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "statm"))
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			pages, _ := strconv.ParseInt(fields[1], 10, 64)
			sum += pages * int64(os.Getpagesize())
		}
	}
	return float64(sum)
}
