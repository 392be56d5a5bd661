package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/disk"
)

// tree is the node's root directory:
//
//	shared applications fsmounts volatile
//	startup/{wd,stdout.txt,stderr.txt}
//	workitems/<job>/job-1/<task>/{wd,stdout.txt,stderr.txt}
//
// Every path below it is opened through os.Root, so that neither dots nor a
// symbolic link that a task made leads out of it. What is done for a task is
// done through a Root of the task's own directory, so that it does not lead to
// other tasks either.
type tree struct {
	// path has no symbolic link in it.
	path string
	root *os.Root

	mu   sync.Mutex // guards jobs
	jobs map[string]*os.Root
}

const (
	workItems   = "workitems"
	startupName = "startup"
	sharedName  = "shared"
	// The service names the one job of a work item job-1.
	jobName = "job-1"
)

// openJobs bounds the job directories that are kept open.
const openJobs = 16

// taskPlace is a task's directory, relative to the node's root.
func taskPlace(job batch.JobID, task batch.TaskID) string {
	return workItems + "/" + string(job) + "/" + jobName + "/" + string(task)
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
	if err := os.Chmod(resolved, 0o755); err != nil { // whatever the umask is
		return nil, fmt.Errorf("open node directory to tasks: %w", err)
	}
	root, err := os.OpenRoot(resolved)
	if err != nil {
		return nil, fmt.Errorf("open node directory: %w", err)
	}
	return &tree{path: resolved, root: root, jobs: map[string]*os.Root{}}, nil
}

func (t *tree) close() {
	t.forgetJobs()
	t.root.Close()
}

// prepare makes the folders that every node has.
func (t *tree) prepare() error {
	for name, mode := range map[string]fs.FileMode{
		sharedName: fs.ModeSticky | 0o777, "volatile": 0o755, "applications": 0o755, "fsmounts": 0o755, workItems: 0o711,
	} {
		if err := t.root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make node directory: %w", err)
		}
		// Mkdir is subject to the umask.
		if err := t.root.Chmod(name, mode); err != nil {
			return fmt.Errorf("open node directory to tasks: %w", err)
		}
	}
	return nil
}

// wipe removes everything, for a new image.
func (t *tree) wipe() error {
	t.forgetJobs()
	entries, err := fs.ReadDir(t.root.FS(), ".")
	if err != nil {
		return fmt.Errorf("read node directory: %w", err)
	}
	for _, e := range entries {
		if err := t.clear(e.Name()); err != nil {
			return fmt.Errorf("wipe node directory: %w", err)
		}
	}
	return nil
}

// make makes a task's directory and its wd for a user, and opens it. What is
// there is removed unless keep, which is asked about it, says otherwise.
func (t *tree) make(place string, user *run.User, keep func(*os.Root) bool) (folder *os.Root, err error) {
	err = t.inParent(place, func(parent *os.Root) (err error) {
		folder, err = t.enter(parent, place, keep)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make task directory: %w", err)
	}
	if err := equip(folder, user); err != nil {
		folder.Close()
		return nil, err
	}
	return folder, nil
}

// enter opens a directory in its parent, and makes it first if it is not there
// or not kept.
func (t *tree) enter(parent *os.Root, place string, keep func(*os.Root) bool) (*os.Root, error) {
	name := path.Base(place)
	err := parent.Mkdir(name, 0o750)
	if errors.Is(err, fs.ErrExist) {
		if folder, err := parent.OpenRoot(name); err == nil {
			if keep(folder) {
				return folder, folder.Chmod(".", 0o750) // it may have been sealed
			}
			folder.Close()
		}
		if err = t.clear(place); err == nil {
			err = parent.Mkdir(name, 0o750)
		}
	}
	if err != nil {
		return nil, err
	}
	return parent.OpenRoot(name)
}

// equip makes the working directory and gives both to the user, the outer one
// last: then the agent is done with it.
func equip(folder *os.Root, user *run.User) error {
	err := folder.Mkdir("wd", 0o770)
	if errors.Is(err, fs.ErrExist) {
		// One that is kept may have been replaced, by a further name of somebody
		// else's file above all.
		info, wrong := folder.Lstat("wd")
		if err = wrong; err == nil && !info.IsDir() {
			err = errors.Join(folder.Remove("wd"), folder.Mkdir("wd", 0o770))
		}
	}
	if err != nil {
		return fmt.Errorf("make working directory: %w", err)
	}
	return errors.Join(give(folder, "wd", user), give(folder, ".", user))
}

// inParent calls use with the open directory that place is in. Those of jobs
// are kept open, since each task of a job needs its own; one that was removed
// meanwhile is made again.
func (t *tree) inParent(place string, use func(*os.Root) error) error {
	folder := path.Dir(place)
	if folder == "." {
		return use(t.root)
	}
	t.mu.Lock()
	parent := t.jobs[folder]
	t.mu.Unlock()
	if parent != nil {
		err := use(parent)
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, os.ErrClosed) {
			return err
		}
	}
	if err := t.root.MkdirAll(folder, 0o711); err != nil {
		return err
	}
	for _, made := range []string{path.Dir(folder), folder} { // whatever the umask is
		if err := t.root.Chmod(made, 0o711); err != nil {
			return err
		}
	}
	parent, err := t.root.OpenRoot(folder)
	if err != nil {
		return err
	}
	err = use(parent)
	t.keepJob(folder, parent)
	return err
}

func (t *tree) keepJob(folder string, root *os.Root) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.jobs) >= openJobs {
		for name, other := range t.jobs {
			other.Close()
			delete(t.jobs, name)
			break
		}
	}
	if other := t.jobs[folder]; other != nil {
		other.Close()
	}
	t.jobs[folder] = root
}

func (t *tree) forgetJobs() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, job := range t.jobs {
		job.Close()
	}
	clear(t.jobs)
}

// give makes a user the owner of a name.
func give(folder *os.Root, name string, user *run.User) error {
	if user == nil {
		return nil
	}
	if err := folder.Lchown(name, int(user.UID), int(user.GID)); err != nil {
		return fmt.Errorf("give %s to its user: %w", name, err)
	}
	return nil
}

// owner is the user number that a place belongs to, 0 if it is gone.
func (t *tree) owner(place string) uint32 {
	info, err := t.root.Lstat(place)
	if err != nil {
		return 0
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Uid
	}
	return 0
}

// nobody is a user number that no file has.
const nobody = 1<<32 - 1

// fileOwner is the user of a command at a place, nobody if its working directory
// is gone or is none: a task can put a further name of somebody else's file there.
func (t *tree) fileOwner(place string) uint32 {
	wd := place + "/wd"
	if info, err := t.root.Lstat(wd); err != nil || !info.IsDir() {
		return nobody
	}
	return t.owner(wd)
}

// commandOwner is the user of the command in whose directory a name is.
func (t *tree) commandOwner(name string) uint32 {
	parts := strings.Split(name, "/")
	task := strings.Count(taskPlace("", ""), "/") + 1
	switch {
	case parts[0] == startupName:
		return t.fileOwner(startupName)
	case parts[0] == workItems && len(parts) > task:
		return t.fileOwner(path.Join(parts[:task]...))
	}
	return nobody
}

// seal closes a directory to everybody but the agent.
func (t *tree) seal(place string) error {
	return errors.Join(t.root.Lchown(place, 0, 0), t.root.Chmod(place, 0o700))
}

// remove deletes a task's directory, or a whole job's.
func (t *tree) remove(job batch.JobID, task batch.TaskID) error {
	if task != "" {
		return t.clear(taskPlace(job, task))
	}
	t.forgetJobs()
	place := path.Join(workItems, string(job))
	if tasks, err := t.root.Open(path.Join(place, jobName)); err == nil {
		removePlain(tasks)
		tasks.Close()
	}
	return t.clear(place)
}

// clear removes a name and all below it.
func (t *tree) clear(name string) error { return disk.Raze(t.root, name) }

// ClosedParent is the first folder above a path that other users cannot pass,
// or "".
func ClosedParent(folder string) string {
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
		file.Close()
		return nil, fmt.Errorf("another agent works in %s: %w", folder, err)
	}
	// The number is for whoever looks for the process; the lock decides.
	err = file.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintf(file, "%d\n", os.Getpid())
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("write agent lock: %w", err)
	}
	return func() {
		// Not by closing alone, which does nothing while a process that was
		// just forked has the file too.
		_ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN)
		file.Close()
	}, nil
}
