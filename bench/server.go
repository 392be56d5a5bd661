package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
)

// server is a server of our own. Its database is on the disk to measure, the
// folders of its nodes in memory, as is usual when process creation and not
// the disk is what counts.
type server struct {
	*client.Client
	command *exec.Cmd
	folders []string
	data    string
	debug   string
}

// debugAddress is where the server's profiles are.
const debugAddress = "127.0.0.1:18445"

func startServer(ctx context.Context, o options) (*server, error) {
	data, err := os.MkdirTemp(o.data, "batchyard-bench-")
	if err != nil {
		return nil, err
	}
	nodes, err := os.MkdirTemp("/dev/shm", "batchyard-bench-")
	if err != nil {
		return nil, err
	}
	s := &server{data: data, folders: []string{data, nodes}, debug: debugAddress}
	for _, folder := range s.folders {
		if err := os.Chmod(folder, 0o711); err != nil {
			return nil, err
		}
	}
	if err := os.Symlink(nodes, filepath.Join(data, "nodes")); err != nil {
		return nil, err
	}
	s.command = exec.CommandContext(ctx, o.binary, "dev", "--ci", "--nodes", "0", "--data", data,
		"--listen", "127.0.0.1:0", "--blob-listen", "127.0.0.1:0", "--debug-listen", debugAddress)
	s.command.Cancel = func() error { return s.command.Process.Signal(syscall.SIGTERM) }
	s.command.Stderr = os.Stderr
	stdout, err := s.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.command.Start(); err != nil {
		return nil, err
	}
	return s, s.await(stdout)
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
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	s.Client = &client.Client{Endpoint: ready.Endpoint, Account: ready.Account, Key: key, HTTP: &http.Client{Transport: transport}}
	return nil
}

func (s *server) stop() error {
	err := s.command.Process.Signal(syscall.SIGTERM)
	err = errors.Join(err, s.command.Wait())
	for _, folder := range s.folders {
		err = errors.Join(err, os.RemoveAll(folder))
	}
	return err
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

// addPool makes a pool of one node of two slots and waits for the node.
func (s *server) addPool(ctx context.Context, id batch.PoolID, slots int) error {
	if err := s.AddPool(ctx, poolBody(id, 1, slots)); err != nil {
		return err
	}
	return client.WaitFor(ctx, func(ctx context.Context) (bool, error) {
		nodes, err := s.Nodes(ctx, id)
		return len(nodes) == 1 && nodes[0].State == batch.NodeIdle, err
	})
}

// removePool deletes the pool and waits until it is gone.
func (s *server) removePool(ctx context.Context, id batch.PoolID) error {
	if err := s.DeletePool(ctx, id); err != nil {
		return err
	}
	return client.WaitFor(ctx, func(ctx context.Context) (bool, error) {
		_, err := s.Pool(ctx, id)
		if batch.CodeOf(err) == batch.CodePoolNotFound {
			return true, nil
		}
		return false, err
	})
}

// profile saves a processor profile of the server for as long as a row takes,
// at most.
func (s *server) profile(ctx context.Context, folder, name string, length time.Duration) error {
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", s.debug, int(length.Seconds()))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	file, err := os.Create(filepath.Join(folder, name+".pprof"))
	if err != nil {
		return err
	}
	_, err = io.Copy(file, response.Body)
	return errors.Join(err, file.Close())
}

// usage is processor time used by parts of the service.
type usage struct{ server, agent, keeper, tasks time.Duration }

// used sums what the server and the processes of its nodes have used. What
// the keeper's ended children used is the tasks' own, spawning included.
func (s *server) used() (usage, error) {
	var u usage
	own, _, err := processTimes(s.command.Process.Pid)
	if err != nil {
		return u, err
	}
	u.server = own
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return u, err
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil {
			continue
		}
		words := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
		if len(words) < 3 || words[1] != "agent" || filepath.Base(words[0]) != "batchyard" {
			continue
		}
		own, children, err := processTimes(pid)
		if err != nil {
			continue
		}
		if words[2] == "keeper" {
			u.keeper += own
			u.tasks += children
		} else {
			u.agent += own
		}
	}
	return u, nil
}

// clockTick is the unit of /proc/PID/stat on Linux.
const clockTick = 10 * time.Millisecond

// processTimes reads what a process, and its children that it has waited for,
// have used.
func processTimes(pid int) (own, children time.Duration, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return 0, 0, errors.New("stat is too short")
	}
	var ticks [4]int
	for i := range ticks {
		if ticks[i], err = strconv.Atoi(fields[11+i]); err != nil {
			return 0, 0, err
		}
	}
	return time.Duration(ticks[0]+ticks[1]) * clockTick, time.Duration(ticks[2]+ticks[3]) * clockTick, nil
}

func (u usage) minus(v usage) usage {
	return usage{u.server - v.server, u.agent - v.agent, u.keeper - v.keeper, u.tasks - v.tasks}
}
