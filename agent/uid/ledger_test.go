//go:build linux

package uid_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/batchyard/batchyard/agent/uid"
)

// TestMain lets the test program be another server that asks for a block.
func TestMain(m *testing.M) {
	if dir := os.Getenv("UID_TEST_LEDGER"); dir != "" {
		first, err := uid.Ledger{Dir: dir, Space: wide}.Block(os.Args[1])
		if err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Stdout.WriteString(strconv.Itoa(int(first)))
		return
	}
	os.Exit(m.Run())
}

var (
	wide  = uid.Space{First: 1 << 20, Last: 1 << 30}
	small = uid.Space{First: 1000, Last: 1000 + 4*uid.BlockSize - 1}
)

// yard is a ledger and a place for node folders.
type yard struct {
	t *testing.T
	uid.Ledger
	dir string
}

func newYard(t *testing.T, space uid.Space) *yard {
	t.Helper()
	return &yard{t, uid.Ledger{Dir: filepath.Join(t.TempDir(), "ledger"), Space: space}, t.TempDir()}
}

func (y *yard) path(name string) string { return filepath.Join(y.dir, name) }

func (y *yard) folder(name string) string {
	y.t.Helper()
	if err := os.MkdirAll(y.path(name), 0o700); err != nil {
		y.t.Fatal(err)
	}
	return y.path(name)
}

func (y *yard) block(name string) uint32 {
	y.t.Helper()
	first, err := y.Block(y.folder(name))
	if err != nil {
		y.t.Fatal(err)
	}
	return first
}

func (y *yard) remove(name string) {
	y.t.Helper()
	if err := os.RemoveAll(y.path(name)); err != nil {
		y.t.Fatal(err)
	}
}

func TestBlocks(t *testing.T) {
	t.Parallel()

	t.Run("a node keeps its block", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, wide)
		first := y.block("a")
		if other := y.block("b"); other-first < uid.BlockSize || first-other < uid.BlockSize {
			t.Errorf("blocks begin at %d and %d", first, other)
		}
		if again := y.block("a"); again != first {
			t.Errorf("block was %d and is %d", first, again)
		}
	})

	t.Run("servers that ask at the same time get different ones", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, wide)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		const servers, nodes = 4, 5
		var mu sync.Mutex
		seen := map[string]string{}
		var group sync.WaitGroup
		for s := range servers {
			group.Go(func() {
				for n := range nodes {
					folder := filepath.Join(y.dir, strconv.Itoa(s), strconv.Itoa(n))
					if err := os.MkdirAll(folder, 0o700); err != nil {
						t.Error(err)
					}
					command := exec.CommandContext(t.Context(), self, folder)
					command.Env = []string{"UID_TEST_LEDGER=" + y.Dir}
					out, err := command.CombinedOutput()
					if err != nil {
						t.Errorf("%v: %s", err, out)
					}
					mu.Lock()
					if other := seen[string(out)]; other != "" {
						t.Errorf("%s and %s both have %s", other, folder, out)
					}
					seen[string(out)] = folder
					mu.Unlock()
				}
			})
		}
		group.Wait()
	})

	t.Run("a block of a node that is gone waits until all others were given", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, small)
		kept, gone := y.block("kept"), y.block("gone")
		y.remove("gone")
		var order []uint32
		for i := range 4 {
			order = append(order, y.block(strconv.Itoa(i)))
			y.remove(strconv.Itoa(i))
		}
		if order[0] == gone || order[1] == gone || order[2] != gone || order[3] != order[0] {
			t.Errorf("after %d was free, blocks came as %v", gone, order)
		}
		for _, first := range order {
			if first == kept {
				t.Errorf("the block of a node that is there was given again: %v", order)
			}
		}
	})

	t.Run("when all are in use it says so", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, small)
		for i := range 4 {
			y.block(strconv.Itoa(i))
		}
		if first, err := y.Block(y.folder("more")); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("got %d, %v", first, err)
		}
	})

	t.Run("a folder that is made anew is another node", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, wide)
		first := y.block("a")
		y.remove("a")
		if again := y.block("a"); again == first {
			t.Errorf("both have %d", first)
		}
	})

	t.Run("a folder that was moved keeps its block, a copy gets another", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, wide)
		first := y.block("a")
		if err := os.Rename(y.path("a"), y.path("b")); err != nil {
			t.Fatal(err)
		}
		if moved := y.block("b"); moved != first {
			t.Errorf("block was %d and is %d", first, moved)
		}
		if err := os.CopyFS(y.path("copy"), os.DirFS(y.path("b"))); err != nil {
			t.Fatal(err)
		}
		if other := y.block("copy"); other == first {
			t.Errorf("both have %d", first)
		}
		if again := y.block("b"); again != first {
			t.Errorf("block was %d and is %d", first, again)
		}
	})

	t.Run("without its ledger a node keeps its block and others do not begin there", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, wide)
		first := y.block("a")
		if err := os.RemoveAll(y.Dir); err != nil {
			t.Fatal(err)
		}
		if again := y.block("a"); again != first {
			t.Errorf("block was %d and is %d", first, again)
		}
		if other := y.block("b"); other == first || other == first+uid.BlockSize {
			t.Errorf("the next block is %d, as if the ledger were there (%d)", other, first)
		}
	})

	t.Run("a ledger that cannot be read hands out nothing", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, wide)
		y.block("a")
		if err := os.WriteFile(filepath.Join(y.Dir, "ledger.json"), []byte(`{"next":`), 0o600); err != nil {
			t.Fatal(err)
		}
		if first, err := y.Block(y.folder("b")); err == nil {
			t.Errorf("got %d", first)
		}
	})

	t.Run("a folder that others can write in is refused", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, wide)
		y.block("a")
		if err := os.Chmod(y.Dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if first, err := y.Block(y.folder("b")); err == nil {
			t.Errorf("got %d", first)
		}
	})

	t.Run("further blocks are nobody else's", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, uid.Space{First: 1 << 20, Last: 1 << 24})
		seen := map[uint32]bool{y.block("a"): true}
		for range 20 {
			first, err := y.Further()
			if err != nil || seen[first] {
				t.Fatalf("got %d, %v, after %v", first, err, seen)
			}
			seen[first] = true
		}
		if first := y.block("b"); seen[first] {
			t.Errorf("a node got %d, which was given", first)
		}
		few := newYard(t, small)
		if first, err := few.Further(); err == nil {
			t.Errorf("where there are few, got %d", first)
		}
	})
}
