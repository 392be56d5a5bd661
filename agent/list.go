package agent

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/batchyard/batchyard/batch"
)

const (
	// maxListed bounds the files of a page, maxListedBytes what they take on
	// the wire.
	maxListed      = 1000
	maxListedBytes = 2 << 20
	// maxDeep bounds the folders in each other that a listing goes into, and
	// maxPath the bytes of their path. Each costs the more the deeper it is, and
	// a task can make them by the million.
	maxDeep = 200
	maxPath = 4096
	// listTime bounds the search for the entries of a page.
	listTime = 20 * time.Second
	// maxKept bounds the names of one folder that are kept at a time, and
	// readPiece those that are read at once: a folder may have any number.
	maxKept   = 256
	readPiece = 1024
)

// list pages through a directory. Names are relative to the shelf and sorted by
// their parts, folders before what is in them.
func (s shelf) list(ctx context.Context, start string, r batch.FileRequest) (batch.FileAnswer, error) {
	if info, err := s.root.Stat(start); err != nil || !info.IsDir() {
		return batch.FileAnswer{}, batch.Errorf(batch.CodeFilePathNotFound, "The specified directory does not exist.")
	}
	l := &listing{shelf: s, request: r, ctx: ctx, most: maxListed, end: time.Now().Add(listTime), files: []batch.File{}}
	if r.Max > 0 {
		l.most = min(r.Max, maxListed)
	}
	if below, is := folderOf(r); is {
		start = below
		if info, err := s.root.Stat(below); err != nil || !info.IsDir() {
			start = "" // nothing has a name that begins so
		}
	}
	if start != "" {
		if err := l.folder(start); err != nil && !errors.Is(err, errPageFull) {
			return batch.FileAnswer{}, err
		}
	}
	if l.more && len(l.files) == 0 {
		return batch.FileAnswer{}, batch.Errorf(batch.CodeOperationTimedOut, "The directory has too many entries to find those that were asked for in time.")
	}
	return batch.FileAnswer{Files: l.files, More: l.more}, nil
}

// listing is the search for one page. It keeps a bounded number of names,
// however many a folder has.
type listing struct {
	shelf
	request batch.FileRequest
	ctx     context.Context //nolint:containedctx // the lifetime of the listing
	end     time.Time       // of the search
	most    int

	files []batch.File
	bytes int
	more  bool
}

// errPageFull ends a search.
var errPageFull = errors.New("the page is full")

// found is an entry of a folder that a page may be about.
type found struct {
	name  string
	isDir bool
}

// folder adds what is on the page of a folder and of those in it. It goes
// through the folder once for each maxKept names, in their order.
func (l *listing) folder(folder string) error {
	for after := ""; ; {
		entries, err := l.next(folder, after)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if err := l.entry(path.Join(folder, entry.name), entry.isDir); err != nil {
				return err
			}
		}
		if len(entries) < maxKept {
			return nil
		}
		after = entries[len(entries)-1].name
	}
}

// entry adds one, and what is in it.
func (l *listing) entry(shown string, isDir bool) error {
	if l.listed(shown) {
		if info, err := l.root.Lstat(shown); err == nil { // else it is gone
			file := describe(shown, info)
			if l.bytes += wireSize(file); len(l.files) == l.most || len(l.files) > 0 && l.bytes > maxListedBytes {
				l.more = true
				return errPageFull
			}
			l.files = append(l.files, file)
		}
	}
	if isDir && l.entered(shown) {
		return l.folder(shown)
	}
	return nil
}

// wireSize is about how many bytes a file takes in an answer.
func wireSize(f batch.File) int {
	size := 256
	for _, b := range []byte(f.Name) {
		if size++; b < ' ' || b == '"' || b == '\\' || b > '~' {
			size += 5
		}
	}
	return size
}

// listed tells whether an entry is on this page or on one behind it.
func (l *listing) listed(shown string) bool {
	return comesAfter(shown, l.request.After) && strings.HasPrefix(shown, l.request.Prefix)
}

// entered tells whether something in a folder may be.
func (l *listing) entered(shown string) bool {
	return l.request.Recursive && len(shown) <= maxPath && strings.Count(shown, "/") < maxDeep && !outside(shown, l.request)
}

// next are the first maxKept entries of a folder behind a name that may be on
// the page. A folder that is gone, or that cannot be read, has none.
func (l *listing) next(folder, after string) ([]found, error) {
	file, err := l.root.OpenFile(folder, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil
	}
	defer file.Close()
	var kept []found
	for {
		piece, err := file.ReadDir(readPiece)
		for _, entry := range piece {
			e := found{entry.Name(), entry.IsDir()}
			if shown := path.Join(folder, e.name); e.name > after && (l.listed(shown) || e.isDir && l.entered(shown)) {
				kept = append(kept, e)
			}
		}
		if len(kept) >= 4*maxKept || err != nil {
			kept = first(kept)
		}
		switch {
		case errors.Is(err, io.EOF):
			return kept, nil
		case err != nil:
			return nil, nil
		case l.ctx.Err() != nil:
			return nil, l.ctx.Err()
		case time.Now().After(l.end):
			l.more = true
			return nil, errPageFull
		}
	}
}

// first are the first maxKept of entries.
func first(entries []found) []found {
	slices.SortFunc(entries, func(a, b found) int { return cmp.Compare(a.name, b.name) })
	return entries[:min(len(entries), maxKept)]
}

// folderOf is the folder whose direct children a list is of that does not go
// into folders and whose names begin with the path of one: so tools open
// folders, startswith(name,'wd/out/').
func folderOf(r batch.FileRequest) (string, bool) {
	end := strings.LastIndexByte(r.Prefix, '/')
	if r.Recursive || r.Path != "" || end < 0 || !fs.ValidPath(r.Prefix[:end]) {
		return "", false
	}
	return r.Prefix[:end], true
}

// outside tells that nothing in a folder can be on the page.
func outside(folder string, r batch.FileRequest) bool {
	inside := folder + "/"
	if !strings.HasPrefix(inside, r.Prefix) && !strings.HasPrefix(r.Prefix, inside) {
		return true
	}
	return r.After != "" && !strings.HasPrefix(r.After, inside) && !comesAfter(inside, r.After)
}

// comesAfter compares paths part by part, as the listing goes.
func comesAfter(name, after string) bool {
	if after == "" {
		return true
	}
	return slices.Compare(strings.Split(name, "/"), strings.Split(after, "/")) > 0
}
