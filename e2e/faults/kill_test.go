package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
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
	both := strike{"server and agents", func(s *storm, t *testing.T) { s.kill(t); s.strikeAgents(t); s.start(t) }}
	all := strike{"server, agents and keeper", func(s *storm, t *testing.T) {
		s.kill(t)
		s.strikeKeeper(t)
		s.strikeAgents(t)
		s.start(t)
	}}
	if !database {
		return []strike{server, server, server, starting, agents, agents, keeper, both, both, all}
	}
	cluster := strike{"database", func(s *storm, t *testing.T) { s.cluster.crash(t); s.cluster.start(t) }}
	with := strike{"database and server", func(s *storm, t *testing.T) {
		s.cluster.crash(t)
		s.kill(t)
		s.cluster.start(t)
		s.start(t)
	}}
	return []strike{server, server, starting, agents, agents, keeper, both, all, cluster, with}
}

// partLength is after how many kills the customers rest and everything is compared.
const partLength = 25

// blow has so many kills happen. Once a part an agent is silent for more than a lease, so that its
// node is truly lost, and in a long storm the server is too.
func (s *storm) blow(t *testing.T, kills int) {
	var deck []strike
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
		switch n % partLength {
		case usualKills/2 - 1: // the last one of a short storm
			next = strike{"agent, stopped for longer than a lease", (*storm).freeze}
		case partLength * 2 / 3:
			next = strike{"server, for longer than a lease", (*storm).silence}
		}
		pause(t.Context(), time.Duration(s.dice.IntN(1500))*time.Millisecond)
		s.suffer(t, fmt.Sprintf("kill %d", n+1), next)
		if n%partLength == partLength-1 || n == kills-1 {
			s.settle(t)
			t.Logf("%d kills, of which %d found nobody: %d complaints", n+1, s.missed, s.said)
		}
	}
}

// suffer has a strike happen and waits until the server serves again.
func (s *storm) suffer(t *testing.T, name string, next strike) {
	t.Helper()
	trouble := interval{from: time.Now()}
	s.note(name, next.name, nil)
	next.do(s, t)
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

// freeze stops the agent of a node for so long that the server gives the node's tasks away. Tasks
// that would still run by then must not.
func (s *storm) freeze(t *testing.T) {
	t.Helper()
	job := s.sitter.job()
	var tasks []*taskRecord
	for range 6 {
		task := s.sitter.newTask(job)
		task.length, task.code, task.retries = s.lease*2, 0, 0
		task.added = s.sitter.insist(s.sitter.adding(job, task))
		tasks = append(tasks, task)
	}
	var node batch.NodeID
	await(t, "a long task runs", func(ctx context.Context) (bool, error) {
		running, err := s.Tasks(ctx, job.id, "state eq 'running'")
		if len(running) > 0 {
			node = running[0].NodeInfo.Node
		}
		return len(running) > 0, err
	})
	pid := s.find(node, "agent.log")
	if pid == 0 || syscall.Kill(pid, syscall.SIGSTOP) != nil {
		s.missed++
	} else {
		pause(t.Context(), s.lease*2)
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Errorf("let the agent of %s go on: %v", node, err)
		}
	}
	for _, task := range tasks {
		s.sitter.end(job, task)
	}
}
