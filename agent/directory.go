package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
)

// tree is the node's root directory:
//
//	shared applications fsmounts volatile
//	startup/{wd,stdout.txt,stderr.txt}
//	workitems/<job>/job-1/<task>/{wd,stdout.txt,stderr.txt}
//
// Every path below it is opened through os.Root, so that neither dots nor a
// symbolic link that a task made leads out of it.
type tree struct {
	// path has no symbolic link in it.
	path string
	root *os.Root
}

const (
	workItems   = "workitems"
	startupName = "startup"
	// The service names the one job of a work item job-1.
	jobName = "job-1"
)

// taskPlace is a task's directory, relative to the node's root.
func taskPlace(job batch.JobID, task batch.TaskID) string {
	return path.Join(workItems, string(job), jobName, string(task))
}

func openTree(folder string) (*tree, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, fmt.Errorf("make node directory: %w", err)
	}
	resolved, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return nil, fmt.Errorf("resolve node directory: %w", err)
	}
	if resolved, err = filepath.Abs(resolved); err != nil {
		return nil, fmt.Errorf("resolve node directory: %w", err)
	}
	root, err := os.OpenRoot(resolved)
	if err != nil {
		return nil, fmt.Errorf("open node directory: %w", err)
	}
	return &tree{path: resolved, root: root}, nil
}

// prepare makes the folders that every node has.
func (t *tree) prepare(u users) error {
	for name, mode := range map[string]fs.FileMode{
		"shared": 0o1777, "volatile": 0o755, "applications": 0o755, "fsmounts": 0o755, workItems: 0o711,
	} {
		if err := t.root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make node directory: %w", err)
		}
		// Mkdir is subject to the umask, and shared needs its sticky bit.
		if err := os.Chmod(filepath.Join(t.path, name), fileMode(mode)); err != nil {
			return fmt.Errorf("open node directory to tasks: %w", err)
		}
	}
	return nil
}

// fileMode turns the octal sticky bit into Go's.
func fileMode(mode fs.FileMode) fs.FileMode {
	if mode&0o1000 != 0 {
		return mode&0o777 | fs.ModeSticky
	}
	return mode
}

// wipe removes everything, for a new image.
func (t *tree) wipe() error {
	entries, err := fs.ReadDir(t.root.FS(), ".")
	if err != nil {
		return fmt.Errorf("read node directory: %w", err)
	}
	for _, e := range entries {
		if err := t.root.RemoveAll(e.Name()); err != nil {
			return fmt.Errorf("wipe node directory: %w", err)
		}
	}
	return nil
}

// make makes place and its wd anew for a user. What an earlier attempt left is
// removed, unless keep says otherwise.
func (t *tree) make(place string, user *run.User, keep bool) error {
	err := t.root.Mkdir(place, 0o750)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := t.root.MkdirAll(path.Dir(place), 0o711); err != nil {
			return fmt.Errorf("make job directory: %w", err)
		}
		err = t.root.Mkdir(place, 0o750)
	case errors.Is(err, fs.ErrExist) && !keep:
		if err := t.root.RemoveAll(place); err != nil {
			return fmt.Errorf("remove earlier task directory: %w", err)
		}
		err = t.root.Mkdir(place, 0o750)
	case errors.Is(err, fs.ErrExist):
		err = nil
	}
	if err != nil {
		return fmt.Errorf("make task directory: %w", err)
	}
	wd := path.Join(place, "wd")
	if err := t.root.Mkdir(wd, 0o770); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make working directory: %w", err)
	}
	for _, name := range []string{wd, place} {
		if err := t.give(name, user); err != nil {
			return err
		}
	}
	return nil
}

// give makes a user the owner of a name.
func (t *tree) give(name string, user *run.User) error {
	if user == nil {
		return nil
	}
	if err := t.root.Lchown(name, int(user.UID), int(user.GID)); err != nil {
		return fmt.Errorf("give %s to its user: %w", path.Base(name), err)
	}
	return nil
}

// remove deletes a task's directory, or a whole job's.
func (t *tree) remove(job batch.JobID, task batch.TaskID) error {
	place := path.Join(workItems, string(job))
	if task != "" {
		place = taskPlace(job, task)
	}
	return t.root.RemoveAll(place)
}

// closedParent is the first folder above a path that other users cannot pass,
// or "".
func closedParent(folder string) string {
	for {
		info, err := os.Stat(folder)
		if err == nil && info.Mode().Perm()&0o001 == 0 {
			return folder
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			return ""
		}
		folder = parent
	}
}

// noSpace tells whether a disk or a quota is full.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// lockFolder makes sure that one agent works in a folder.
func lockFolder(folder string) (func(), error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(folder, "agent.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open agent lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("another agent works in %s: %w", folder, err)
	}
	// The number is for whoever looks for the process; the lock decides.
	if err := file.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(file, "%d\n", os.Getpid())
	}
	return func() { _ = file.Close() }, nil
}
