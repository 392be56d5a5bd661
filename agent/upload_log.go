package agent

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"
)

// Names of the files in which a task's directory tells of its output files.
const (
	uploadedName    = "fileuploadout.txt"
	notUploadedName = "fileuploaderr.txt"
)

// uploadLog leaves word of uploads in a task's directory: a line in one file for
// what was uploaded, in the other for what was not and why. It is for people; a
// disk that is full, say, costs the word and not the upload.
type uploadLog struct {
	now func() time.Time

	mu       sync.Mutex // guards all below
	out, err *bufio.Writer
	files    []*os.File
	failed   error // the first that went wrong
}

func openUploadLog(folder *os.Root, owner uint32, now func() time.Time) *uploadLog {
	l := &uploadLog{now: now}
	l.out, l.err = l.create(folder, uploadedName, owner), l.create(folder, notUploadedName, owner)
	return l
}

// create makes a file anew, so that nothing is written through what a task has
// put in its place.
func (l *uploadLog) create(folder *os.Root, name string, owner uint32) *bufio.Writer {
	if err := folder.RemoveAll(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.note(err)
	}
	file, err := folder.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		l.note(err)
		return bufio.NewWriter(io.Discard)
	}
	if os.Geteuid() == 0 {
		l.note(file.Chown(int(owner), int(owner)))
	}
	l.files = append(l.files, file)
	return bufio.NewWriter(file)
}

func (l *uploadLog) note(err error) {
	if l.failed == nil {
		l.failed = err
	}
}

// uploaded tells of a file that has arrived.
func (l *uploadLog) uploaded(name, blob string) { l.line(l.out, "uploaded %q to %s", name, blob) }

// missed tells of a file, or of all of a pattern, that was not uploaded.
func (l *uploadLog) missed(what string, why error) {
	l.line(l.err, "not uploaded: %q: %s", what, plainText(why))
}

func (l *uploadLog) line(to *bufio.Writer, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := fmt.Fprintf(to, "%s %s\n", l.now().UTC().Format(time.RFC3339), fmt.Sprintf(format, args...))
	l.note(err)
}

// close writes what is still to be written and tells what went wrong, if
// anything did.
func (l *uploadLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note(l.out.Flush())
	l.note(l.err.Flush())
	for _, file := range l.files {
		l.note(file.Close())
	}
	return l.failed
}
