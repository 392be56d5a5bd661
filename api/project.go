package api

import (
	"bytes"
	"reflect"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/batchyard/batchyard/odata"
)

// answerMember is a member of an answer's JSON, and where its value is.
type answerMember struct {
	name      string
	index     []int
	omitEmpty bool
	omitZero  bool
}

// membersOf lists the members of an answer as they are encoded, those of
// embedded structs in their place.
func membersOf(t reflect.Type) []answerMember {
	var members []answerMember
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" {
			members = append(members, answerMember{
				name: name, index: f.Index,
				omitEmpty: strings.Contains(options, "omitempty"), omitZero: strings.Contains(options, "omitzero"),
			})
			continue
		}
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if f.Anonymous && inner.Kind() == reflect.Struct {
			for _, m := range membersOf(inner) {
				m.index = append([]int{i}, m.index...)
				members = append(members, m)
			}
		}
	}
	return members
}

// projection is the members of a kind's answers that a request has selected.
// It encodes these alone, where keepSelected throws away most of what has been
// encoded: of a thousand tasks that is what counts.
type projection []projectedMember

// projectedMember is a selected member, whole or in part.
type projectedMember struct {
	answerMember
	sub odata.Selection // of the member's own members
}

// project says how to encode what is selected; nil if it has to be done the long
// way.
func (c *call) project(k kind, selected odata.Selection) projection {
	if selected.All() || c.version.shapes[k] != nil {
		return nil
	}
	var p projection
	for _, m := range c.members[k] {
		if sub, kept := selected.Keep(m.name); kept {
			p = append(p, projectedMember{m, sub})
		}
	}
	return p
}

// write encodes the members of an answer, a pointer to a struct.
func (p projection) write(b *bytes.Buffer, answer any) error {
	v := reflect.ValueOf(answer).Elem()
	b.WriteByte('{')
	empty := b.Len()
	for i := range p {
		m := &p[i]
		f, err := v.FieldByIndexErr(m.index)
		if err != nil || m.omitZero && isZero(f) {
			continue // an embedded part that is not there
		}
		begin := b.Len()
		if begin > empty {
			b.WriteByte(',')
		}
		b.WriteByte('"')
		b.WriteString(m.name)
		b.WriteString(`":`)
		value := b.Len()
		if err := m.writeValue(b, f); err != nil {
			return err
		}
		if m.omitEmpty && isEmptyJSON(b.Bytes()[value:]) {
			b.Truncate(begin)
		}
	}
	b.WriteByte('}')
	return nil
}

// writeValue writes a member that was selected whole without a detour; of one that
// was selected in part all is encoded first. Such members are small.
func (m *projectedMember) writeValue(b *bytes.Buffer, f reflect.Value) error {
	if m.sub.All() {
		return json.MarshalWrite(b, f.Addr().Interface())
	}
	text, err := json.Marshal(f.Addr().Interface())
	if err == nil {
		text, err = keepSelected(m.sub, text)
	}
	b.Write(text)
	return err
}

// isZero is what omitzero asks.
func isZero(v reflect.Value) bool {
	if z, ok := v.Addr().Interface().(interface{ IsZero() bool }); ok {
		return z.IsZero()
	}
	return v.IsZero()
}

// isEmptyJSON is what omitempty asks.
func isEmptyJSON(text []byte) bool {
	switch string(text) {
	case "null", `""`, "[]", "{}":
		return true
	}
	return false
}
