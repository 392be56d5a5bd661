package api

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// refusal is what a version does not have of a kind of objects, and in its
// parts. A nil one refuses nothing.
type refusal struct {
	version string
	names   map[string]bool
	parts   map[string]*refusal
	// signs are all names in quotes, here and in the parts: a body without any
	// of them needs no closer look.
	signs [][]byte
}

// compileRefusals makes those of all kinds from the table of differences.
func compileRefusals(version string) map[kind]*refusal {
	all := map[kind]*refusal{}
	for _, d := range differences {
		compileRefusal(version, d.kind, all)
	}
	for _, k := range slices.Sorted(maps.Keys(parts)) {
		compileRefusal(version, k, all)
	}
	return all
}

// compileRefusal makes that of one kind, and before it those of its parts, each
// once: kinds stand in several others. A kind in which the version lacks nothing
// has none, nor does it show in the kinds that it is part of.
func compileRefusal(version string, k kind, all map[kind]*refusal) *refusal {
	if r, done := all[k]; done {
		return r
	}
	r := &refusal{version: version, names: map[string]bool{}, parts: map[string]*refusal{}}
	signs := map[string]bool{}
	for _, d := range differences {
		if d.kind != k || !d.holds(version) {
			continue
		}
		for _, name := range d.unknown {
			r.names[name], signs[name] = true, true
		}
	}
	for name, part := range parts[k] {
		if p := compileRefusal(version, part, all); p != nil {
			r.parts[name] = p
			for _, sign := range p.signs {
				signs[string(bytes.Trim(sign, `"`))] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(signs)) {
		r.signs = append(r.signs, []byte(`"`+name+`"`))
	}
	if len(r.signs) == 0 {
		r = nil
	}
	all[k] = r
	return r
}

// mayApply is quick and errs on the side of a closer look: a name may be
// written with escapes.
func (r *refusal) mayApply(text []byte) bool {
	if r == nil {
		return false
	}
	return bytes.Contains(text, []byte(`\u`)) ||
		slices.ContainsFunc(r.signs, func(sign []byte) bool { return bytes.Contains(text, sign) })
}

// check refuses the first member of an object that the version does not have. At
// is where the object stands in the body. What is wrong in other ways is for
// the decoder to say.
func (r *refusal) check(v jsontext.Value, at string) error {
	o, ok, err := parseObject(v)
	if err != nil || !ok {
		return nil //nolint:nilerr // the decoder says it better
	}
	for _, m := range o.members {
		path := m.name
		if at != "" {
			path = at + "." + m.name
		}
		if r.names[m.name] {
			return unknownProperty(path, r.version)
		}
		part := r.parts[m.name]
		if part == nil {
			continue
		}
		items, isArray, err := parseArray(m.value)
		if err != nil {
			return nil //nolint:nilerr // as above
		}
		if !isArray {
			items = []jsontext.Value{m.value}
		}
		for i, item := range items {
			where := path
			if isArray {
				where = fmt.Sprintf("%s[%d]", path, i)
			}
			if err := part.check(item, where); err != nil {
				return err
			}
		}
	}
	return nil
}
