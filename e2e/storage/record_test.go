package storage_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// traced are the calls that change files or answer clients. Those that the model does not know are
// among them, so that a record with one of them is refused.
const traced = "open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,sync_file_range," +
	"ftruncate,truncate,fallocate,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat," +
	"link,linkat,symlink,symlinkat,copy_file_range,splice,sendfile"

// event is one thing that happened to the folder, or the beginning of an answer.
type event struct {
	kind   string
	thread string // that did it, to find the beginning of a sync at its end
	path   string // below the watched folder, "." for itself
	to     string // the new name of a rename
	offset int64  // of a write; the length of a truncation; -1 for the end of the file
	data   []byte
	answer answer
}

// answer is a request that is being answered.
type answer struct{ client, step int }

const (
	evCreate  = "create"
	evFolder  = "folder"
	evWrite   = "write"
	evCut     = "truncate"
	evRename  = "rename"
	evRemove  = "remove"
	evSyncing = "syncing" // a sync began: what happens from now on is not in it
	evSynced  = "synced"
	evAnswer  = "answer"
)

// answerID matches the name of a request that is repeated in the head of its answer.
var answerID = regexp.MustCompile(`step-([0-9]+)-([0-9]+)-of-record`)

func requestID(client, step int) string { return fmt.Sprintf("step-%d-%d-of-record", client, step) }

// readRecord reads what strace wrote of a folder.
func readRecord(r io.Reader, folder string) ([]event, error) {
	t := tracer{folder: folder, begun: map[string][]byte{}}
	lines := bufio.NewReaderSize(r, 1<<20)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return t.events, nil // a last line without an end is of a server that was killed in it
		}
		if err == nil {
			err = t.read(bytes.TrimSuffix(line, []byte("\n")))
		}
		if err != nil {
			return nil, fmt.Errorf("line %d of the record, %.200q: %w", n, line, err)
		}
	}
}

// tracer turns lines of strace into events.
type tracer struct {
	folder string
	begun  map[string][]byte // calls that have begun and not ended, by thread
	events []event
}

const unfinished = " <unfinished ...>"

// read takes one of three kinds of line: a whole call, its beginning, its end.
func (t *tracer) read(line []byte) error {
	thread, text, found := bytes.Cut(line, []byte(" "))
	if !found {
		return errors.New("no process")
	}
	text = bytes.TrimLeft(text, " ")
	id := string(thread)
	switch {
	case bytes.HasPrefix(text, []byte("<... ")):
		begun, ok := t.begun[id]
		delete(t.begun, id)
		_, rest, _ := bytes.Cut(text, []byte(" resumed>"))
		if !ok {
			return nil // nothing of ours
		}
		return t.end(id, append(begun, rest...))
	case bytes.HasSuffix(text, []byte(unfinished)):
		text = bytes.TrimSuffix(text, []byte(unfinished))
		if !t.ours(text) {
			return nil
		}
		t.begun[id] = text
		return t.begin(id, text)
	case t.ours(text):
		if err := t.begin(id, text); err != nil {
			return err
		}
		return t.end(id, text)
	}
	return nil
}

// ours tells whether a call is about the folder or may be an answer.
func (t *tracer) ours(text []byte) bool {
	if bytes.HasPrefix(text, []byte("write(")) && bytes.Contains(text[:min(len(text), 40)], []byte("<socket:")) {
		return true
	}
	return bytes.Contains(text[:min(len(text), 2048)], []byte(t.folder))
}

// begin notes what counts from the beginning of a call: answers and syncs.
func (t *tracer) begin(thread string, text []byte) error {
	c, err := parseCall(text)
	if err != nil || c.name == "" {
		return err
	}
	switch c.name {
	case "write":
		if !strings.HasPrefix(c.args[0].path, "socket:") {
			return nil
		}
		if m := answerID.FindSubmatch(c.args[1].data); m != nil {
			client, _ := strconv.Atoi(string(m[1]))
			step, _ := strconv.Atoi(string(m[2]))
			t.events = append(t.events, event{kind: evAnswer, answer: answer{client, step}})
		}
	case "fsync", "fdatasync":
		if path, ok := t.below(c.args[0].path); ok {
			t.events = append(t.events, event{kind: evSyncing, thread: thread, path: path})
		}
	}
	return nil
}

// end notes what a call has done once it is done.
func (t *tracer) end(thread string, text []byte) error {
	c, err := parseCall(text)
	if err != nil {
		return err
	}
	if c.result < 0 {
		if c.name == "fsync" || c.name == "fdatasync" {
			return errors.New("a sync failed")
		}
		return nil
	}
	e := event{thread: thread}
	target, at := c.target()
	switch c.name {
	case "open", "openat":
		return t.opened(c)
	case "write":
		e.kind, e.offset, e.data = evWrite, -1, c.args[1].data[:min(c.result, int64(len(c.args[1].data)))]
	case "pwrite64":
		e.kind, e.data = evWrite, c.args[1].data[:min(c.result, int64(len(c.args[1].data)))]
		e.offset, err = strconv.ParseInt(c.args[3].text, 10, 64)
	case "ftruncate":
		e.kind = evCut
		e.offset, err = strconv.ParseInt(c.args[1].text, 10, 64)
	case "fsync", "fdatasync":
		e.kind = evSynced
	case "mkdir", "mkdirat":
		e.kind = evFolder
	case "unlink", "unlinkat", "rmdir":
		e.kind = evRemove
	case "rename", "renameat", "renameat2":
		e.kind = evRename
	case "sendfile":
		return nil // only ever to a socket: a file would be refused below
	default:
		if _, ok := t.below(target); ok {
			return fmt.Errorf("the model does not know %s", c.name)
		}
		return nil
	}
	if err != nil {
		return err
	}
	var ok bool
	if e.path, ok = t.below(target); !ok {
		return nil
	}
	if e.kind == evRename {
		next := call{name: c.name, args: c.args[at:]}
		to, _ := next.target()
		if e.to, ok = t.below(to); !ok {
			return errors.New("a rename out of the folder")
		}
	}
	t.events = append(t.events, e)
	return nil
}

// opened notes a file that an open may have made, or emptied.
func (t *tracer) opened(c call) error {
	path, ok := t.below(c.made)
	if !ok {
		return nil
	}
	flags := c.args[1].text
	if c.name == "openat" {
		flags = c.args[2].text
	}
	if strings.Contains(flags, "O_TMPFILE") {
		return errors.New("the model does not know files without a name")
	}
	if strings.Contains(flags, "O_CREAT") {
		t.events = append(t.events, event{kind: evCreate, path: path})
	}
	if strings.Contains(flags, "O_TRUNC") {
		t.events = append(t.events, event{kind: evCut, path: path})
	}
	return nil
}

// below gives a path from the folder on. The memory that SQLite shares between processes is no
// content: it does not survive.
func (t *tracer) below(path string) (string, bool) {
	if path == t.folder {
		return ".", true
	}
	rest, ok := strings.CutPrefix(path, t.folder+"/")
	return rest, ok && !strings.HasSuffix(rest, "-shm") && !strings.HasSuffix(rest, "(deleted)")
}

// call is a line of strace, taken apart.
type call struct {
	name   string
	args   []arg
	result int64
	made   string // the path of the file that was opened
}

// arg is an argument: a text, with the path of a descriptor or the bytes of a string.
type arg struct {
	text string
	path string
	data []byte
}

// target is what a call is about, and how many arguments say so.
func (c call) target() (string, int) {
	if len(c.args) == 0 {
		return "", 0
	}
	first := c.args[0]
	if first.data != nil {
		return string(first.data), 1
	}
	if len(c.args) > 1 && c.args[1].data != nil && strings.HasSuffix(strings.TrimRight(c.name, "2"), "at") {
		if name := string(c.args[1].data); filepath.IsAbs(name) {
			return name, 2
		}
		return filepath.Join(first.path, string(c.args[1].data)), 2
	}
	return first.path, 1
}

// parseCall takes a call apart; of one that has only begun, what is there.
func parseCall(text []byte) (call, error) {
	open := bytes.IndexByte(text, '(')
	if open < 0 {
		return call{}, nil // a process that ends
	}
	c := call{name: string(text[:open])}
	rest := text[open+1:]
	for len(rest) > 0 && rest[0] != ')' {
		a, n, err := parseArg(rest)
		if err != nil {
			return c, err
		}
		c.args = append(c.args, a)
		rest = bytes.TrimLeft(rest[n:], ", ")
	}
	_, outcome, found := bytes.Cut(rest, []byte("= "))
	if !found {
		return c, nil
	}
	number, _, _ := bytes.Cut(outcome, []byte(" "))
	number, path, isFile := bytes.Cut(number, []byte("<"))
	if isFile {
		c.made = strings.TrimSuffix(string(path), ">")
	}
	var err error
	if string(number) == "?" {
		number = []byte("-1") // the process ended in it
	}
	c.result, err = strconv.ParseInt(string(number), 10, 64)
	return c, err
}

func parseArg(text []byte) (arg, int, error) {
	if text[0] == '"' {
		data, n, err := unquote(text)
		return arg{data: data}, n, err
	}
	end := bytes.IndexAny(text, ",)<")
	if end < 0 {
		end = len(text)
	}
	a := arg{text: string(text[:end])}
	if end < len(text) && text[end] == '<' {
		n := bytes.IndexByte(text[end:], '>')
		if n < 0 {
			return a, 0, errors.New("a descriptor without end")
		}
		a.path = string(text[end+1 : end+n])
		end += n + 1
		if bytes.HasPrefix(text[end:], []byte("(deleted)")) {
			a.path += " (deleted)"
			end += len("(deleted)")
		}
	}
	return a, end, nil
}

// escapes of strace beside octal numbers.
var escapes = map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', 'v': '\v', 'f': '\f', '"': '"', '\\': '\\'}

// unquote reads a string of strace and says how long it is there.
func unquote(text []byte) ([]byte, int, error) {
	data := make([]byte, 0, len(text)/2)
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '"':
			if bytes.HasPrefix(text[i+1:], []byte("...")) {
				return nil, 0, errors.New("strace has shortened a string")
			}
			return data, i + 1, nil
		case text[i] != '\\':
			data = append(data, text[i])
		case i+1 < len(text) && text[i+1] >= '0' && text[i+1] <= '7':
			n := 0
			for digits := 0; digits < 3 && i+1 < len(text) && text[i+1] >= '0' && text[i+1] <= '7'; digits++ {
				i++
				n = n*8 + int(text[i]-'0')
			}
			data = append(data, byte(n))
		default:
			i++
			if i == len(text) {
				return nil, 0, errors.New("a string without end")
			}
			plain, known := escapes[text[i]]
			if !known {
				return nil, 0, fmt.Errorf("an escape \\%c", text[i])
			}
			data = append(data, plain)
		}
	}
	return nil, 0, errors.New("a string without end")
}

// readFile reads the record of a file.
func readFile(name, folder string) ([]event, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readRecord(f, folder)
}
