package cli

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/batchyard/batchyard/api"
	"github.com/batchyard/batchyard/blob"
	"github.com/batchyard/batchyard/gate"
	"github.com/prometheus/client_golang/prometheus"
)

// LimitsConfig bounds what the server takes on. What is 0 is derived from the
// machine; docs/configuration.md says how.
type LimitsConfig struct {
	// Memory is how many MiB the server should get by with: a soft limit that
	// the garbage collector works towards.
	Memory int `koanf:"memory"`
	// Buffers is how many MiB bodies and answers may hold together.
	Buffers int `koanf:"buffers"`
	// Connections is how many a port keeps open for clients.
	Connections int `koanf:"connections"`
	// Requests of the API that are worked on at a time: reads and writes of
	// one thing, additions of many tasks, lists, files of nodes.
	Reads  int `koanf:"reads"`
	Writes int `koanf:"writes"`
	Adds   int `koanf:"adds"`
	Lists  int `koanf:"lists"`
	Files  int `koanf:"files"`
	// Transfers is how many uploads to the storage and downloads from it are
	// worked on at a time.
	Transfers int `koanf:"transfers"`
	// Line is how many of each kind may wait for their turn.
	Line int `koanf:"line"`
}

// machine is what the defaults depend on.
type machine struct {
	memory int64 // bytes that we may use, by the control group or by the hardware
	files  int64 // descriptors that we may have open
	cores  int   // as far as we may use them
}

// thisMachine looks.
func thisMachine() machine {
	m := machine{memory: machineMemory(), files: openFiles(), cores: runtime.GOMAXPROCS(0)}
	if group, err := memlimit.FromCgroup(); err == nil && group < uint64(m.memory) {
		m.memory = int64(group)
	}
	return m
}

// Memory that a connection may need: buffers of HTTP and TLS, and a goroutine.
const connectionMemory = 64 << 10

// turnPatience is how long a request waits for its turn: a client that hears
// nothing for longer might as well come again.
const turnPatience = 3 * time.Second

// on fills in what was left to the machine.
func (l LimitsConfig) on(m machine) LimitsConfig {
	set := func(value *int, derived int64) {
		if *value == 0 {
			*value = int(derived)
		}
	}
	// Half of the memory is for tasks and for the cache of the file system.
	set(&l.Memory, max(128, m.memory/2>>20))
	memory := int64(l.Memory) << 20
	set(&l.Buffers, between(16, memory/8>>20, 256))
	// Of two connections one may need a file beside it; nodes need theirs too.
	set(&l.Connections, between(64, min((m.files-256)/4, memory/4/connectionMemory), 16_384))
	cores := int64(m.cores)
	// What needs only the processor gains nothing from more company than it
	// takes to keep all cores busy, and lists leave half of them to others.
	// Writes gain: they share a commit.
	set(&l.Reads, between(16, 8*cores, 256))
	set(&l.Lists, max(1, cores/2))
	set(&l.Adds, max(8, 4*cores))
	set(&l.Writes, 256)
	set(&l.Files, 256)
	set(&l.Transfers, between(16, m.files/16, 1024))
	set(&l.Line, 512)
	return l
}

func between(least, value, most int64) int64 { return min(max(least, value), most) }

func (l LimitsConfig) validate() error {
	for name, value := range map[string]int{
		"memory": l.Memory, "buffers": l.Buffers, "connections": l.Connections, "reads": l.Reads, "writes": l.Writes,
		"adds": l.Adds, "lists": l.Lists, "files": l.Files, "transfers": l.Transfers, "line": l.Line,
	} {
		if value < 0 || value > math.MaxInt32 {
			return fmt.Errorf("configuration: limits.%s is 0, for what suits the machine, or more, not %d", name, value)
		}
	}
	return nil
}

// limitMemory sets the soft limit, unless the environment has set one. Parts
// of the memory, SQLite's among it, are not the collector's to count.
func (l LimitsConfig) limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(l.Memory) << 20 * 9 / 10)
	}
}

// gates are the classes of requests, and the memory they share.
type gates struct {
	api     api.Classes
	blob    blob.Limits
	buffers *gate.Budget
}

func (l LimitsConfig) gates(registry prometheus.Registerer) gates {
	class := func(name string, places int) *gate.Class {
		c := gate.New(gate.Options{Name: name, Places: places, Line: l.Line, Patience: turnPatience})
		registry.MustRegister(c)
		return c
	}
	buffers := gate.NewBudget(int64(l.Buffers) << 20)
	registry.MustRegister(buffers)
	return gates{
		api: api.Classes{
			Reads: class("reads", l.Reads), Writes: class("writes", l.Writes), Adds: class("adds", l.Adds),
			Lists: class("lists", l.Lists), Files: class("files", l.Files),
		},
		blob: blob.Limits{
			Transfers: class("transfers", l.Transfers), Others: class("storage", l.Writes), Buffers: buffers, Late: cameLate,
		},
		buffers: buffers,
	}
}
