package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// server is a server of our own. Its database is on the disk to measure, the
// folders of its nodes in memory: on some file systems a directory made soon
// after many were removed costs more than the task, and other systems are
// measured with their directories in memory too.
type server struct {
	*client.Client
	binary  string
	env     []string // beside this program's own
	command *exec.Cmd
	data    string   // folder of the database
	folders []string // to be removed
	debug   string   // address of its profiles
	program string   // a program that does nothing
}

// startServer starts the program to measure, with nothing in it.
func (b *bench) startServer(ctx context.Context) (*server, error) {
	return newServer(ctx, b.binary, b.data)
}

// newServer starts a program with some of its environment.
func newServer(ctx context.Context, binary, parent string, env ...string) (*server, error) {
	s := &server{binary: binary, env: env}
	if err := s.makeFolders(parent); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

func (s *server) makeFolders(parent string) error {
	for _, place := range []string{parent, memoryFolder} {
		folder, err := os.MkdirTemp(place, "batchyard-bench-")
		if err != nil {
			return err
		}
		s.folders = append(s.folders, folder)
		if err := os.Chmod(folder, 0o711); err != nil { //nolint:gosec // tasks have users of their own
			return err
		}
	}
	s.data = s.folders[0]
	var err error
	if s.program, err = writeNoop(s.data); err != nil {
		return err
	}
	return os.Symlink(s.folders[1], filepath.Join(s.data, "nodes"))
}

// memoryFolder is a file system in memory.
const memoryFolder = "/dev/shm"

// start starts the server on its folder, new or with what an earlier one left.
func (s *server) start(ctx context.Context) error {
	var err error
	if s.debug, err = freeAddress(ctx); err != nil {
		return err
	}
	s.command = exec.CommandContext(ctx, s.binary, "dev", "--ci", "--nodes", "0", "--data", s.data,
		"--listen", "127.0.0.1:0", "--blob-listen", "127.0.0.1:0", "--debug-listen", s.debug, "--log-level", "error")
	s.command.Cancel = func() error { return s.command.Process.Signal(syscall.SIGTERM) }
	s.command.Stderr = os.Stderr
	s.command.Env = append(os.Environ(), s.env...)
	stdout, err := s.command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.command.Start(); err != nil {
		return err
	}
	if err := s.await(stdout); err != nil {
		return errors.Join(err, s.command.Process.Kill(), s.command.Wait())
	}
	return nil
}

// freeAddress is one that nobody listens on at the moment.
func freeAddress(ctx context.Context) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

func (s *server) await(stdout io.Reader) error {
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("wait for server: %w", err)
	}
	var ready struct{ Endpoint, Account, AccountKey string }
	if err := json.Unmarshal(line, &ready); err != nil {
		return fmt.Errorf("read readiness: %w", err)
	}
	key, err := auth.ParseKey(ready.AccountKey)
	if err != nil {
		return err
	}
	s.Client = &client.Client{Endpoint: ready.Endpoint, Account: ready.Account, Key: key, HTTP: &http.Client{Transport: &http.Transport{}}}
	return nil
}

// kill ends the server as a power cut would, if the disk kept its promises.
func (s *server) kill() error {
	err := s.command.Process.Kill()
	_ = s.command.Wait() // it says that it was killed
	return err
}

// stop ends the server and removes what it had.
func (s *server) stop() error {
	err := s.command.Process.Signal(syscall.SIGTERM)
	return errors.Join(err, s.command.Wait(), s.remove())
}

func (s *server) remove() error {
	var err error
	for _, folder := range s.folders {
		err = errors.Join(err, os.RemoveAll(folder))
	}
	return err
}

// emptyPool makes a pool without nodes.
func (s *server) emptyPool(ctx context.Context, id batch.PoolID) error {
	return s.AddPool(ctx, poolBody(id, 0, 1))
}

func poolBody(id batch.PoolID, nodes, slots int) map[string]any {
	return map[string]any{
		"id": id, "vmSize": "custom_2c_8g", "targetDedicatedNodes": nodes, "taskSlotsPerNode": slots,
		"virtualMachineConfiguration": map[string]any{
			"nodeAgentSKUId": "batch.node.ubuntu 22.04",
			"imageReference": map[string]any{"publisher": "canonical", "offer": "0001-com-ubuntu-server-jammy", "sku": "22_04-lts"},
		},
	}
}

// pool makes a pool and waits for its nodes.
func (s *server) pool(ctx context.Context, id batch.PoolID, count, slots int) error {
	if err := s.AddPool(ctx, poolBody(id, count, slots)); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return client.WaitFor(limited, func(ctx context.Context) (bool, error) {
		nodes, err := s.Nodes(ctx, id)
		idle := 0
		for _, n := range nodes {
			if n.State == batch.NodeIdle {
				idle++
			}
		}
		return idle == count, err
	})
}

// removeJob deletes a job and waits until it is gone, so that the next round
// does not compete with it.
func (s *server) removeJob(ctx context.Context, id batch.JobID) error {
	if err := s.DeleteJob(ctx, id); err != nil {
		return err
	}
	return client.WaitFor(ctx, func(ctx context.Context) (bool, error) {
		_, err := s.Job(ctx, id)
		if batch.CodeOf(err) == batch.CodeJobNotFound {
			return true, nil
		}
		return false, err
	})
}

// drained waits until all tasks of a job have completed. It asks often, so that
// the end is seen when it comes, and gives up when nothing moves.
func (s *server) drained(ctx context.Context, job batch.JobID, tasks int) error {
	const often, patience = 20 * time.Millisecond, time.Minute
	line, err := s.line(ctx)
	if err != nil {
		return err
	}
	defer line.close()
	var last client.Counts
	moved := time.Now()
	for {
		if err := line.call(ctx, http.MethodGet, "/jobs/"+string(job)+"/taskcounts", nil); err != nil {
			return err
		}
		var answer struct{ TaskCounts client.Counts }
		if err := json.Unmarshal(line.body, &answer); err != nil {
			return err
		}
		counts := answer.TaskCounts
		switch {
		case counts.Failed > 0:
			return fmt.Errorf("%d tasks failed", counts.Failed)
		case counts.Completed == int64(tasks):
			return nil
		case counts != last:
			last, moved = counts, time.Now()
		case time.Since(moved) > patience:
			return fmt.Errorf("nothing moves any more: %+v", counts)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(often):
		}
	}
}

func (s *server) disable(ctx context.Context, job batch.JobID) error {
	_, err := s.Call(ctx, http.MethodPost, "/jobs/"+string(job)+"/disable", nil, map[string]any{"disableTasks": "requeue"}, nil)
	if err != nil {
		return err
	}
	return client.WaitFor(ctx, func(ctx context.Context) (bool, error) {
		j, err := s.Job(ctx, job)
		return j.State == batch.JobDisabled, err
	})
}

func (s *server) enable(ctx context.Context, job batch.JobID) error {
	_, err := s.Call(ctx, http.MethodPost, "/jobs/"+string(job)+"/enable", nil, nil, nil)
	return err
}
