package odata

import (
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	maxNames     = 200     // names in a $select or $expand
	maxNamesText = 4 << 10 // bytes of one
)

// Selection is a $select: the properties that an answer keeps. The zero value
// keeps everything. It is a tree, so that whoever writes an answer can walk it
// beside the answer:
//
//	sub, ok := s.Keep("executionInfo") // ok: write the member
//	_, ok = sub.Keep("exitCode")       // within it, the same again
type Selection struct {
	members map[string]Selection // nil: everything
}

// ParseSelection reads a $select: names with commas between, nested ones with
// slashes, * for everything. What known does not know is refused with an
// [*Error]. Without a text it is the zero value.
func ParseSelection(text string, known func(name string) bool) (Selection, error) {
	names, err := parseNames(text)
	if err != nil {
		return Selection{}, err
	}
	var s Selection
	for _, n := range names {
		if n.Path == "*" {
			return Selection{}, nil
		}
		if !known(n.Path) {
			return Selection{}, fail(n.At, "there is no property %s to select", clip(n.Path))
		}
		s.add(strings.Split(n.Path, "/"))
	}
	return s, nil
}

// add keeps what the path leads to, unless it is kept already.
func (s *Selection) add(path []string) {
	if s.members == nil {
		s.members = map[string]Selection{}
	}
	sub, had := s.members[path[0]]
	switch {
	case len(path) == 1:
		s.members[path[0]] = Selection{}
	case !had || sub.members != nil:
		sub.add(path[1:])
		s.members[path[0]] = sub
	}
}

// All reports whether everything is kept, so that a value can be copied whole.
func (s Selection) All() bool { return s.members == nil }

// Keep reports whether the member of an object is kept, and which part of it.
// The elements of an array are kept like the array.
func (s Selection) Keep(member string) (Selection, bool) {
	if s.members == nil {
		return Selection{}, true
	}
	sub, ok := s.members[member]
	return sub, ok
}

// ParseExpand reads an $expand: names with commas between, each among those
// that the resource can expand. What is refused is an [*Error].
func ParseExpand(text string, known ...string) ([]string, error) {
	names, err := parseNames(text)
	if err != nil {
		return nil, err
	}
	var expanded []string
	for _, n := range names {
		if !slices.Contains(known, n.Path) {
			return nil, fail(n.At, "%s cannot be expanded here", clip(n.Path))
		}
		if !slices.Contains(expanded, n.Path) {
			expanded = append(expanded, n.Path)
		}
	}
	return expanded, nil
}

// parseNames splits at commas and keeps the positions.
func parseNames(text string) ([]Name, error) {
	if len(text) > maxNamesText {
		return nil, fail(0, "the list of names is longer than %d bytes", maxNamesText)
	}
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var names []Name
	at := 1
	for part := range strings.SplitSeq(text, ",") {
		if len(names) == maxNames {
			return nil, fail(at, "the list has more than %d names", maxNames)
		}
		name := strings.TrimSpace(part)
		if name == "" {
			return nil, fail(at, "a name is missing here")
		}
		start := at + strings.Index(part, name)
		if err := checkPath(name, start); err != nil {
			return nil, err
		}
		names = append(names, Name{At: start, Path: name})
		at += utf8.RuneCountInString(part) + 1
	}
	return names, nil
}
