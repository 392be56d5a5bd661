package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/run"
)

// defaultPath is searched if the task's environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// programs lists the files that the first argument may mean, in the order in
// which a shell would try them. A name with a slash means itself, relative to
// the working directory; any other is searched in the task's own PATH.
func programs(s *run.Spec) []string {
	name := s.Args[0]
	if strings.Contains(name, "/") {
		return []string{name}
	}
	var found []string
	for dir := range strings.SplitSeq(pathOf(s.Env), ":") {
		file := filepath.Join(absolute(dir, s.Dir), name)
		var st unix.Stat_t
		if unix.Stat(file, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o111 != 0 {
			found = append(found, file)
		}
	}
	return found
}

func pathOf(env []string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if path, ok := strings.CutPrefix(env[i], "PATH="); ok {
			return path
		}
	}
	return defaultPath
}

// absolute resolves path as the task would, from its working directory.
func absolute(path, dir string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// checkSpec refuses what no kernel would take, before anything is opened.
func checkSpec(s *run.Spec) error {
	switch {
	case s.ID == "" || len(s.ID) > 512:
		return fmt.Errorf("execution needs an ID of at most 512 bytes")
	case len(s.Args) == 0 || s.Args[0] == "":
		return run.LaunchFailed("the command line is empty")
	case s.User != nil && os.Geteuid() != 0 && int(s.User.UID) != os.Geteuid():
		return run.LaunchFailed("the agent runs without root and cannot start a task as user %d", s.User.UID)
	case !filepath.IsAbs(s.Dir):
		return run.LaunchFailed("working directory %q is not an absolute path", s.Dir)
	}
	for _, list := range [][]string{s.Args, s.Env, {s.Dir, s.Stdout, s.Stderr}} {
		for _, text := range list {
			if strings.IndexByte(text, 0) >= 0 {
				return run.LaunchFailed("the command line, the environment or a path contains a zero byte")
			}
		}
	}
	l := s.Limits
	if l.MemoryBytes < 0 || l.Processes < 0 || l.FileBytes < 0 || l.OpenFiles < 0 {
		return run.LaunchFailed("a limit of the task is negative")
	}
	return nil
}

// startProgram tries the candidates until one starts. Like a shell it passes
// over those that the task's user may not run.
//
// Unless patient it returns ETXTBSY as it is.
func startProgram(s *run.Spec, patient bool, start func(file string) (int, error)) (int, error) {
	var last error
	file := s.Args[0]
	for _, candidate := range programs(s) {
		pid, err := startUnlessBusy(candidate, patient, start)
		if err == nil || !patient && errors.Is(err, unix.ETXTBSY) {
			return pid, err
		}
		file, last = candidate, err
		if !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	return 0, explainStart(s, file, last)
}

// startUnlessBusy retries while the program's file is open for writing. That is
// often this very process: a file that is being closed here is still open for a
// moment in a child that is being forked elsewhere (https://go.dev/issue/22315).
// A thread that has other duties does not wait.
func startUnlessBusy(file string, patient bool, start func(file string) (int, error)) (int, error) {
	for delay := time.Millisecond; ; delay *= 2 {
		pid, err := start(file)
		if !patient || !errors.Is(err, unix.ETXTBSY) || delay > 256*time.Millisecond {
			return pid, err
		}
		time.Sleep(delay)
	}
}

// explainStart says in words why a command did not start. The kernel gives one
// number for many causes, so the files are looked at again.
func explainStart(s *run.Spec, file string, err error) error {
	if err == nil {
		return &run.StartError{Code: run.CodeProgramNotFound, Message: "program " + s.Args[0] + " was not found in PATH " + pathOf(s.Env)}
	}
	if info, derr := os.Stat(s.Dir); derr != nil {
		return run.LaunchFailed("working directory %s: %v", s.Dir, errors.Unwrap(derr))
	} else if !info.IsDir() {
		return run.LaunchFailed("working directory %s is not a directory", s.Dir)
	}
	full := absolute(file, s.Dir)
	info, ferr := os.Stat(full)
	switch {
	case errors.Is(ferr, os.ErrNotExist):
		return &run.StartError{Code: run.CodeProgramNotFound, Message: "program " + file + " was not found"}
	case ferr != nil:
		return run.LaunchFailed("program %s: %v", file, errors.Unwrap(ferr))
	case info.IsDir():
		return run.LaunchFailed("program %s is a directory", file)
	case info.Mode()&0o111 == 0:
		return run.LaunchFailed("program %s is not executable", file)
	}
	return explainErrno(s, file, err)
}

func explainErrno(s *run.Spec, file string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return run.LaunchFailed("program %s exists, but the interpreter or loader that it names does not", file)
	case errors.Is(err, unix.EACCES) && s.User != nil:
		return run.LaunchFailed("user %d may not run program %s or enter working directory %s", s.User.UID, file, s.Dir)
	case errors.Is(err, unix.EACCES):
		return run.LaunchFailed("permission to run program %s or to enter working directory %s was refused", file, s.Dir)
	case errors.Is(err, unix.ENOEXEC):
		return run.LaunchFailed("program %s is neither a program of this system nor a script with a #! line", file)
	case errors.Is(err, unix.E2BIG):
		return run.LaunchFailed("arguments and environment are too long")
	case errors.Is(err, unix.ETXTBSY):
		return run.LaunchFailed("program %s is being written to", file)
	case errors.Is(err, unix.EPERM) && s.User != nil:
		return run.LaunchFailed("the agent may not run programs as user %d", s.User.UID)
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOMEM):
		// Not the command's fault: it may be started elsewhere, or later.
		return fmt.Errorf("the node has no room for another process: %w", err)
	default:
		return run.LaunchFailed("program %s: %v", file, err)
	}
}
