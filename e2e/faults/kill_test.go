package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// How many kills there are, and what their random moments come from, unless the environment says
// otherwise.
const (
	killsVariable = "KILLS"
	seedVariable  = "SEED"
	usualKills    = 20
)

// TestKills kills servers, agents, keepers and databases at random moments, while customers add,
// end and delete tasks and jobs and upload blobs. When the service is back, everything that a
// customer was told must be true, and no task may have run twice while its node lived.
func TestKills(t *testing.T) {
	t.Parallel()
	kills := int(fromEnvironment(t, killsVariable, usualKills))
	seed := fromEnvironment(t, seedVariable, rand.Uint64()>>32)
	t.Logf("%d kills, seed %d; %s=%d has the same again, as far as processes let it", kills, seed, seedVariable, seed)

	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		s := newStorm(t, rand.New(rand.NewPCG(seed, 1)), nil)
		s.blow(t, kills-kills/2)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		s := newStorm(t, rand.New(rand.NewPCG(seed, 2)), newCluster(t))
		s.blow(t, kills/2)
	})
}

func fromEnvironment(t *testing.T, name string, usual uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	value, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return value
}

// strike is something that is killed, or silent for longer than a lease.
type strike struct {
	name string
	do   func(s *storm, t *testing.T)
}

// deckOf are ten strikes, to be taken in any order.
func deckOf(database bool) []strike {
	server := strike{"server", func(s *storm, t *testing.T) { s.kill(t); s.start(t) }}
	starting := strike{"server, and again while it starts", (*storm).strikeTwice}
	agents := strike{"agents", func(s *storm, t *testing.T) { s.strikeAgents(t) }}
	keeper := strike{"keeper", func(s *storm, t *testing.T) { s.strikeKeeper(t) }}
	node := strike{"agent and keeper of a node together", (*storm).strikeNode}
	both := strike{"server and agents", func(s *storm, t *testing.T) { s.kill(t); s.strikeAgents(t); s.start(t) }}
	all := strike{"server, agents and keeper", func(s *storm, t *testing.T) {
		s.kill(t)
		s.strikeKeeper(t)
		s.strikeAgents(t)
		s.start(t)
	}}
	if !database {
		return []strike{server, server, starting, agents, agents, keeper, node, both, both, all}
	}
	cluster := strike{"database", func(s *storm, t *testing.T) { s.cluster.crash(t); s.cluster.start(t) }}
	with := strike{"database and server", func(s *storm, t *testing.T) {
		s.cluster.crash(t)
		s.kill(t)
		s.cluster.start(t)
		s.start(t)
	}}
	return []strike{server, starting, agents, agents, keeper, node, both, all, cluster, with}
}

// partLength is after how many kills the customers rest and everything is compared.
const partLength = 25

// stops are what is stopped, as by SIGSTOP, for longer than a lease, and then goes on.
var stops = []strike{
	{"agent, stopped for longer than a lease", func(s *storm, t *testing.T) { s.freeze(t, "agent.log") }},
	{"keeper, stopped for longer than a lease", func(s *storm, t *testing.T) { s.freeze(t, "keeper.log") }},
	{"server, stopped for longer than a lease", (*storm).freezeServer},
}

// When in each part something is stopped, and when the server is away for longer than a lease. A
// short storm ends with the second of these, and a part has all.
var (
	stopsAt   = [...]int{usualKills/2 - 5, usualKills/2 - 1, partLength * 4 / 5}
	silenceAt = partLength * 2 / 3
)

// blow has so many kills happen. In each part an agent, a keeper and the server are stopped for more
// than a lease each, so that nodes are truly lost, and the server is away for as long; a short storm
// has two of the first three.
func (s *storm) blow(t *testing.T, kills int) {
	var deck []strike
	first := 0 // of those that are stopped
	if s.cluster != nil {
		first = 1
	}
	for n := range kills {
		if n%partLength == 0 {
			s.rise(n / partLength)
		}
		if len(deck) == 0 {
			deck = deckOf(s.cluster != nil)
			s.dice.Shuffle(len(deck), func(i, k int) { deck[i], deck[k] = deck[k], deck[i] })
		}
		next := deck[0]
		deck = deck[1:]
		if at := slices.Index(stopsAt[:], n%partLength); at >= 0 {
			next = stops[(first+at)%len(stops)]
		} else if n%partLength == silenceAt {
			next = strike{"server, away for longer than a lease", (*storm).silence}
		}
		pause(t.Context(), time.Duration(s.dice.IntN(1500))*time.Millisecond)
		s.suffer(t, fmt.Sprintf("kill %d", n+1), next)
		if n%partLength == partLength-1 || n == kills-1 {
			s.settle(t)
			t.Logf("%d kills, %d processes that were not there: %d complaints", n+1, s.missed, s.said)
		}
	}
	s.checkStrikes(t, kills)
}

// checkStrikes wants a storm that has hit. A process is not there where the server that would start
// it is gone, too, which two kinds of strike in ten bring about.
func (s *storm) checkStrikes(t *testing.T, kills int) {
	t.Helper()
	if most := 1 + kills/10; s.missed > most {
		t.Errorf("%d processes that were to be killed or stopped were not there, at most %d may be", s.missed, most)
	}
	for _, strike := range slices.Concat(deckOf(s.cluster != nil), stops) {
		if kills >= partLength && s.struck[strike.name] == 0 {
			t.Errorf("nothing was hit by %q", strike.name)
		}
	}
}

// suffer has a strike happen and waits until the server serves again.
func (s *storm) suffer(t *testing.T, name string, next strike) {
	t.Helper()
	trouble := interval{from: time.Now()}
	s.note(name, next.name, nil)
	missed := s.missed
	next.do(s, t)
	if s.missed == missed {
		s.struck[next.name]++
	}
	await(t, "the server serves", func(ctx context.Context) (bool, error) { return true, s.ready(ctx) })
	trouble.to = time.Now()
	s.trouble = append(s.trouble, trouble)
	s.note(name, "over", nil)
}

// strikeTwice kills a server that begins.
func (s *storm) strikeTwice(t *testing.T) {
	t.Helper()
	s.kill(t)
	s.launch(t)
	pause(t.Context(), time.Duration(s.dice.IntN(400))*time.Millisecond)
	s.kill(t)
	s.start(t)
}

// strikeAgents kills the agent of one node or of both.
func (s *storm) strikeAgents(t *testing.T) {
	t.Helper()
	first, count := s.dice.IntN(2), 1+s.dice.IntN(2)
	for i := range count {
		s.strikeProcess(t, s.nodes[(first+i)%2], "agent.log")
	}
}

// strikeKeeper kills the keeper of a node; all its tasks end with it.
func (s *storm) strikeKeeper(t *testing.T) {
	t.Helper()
	node := s.nodes[s.dice.IntN(2)]
	s.strikeProcess(t, node, "keeper.log")
	s.fallen[string(node)] = append(s.fallen[string(node)], time.Now())
}

// strikeNode kills agent and keeper of a node, in the one order or in the other: whoever comes next
// knows neither what ran nor what has ended.
func (s *storm) strikeNode(t *testing.T) {
	t.Helper()
	node := s.nodes[s.dice.IntN(2)]
	logs := []string{"agent.log", "keeper.log"}
	s.dice.Shuffle(2, func(i, k int) { logs[i], logs[k] = logs[k], logs[i] })
	for _, log := range logs {
		s.strikeProcess(t, node, log)
		if log == "keeper.log" {
			s.fallen[string(node)] = append(s.fallen[string(node)], time.Now())
		}
	}
}

// strikeProcess kills the process of a node that writes to a log. Its node may still be about to
// start another after the last kill; that is waited for, unless the server that does it is gone.
func (s *storm) strikeProcess(t *testing.T, node batch.NodeID, log string) {
	t.Helper()
	limited, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	err := poll(limited, func(context.Context) (bool, error) {
		if pid := s.find(node, log); pid != 0 && syscall.Kill(pid, syscall.SIGKILL) == nil {
			return true, nil
		}
		select {
		case <-s.ended:
			return false, errNobody
		default:
			return false, nil
		}
	})
	if err != nil {
		s.missed++
		s.note("kill", fmt.Sprintf("node %s has nobody who writes %s", node, log), err)
	}
}

// find finds the process of a node that writes to a log, 0 if there is none.
func (s *storm) find(node batch.NodeID, log string) int {
	found := processes(func(proc string) bool {
		file := stderrOf(proc)
		return filepath.Base(file) == log && strings.HasPrefix(file, s.nodeFolder(node)+"/")
	})
	if len(found) == 0 {
		return 0
	}
	return found[0]
}

// errNobody ends waiting for a process that nobody would start.
var errNobody = &batch.Error{Code: batch.CodeNodeNotFound, Message: "there is no server to start it"}

// silence keeps the server away for longer than a lease, and has the data checked meanwhile: the
// nodes end their tasks by themselves.
func (s *storm) silence(t *testing.T) {
	t.Helper()
	s.kill(t)
	over := time.After(s.lease * 5 / 4)
	s.checkData(t)
	<-over
	s.start(t)
}

// freeze stops a process of a node for so long that the server gives the node's tasks away, if that
// is the agent. Tasks that would still run by then must not. The keeper's silence costs a node its
// tasks too, when it goes on and finds that its lease is over, unless it hears first that it is not.
func (s *storm) freeze(t *testing.T, log string) {
	t.Helper()
	job := s.sitter.job()
	tasks := s.sit(job)
	var node batch.NodeID
	await(t, "a long task runs", func(ctx context.Context) (bool, error) {
		running, err := s.Tasks(ctx, job.id, "state eq 'running'")
		if len(running) > 0 {
			node = running[0].NodeInfo.Node
		}
		return len(running) > 0, err
	})
	if pid := s.find(node, log); pid != 0 {
		s.stopFor(t, pid, s.lease*2)
	} else {
		s.missed++
	}
	for _, task := range tasks {
		s.sitter.end(job, task)
	}
}

// freezeServer stops the server: the nodes end their tasks by themselves.
func (s *storm) freezeServer(t *testing.T) {
	t.Helper()
	s.stopFor(t, s.command.Process.Pid, s.lease*2)
}

// stopFor stops a process for a time.
func (s *storm) stopFor(t *testing.T, pid int, length time.Duration) {
	t.Helper()
	if syscall.Kill(pid, syscall.SIGSTOP) != nil {
		s.missed++
		return
	}
	pause(t.Context(), length)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Errorf("let process %d go on: %v", pid, err)
	}
}

// sit adds tasks that take longer than anything is stopped.
func (s *storm) sit(job *jobRecord) (tasks []*taskRecord) {
	for range 6 {
		task := s.sitter.newTask(job)
		task.length, task.code, task.retries = s.lease*2, 0, 0
		task.added = s.sitter.insist(s.sitter.adding(job, task))
		tasks = append(tasks, task)
	}
	return tasks
}
