package api

import (
	"encoding"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/batchyard/batchyard/batch"
)

// selectable is what $select may name of an object: its members, and theirs. A
// nil one may have any.
type selectable struct{ members map[string]*selectable }

// plain is a value without members.
func plain() *selectable { return &selectable{} }

// has tells whether a path of names, with slashes between, leads somewhere.
func (s *selectable) has(path string) bool {
	name, below, nested := strings.Cut(path, "/")
	if s == nil {
		return true
	}
	member, found := s.members[name]
	return found && (!nested || member.has(below))
}

// selectableMembers lists, by kind, what $select may name: the members of the
// answers, those that older versions have in their place, and those that the
// protocol has and an answer of ours never shows.
func selectableMembers() map[kind]*selectable {
	all := map[kind]*selectable{}
	for k, t := range answerTypes() {
		all[k] = selectableOf(t)
		for _, path := range slices.Concat(neverShown[kindOther], neverShown[k]) {
			all[k].add(path)
		}
		all[k].addOld(k)
	}
	return all
}

// neverShown are what the protocol has and answers of ours never show; those of
// kindOther are of all kinds.
var neverShown = map[kind][]string{
	kindOther: {"stats", "autoScaleRun", "certificateReferences"},
	kindJob:   {"executionInfo/schedulingError"},
	kindTask:  {"executionInfo/containerInfo"},
	kindNode:  {"endpointConfiguration", "startTaskInfo/containerInfo", "recentTasks/subtaskId", "recentTasks/executionInfo/containerInfo"},
}

// add adds what a path leads to, whatever is in it.
func (s *selectable) add(path string) {
	name, below, nested := strings.Cut(path, "/")
	if nested {
		s.members[name].add(below)
		return
	}
	s.members[name] = nil
}

// selectableOf lists what a type writes as JSON.
func selectableOf(t reflect.Type) *selectable {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice && t != reflect.TypeFor[batch.Opaque]() {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[batch.Opaque](), t.Kind() == reflect.Map, t.Kind() == reflect.Interface:
		return nil
	case t.Kind() != reflect.Struct, writesItself(t):
		return plain()
	}
	s := &selectable{members: map[string]*selectable{}}
	for _, m := range membersOf(t) {
		s.members[m.name] = selectableOf(t.FieldByIndex(m.index).Type)
	}
	return s
}

// writesItself tells that a type has a JSON form other than its fields.
func writesItself(t reflect.Type) bool {
	return slices.ContainsFunc([]reflect.Type{
		reflect.TypeFor[json.Marshaler](), reflect.TypeFor[json.MarshalerTo](), reflect.TypeFor[encoding.TextMarshaler](),
	}, func(form reflect.Type) bool { return t.Implements(form) || reflect.PointerTo(t).Implements(form) })
}

// addOld adds the members that versions have in place of newer ones, whatever
// is in them.
func (s *selectable) addOld(k kind) {
	if s == nil || s.members == nil {
		return
	}
	for _, d := range differences {
		if d.kind == k {
			for _, old := range d.old {
				s.members[old] = nil
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(parts[k])) {
		s.members[name].addOld(parts[k][name])
	}
}
