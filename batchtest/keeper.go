package batchtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/batchyard/batchyard/agent"
	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
)

// Script is the command line of a process that runs for a time and exits.
func Script(length time.Duration, exit, slots int) string {
	return fmt.Sprintf("script %s %d %d", length, exit, slots)
}

// killTime is how long a process lives after it was killed.
const killTime = 5 * time.Millisecond

// keeper holds the processes of one machine. It outlives agents, and kills what
// runs when the lease is over.
type keeper struct {
	machine *Machine

	mu    sync.Mutex // guards all below
	line  []*place   // of those that wait for room, in order
	held  map[string]*process
	until time.Time // end of the lease
	timer *time.Timer
}

// process is one run of a script. The keeper's lock guards it.
type process struct {
	id      string
	begun   time.Time // by the machine's date
	result  *run.Result
	ended   chan struct{} // closed once result is set
	exits   *time.Timer
	killing bool
	seen    *Run
	spec    run.Spec
}

// started is what the keeper says of its beginning: a date, as a wire would leave
// it, and how long ago it was in true time.
func (p *process) started() run.Started {
	return run.Started{PID: 1, At: p.begun.Round(0), Age: time.Since(p.seen.Began)}
}

// place is a place in the line. The keeper's lock guards it.
type place struct {
	session *session
	spec    run.Spec
	left    chan struct{} // closed once it is left, with all below set
	started run.Started
	err     error
}

func newKeeper(m *Machine) *keeper { return &keeper{machine: m, held: map[string]*process{}} }

// session is an agent's connection to the keeper.
type session struct {
	*keeper
	followed func(ended, next string)
	done     chan struct{}
	close    sync.Once
}

func (k *keeper) open(o run.Options) *session {
	return &session{keeper: k, followed: o.Followed, done: make(chan struct{})}
}

// Capabilities are those of an agent that is not root.
func (k *keeper) Capabilities() run.Capabilities { return run.Capabilities{Groups: "none"} }

// Lease lets processes run for so long.
func (k *keeper) Lease(d time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.until = time.Now().Add(d)
	if k.timer == nil {
		k.timer = time.AfterFunc(d, k.expire)
	} else {
		k.timer.Reset(d)
	}
	return nil
}

func (k *keeper) expire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Now().Before(k.until) {
		return
	}
	k.clearLine(run.ErrNoLease)
	for _, p := range k.held {
		k.kill(p, run.LeaseExpired)
	}
}

// Process is an execution of the keeper.
func (s *session) Process(spec run.Spec) run.Execution { return execution{s, spec} }

// Held are the executions that are known, by name.
func (k *keeper) Held() []run.Held {
	k.mu.Lock()
	defer k.mu.Unlock()
	var held []run.Held
	for _, id := range slices.Sorted(maps.Keys(k.held)) {
		p := k.held[id]
		held = append(held, run.Held{ID: id, Started: p.started(), Result: p.result})
	}
	return held
}

// Clear does nothing: scripted processes leave nothing behind.
func (k *keeper) Clear(context.Context) error { return nil }

// Forget drops executions that have ended.
func (k *keeper) Forget(ids ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range ids {
		if p := k.held[id]; p != nil && p.result != nil {
			delete(k.held, id)
		}
	}
}

// Close leaves everything to the next session.
func (s *session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave()
	return nil
}

// leave ends the session, and with it who it had lined up. The caller holds the
// lock.
func (s *session) leave() {
	s.close.Do(func() {
		close(s.done)
		s.clearLine(run.ErrClosed)
	})
}

// Shutdown ends all that runs.
func (s *session) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.clearLine(run.ErrNoLease)
	var ending []*process
	for _, p := range s.held {
		s.kill(p, run.Killed)
		ending = append(ending, p)
	}
	s.mu.Unlock()
	for _, p := range ending {
		select {
		case <-p.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.Close()
}

// lose ends everything at once, as when the keeper or its machine dies. What
// forget says is whether nobody knows afterwards what there was.
func (k *keeper) lose(forget bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.clearLine(run.ErrKeeperLost)
	for _, p := range k.held {
		if k.finish(p, run.Result{Reason: run.Lost, ExitCode: -1}) {
			close(p.ended)
		}
	}
	if forget {
		clear(k.held)
		k.until = time.Time{}
	}
}

// kill ends a process a moment later. The caller holds the lock.
func (k *keeper) kill(p *process, why run.Reason) {
	if p.result != nil || p.killing {
		return
	}
	p.killing = true
	p.exits.Stop()
	p.exits = time.AfterFunc(killTime, func() { k.exit(p, run.Result{Reason: why, ExitCode: -1, Signal: 9}) })
}

// exit ends a process. Its agent hears who has its room before it hears of the
// end.
func (k *keeper) exit(p *process, result run.Result) {
	k.mu.Lock()
	first := k.finish(p, result)
	var next *place
	if first {
		next = k.follow(p)
	}
	k.mu.Unlock()
	if next != nil {
		next.session.followed(p.id, next.spec.ID)
		close(next.left)
	}
	if first {
		close(p.ended)
	}
}

// finish notes the end of a process, and tells whether it is the first that it
// comes to. The caller holds the lock.
func (k *keeper) finish(p *process, result run.Result) bool {
	if p.result != nil {
		return false
	}
	p.exits.Stop()
	result.Started, result.Ended = p.begun.Round(0), k.machine.Clock.Now().Round(0)
	p.result = &result
	k.machine.cluster.Witness.End(p.seen, result.Reason == run.Exited)
	return true
}

// follow starts the first in line in the place of a process that has ended well,
// and returns it. The caller holds the lock.
func (k *keeper) follow(p *process) *place {
	if !p.spec.Yields || p.result.Reason != run.Exited || p.result.ExitCode != 0 ||
		len(k.line) == 0 || k.line[0].spec.Room != p.spec.Room || !time.Now().Before(k.until) {
		return nil
	}
	next := k.line[0]
	p.result.Next = next.spec.ID
	k.leaveLine(next)
	return next
}

// leaveLine starts one who is in line. The caller holds the lock.
func (k *keeper) leaveLine(next *place) {
	k.line = slices.DeleteFunc(k.line, func(other *place) bool { return other == next })
	p, err := k.begin(next.spec)
	if err == nil {
		next.started = p.started()
	}
	next.err = err
}

// clearLine sends all away who are in line. The caller holds the lock.
func (k *keeper) clearLine(why error) {
	for _, p := range k.line {
		p.err = why
		close(p.left)
	}
	k.line = nil
}

// placeOf is the place of one who is in line. The caller holds the lock.
func (k *keeper) placeOf(id string) *place {
	if i := slices.IndexFunc(k.line, func(p *place) bool { return p.spec.ID == id }); i >= 0 {
		return k.line[i]
	}
	return nil
}

// execution is a process as an agent sees it.
type execution struct {
	session *session
	spec    run.Spec
}

var _ agent.Lined = execution{}

// Start begins the script of the specification unless it has begun before.
func (e execution) Start(context.Context) (run.Started, error) {
	k := e.session.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-e.session.done:
		return run.Started{}, run.ErrClosed
	default:
	}
	if !time.Now().Before(k.until) {
		return run.Started{}, run.ErrNoLease
	}
	if waiting := k.placeOf(e.spec.ID); waiting != nil {
		k.leaveLine(waiting)
		close(waiting.left)
		return waiting.started, waiting.err
	}
	p := k.held[e.spec.ID]
	if p == nil {
		var err error
		if p, err = k.begin(e.spec); err != nil {
			return run.Started{}, err
		}
	}
	return p.started(), nil
}

// LineUp begins the script when another makes room.
func (e execution) LineUp(ctx context.Context, entered func()) (run.Started, error) {
	p, err := e.enterLine()
	if err != nil {
		return run.Started{}, err
	}
	entered()
	select {
	case <-p.left:
		return p.started, p.err
	case <-ctx.Done():
		return run.Started{}, ctx.Err()
	}
}

func (e execution) enterLine() (*place, error) {
	k := e.session.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-e.session.done:
		return nil, run.ErrClosed
	default:
	}
	if !time.Now().Before(k.until) {
		return nil, run.ErrNoLease
	}
	p := &place{session: e.session, spec: e.spec, left: make(chan struct{})}
	k.line = append(k.line, p)
	return p, nil
}

// Withdraw leaves the line.
func (e execution) Withdraw(context.Context) (*run.Started, error) {
	k := e.session.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.held[e.spec.ID]; p != nil {
		started := p.started()
		return &started, nil
	}
	k.line = slices.DeleteFunc(k.line, func(p *place) bool { return p.spec.ID == e.spec.ID })
	return nil, nil
}

// begin runs a script. The caller holds the lock.
func (k *keeper) begin(spec run.Spec) (*process, error) {
	length, exit, slots, err := parseScript(spec.Args)
	if err != nil {
		return nil, &run.StartError{Code: run.CodeProgramNotFound, Message: err.Error()}
	}
	task, attempt, err := parseID(spec.ID)
	if err != nil {
		return nil, err
	}
	p := &process{id: spec.ID, spec: spec, begun: k.machine.Clock.Now(), ended: make(chan struct{})}
	p.seen = k.machine.cluster.Witness.Begin(Run{TaskKey: task, Attempt: attempt, Node: k.machine.ID, Slots: slots, Exit: exit})
	p.exits = time.AfterFunc(length, func() { k.exit(p, run.Result{Reason: run.Exited, ExitCode: exit}) })
	k.held[spec.ID] = p
	return p, nil
}

func parseScript(args []string) (length time.Duration, exit, slots int, err error) {
	if len(args) != 4 || args[0] != "script" {
		return 0, 0, 0, fmt.Errorf("%q is no script", args)
	}
	if length, err = time.ParseDuration(args[1]); err == nil {
		exit, err = strconv.Atoi(args[2])
	}
	if err == nil {
		slots, err = strconv.Atoi(args[3])
	}
	return length, exit, slots, err
}

// parseID reads the name that an agent gives to an attempt's process.
func parseID(id string) (TaskKey, int, error) {
	parts := strings.Split(id, "/")
	if len(parts) != 3 {
		return TaskKey{}, 0, fmt.Errorf("process %q is of no task", id)
	}
	attempt, err := strconv.Atoi(parts[2])
	return TaskKey{batch.JobID(parts[0]), batch.TaskID(parts[1])}, attempt, err
}

func (e execution) find() *process {
	e.session.mu.Lock()
	defer e.session.mu.Unlock()
	return e.session.held[e.spec.ID]
}

// Wait returns how the process ended.
func (e execution) Wait(ctx context.Context) (run.Result, error) {
	p := e.find()
	if p == nil {
		return run.Result{}, run.ErrUnknown
	}
	select {
	case <-p.ended:
		return *p.result, nil
	case <-e.session.done:
		return run.Result{}, run.ErrClosed
	case <-ctx.Done():
		return run.Result{}, ctx.Err()
	}
}

// Kill ends the process.
func (e execution) Kill(context.Context, time.Duration) error {
	p := e.find()
	if p == nil {
		return run.ErrUnknown
	}
	e.session.mu.Lock()
	defer e.session.mu.Unlock()
	e.session.kill(p, run.Killed)
	return nil
}
