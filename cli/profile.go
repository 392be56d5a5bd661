package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
)

// Sockets in the private folder of a node on which its agent and its keeper
// offer profiles, if the server that started them does.
const (
	agentSocket  = "agent.sock"
	keeperSocket = "keeper.sock"
)

// privateSocket is the path of a socket in the folder of the running agent,
// which may be too far down for the length that a socket's path may have.
func privateSocket(name string) string {
	return fmt.Sprintf("/proc/%d/cwd/state/%s", os.Getpid(), name)
}

// offerProfiles serves profiles on a socket until ctx ends. That it cannot is
// no reason not to run tasks.
func offerProfiles(ctx context.Context, path string, log *slog.Logger) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("profiles not offered", "err", err)
		return
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		log.Warn("profiles not offered", "err", err)
		return
	}
	// Another process may offer its own on the path before this one has ended: a
	// keeper starts itself again inside the node's machine. So the socket stays.
	if socket, ok := listener.(*net.UnixListener); ok {
		socket.SetUnlinkOnClose(false)
	}
	server := &http.Server{Handler: profileHandler(), ReadHeaderTimeout: headerTimeout}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }() // ends with the process
}

// profileHandler serves what `go tool pprof` asks for.
func profileHandler() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
