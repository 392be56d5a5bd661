package batchtest

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/conversation"
	"github.com/batchyard/batchyard/nodelink"
	"github.com/batchyard/batchyard/scheduler"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/upkeep"
)

// Account is the one account of a cluster.
const Account = batch.AccountName("acct")

// Options say what a cluster is made of.
type Options struct {
	// Folder is where database and nodes are.
	Folder string
	// Template is a database to begin with; empty: a new one.
	Template []byte
	// Seed decides what the network does.
	Seed uint64
	// Lease is how long a node may keep tasks running without an answer.
	Lease time.Duration
	// Robots play the agents: light ones, for thousands of nodes.
	Robots bool
	// Log gets what server and agents say; discarded if nil.
	Log *slog.Logger
}

// Cluster is a server and its nodes. All of it lives in the bubble of the
// goroutine that makes it.
type Cluster struct {
	Witness *Witness
	// Clock is the server's.
	Clock *Clock

	t       testing.TB
	options Options
	log     *slog.Logger
	living  context.Context // the lifetime of the cluster
	die     context.CancelFunc
	work    sync.WaitGroup
	arrived atomic.Int64 // calls of nodes

	mu       sync.Mutex // guards all below
	server   *server    // nil while it is down
	machines []*Machine // in the order in which they came
	byID     map[batch.NodeID]*Machine
	rows     map[batch.NodeID]bool
	stamps   map[string]batch.Stamp // of jobs and tasks as they were seen last
	resized  time.Time
	diary    []string
}

// server is one life of the server.
type server struct {
	*control.Service
	*conversation.Room
	db    *store.DB
	began time.Time
	nodes http.Handler    // the server's end of the wire
	dying context.Context // the lifetime of the process
	kill  context.CancelFunc
	calls sync.WaitGroup // calls of nodes and the loops
}

// New makes a cluster and starts its server. It is ended with the test.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Cluster{t: t, options: o, log: o.Log, Witness: newWitness(), Clock: &Clock{}, rows: map[batch.NodeID]bool{}, byID: map[batch.NodeID]*Machine{}, stamps: map[string]batch.Stamp{}}
	c.living, c.die = context.WithCancel(context.Background())
	t.Cleanup(c.close)
	if o.Template != nil {
		c.check(os.WriteFile(c.database(), o.Template, 0o600))
	}
	c.StartServer()
	if o.Template == nil {
		c.check(c.Server().AddAccount(c.living, batch.Account{Name: Account, Keys: [2][]byte{{1}, {2}}}))
	}
	return c
}

func (c *Cluster) database() string { return filepath.Join(c.options.Folder, "batchyard.db") }

func (c *Cluster) check(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// close ends everything that is left.
func (c *Cluster) close() {
	for _, m := range c.Machines() {
		m.KillAgent()
		m.keeper.lose(true)
	}
	c.die()
	c.KillServer()
	c.work.Wait()
}

// StartServer starts the server if it is down.
func (c *Cluster) StartServer() {
	c.t.Helper()
	if c.current() != nil {
		return
	}
	db, err := store.Open(context.Background(), store.Options{URL: c.database(), Clock: c.Clock.read, Log: c.log})
	c.check(err)
	s := &server{db: db, began: time.Now(), Service: control.New(control.Options{DB: db, Log: c.log})}
	s.Room = conversation.New(conversation.Options{DB: db, Control: s.Service, Now: c.Clock.Now, Lease: c.options.Lease, Log: c.log})
	s.nodes = nodelink.Handler(s.Room, c.log)
	s.dying, s.kill = context.WithCancel(context.Background())
	for _, loop := range []func(context.Context) error{
		scheduler.New(scheduler.Options{DB: db, Control: s.Service, Now: c.Clock.Now, Log: c.log}).Run,
		upkeep.New(upkeep.Options{DB: db, Control: s.Service, Nodes: s.Room, Log: c.log}).Run,
		func(ctx context.Context) error { return c.staff(ctx, s) },
	} {
		s.calls.Go(func() {
			if err := loop(s.dying); err != nil {
				c.t.Error(err)
			}
		})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server = s
}

// KillServer ends the server, if it runs. What it was about to answer is not
// answered.
func (c *Cluster) KillServer() {
	c.t.Helper()
	c.mu.Lock()
	s := c.server
	c.server = nil
	c.mu.Unlock()
	if s == nil {
		return
	}
	s.kill()
	s.calls.Wait()
	c.check(s.db.Close())
}

func (c *Cluster) current() *server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.server
}

// Server has the verbs. The server must be up.
func (c *Cluster) Server() *control.Service {
	c.t.Helper()
	s := c.current()
	if s == nil {
		c.t.Fatal("the server is down")
	}
	return s.Service
}

// serve is a call that has arrived at the server.
func (c *Cluster) serve(r *http.Request) reply {
	c.arrived.Add(1)
	c.mu.Lock()
	s := c.server
	if s != nil {
		s.calls.Add(1)
	}
	c.mu.Unlock()
	if s == nil {
		return reply{err: errDown}
	}
	defer s.calls.Done()
	calling, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.dying, cancel)()
	answer := httptest.NewRecorder()
	s.nodes.ServeHTTP(answer, r.WithContext(calling))
	if s.dying.Err() != nil {
		return reply{err: errDown}
	}
	return reply{Response: answer.Result()}
}

// staff makes a machine for each node that has none, until the server dies.
func (c *Cluster) staff(ctx context.Context, s *server) error {
	watch := s.db.Watch(control.TopicNodes)
	defer watch.Close()
	for {
		wanted, err := s.DesiredNodes(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		if err := c.employ(ctx, s, wanted); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-watch.C:
		}
	}
}

func (c *Cluster) employ(ctx context.Context, s *server, wanted []control.NodeWanted) error {
	rows := map[batch.NodeID]bool{}
	for _, n := range wanted {
		rows[n.Node] = true
	}
	c.mu.Lock()
	c.rows = rows
	c.mu.Unlock()
	for _, n := range wanted {
		if c.Machine(n.Node) != nil {
			continue
		}
		token, err := s.NewNodeToken(ctx, n.Node)
		if err != nil {
			return err
		}
		c.build(n, token).start()
	}
	return nil
}

// build makes the machine of a node.
func (c *Cluster) build(n control.NodeWanted, token string) *Machine {
	c.Witness.node(n.Node, n.Slots)
	c.mu.Lock()
	defer c.mu.Unlock()
	name := strconv.Itoa(len(c.machines))
	m := &Machine{Name: name, ID: n.Node, Clock: &Clock{}, cluster: c, token: token, folder: filepath.Join(c.options.Folder, "node"+name)}
	m.Link, m.keeper = &Link{machine: m}, newKeeper(m)
	c.machines, c.byID[m.ID] = append(c.machines, m), m
	return m
}

// Machines are all that there were so far, in the order in which they came.
func (c *Cluster) Machines() []*Machine {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*Machine(nil), c.machines...)
}

// Machine is that of a node, nil if it has none yet.
func (c *Cluster) Machine(id batch.NodeID) *Machine {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byID[id]
}

// wants tells whether a node had a row when somebody looked last.
func (c *Cluster) wants(id batch.NodeID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rows[id]
}

// maxDiary bounds the diary.
const maxDiary = 400

// note keeps what happened, for a test that fails.
func (c *Cluster) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.diary) < maxDiary {
		c.diary = append(c.diary, fmt.Sprintf("%10v %s", time.Since(c.Witness.origin), fmt.Sprintf(format, args...)))
	}
}

// Note writes into the diary.
func (c *Cluster) Note(format string, args ...any) { c.note(format, args...) }

// Up tells whether the server runs.
func (c *Cluster) Up() bool { return c.current() != nil }

// Traffic is how many calls of nodes have arrived, and what the database did
// since the server began.
func (c *Cluster) Traffic() (calls int64, database store.Stats) {
	return c.arrived.Load(), c.current().db.Stats()
}
