package faults_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test program be a task: one that says on a disk, not in a buffer, when it
// began and when it ended.
func TestMain(m *testing.M) {
	if os.Getenv(stageVariable) != "" {
		os.Exit(act(os.Getenv))
	}
	m.Run()
}

// stageVariable is the folder that actors write to. It has a log, and a file of locks with a byte
// for each task.
const stageVariable = "FAULTS_STAGE"

// codeOverlap is the exit code of an actor that found another attempt of its task alive.
const codeOverlap = 99

// act is the life of one attempt. The lock goes with the process, however that ends, so who gets
// it knows that no other attempt of the task lives.
func act(env func(string) string) int {
	stage := env(stageVariable)
	number, err1 := strconv.ParseInt(env("NUMBER"), 10, 64)
	code, err2 := strconv.Atoi(env("CODE"))
	length, err3 := time.ParseDuration(env("LENGTH"))
	log, err4 := os.OpenFile(filepath.Join(stage, "log"), os.O_WRONLY|os.O_APPEND, 0)
	locks, err5 := os.OpenFile(filepath.Join(stage, "locks"), os.O_RDWR, 0)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 98
	}
	defer log.Close()
	defer locks.Close()
	who := cue{
		job: env("AZ_BATCH_JOB_ID"), task: env("AZ_BATCH_TASK_ID"), node: env("AZ_BATCH_NODE_ID"), pid: os.Getpid(),
	}
	if who.attempt, err1 = strconv.ParseInt(env("BATCHYARD_TASK_ATTEMPT"), 10, 64); err1 != nil {
		fmt.Fprintln(os.Stderr, err1)
		return 98
	}
	own := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart, Start: number, Len: 1}
	if err := syscall.FcntlFlock(locks.Fd(), syscall.F_SETLK, &own); err != nil {
		_ = who.write(log, cueOverlap)
		return codeOverlap
	}
	if err := who.write(log, cueBegin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 98
	}
	fmt.Printf("first line of %s, attempt %d\n", who.task, who.attempt)
	<-time.After(length)
	fmt.Printf("last line of %s, attempt %d\n", who.task, who.attempt)
	if err := who.write(log, cueEnd); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 98
	}
	return code
}

// The words of cues.
const (
	cueBegin   = "begin"
	cueEnd     = "end"
	cueOverlap = "overlap"
)

// cue is a line of the actors' log.
type cue struct {
	word      string
	job, task string
	attempt   int64
	node      string
	pid       int
	at        time.Time
}

// write appends the line by one write and returns when it is on disk.
func (c cue) write(log *os.File, word string) error {
	line := fmt.Sprintf("%s %s %s %d %s %d %d\n", word, c.job, c.task, c.attempt, c.node, c.pid, time.Now().UnixNano())
	if _, err := log.WriteString(line); err != nil {
		return err
	}
	return log.Sync()
}

// readCues reads the actors' log.
func readCues(file string) ([]cue, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var cues []cue
	for line := range strings.Lines(string(text)) {
		var c cue
		var at int64
		if _, err := fmt.Sscan(line, &c.word, &c.job, &c.task, &c.attempt, &c.node, &c.pid, &at); err != nil {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
		c.at = time.Unix(0, at)
		cues = append(cues, c)
	}
	return cues, nil
}
