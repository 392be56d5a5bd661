package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

// explain runs a row once more with profiles if it misses an aim.
func (b *bench) explain(f figure, again func() error) error {
	if b.profiles == "" || f.verdict == aimed || f.verdict == unjudged {
		return nil
	}
	if err := os.MkdirAll(b.profiles, 0o755); err != nil { //nolint:gosec // for people to read
		return err
	}
	b.say("row %s misses its aim; profiles are in %s", f.row, b.profiles)
	return again()
}

// profileLength is how long a profile is at most.
const profileLength = 5 * time.Second

// profiled saves a processor profile of the server and of its nodes while run
// runs, at most profileLength of it.
func (s *server) profiled(ctx context.Context, folder, name string, run func() error) error {
	var group errgroup.Group
	group.Go(func() error {
		return saveProfile(ctx, http.DefaultClient, "http://"+s.debug, filepath.Join(folder, name+"-server.pprof"))
	})
	agents, err := s.agents()
	if err != nil {
		return err
	}
	for _, pid := range agents {
		for _, part := range []string{"agent", "keeper"} {
			group.Go(func() error {
				name := filepath.Join(folder, name+"-"+part+".pprof")
				return saveProfile(ctx, throughSocket(fmt.Sprintf("/proc/%d/cwd/state/%s.sock", pid, part)), "http://node", name)
			})
		}
	}
	err = run()
	return errors.Join(err, group.Wait())
}

// agents are the processes of the nodes, if they are real ones.
func (s *server) agents() ([]int, error) {
	processes, err := listProcesses()
	var agents []int
	for pid, p := range processes {
		_, unprofiled := os.Stat(fmt.Sprintf("/proc/%d/cwd/state/agent.sock", pid))
		if p.parent == s.command.Process.Pid && unprofiled == nil {
			agents = append(agents, pid)
		}
	}
	return agents, err
}

// throughSocket makes HTTP calls over a socket of this machine.
func throughSocket(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
}

func saveProfile(ctx context.Context, caller *http.Client, address, name string) error {
	url := fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", address, int(profileLength.Seconds()))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := caller.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: %s", response.Status)
	}
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, response.Body)
	return errors.Join(err, file.Close())
}
