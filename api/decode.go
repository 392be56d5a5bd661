package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/batchyard/batchyard/batch"
)

// decode reads the body, an object of a kind, into a value of package batch.
// A request without a body is refused.
func (c *call) decode(k kind, into any) error {
	body, err := c.readBody()
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return &batch.Error{Code: batch.CodeInvalidRequestBody, Message: "The operation needs a request body."}
	}
	return c.unmarshal(body, k, into)
}

// decodeOptional is decode for operations that need no body.
func (c *call) decodeOptional(k kind, into any) error {
	body, err := c.readBody()
	if err != nil || len(bytes.TrimSpace(body)) == 0 {
		return err
	}
	return c.unmarshal(body, k, into)
}

// unmarshal reads a JSON text that has no NUL in any of its strings.
func (c *call) unmarshal(text jsontext.Value, k kind, into any) error {
	if err := refuseNUL(text); err != nil {
		return err
	}
	return c.parse(text, k, into)
}

// parse reads a JSON text strictly: members that the operation does not have
// are refused, save annotations of the transport like odata.metadata. A name that
// was mistyped is thus found at once, and not when its default has done harm.
//
// Members that the version does not have yet are refused before the text is
// rewritten to the newest form, in which they would pass.
func (c *call) parse(text jsontext.Value, k kind, into any) error {
	if r := c.version.refusals[k]; r.mayApply(text) {
		if err := c.hold(len(text)); err != nil {
			return err
		}
		if err := r.check(text, ""); err != nil {
			return err
		}
	}
	if s := c.version.shapes[k]; s != nil {
		upgraded, err := s.up(text)
		if err != nil {
			return c.bodyError(err, text)
		}
		text = upgraded
	}
	return c.read(text, into)
}

// read reads a text in the newest form. Most have neither annotations nor
// numbers written as texts, and pay for neither: the text is read as if it had
// none, and once more for each of the two that the first attempt has met. So it is
// read three times at most.
func (c *call) read(text jsontext.Value, into any) error {
	options := []json.Options{json.RejectUnknownMembers(true)}
	stripped, lenient := false, false
	for {
		err := json.Unmarshal(text, into, options...)
		semantic, ok := errors.AsType[*json.SemanticError](err)
		switch {
		case ok && !stripped && errors.Is(err, json.ErrUnknownName) && isAnnotation(semantic.JSONPointer.LastToken()):
			if err := c.hold(len(text)); err != nil {
				return err
			}
			plain, err := withoutAnnotations(text)
			if err != nil {
				return c.bodyError(err, text)
			}
			text, stripped = plain, true
		case ok && !lenient && semantic.JSONKind == jsontext.KindString && isWhole(semantic.GoType):
			options, lenient = append(options, textNumbers), true
		default:
			return c.bodyError(err, text)
		}
		// Of an attempt that failed halfway nothing may be left.
		reflect.ValueOf(into).Elem().SetZero()
	}
}

// textNumbers takes whole numbers as texts too, as some clients write them.
var textNumbers = json.WithUnmarshalers(json.JoinUnmarshalers(
	json.UnmarshalFromFunc(wholeFrom[int]), json.UnmarshalFromFunc(wholeFrom[int32]), json.UnmarshalFromFunc(wholeFrom[int64]),
))

// wholeFrom reads a text that is a whole number in digits, and leaves anything
// else to the decoder.
func wholeFrom[T int | int32 | int64](d *jsontext.Decoder, into *T) error {
	if d.PeekKind() != jsontext.KindString {
		return errors.ErrUnsupported
	}
	token, err := d.ReadToken()
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(token.String(), 10, reflect.TypeFor[T]().Bits())
	if err != nil || strings.HasPrefix(token.String(), "+") {
		return errNotWhole
	}
	*into = T(n)
	return nil
}

// errNotWhole ends the second attempt at a text that is not a number either.
var errNotWhole = errors.New("it is no whole number")

// isWhole tells types, also behind pointers, that textNumbers can read.
func isWhole(t reflect.Type) bool {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t != nil && slices.Contains([]reflect.Kind{reflect.Int, reflect.Int32, reflect.Int64}, t.Kind())
}

// refuseNUL refuses texts with a NUL: processes cannot be given one and not
// every database keeps it.
func refuseNUL(text jsontext.Value) error {
	if !mayHaveNUL(text) {
		return nil
	}
	for d := jsontext.NewDecoder(bytes.NewReader(text)); ; {
		token, err := d.ReadToken()
		if err != nil {
			return nil //nolint:nilerr // whoever decodes the text says what is wrong
		}
		if s := token.String(); token.Kind() == '"' && strings.Contains(s, "\x00") {
			return batch.InvalidValue(clip(propertyPath(d.StackPointer())), clip(s), "A text has no NUL character")
		}
	}
}

// mayHaveNUL is quick and errs on the side of a closer look.
func mayHaveNUL(text jsontext.Value) bool { return bytes.Contains(text, []byte(`\u0000`)) }

// isAnnotation tells members that are of the transport and not of the object.
func isAnnotation(name string) bool {
	return strings.HasPrefix(name, "odata.") || strings.Contains(name, "@odata.")
}

// withoutAnnotations drops them at every level, in one pass.
func withoutAnnotations(v jsontext.Value) (jsontext.Value, error) {
	var b bytes.Buffer
	d, e := jsontext.NewDecoder(bytes.NewReader(v)), jsontext.NewEncoder(&b)
	for {
		token, err := d.ReadToken()
		if errors.Is(err, io.EOF) {
			return bytes.TrimSpace(b.Bytes()), nil
		}
		if err != nil {
			return nil, err
		}
		// Names and values of an object take turns.
		if in, n := d.StackIndex(d.StackDepth()); in == jsontext.KindBeginObject && n%2 == 1 && token.Kind() == '"' && isAnnotation(token.String()) {
			if err := d.SkipValue(); err != nil {
				return nil, err
			}
			continue
		}
		if err := e.WriteToken(token); err != nil {
			return nil, err
		}
	}
}

// valueAt is what stands in a text where a pointer leads, texts without their
// quotes, and "" if nothing does.
func valueAt(text jsontext.Value, p jsontext.Pointer) string {
	for token := range p.Tokens() {
		if items, ok, err := parseArray(text); ok {
			i, wrong := strconv.Atoi(token)
			if err != nil || wrong != nil || i >= len(items) {
				return ""
			}
			text = items[i]
			continue
		}
		o, ok, err := parseObject(text)
		if err != nil || !ok {
			return ""
		}
		text = o.get(token)
	}
	if plain, err := jsontext.AppendUnquote(nil, text); err == nil && text.Kind() == jsontext.KindString {
		return string(plain)
	}
	return string(text)
}

// bodyError says in the protocol's words what is wrong with a body: it is not
// JSON, it has a property that there is not, or one of another type. An error of
// package batch, which a type of it may give while it is read, stands as it is.
func (c *call) bodyError(err error, text jsontext.Value) error {
	if err == nil {
		return nil
	}
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return notJSON(syntax)
	}
	semantic, ok := errors.AsType[*json.SemanticError](err)
	if !ok {
		if _, ok := errors.AsType[*batch.Error](err); ok {
			return err
		}
		return &batch.Error{Code: batch.CodeInvalidRequestBody, Message: "The specified request body is not valid.", Err: err}
	}
	property := propertyPath(semantic.JSONPointer)
	if errors.Is(semantic.Err, json.ErrUnknownName) {
		if name := semantic.JSONPointer.LastToken(); c.version.hasOld(name) {
			// It is rewritten to its newer form unless its value has none.
			return batch.InvalidValue(clip(property), clip(valueAt(text, semantic.JSONPointer)), "It has the wrong type")
		}
		return unknownProperty(property, c.version.name)
	}
	return &batch.Error{
		Code:    batch.CodeInvalidPropertyValue,
		Message: "The value provided for one of the properties in the request body is invalid.",
		Details: []batch.Detail{
			{Key: "PropertyName", Value: clip(property)},
			{Key: "PropertyValue", Value: clip(valueAt(text, semantic.JSONPointer))},
			{Key: "Reason", Value: typeReason(semantic)},
		},
		Err: err,
	}
}

// notJSON says where the text stops being JSON. The position is that in the body,
// in bytes: a caller who has written the text by hand finds it by that.
func notJSON(err *jsontext.SyntacticError) *batch.Error {
	reason := fmt.Sprintf("At byte %d", err.ByteOffset)
	if err.JSONPointer != "" {
		reason += ", in " + clip(propertyPath(err.JSONPointer))
	}
	if err.Err != nil {
		reason += ": " + clip(err.Err.Error())
	}
	return &batch.Error{
		Code:    batch.CodeInvalidRequestBody,
		Message: "The specified request body is not syntactically valid.",
		Details: []batch.Detail{{Key: "Reason", Value: reason}},
	}
}

// typeReason says what would be right in place of a value.
func typeReason(e *json.SemanticError) string {
	t := e.GoType
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case reflect.TypeFor[batch.Duration](), reflect.TypeFor[batch.Time]():
		if e.Err != nil && (e.JSONKind == jsontext.KindString || e.JSONKind == 0) {
			return clip(strings.TrimPrefix(e.Err.Error(), "json: "))
		}
		return "It is a string"
	case nil:
		return "It has the wrong type"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "It is true or false"
	case reflect.Int, reflect.Int64:
		return "It is a whole number"
	case reflect.String:
		return "It is a string"
	case reflect.Slice:
		return "It is an array"
	}
	return "It is an object"
}

// propertyPath writes a JSON pointer as the service writes properties:
// resourceFiles[0].httpUrl.
func propertyPath(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		if strings.Trim(token, "0123456789") == "" && token != "" {
			b.WriteString("[" + token + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(token)
	}
	return b.String()
}
