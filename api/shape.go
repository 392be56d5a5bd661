package api

import (
	"maps"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/batchyard/batchyard/batch"
)

// difference is one way in which objects of a kind were otherwise in a range
// of versions. Down rewrites an answer from the newest form, up a request
// towards it; either may be nil.
type difference struct {
	kind kind
	// since and before bound the versions in which it holds; an empty one does
	// not bound.
	since, before string
	down          func(*object)
	up            func(*object)
	// unknown are members of the newest form that the version does not have,
	// old are those that it has instead.
	unknown, old []string
}

// holds compares by text, which is by date; a bound without the number of the
// protocol comes before all versions of its day.
func (d difference) holds(version string) bool {
	return (d.since == "" || version >= d.since) && (d.before == "" || version < d.before)
}

// renamed says that a member had another name before a version.
func renamed(k kind, name, old, before string) difference {
	return difference{
		kind: k, before: before, unknown: []string{name}, old: []string{old},
		down: func(o *object) {
			if i := o.index(name); i >= 0 {
				o.members[i].name = old
			}
		},
		up: func(o *object) {
			if i := o.index(old); i >= 0 {
				o.members[i].name = name
			}
		},
	}
}

// added says that members came with a version: before it they are not shown
// and not accepted.
func added(k kind, since string, names ...string) difference {
	d := hidden(k, since, names...)
	d.unknown = names
	return d
}

// removed says that members went away with a version.
func removed(k kind, since string, names ...string) difference {
	d := hidden(k, "", names...)
	d.since, d.unknown = since, names
	return d
}

// hidden says that members are not shown before a version. By itself it
// is for members of answers, which nobody sends.
func hidden(k kind, before string, names ...string) difference {
	return difference{kind: k, before: before, down: func(o *object) {
		for _, name := range names {
			o.take(name)
		}
	}}
}

// reshaped is any other difference; old are members that only the older
// versions have.
func reshaped(k kind, before string, down, up func(*object), old ...string) difference {
	return difference{kind: k, before: before, down: down, up: up, old: old}
}

// setDefault sets a member that is absent or null.
func (o *object) setDefault(name, text string) {
	if v := o.get(name); v == nil || string(v) == "null" {
		o.set(name, jsontext.Value(text))
	}
}

// unseen says that members came with a version, and leaves answers alone: those
// of which there are many, to versions that are in use, are not rewritten for
// what hardly one of them has.
func unseen(k kind, since string, names ...string) difference {
	return difference{kind: k, before: since, unknown: names}
}

// from limits a difference to the versions from one on.
func (d difference) from(since string) difference {
	d.since = since
	return d
}

// version is one published api-version with the rewrites it needs, and what it
// does not have. It is made once and never changes.
type version struct {
	name     string
	shapes   map[kind]*shape
	refusals map[kind]*refusal
}

// before tells whether the version is older than a date.
func (v *version) before(date string) bool { return v.name < date }

// hasOld tells whether a name is one that the version has in place of a newer one.
func (v *version) hasOld(name string) bool {
	return slices.ContainsFunc(differences, func(d difference) bool { return d.holds(v.name) && slices.Contains(d.old, name) })
}

// shape rewrites objects of a kind for one version. A nil shape means that
// nothing differs. Rewrites see a JSON object and no type of package batch: these
// are of the newest version, and have no place for what older ones had.
type shape struct {
	changes []difference
	parts   map[string]*shape
}

// compileVersions makes the shapes of all versions from the table.
func compileVersions() map[string]*version {
	versions := make(map[string]*version, len(published))
	for _, name := range published {
		v := &version{name: name, shapes: map[kind]*shape{}, refusals: compileRefusals(name)}
		for _, d := range differences {
			v.compile(d.kind)
		}
		for _, k := range slices.Sorted(maps.Keys(parts)) {
			v.compile(k)
		}
		versions[name] = v
	}
	return versions
}

// compile makes the shape of a kind and of its parts, nil if there is no
// difference in any of them.
func (v *version) compile(k kind) *shape {
	if s, done := v.shapes[k]; done {
		return s
	}
	s := &shape{parts: map[string]*shape{}}
	for _, d := range differences {
		if d.kind == k && d.holds(v.name) && (d.down != nil || d.up != nil) {
			s.changes = append(s.changes, d)
		}
	}
	for name, part := range parts[k] {
		if p := v.compile(part); p != nil {
			s.parts[name] = p
		}
	}
	if len(s.changes) == 0 && len(s.parts) == 0 {
		s = nil
	}
	v.shapes[k] = s
	return s
}

// down rewrites an answer for the version. Parts are found by their newest
// names, which they have until the object itself is rewritten: so they come first
// here, and last on the way up.
func (s *shape) down(v jsontext.Value) (jsontext.Value, error) {
	o, ok, err := parseObject(v)
	if err != nil || !ok {
		return v, err
	}
	if err := s.eachPart(o, (*shape).down); err != nil {
		return nil, err
	}
	for _, c := range s.changes {
		if c.down != nil {
			c.down(o)
		}
	}
	return o.text(), nil
}

// up rewrites a request to the newest form. What is no JSON is refused. Names that
// the version does not have yet were refused before, see refusal: here they pass.
func (s *shape) up(v jsontext.Value) (jsontext.Value, error) {
	o, ok, err := parseObject(v)
	if err != nil || !ok {
		return v, err
	}
	for _, c := range s.changes {
		if c.up != nil {
			c.up(o)
		}
	}
	if err := s.eachPart(o, (*shape).up); err != nil {
		return nil, err
	}
	return o.text(), nil
}

// eachPart rewrites the members that have a shape of their own: objects and
// arrays of objects.
func (s *shape) eachPart(o *object, rewrite func(*shape, jsontext.Value) (jsontext.Value, error)) error {
	for i := range o.members {
		m := &o.members[i]
		part := s.parts[m.name]
		if part == nil {
			continue
		}
		items, isArray, err := parseArray(m.value)
		if err != nil {
			return err
		}
		if !isArray {
			if m.value, err = rewrite(part, m.value); err != nil {
				return err
			}
			continue
		}
		for j := range items {
			if items[j], err = rewrite(part, items[j]); err != nil {
				return err
			}
		}
		m.value = arrayText(items)
	}
	return nil
}

// unknownProperty refuses a member that an operation does not have.
func unknownProperty(property, version string) *batch.Error {
	return &batch.Error{
		Code:    batch.CodeInvalidRequestBody,
		Message: "The specified request body is not valid.",
		Details: []batch.Detail{
			{Key: "PropertyName", Value: clip(property)},
			{Key: "Reason", Value: "The property is not known to this operation in api-version " + version},
		},
	}
}
