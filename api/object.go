package api

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// member is a name and a value of a JSON object.
type member struct {
	name  string
	value jsontext.Value
}

// object is a JSON object taken apart one level deep, in the order of its
// text. Only clients of old versions and $select need it.
type object struct{ members []member }

// parseObject takes a JSON object apart. Anything but an object, null
// included, gives ok false: what it means is for the decoder to say.
func parseObject(v jsontext.Value) (o *object, ok bool, err error) {
	if v.Kind() != jsontext.KindBeginObject {
		return nil, false, nil
	}
	d := jsontext.NewDecoder(bytes.NewReader(v))
	if _, err := d.ReadToken(); err != nil {
		return nil, false, err
	}
	o = &object{}
	for d.PeekKind() != jsontext.KindEndObject {
		name, err := d.ReadToken()
		if err != nil {
			return nil, false, err
		}
		m := member{name: name.String()}
		value, err := d.ReadValue()
		if err != nil {
			return nil, false, err
		}
		m.value = value.Clone()
		o.members = append(o.members, m)
	}
	return o, true, nil
}

// parseArray takes a JSON array apart; ok is false for anything else.
func parseArray(v jsontext.Value) (items []jsontext.Value, ok bool, err error) {
	if v.Kind() != jsontext.KindBeginArray {
		return nil, false, nil
	}
	d := jsontext.NewDecoder(bytes.NewReader(v))
	if _, err := d.ReadToken(); err != nil {
		return nil, false, err
	}
	for d.PeekKind() != jsontext.KindEndArray {
		value, err := d.ReadValue()
		if err != nil {
			return nil, false, err
		}
		items = append(items, value.Clone())
	}
	return items, true, nil
}

// text puts the object together again.
func (o *object) text() jsontext.Value {
	b := []byte{'{'}
	for i, m := range o.members {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, m.name)
		b = append(b, ':')
		b = append(b, m.value...)
	}
	return append(b, '}')
}

// arrayText is parseArray the other way round.
func arrayText(items []jsontext.Value) jsontext.Value {
	return append(append([]byte{'['}, bytes.Join(rawItems(items), []byte{','})...), ']')
}

func rawItems(items []jsontext.Value) [][]byte {
	raw := make([][]byte, len(items))
	for i := range items {
		raw[i] = items[i]
	}
	return raw
}

// index looks at one member after the other: objects of the protocol are small,
// and the order of their text has to be kept.
func (o *object) index(name string) int {
	for i := range o.members {
		if o.members[i].name == name {
			return i
		}
	}
	return -1
}

// get gives the value of a member, nil if there is none.
func (o *object) get(name string) jsontext.Value {
	if i := o.index(name); i >= 0 {
		return o.members[i].value
	}
	return nil
}

// take removes a member and gives its value, nil if there was none.
func (o *object) take(name string) jsontext.Value {
	i := o.index(name)
	if i < 0 {
		return nil
	}
	v := o.members[i].value
	o.members = append(o.members[:i], o.members[i+1:]...)
	return v
}

// set replaces or appends a member; a nil value is not set.
func (o *object) set(name string, v jsontext.Value) {
	if v == nil {
		return
	}
	if i := o.index(name); i >= 0 {
		o.members[i].value = v
		return
	}
	o.members = append(o.members, member{name, v})
}

// appendString appends a JSON string. Text that is not UTF-8, which only file
// names have, gets the replacement character.
func appendString(b []byte, s string) []byte {
	b, err := jsontext.AppendQuote(b, s)
	if err != nil {
		return b // AppendQuote has replaced what was invalid
	}
	return b
}
