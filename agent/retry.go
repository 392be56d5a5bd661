package agent

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
)

// A retry on the node where the run before it failed finds the working directory
// as that left it, and what was fetched is not fetched again. A requeue begins
// anew. Which of both an attempt is follows from what the run before has left
// beside its files: a mark with its number on the directory, which goes where
// the directory goes. Whoever owns the directory could set it too, and would
// get their own files.

// attemptMark is the mark of an attempt that failed after its files were
// fetched; that of attempt 0 is none, for there is no such attempt.
func attemptMark(number int) string {
	if number < 1 {
		return ""
	}
	return "attempt " + strconv.Itoa(number)
}

// bootMark is the mark of a start task that failed in a boot.
func bootMark(boot int) string { return "boot " + strconv.Itoa(boot) }

// takesOver tells whether the command goes on in the directory that is there,
// and notes whether its files are too.
func (c *command) takesOver(folder *os.Root, user *run.User) bool {
	wd, err := folder.Lstat("wd")
	c.fetched = err == nil && wd.IsDir() && c.after != "" && readMark(folder) == c.after && reown(folder, wd, user) == nil
	if c.fetched && !c.keep {
		for _, told := range []string{"stdout.txt", "stderr.txt", uploadedName, notUploadedName} { // by the newest run alone
			c.fetched = c.fetched && folder.RemoveAll(told) == nil
		}
	}
	c.kept = c.keep || c.fetched
	return c.kept
}

// failed marks the directory of a command that may be repeated in it.
func (c *command) failed(o *batch.Outcome) {
	if o.Failure == nil || !c.fetched && !c.adopted {
		return
	}
	folder, err := c.agent.tree.root.OpenRoot(c.place)
	if err == nil {
		err = writeMark(folder, c.mark)
		folder.Close()
	}
	if err != nil {
		c.agent.Log.Debug("directory not marked, a retry begins anew", "place", c.place, "err", err)
	}
}

// reown gives what is in a directory to another user, as far as it was its
// user's before: the one of a slot may be another's in the next run.
func reown(folder *os.Root, wd fs.FileInfo, user *run.User) error {
	before, ok := wd.Sys().(*syscall.Stat_t)
	if user == nil || !ok || before.Uid == user.UID {
		return nil
	}
	return fs.WalkDir(folder.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.Count(name, "/") >= maxDeep {
			return fmt.Errorf("more than %d folders in each other", maxDeep)
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != before.Uid {
			return nil
		}
		return give(folder, name, user)
	})
}
