package storage_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const sector = 512

// disk is a folder on a disk whose power may fail.
type disk struct {
	root *item
	// ignores are syncs that do nothing, for a test of the checks; nil for an honest disk.
	ignores func(path string, i *item) bool
	syncing map[string]mark // syncs that have begun, by thread
	order   int             // of changes, over all of the disk
}

// item is a file or a folder: what is safe, what processes see, and the changes between them.
type item struct {
	folder bool

	safe, seen []byte
	writes     []write

	safeNames, seenNames map[string]*item
	renames              []*naming
}

// write is a change of a file that has not been synced: bytes at an offset, or a new length.
type write struct {
	order  int
	offset int64
	data   []byte
	cut    bool
}

// naming is a change of names that has not been synced. A rename is one change of two names, maybe
// in two folders.
type naming struct {
	order   int
	item    *item
	add     place
	removal place
}

type place struct {
	folder *item // nil for none
	name   string
}

// mark is what a sync covers.
type mark struct {
	item  *item
	order int
}

func newFolder() *item {
	return &item{folder: true, safeNames: map[string]*item{}, seenNames: map[string]*item{}}
}

func newDisk() *disk { return &disk{root: newFolder(), syncing: map[string]mark{}} }

// find gives what is seen at a path, and nil if nothing is.
func (d *disk) find(name string) *item {
	i := d.root
	if name == "." {
		return i
	}
	for part := range strings.SplitSeq(name, "/") {
		if i = i.seenNames[part]; i == nil {
			return nil
		}
	}
	return i
}

func (d *disk) place(name string) (place, error) {
	folder := d.find(path.Dir(name))
	if folder == nil || !folder.folder {
		return place{}, fmt.Errorf("%s is in a folder that the model has not seen", name)
	}
	return place{folder, path.Base(name)}, nil
}

// apply makes a change that a process made.
func (d *disk) apply(e event) error {
	d.order++
	i := d.find(e.path)
	switch e.kind {
	case evAnswer:
		return nil
	case evCreate, evFolder:
		if i != nil {
			return nil // it was there
		}
		made := &item{}
		if e.kind == evFolder {
			made = newFolder()
		}
		return d.name(made, "", e.path)
	case evSynced:
		d.synced(d.syncing[e.thread])
		return nil
	}
	if i == nil {
		return fmt.Errorf("%s of %s, which the model has not seen", e.kind, e.path)
	}
	switch e.kind {
	case evWrite:
		if e.offset < 0 {
			e.offset = int64(len(i.seen))
		}
		d.write(i, write{offset: e.offset, data: e.data})
	case evCut:
		d.write(i, write{offset: e.offset, cut: true})
	case evRename:
		return d.name(i, e.path, e.to)
	case evRemove:
		return d.name(i, e.path, "")
	case evSyncing:
		m := mark{item: i, order: d.order}
		if d.ignores != nil && d.ignores(e.path, i) {
			m.item = nil
		}
		d.syncing[e.thread] = m
	}
	return nil
}

func (d *disk) write(i *item, w write) {
	w.order = d.order
	i.seen = w.apply(i.seen)
	i.writes = append(i.writes, w)
}

// apply changes content.
func (w write) apply(content []byte) []byte {
	end := int(w.offset) + len(w.data)
	if w.cut {
		content = content[:min(len(content), end)]
	}
	if short := end - len(content); short > 0 {
		content = append(content, make([]byte, short)...)
	}
	copy(content[w.offset:], w.data)
	return content
}

// name gives an item a name, takes one away, or both.
func (d *disk) name(i *item, from, to string) error {
	n := &naming{order: d.order, item: i}
	var err error
	if from != "" {
		if n.removal, err = d.place(from); err != nil {
			return err
		}
	}
	if to != "" {
		if n.add, err = d.place(to); err != nil {
			return err
		}
	}
	n.apply(func(f *item) map[string]*item { return f.seenNames })
	for _, p := range []place{n.removal, n.add} {
		if p.folder != nil && !slices.Contains(p.folder.renames, n) {
			p.folder.renames = append(p.folder.renames, n)
		}
	}
	return nil
}

// apply changes names in those that are given for a folder, which are nil for a folder that is not
// there.
func (n *naming) apply(names func(*item) map[string]*item) {
	if p := n.removal; p.folder != nil && names(p.folder) != nil && names(p.folder)[p.name] == n.item {
		delete(names(p.folder), p.name)
	}
	if p := n.add; p.folder != nil && names(p.folder) != nil {
		names(p.folder)[p.name] = n.item
	}
}

// synced makes safe what had been changed when the sync began.
func (d *disk) synced(m mark) {
	if m.item == nil {
		return
	}
	for len(m.item.writes) > 0 && m.item.writes[0].order < m.order {
		m.item.safe = m.item.writes[0].apply(m.item.safe)
		m.item.writes = m.item.writes[1:]
	}
	for len(m.item.renames) > 0 && m.item.renames[0].order < m.order {
		n := m.item.renames[0]
		n.apply(func(f *item) map[string]*item { return f.safeNames })
		for _, p := range []place{n.removal, n.add} {
			if p.folder != nil {
				p.folder.renames = slices.DeleteFunc(p.folder.renames, func(other *naming) bool { return other == n })
			}
		}
	}
}

// cut is one way in which the power may fail.
type cut struct {
	random *rand.Rand
	kept   map[*naming]bool
	names  map[*item]map[string]*item
}

// fail writes what a failure of the power leaves into an empty folder.
func (d *disk) fail(random *rand.Rand, folder string) error {
	c := &cut{random: random, kept: map[*naming]bool{}, names: map[*item]map[string]*item{}}
	c.name(d)
	return c.leave(d.root, folder)
}

// ways of losing what was not synced.
const (
	loseAll = iota
	loseNone
	loseLast
	loseSome
	ways
)

// name decides which names are there, oldest change first.
func (c *cut) name(d *disk) {
	var all []*naming
	seen := map[*item]bool{}
	var gather func(i *item)
	gather = func(i *item) {
		if seen[i] || !i.folder {
			return
		}
		seen[i] = true
		c.names[i] = maps.Clone(i.safeNames)
		for _, n := range i.renames {
			if !slices.Contains(all, n) {
				all = append(all, n)
			}
			gather(n.item)
		}
		for _, names := range []map[string]*item{i.safeNames, i.seenNames} {
			for _, name := range slices.Sorted(maps.Keys(names)) {
				gather(names[name])
			}
		}
	}
	gather(d.root)
	slices.SortFunc(all, func(a, b *naming) int { return a.order - b.order })
	way, until := c.random.IntN(ways), c.random.IntN(len(all)+1)
	for n, change := range all {
		if c.keeps(way, n, until) {
			change.apply(func(f *item) map[string]*item { return c.names[f] })
		}
	}
}

func (c *cut) keeps(way, n, until int) bool {
	switch way {
	case loseAll:
		return false
	case loseNone:
		return true
	case loseLast:
		return n < until
	default:
		return c.random.IntN(2) == 0
	}
}

// leave writes a file or a folder as it is found after the cut.
func (c *cut) leave(i *item, name string) error {
	if !i.folder {
		return os.WriteFile(name, c.content(i), 0o600)
	}
	if err := os.Mkdir(name, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, base := range slices.Sorted(maps.Keys(c.names[i])) {
		if err := c.leave(c.names[i][base], filepath.Join(name, base)); err != nil {
			return err
		}
	}
	return nil
}

// content is that of a file. Each write that is kept may be torn.
func (c *cut) content(i *item) []byte {
	content := bytes.Clone(i.safe)
	way, until := c.random.IntN(ways), c.random.IntN(len(i.writes)+1)
	torn := c.random.IntN(2) == 0
	for n, w := range i.writes {
		switch {
		case !c.keeps(way, n, until):
		case torn && c.random.IntN(4) == 0 && !w.cut:
			content = c.tear(content, w)
		default:
			content = w.apply(content)
		}
	}
	return content
}

// tear applies some sectors of a write, half of it, or its length alone with garbage for content.
func (c *cut) tear(content []byte, w write) []byte {
	before := len(content)
	whole := w.apply(bytes.Clone(content))
	torn := append(content, make([]byte, len(whole)-before)...)
	if c.random.IntN(4) == 0 {
		for n := max(before, int(w.offset)); n < len(torn); n++ {
			torn[n] = byte(c.random.Uint32())
		}
		return torn
	}
	first, last := int(w.offset)/sector, (int(w.offset)+len(w.data)-1)/sector
	half, halves := (first+last+1)/2, c.random.IntN(3)
	for s := first; s <= last; s++ {
		from, to := max(s*sector, int(w.offset)), min((s+1)*sector, len(torn))
		if halves == 1 && s < half || halves == 2 && s >= half || halves == 0 && c.random.IntN(2) == 0 {
			copy(torn[from:to], whole[from:to])
		}
	}
	return torn
}

// same compares what processes see in the model with a real folder: the record must be complete.
func (d *disk) same(folder string) error {
	files := map[string]*item{}
	var gather func(name string, i *item)
	gather = func(name string, i *item) {
		files[name] = i
		for base, below := range i.seenNames {
			gather(path.Join(name, base), below)
		}
	}
	gather(".", d.root)
	err := filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(folder, name)
		if err != nil || strings.HasSuffix(below, "-shm") {
			return err
		}
		i := files[below]
		delete(files, below)
		if i == nil || i.folder != entry.IsDir() {
			return fmt.Errorf("%s is not in the model", below)
		}
		if i.folder {
			return nil
		}
		content, err := os.ReadFile(name)
		if err == nil && !bytes.Equal(content, i.seen) {
			err = fmt.Errorf("%s has %d bytes, others than the %d of the model", below, len(content), len(i.seen))
		}
		return err
	})
	if err == nil && len(files) > 0 {
		err = fmt.Errorf("in the model alone: %v", slices.Sorted(maps.Keys(files)))
	}
	return err
}
