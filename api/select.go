package api

import (
	"bytes"
	"reflect"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/batchyard/batchyard/odata"
)

// selection reads $select for answers of a kind.
func (c *call) selection(k kind) (odata.Selection, error) {
	text := c.query["$select"]
	if text == "" {
		return odata.Selection{}, nil
	}
	s, err := odata.ParseSelection(text, c.selectable[k].has)
	if err != nil {
		return s, badParameter("$select", text, err.Error())
	}
	return s, nil
}

// checkExpand accepts what the protocol knows to expand. Statistics are not
// kept, so that there is nothing to add to an answer.
func (c *call) checkExpand() error {
	text := c.query["$expand"]
	if _, err := odata.ParseExpand(text, "stats"); err != nil {
		return badParameter("$expand", text, err.Error())
	}
	return nil
}

// namePrefix reads the one filter that lists of files have.
func namePrefix(filter string) (string, error) {
	if filter == "" {
		return "", nil
	}
	e, err := odata.Parse(filter)
	if err != nil {
		return "", badParameter("$filter", filter, err.Error())
	}
	if s, ok := e.(*odata.StartsWith); ok && s.Name.Path == "name" {
		if prefix, ok := s.Prefix.Value.(string); ok {
			return prefix, nil
		}
	}
	return "", badParameter("$filter", filter, "Files are filtered by startswith(name,'prefix')")
}

// answerTypes are the answers from which members may be selected.
func answerTypes() map[kind]reflect.Type {
	return map[kind]reflect.Type{
		kindPool: reflect.TypeFor[poolAnswer](), kindNode: reflect.TypeFor[nodeAnswer](),
		kindJob: reflect.TypeFor[jobAnswer](), kindTask: reflect.TypeFor[taskAnswer](),
	}
}

// keepSelected drops from an answer what was not selected; its odata.metadata
// always stays.
func keepSelected(s odata.Selection, text jsontext.Value) (jsontext.Value, error) {
	if s.All() {
		return text, nil
	}
	var b bytes.Buffer
	e := jsontext.NewEncoder(&b)
	if err := copySelected(e, jsontext.NewDecoder(bytes.NewReader(text)), s); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

// copySelected copies a value without what was not selected. A list is nothing of
// its own here: what holds of a member holds of each item in it.
func copySelected(e *jsontext.Encoder, d *jsontext.Decoder, s odata.Selection) error {
	k := d.PeekKind()
	if s.All() || (k != jsontext.KindBeginObject && k != jsontext.KindBeginArray) {
		v, err := d.ReadValue()
		if err != nil {
			return err
		}
		return e.WriteValue(v)
	}
	begin, err := d.ReadToken()
	if err != nil {
		return err
	}
	if err := e.WriteToken(begin); err != nil {
		return err
	}
	for d.PeekKind() != jsontext.KindEndObject && d.PeekKind() != jsontext.KindEndArray {
		sub := s
		if k == jsontext.KindBeginObject {
			t, err := d.ReadToken()
			if err != nil {
				return err
			}
			name := t.String()
			var kept bool
			if sub, kept = s.Keep(name); !kept && name != "odata.metadata" {
				if err := d.SkipValue(); err != nil {
					return err
				}
				continue
			}
			if err := e.WriteToken(jsontext.String(name)); err != nil {
				return err
			}
		}
		if err := copySelected(e, d, sub); err != nil {
			return err
		}
	}
	end, err := d.ReadToken()
	if err != nil {
		return err
	}
	return e.WriteToken(end)
}
