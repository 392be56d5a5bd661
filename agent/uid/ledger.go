//go:build unix

package uid

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultDir is where the ledger of a machine is. It is apart from all data
// folders, since it must outlast them.
const DefaultDir = "/var/lib/batchyard-users"

// Ledger knows which user numbers of this machine were handed out last and
// which nodes have which. It is for root; several processes may use it.
type Ledger struct {
	// Dir is the folder of the ledger, [DefaultDir] if it is empty.
	Dir string
	// Space overrides which numbers there are to hand out; empty means what the
	// machine has.
	Space Space
}

// book is what the ledger has on disk.
type book struct {
	// Next is the first number of the block to be tried next, 0 at the
	// beginning.
	Next uint32 `json:"next"`
	// Nodes has the folders of nodes by the first number of their block.
	Nodes map[uint32]string `json:"nodes"`
}

const (
	bookName = "ledger.json"
	// markName is the file in a node's folder that says which block it has, so
	// that a folder that is made anew at an old path is not taken for the old one.
	markName = "users"
	// patience bounds how long another process may work on the ledger.
	patience = 10 * time.Second
)

// Block returns the first of [BlockSize] numbers that belong to the node with
// this folder alone, the same ones each time. The folder must exist and be
// closed to tasks.
func (l Ledger) Block(folder string) (first uint32, err error) {
	space, err := l.space()
	if err != nil {
		return 0, err
	}
	if folder, err = filepath.Abs(folder); err != nil {
		return 0, fmt.Errorf("find node folder: %w", err)
	}
	unlock, err := l.open()
	if err != nil {
		return 0, err
	}
	defer unlock()
	b, err := l.read()
	if err != nil {
		return 0, err
	}
	first = markOf(folder)
	switch {
	case !space.has(first):
	case b.Nodes[first] == folder:
		return first, nil
	case !b.taken(first):
		// The folder was moved, or the ledger is younger than it.
		b.Nodes[first] = folder
		return first, l.write(b)
	}
	if first, err = b.hand(space); err != nil {
		return 0, err
	}
	maps.DeleteFunc(b.Nodes, func(_ uint32, other string) bool { return other == folder }) // an earlier one at that path
	b.Nodes[first] = folder
	// The ledger first: whatever happens, nobody else gets the block.
	if err := l.write(b); err != nil {
		return 0, err
	}
	return first, replace(filepath.Join(folder, markName), fmt.Appendf(nil, "%d\n", first), false)
}

// errFew says that numbers are not given away without account.
var errFew = errors.New("this machine has few user numbers")

// Further returns the first of another [BlockSize] numbers that nobody has,
// nor will have before all others were given. It is for what does not last: no
// account is kept of who has them. Where there are few it is refused.
func (l Ledger) Further() (uint32, error) {
	space, err := l.space()
	if err != nil {
		return 0, err
	}
	if space.blocks() < manyBlocks {
		return 0, errFew
	}
	unlock, err := l.open()
	if err != nil {
		return 0, err
	}
	defer unlock()
	b, err := l.read()
	if err != nil {
		return 0, err
	}
	first, err := b.hand(space)
	if err != nil {
		return 0, err
	}
	return first, l.write(b)
}

// manyBlocks are so many that those which are in use without account have long
// been given back when it is their turn again.
const manyBlocks = 10_000

func (l Ledger) space() (Space, error) {
	if l.Space.empty() {
		return machineSpace()
	}
	return l.Space, nil
}

// hand finds the next block that no node has, and forgets nodes that are gone.
func (b *book) hand(space Space) (uint32, error) {
	for first, folder := range b.Nodes {
		if _, err := os.Lstat(folder); errors.Is(err, fs.ErrNotExist) {
			delete(b.Nodes, first)
		}
	}
	first := b.Next
	if !space.has(first) {
		first = space.block(rand.Uint32N(space.blocks()))
	}
	for range space.blocks() {
		next := space.after(first)
		if b.Nodes[first] == "" {
			b.Next = next
			return first, nil
		}
		first = next
	}
	return 0, fmt.Errorf("all %d user numbers from %d on are in use by nodes of this machine", space.blocks()*BlockSize, space.First)
}

// taken tells whether a node has a block, or may have: a folder that cannot be
// looked at is there.
func (b *book) taken(first uint32) bool {
	folder := b.Nodes[first]
	if folder == "" {
		return false
	}
	_, err := os.Lstat(folder)
	return !errors.Is(err, fs.ErrNotExist) && (err != nil || markOf(folder) == first)
}

// markOf is the block that a node's folder says it has, 0 if it says none.
func markOf(folder string) uint32 {
	text, err := os.ReadFile(filepath.Join(folder, markName))
	var first uint32
	if err == nil {
		_, _ = fmt.Sscanf(string(text), "%d\n", &first)
	}
	return first
}

func (l Ledger) dir() string {
	if l.Dir == "" {
		return DefaultDir
	}
	return l.Dir
}

// open makes the folder and takes the lock.
func (l Ledger) open() (unlock func(), err error) {
	dir := l.dir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of user numbers: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, fmt.Errorf("look at folder of user numbers: %w", err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !info.IsDir() || info.Mode().Perm()&0o022 != 0 || !ok || int(stat.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("folder of user numbers %s is open to others: it must be a folder of root with mode 0700", dir)
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of user numbers: %w", err)
	}
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Since(begun) > patience {
			file.Close()
			return nil, fmt.Errorf("lock user numbers in %s: %w", dir, err)
		}
	}
}

func (l Ledger) read() (*book, error) {
	b := &book{Nodes: map[uint32]string{}}
	text, err := os.ReadFile(filepath.Join(l.dir(), bookName))
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err == nil {
		err = json.Unmarshal(text, b)
	}
	if err != nil {
		return nil, fmt.Errorf("read user numbers (remove %s to begin anew, once no node runs): %w", filepath.Join(l.dir(), bookName), err)
	}
	if b.Nodes == nil {
		b.Nodes = map[uint32]string{}
	}
	return b, nil
}

func (l Ledger) write(b *book) error {
	text, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("write user numbers: %w", err)
	}
	return replace(filepath.Join(l.dir(), bookName), text, true)
}

// replace leaves the old file or the new one, and if it must last also after a
// power cut.
func replace(path string, text []byte, lasting bool) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write user numbers: %w", err)
		}
	}()
	file, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil && lasting {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil || !lasting {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
