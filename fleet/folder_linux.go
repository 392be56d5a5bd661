package fleet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// keeperLock is held by the keeper of a node's processes; see package run.
const keeperLock = "state/keeper/keeper.lock"

// Folder is the folder of a node on this machine.
type Folder struct {
	Node     batch.NodeID
	Path     string
	Modified time.Time
	// Agent and Keeper tell whether the process runs. Tasks may run as long as
	// the keeper does.
	Agent, Keeper bool
}

// Folders lists the folders of nodes below dir, which need not be there. It
// changes nothing.
func Folders(dir string) ([]Folder, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read folder of nodes: %w", err)
	}
	var folders []Folder
	for _, entry := range entries {
		if !entry.IsDir() || !strings.HasPrefix(entry.Name(), nodePrefix) {
			continue
		}
		f := Folder{Node: batch.NodeID(entry.Name()), Path: filepath.Join(dir, entry.Name())}
		if info, err := entry.Info(); err == nil {
			f.Modified = info.ModTime()
		}
		if f.Agent, err = isLocked(filepath.Join(f.Path, lockFile)); err != nil {
			return nil, err
		}
		if f.Keeper, err = isLocked(filepath.Join(f.Path, keeperLock)); err != nil {
			return nil, err
		}
		folders = append(folders, f)
	}
	return folders, nil
}

// isLocked tells whether a process holds a lock on a file. It asks for a shared
// one, and holds it for no time, so that two who ask do not see each other.
func isLocked(path string) (bool, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open lock: %w", err)
	}
	defer file.Close()
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at lock: %w", err)
	}
	return false, nil
}

// SetAside moves the folder of a node that is no more into a folder of a name
// beside it, which only its owner can enter, unless a process works in it.
func SetAside(f Folder, name string) error {
	unlock, free, err := tryLock(f.Path)
	if err != nil {
		return err
	}
	if !free {
		return fmt.Errorf("an agent runs in %s", f.Path)
	}
	defer unlock()
	if held, err := isLocked(filepath.Join(f.Path, keeperLock)); err != nil || held {
		return errors.Join(err, fmt.Errorf("tasks may run in %s", f.Path))
	}
	aside := filepath.Join(filepath.Dir(f.Path), name)
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return fmt.Errorf("make folder aside: %w", err)
	}
	if err := os.Rename(f.Path, filepath.Join(aside, filepath.Base(f.Path))); err != nil {
		return fmt.Errorf("move node folder aside: %w", err)
	}
	return nil
}
