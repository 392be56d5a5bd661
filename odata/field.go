package odata

import (
	"slices"
	"strings"
	"time"
)

// Kind is the type of a field.
type Kind int

// The kinds of fields. ID and Enum ignore case, of ASCII letters.
const (
	String Kind = iota // text, ordered by its bytes
	ID                 // an identifier
	Enum               // one of a few words; it has no order
	Int                // 64 bits
	Float              // a double
	Bool               // true or false; it has no order
	Time               // to the microsecond
)

// kindNames are what literals of a kind are called in messages.
var kindNames = map[Kind]string{
	String: "a text in quotes", ID: "a text in quotes", Enum: "a word in quotes", Int: "an integer",
	Float: "a number", Bool: "true or false", Time: "a time like DateTime'2030-01-31T12:00:00Z'",
}

// Field describes a property that filters may use.
type Field struct {
	Kind Kind

	// Words are those of an Enum, for the message that lists them. With none,
	// any word may be asked for.
	Words []string

	// Column is the SQL expression to compare; a filter that is only matched
	// in memory needs none. By kind it must hold: text, in byte order if the
	// field is to be ordered; for ID and Enum text in lower case; 64-bit
	// integers; doubles; for Bool 0 or 1; for Time microseconds since 1970 UTC.
	// NULL is a field without a value.
	Column string
}

// Fields are the properties of a resource by name, nested ones with slashes.
type Fields map[string]Field

// Check holds a parsed filter against the fields of a resource.
// What it refuses is an [*Error].
func Check(e Expr, fields Fields) (Filter, error) {
	root, err := fields.condition(e)
	if err != nil {
		return Filter{}, err
	}
	return Filter{root: root, text: e.String()}, nil
}

func (fields Fields) condition(e Expr) (node, error) {
	switch e := e.(type) {
	case *Logic:
		terms := make([]node, 0, len(e.Terms))
		for _, term := range e.Terms {
			n, err := fields.condition(term)
			if err != nil {
				return nil, err
			}
			terms = append(terms, n)
		}
		return &junction{all: e.Op == And, terms: terms}, nil
	case *Not:
		x, err := fields.condition(e.X)
		return &negation{x}, err
	case *StartsWith:
		return fields.startsWith(e)
	case Name:
		f, err := fields.find(e)
		if err != nil {
			return nil, err
		}
		if f.Kind != Bool {
			return nil, fail(e.At, "%s is not true or false: compare it with a value", e.Path)
		}
		return &comparison{name: e.Path, field: f, op: Equal, value: true}, nil
	case *Compare:
		return fields.compare(e)
	default:
		return nil, fail(e.Position(), "this is not a condition")
	}
}

func (fields Fields) find(n Name) (Field, error) {
	if f, ok := fields[n.Path]; ok {
		return f, nil
	}
	for known := range fields {
		if strings.EqualFold(known, n.Path) {
			return Field{}, fail(n.At, "there is no property %s: write %s", clip(n.Path), known)
		}
	}
	return Field{}, fail(n.At, "filters cannot use %s: there is %s", clip(n.Path), fields.list())
}

func (fields Fields) list() string {
	names := make([]string, 0, len(fields))
	for n := range fields {
		names = append(names, n)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (fields Fields) startsWith(e *StartsWith) (node, error) {
	f, err := fields.find(e.Name)
	if err != nil {
		return nil, err
	}
	if f.Kind != String && f.Kind != ID {
		return nil, fail(e.Name.At, "startswith needs a text, and %s is not one", e.Name.Path)
	}
	prefix, _ := e.Prefix.Value.(string)
	if f.Kind == ID {
		prefix = lower(prefix)
	}
	return &beginning{name: e.Name.Path, field: f, prefix: prefix}, nil
}

// mirrored are the operators with their sides exchanged.
var mirrored = map[Word]Word{
	Equal: Equal, NotEqual: NotEqual,
	Greater: Less, GreaterOrEqual: LessOrEqual, Less: Greater, LessOrEqual: GreaterOrEqual,
}

func (fields Fields) compare(e *Compare) (node, error) {
	name, named := e.Left.(Name)
	value, valued := e.Right.(Literal)
	op := e.Op
	if !named && !valued {
		name, named = e.Right.(Name)
		value, valued = e.Left.(Literal)
		op = mirrored[op]
	}
	if !named || !valued {
		return nil, fail(e.Position(), "a comparison needs a property and a value")
	}
	f, err := fields.find(name)
	if err != nil {
		return nil, err
	}
	ordered := op != Equal && op != NotEqual
	if value.Value == nil {
		if ordered {
			return nil, fail(value.At, "null can only be compared by eq and ne")
		}
		return &absence{name: name.Path, field: f, want: op == Equal}, nil
	}
	if ordered && (f.Kind == Enum || f.Kind == Bool) {
		return nil, fail(e.Position(), "%s has no order: compare it by eq or ne", name.Path)
	}
	v, err := f.literal(name.Path, value)
	if err != nil {
		return nil, err
	}
	return &comparison{name: name.Path, field: f, op: op, value: v}, nil
}

// literal turns a literal into the type that the field is compared in.
func (f Field) literal(name string, l Literal) (any, error) {
	switch v := l.Value.(type) {
	case string:
		switch f.Kind {
		case String:
			return v, nil
		case ID:
			return lower(v), nil
		case Enum:
			return f.word(name, v, l.At)
		case Time:
			if at, ok := parseTime(v); ok {
				return at.UnixMicro(), nil
			}
		}
	case int64:
		switch f.Kind {
		case Int:
			return v, nil
		case Float:
			return float64(v), nil
		}
	case float64:
		if f.Kind == Float {
			return v, nil
		}
	case bool:
		if f.Kind == Bool {
			return v, nil
		}
	case time.Time:
		if f.Kind == Time {
			return v.UnixMicro(), nil
		}
	}
	return nil, fail(l.At, "%s is compared with %s, not with %s", name, kindNames[f.Kind], clip(l.String()))
}

func (f Field) word(name, v string, at int) (any, error) {
	if len(f.Words) > 0 && !slices.ContainsFunc(f.Words, func(w string) bool { return strings.EqualFold(w, v) }) {
		return nil, fail(at, "%s is never %q: it is one of %s", name, clip(v), strings.Join(f.Words, ", "))
	}
	return lower(v), nil
}

// lower folds ASCII alone, as a database does in any locale.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
