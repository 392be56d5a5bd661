package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/batchyard/batchyard/agent"
	"github.com/batchyard/batchyard/api"
	"github.com/batchyard/batchyard/authority"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/blob"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/conversation"
	"github.com/batchyard/batchyard/fleet"
	"github.com/batchyard/batchyard/nodelink"
	"github.com/batchyard/batchyard/portal"
	"github.com/batchyard/batchyard/scheduler"
	"github.com/batchyard/batchyard/site"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/upkeep"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
)

// stack is a server: what it stands on, what runs, what listens.
type stack struct {
	config Config
	log    *slog.Logger
	// journal is what log ends up in.
	journal *journal
	version string
	// httpToo lets the API port speak HTTP beside HTTPS, with metrics on it.
	httpToo bool
	// loopbackOnly refuses callers who use another name for this machine.
	loopbackOnly bool
	// ephemeral ends the nodes with the server.
	ephemeral bool

	use      site.Use
	site     *site.Site
	db       *store.DB // of the site
	control  *control.Service
	nodes    *conversation.Room
	blob     *blob.Server
	bytes    *blob.Disk
	registry *prometheus.Registry

	gates                                 gates
	apiCallers, blobCallers, debugCallers *connections

	api, storage, debug net.Listener
	certificate         *tls.Certificate // as it was at the start
	caFile              string
	ready               chan struct{} // closed when the server may be called
}

// open opens the store, makes the parts and takes the ports; nothing runs yet.
func (s *stack) open(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	s.ready = make(chan struct{})
	if s.config.Data, err = filepath.Abs(s.config.Data); err != nil {
		return fmt.Errorf("find data folder: %w", err)
	}
	s.registry = prometheus.NewRegistry()
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.registry.MustRegister(s.journal)
	limits := s.config.Limits.on(thisMachine())
	limits.limitMemory()
	s.gates = limits.gates(s.registry)
	s.apiCallers = newConnections("api", limits.Connections, s.log)
	s.blobCallers = newConnections("blob", limits.Connections, s.log)
	s.debugCallers = newConnections("debug", debugConnections, s.log)
	s.registry.MustRegister(s.apiCallers, s.blobCallers, s.debugCallers)
	if err := s.openStore(ctx); err != nil {
		return err
	}
	s.registry.MustRegister(s.db.Metrics()...)
	if err := s.openPorts(ctx); err != nil {
		return err
	}
	s.control = control.New(control.Options{DB: s.db, Log: s.log, Metrics: s.registry})
	s.nodes = conversation.New(conversation.Options{
		DB: s.db, Control: s.control, Log: s.log, Lease: s.config.Nodes.Lease,
		AccountURL: func(batch.AccountName) string { return s.url() },
		AllowHosts: s.allowedHosts(), Metrics: s.registry,
	})
	return nil
}

// openStore opens what is kept, and with it takes the data folder and the database
// for this server alone.
func (s *stack) openStore(ctx context.Context) error {
	place := site.Place{Data: s.config.Data, Database: s.config.Database}
	var err error
	if s.site, err = site.Open(ctx, site.Options{Place: place, Use: s.use, Log: s.log}); err != nil {
		return err
	}
	s.db = s.site.DB
	if s.bytes, err = blob.OpenDisk(place.Blobs()); err != nil {
		return fmt.Errorf("open blobs: %w", err)
	}
	if s.blob, err = blob.New(blob.Options{DB: s.db, Bytes: s.bytes, Log: s.log, Metrics: s.registry, Limits: s.gates.blob}); err != nil {
		return fmt.Errorf("open storage: %w", err)
	}
	return nil
}

// openPorts takes the ports before anything runs, so that a server that cannot be
// reached does no work either. Each has its own bound of connections.
func (s *stack) openPorts(ctx context.Context) error {
	config, err := s.secure()
	if err != nil {
		return err
	}
	for _, port := range []struct {
		listener *net.Listener
		callers  *connections
		name     string
		address  string
	}{
		{&s.api, s.apiCallers, "listen.api", s.config.Listen.API},
		{&s.storage, s.blobCallers, "listen.blob", s.config.Listen.Blob},
		{&s.debug, s.debugCallers, "listen.debug", s.config.Listen.Debug},
	} {
		if port.address == "" {
			continue
		}
		listener, err := listen(ctx, port.address)
		if err != nil {
			if errors.Is(err, syscall.EADDRINUSE) {
				err = fmt.Errorf("%w; another server may be running, choose another address", err)
			}
			return fmt.Errorf("listen on %s (%s): %w", port.address, port.name, err)
		}
		if port.name == "listen.debug" && !isPath(port.address) {
			s.log.Warn("tasks of this machine can reach listen.debug; a path in its place is a socket for the server's user only", "address", port.address)
		}
		*port.listener = port.callers.limit(listener)
		if port.name != "listen.debug" {
			if err := s.config.keepPublicHere(listener); err != nil {
				return err
			}
		}
	}
	if s.httpToo {
		s.api, s.storage = listenBoth(s.api, config), listenBoth(s.storage, config)
	} else {
		s.api, s.storage = tls.NewListener(s.api, config), tls.NewListener(s.storage, config)
	}
	return nil
}

// secure says by which certificate the ports are known: that of the
// configuration, or one that is made.
func (s *stack) secure() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.config.TLS.Certificate != "" {
		certificate, err := tls.LoadX509KeyPair(s.config.TLS.Certificate, s.config.TLS.Key)
		if err != nil {
			return nil, fmt.Errorf("load certificate: %w", err)
		}
		s.certificate, config.Certificates = &certificate, []tls.Certificate{certificate}
		return config, nil
	}
	local, err := authority.Open(authority.Options{
		Folder: filepath.Join(s.config.Data, site.TLSName), Log: s.log,
		Names: append([]string{"localhost", "*.localhost", "127.0.0.1", "::1"}, s.config.TLS.Names...),
	})
	if err != nil {
		return nil, err
	}
	s.caFile, config.GetCertificate = local.File(), local.GetCertificate
	s.certificate, err = local.GetCertificate(nil)
	return config, err
}

// url is the address of the API as tasks and callers are told it.
func (s *stack) url() string {
	if s.config.URL != "" {
		return strings.TrimSuffix(s.config.URL, "/")
	}
	return s.scheme() + near(s.api.Addr())
}

// allowedHosts are addresses of this machine that tasks may fetch from: our
// own storage and what the operator allows.
func (s *stack) allowedHosts() []string {
	return append([]string{s.storage.Addr().String()}, s.config.Fetch.Allow...)
}

// run serves until ctx ends, then stops in order: no new requests, long polls
// ended, requests drained, loops stopped, store closed.
func (s *stack) run(ctx context.Context) error {
	local, err := s.provider()
	if err != nil {
		return err
	}
	if closed := agent.ClosedParent(local.Dir); closed != "" && os.Geteuid() == 0 {
		s.log.Error("tasks run as users of their own, who cannot pass a folder: nodes of this machine run none until it is opened",
			"folder", closed, "command", "chmod o+x "+closed)
	}
	duties := upkeep.New(upkeep.Options{DB: s.db, Control: s.control, Nodes: s.nodes, Log: s.log})
	loop := scheduler.New(scheduler.Options{DB: s.db, Control: s.control, Log: s.log, Metrics: s.registry})

	// The loops outlive ctx, which ends the taking of requests: what has been
	// accepted by then is still worked on.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	loops, working := errgroup.WithContext(working)
	loops.Go(func() error { return duties.Run(working) })
	loops.Go(func() error {
		select {
		case <-s.db.Lost(): // another server works on the database
			return store.ErrTaken
		case <-working.Done():
			return nil
		}
	})
	loops.Go(func() error {
		// A node goes on for its lease, and the server counts a quarter more.
		if err := s.db.AwaitTasks(working, s.config.Nodes.Lease+s.config.Nodes.Lease/4); err != nil {
			return err
		}
		return loop.Run(working)
	})
	loops.Go(func() error { return local.Run(working) })
	loops.Go(func() error { return s.blob.Run(working) })

	serving, failed := errgroup.WithContext(ctx)
	polls, endPolls := context.WithCancel(context.Background())
	defer endPolls()
	for _, server := range s.servers(polls) {
		serving.Go(func() error { return serve(failed, server, endPolls) })
	}
	context.AfterFunc(working, endPolls)
	serving.Go(func() error {
		select {
		case <-failed.Done():
			return nil
		case <-working.Done():
			return errors.New("a loop of the server has ended")
		}
	})
	err = serving.Wait()
	stop()
	return errors.Join(err, loops.Wait())
}

// provider makes what runs the nodes of this machine. They are processes of this
// same program, which is found by its own path.
func (s *stack) provider() (*fleet.Local, error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	access, err := s.nodeAccess(os.Environ())
	if err != nil {
		return nil, err
	}
	launcher := nodeLauncher{
		executable: executable, access: access, ephemeral: s.ephemeral, profiles: s.debug != nil,
		// Without root the folders of the user's other servers are open to tasks too.
		hide: []string{s.config.Data, defaultData(), defaultDevData()}, show: s.config.Nodes.Show,
	}
	return &fleet.Local{
		Nodes: s.control, Changed: s.db.Watch("nodes").C, Dir: s.site.Nodes(),
		Max: s.config.Nodes.Max, Command: launcher.command, Stale: launcher.stale, KillOnStop: s.ephemeral, Log: s.log,
	}, nil
}

// boundServer is a server and its port.
type boundServer struct {
	*http.Server
	listener net.Listener
}

// Bounds of every connection. What handlers know to take longer, they bound
// themselves: bodies and answers of the storage, files of nodes.
const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = time.Minute
	answerTimeout = 2 * time.Minute
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
	drainTimeout  = 10 * time.Second
	// debugConnections is how many the operator may have.
	debugConnections = 64
)

// servers are those of the API, of storage and, if there is one, of the operator.
// polls ends requests that wait for news.
func (s *stack) servers(polls context.Context) []boundServer {
	// Only HTTP/1.1, which every client of the protocol speaks: there one
	// connection has one request, so that what bounds one bounds the other.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	make := func(listener net.Listener, callers *connections, handler http.Handler) boundServer {
		return boundServer{&http.Server{
			Handler: knowTLS(hasty(handler)), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
			WriteTimeout: answerTimeout, Protocols: &protocols, ConnState: callers.observe, ConnContext: remember,
			ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		}, listener}
	}
	called := func(handler http.Handler, _ http.HandlerFunc) http.Handler { return handler }
	if s.loopbackOnly {
		called = func(handler http.Handler, refuse http.HandlerFunc) http.Handler {
			return loopbackNamesOnly(handler, refuse)
		}
	}
	servers := []boundServer{
		make(&wordingListener{s.api, func() []byte { return api.Unreadable(time.Now()) }}, s.apiCallers, called(s.apiHandler(polls), wrongNameInAPI)),
		make(&wordingListener{s.storage, func() []byte { return blob.Unreadable(time.Now()) }}, s.blobCallers, called(s.blob, wrongNameInStorage)),
	}
	if s.debug != nil {
		servers = append(servers, make(s.debug, s.debugCallers, called(s.debugHandler(), wrongNameInAPI)))
	}
	return servers
}

// hasty gives bodies a time in which to come, also those that their handler
// does not want and the server reads to have done with them. Handlers that
// read a body put a time of their own in its place.
func hasty(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		}
		handler.ServeHTTP(w, r)
	})
}

// apiHandler is everything on the API port.
func (s *stack) apiHandler(polls context.Context) http.Handler {
	protocol := api.New(api.Options{
		Control: s.control, Nodes: s.nodes, Log: s.log, Observe: observeAPI(s.registry, s.log),
		Classes: s.gates.api, Buffers: s.gates.buffers, Late: cameLate,
	})
	nodes := endable(polls, nodelink.Handler(&remarks{Server: s.nodes, log: s.log}, s.log))
	health := s.healthHandler()
	page := s.page()
	// A mux would clean paths, which are signed as they are.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/nodelink/"):
			nodes.ServeHTTP(w, r)
		case r.URL.Path == "/healthz", r.URL.Path == "/readyz", s.httpToo && r.URL.Path == "/metrics":
			health.ServeHTTP(w, r)
		case portal.IsFor(r):
			page.ServeHTTP(w, r)
		default:
			protocol.ServeHTTP(w, r)
		}
	})
}

// page is what a browser is shown at the address of the API: on a development
// server, whose account is public knowledge, with what is in that account.
func (s *stack) page() http.Handler {
	versions := api.Versions()
	o := portal.Options{
		Control: s.control, Log: s.log, Version: s.version, Oldest: versions[0], Newest: versions[len(versions)-1],
		Endpoint: s.url(), Now: time.Now,
	}
	if s.httpToo {
		o.Account, o.Storage = devAccount, s.devStorage()
		if s.url() != devEndpoint {
			o.Elsewhere = s.url()
		}
	}
	return &portal.Page{Options: o}
}

// endable ends the requests of a handler when polls ends, so that a node that
// waits for news does not hold up the end of the server.
func endable(polls context.Context, handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(polls, cancel)()
		handler.ServeHTTP(w, r.WithContext(ctx))
	})
}

// healthHandler tells that the process lives, and apart from it that the database
// answers: who starts a server again goes by the first, who sends it work by the
// second.
func (s *stack) healthHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		if err := s.db.View(ctx, func(*store.Tx) error { return nil }); err != nil {
			s.log.Warn("not ready", "err", err)
			http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ready\n"))
	})
	mux.Handle("/metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	return mux
}

// debugHandler adds profiles to what the API's port tells of health.
func (s *stack) debugHandler() http.Handler {
	mux := profileHandler()
	mux.Handle("/", s.healthHandler())
	return mux
}

// serve runs a server until ctx ends, then drains it.
func serve(ctx context.Context, server boundServer, endPolls func()) error {
	drained := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		endPolls()
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		drained <- server.Shutdown(limited)
	})
	err := server.Serve(server.listener)
	if !stop() {
		err = <-drained
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close()
		}
	}
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// close releases what open took.
func (s *stack) close() error {
	var errs []error
	for _, listener := range []net.Listener{s.api, s.storage, s.debug} {
		if listener != nil {
			if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	if s.bytes != nil {
		errs = append(errs, s.bytes.Close())
	}
	if s.site != nil {
		errs = append(errs, s.site.Close())
	}
	return errors.Join(errs...)
}
