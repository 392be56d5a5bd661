package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// probeArgument makes the program the probe: a process of its own, so that it waits for the server
// and not for the clients that run beside it.
const probeArgument = "probe"

// probeOrder is what the probe is to do, and probeResult what it saw.
type probeOrder struct {
	Endpoint, Authority string
	Key                 auth.Key
	Pace, Length        time.Duration
}

type probeResult struct {
	Took    []time.Duration // of answers, in their order
	Refused int
	Wrong   []string
}

func probeMain(in io.Reader, out io.Writer) error {
	var o probeOrder
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		return err
	}
	result, err := o.run(context.Background())
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(result)
}

func (o probeOrder) run(ctx context.Context) (*probeResult, error) {
	trusted := x509.NewCertPool()
	if !trusted.AppendCertsFromPEM([]byte(o.Authority)) {
		return nil, errors.New("no authority")
	}
	c := &client.Client{Endpoint: o.Endpoint, Account: account, Key: o.Key, HTTP: &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}},
	}}
	defer c.HTTP.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, o.Length)
	defer cancel()
	var r probeResult
	ticker := time.NewTicker(o.Pace)
	defer ticker.Stop()
	for {
		began := time.Now()
		_, err := c.Job(ctx, pageJob)
		switch took := time.Since(began); {
		case ctx.Err() != nil:
			return &r, nil
		case err == nil:
			r.Took = append(r.Took, took)
		case batch.CodeOf(err) == batch.CodeServerBusy:
			r.Refused++
		default:
			r.Wrong = append(r.Wrong, err.Error())
		}
		select {
		case <-ctx.Done():
			return &r, nil
		case <-ticker.C:
		}
	}
}

// probe runs the probe for as long as ctx lasts.
func (s *server) probe(ctx context.Context, o options) (*probeResult, error) {
	authority, err := os.ReadFile(filepath.Join(s.folder, "data", "tls", "ca.pem"))
	if err != nil {
		return nil, err
	}
	order, err := json.Marshal(probeOrder{
		Endpoint: s.Endpoint, Authority: string(authority), Key: s.key, Pace: o.pace, Length: o.length,
	})
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.length+time.Minute)
	defer cancel()
	command := exec.CommandContext(limited, os.Args[0], probeArgument)
	command.Stdin, command.Stderr = bytes.NewReader(order), os.Stderr
	text, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("run probe: %w", err)
	}
	var r probeResult
	return &r, json.Unmarshal(text, &r)
}

// latencies are how long things took.
type latencies struct {
	mu    sync.Mutex
	took  []time.Duration // guarded by mu
	wrong []string        // guarded by mu
}

func (l *latencies) add(took time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.wrong = append(l.wrong, clip(err.Error()))
		return
	}
	l.took = append(l.took, took)
}

// percentile of a list that is not empty; p is 0 to 1.
func percentile[T float64 | time.Duration](values []T, p float64) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}

// runTasks submits a task, waits until it is completed, deletes it, and so on: it needs the calls
// of the node at each step.
func (s *server) runTasks(ctx context.Context, o options, r *report) {
	c := s.newClient()
	defer c.HTTP.CloseIdleConnections()
	for i := 0; ctx.Err() == nil; i++ {
		began := time.Now()
		err := s.runTask(ctx, c, o.patient, batch.TaskID(fmt.Sprintf("run%d", i)))
		if ctx.Err() != nil {
			return
		}
		r.tasks.add(time.Since(began), err)
		pause(ctx, 100*time.Millisecond)
	}
}

func (s *server) runTask(ctx context.Context, c *client.Client, patience time.Duration, id batch.TaskID) error {
	patient := func(try func(context.Context) error) error { return s.await(ctx, patience, try) }
	err := patient(func(ctx context.Context) error {
		err := c.AddTask(ctx, taskJob, map[string]any{"id": id, "commandLine": "/bin/true"})
		if batch.CodeOf(err) == batch.CodeTaskExists {
			return nil // said twice
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("add: %w", err)
	}
	err = patient(func(ctx context.Context) error {
		task, err := c.Task(ctx, taskJob, id)
		if err == nil && task.State != batch.TaskCompleted {
			err = fmt.Errorf("the task is %s", task.State)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("run: %w", err)
	}
	return patient(func(ctx context.Context) error {
		_, err := c.Call(ctx, http.MethodDelete, "/jobs/"+string(taskJob)+"/tasks/"+string(id), nil, nil, nil)
		if batch.CodeOf(err) == batch.CodeTaskNotFound {
			return nil
		}
		return err
	})
}
