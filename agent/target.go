package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/batchyard/batchyard/agent/run"
)

// target is where resource files go: a working directory and its user. Of two
// entries for one path the later one wins, whichever comes first.
type target struct {
	root *os.Root
	user *run.User

	mu    sync.Mutex // guards paths
	paths map[string]*claim
}

// claim is whose a path is.
type claim struct {
	entry int        // the latest entry that has come to it; the target's lock guards it
	turn  sync.Mutex // held by the one that writes
}

func newTarget(root *os.Root, user *run.User) *target {
	return &target{root: root, user: user, paths: map[string]*claim{}}
}

// turn calls write when no other entry writes to the path, and not at all once a
// later one has come to it.
func (t *target) turn(entry int, name string, write func() error) error {
	c := t.claim(entry, path.Clean(name))
	c.turn.Lock()
	defer c.turn.Unlock()
	t.mu.Lock()
	late := c.entry > entry
	t.mu.Unlock()
	if late {
		return nil
	}
	return write()
}

func (t *target) claim(entry int, name string) *claim {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.paths[name]
	if c == nil {
		c = &claim{}
		t.paths[name] = c
	}
	c.entry = max(c.entry, entry)
	return c
}

// folderMark is the metadata by which tools mark an empty blob that stands for a
// folder.
const folderMark = "hdi_isfolder"

// write makes a file with the bytes of r. Folders on the way are made for the
// user.
func (t *target) write(name string, mode fs.FileMode, r io.Reader) error {
	name = path.Clean(name)
	if err := t.folders(path.Dir(name)); err != nil {
		return err
	}
	if err := t.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace resource file: %w", err)
	}
	file, err := t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create resource file: %w", err)
	}
	_, err = io.Copy(file, r)
	if err == nil {
		err = file.Chmod(mode)
	}
	if err == nil && t.user != nil {
		err = file.Chown(int(t.user.UID), int(t.user.GID))
	}
	return errors.Join(err, file.Close())
}

func (t *target) folders(folder string) error {
	if folder == "." {
		return nil
	}
	made := ""
	for part := range strings.SplitSeq(folder, "/") {
		made = path.Join(made, part)
		err := t.root.Mkdir(made, 0o770)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = give(t.root, made, t.user)
		}
		if err != nil {
			return fmt.Errorf("make folder of resource file: %w", err)
		}
	}
	return nil
}
