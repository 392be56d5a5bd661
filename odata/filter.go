package odata

import (
	"cmp"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Filter is a checked filter, ready to be carried out. The zero value lets
// everything through.
type Filter struct {
	root node
	text string
}

// ParseFilter reads and checks a $filter in one go. Without a text it is the
// zero value.
func ParseFilter(text string, fields Fields) (Filter, error) {
	if text == "" {
		return Filter{}, nil
	}
	e, err := Parse(text)
	if err != nil {
		return Filter{}, err
	}
	return Check(e, fields)
}

// IsZero reports whether the filter lets everything through unasked.
func (f Filter) IsZero() bool { return f.root == nil }

// String is the filter in its canonical form.
func (f Filter) String() string { return f.text }

// Match reports whether an item passes. It asks for the values of fields by
// name: nil for one without a value, else string for String, ID and Enum; int,
// int32 or int64 for Int; float64 for Float; bool; time.Time. It panics if it is
// given another type, which is a mistake in the program.
func (f Filter) Match(value func(name string) any) bool {
	return f.root == nil || f.root.match(value)
}

// SQL writes the filter as a condition and its arguments, the first of which is
// parameter $first. It is one text for SQLite and PostgreSQL, and means what
// Match means. It panics if a field has no column, which is a mistake in the
// program.
func (f Filter) SQL(first int) (clause string, args []any) {
	if f.root == nil {
		return "1 = 1", nil
	}
	w := writer{next: first}
	f.root.sql(&w, true)
	return w.b.String(), w.args
}

// node is a checked condition. Its sql writes a condition that holds where the
// node is as wanted; it never yields NULL where that would be taken for the
// opposite, so negations are handed down to the leaves.
type node interface {
	match(value func(string) any) bool
	sql(w *writer, want bool)
}

// writer gathers a clause and its arguments.
type writer struct {
	b    strings.Builder
	args []any
	next int
}

func (w *writer) text(parts ...string) {
	for _, p := range parts {
		w.b.WriteString(p)
	}
}

// argument writes the parameter for a value.
func (w *writer) argument(v any) {
	if truth, ok := v.(bool); ok {
		v = int64(0)
		if truth {
			v = int64(1)
		}
	}
	w.args = append(w.args, v)
	fmt.Fprintf(&w.b, "$%d", w.next)
	w.next++
}

// leaf writes a condition on one column. For a field without a value SQL's own
// answer is NULL, which passes for false; withNull makes it true.
func (w *writer) leaf(column string, withNull bool, condition func(column string)) {
	if !withNull {
		condition(column)
		return
	}
	w.text("(")
	condition(column)
	w.text(" OR ", column, " IS NULL)")
}

func column(name string, f Field) string {
	if f.Column == "" {
		panic("odata: field " + name + " has no column")
	}
	return f.Column
}

// junction is all or any of its terms.
type junction struct {
	all   bool
	terms []node
}

func (j *junction) match(value func(string) any) bool {
	for _, t := range j.terms {
		if t.match(value) != j.all {
			return !j.all
		}
	}
	return j.all
}

func (j *junction) sql(w *writer, want bool) {
	op := " OR "
	if j.all == want {
		op = " AND "
	}
	w.text("(")
	for i, t := range j.terms {
		if i > 0 {
			w.text(op)
		}
		t.sql(w, want)
	}
	w.text(")")
}

type negation struct{ x node }

func (n *negation) match(value func(string) any) bool { return !n.x.match(value) }
func (n *negation) sql(w *writer, want bool)          { n.x.sql(w, !want) }

// absence compares with null.
type absence struct {
	name  string
	field Field
	want  bool
}

func (a *absence) match(value func(string) any) bool { return (value(a.name) == nil) == a.want }

func (a *absence) sql(w *writer, want bool) {
	w.text(column(a.name, a.field))
	if a.want == want {
		w.text(" IS NULL")
	} else {
		w.text(" IS NOT NULL")
	}
}

// comparison compares with a value.
type comparison struct {
	name  string
	field Field
	op    Word
	value any // string, int64, float64 or bool; a time is int64
}

func (c *comparison) match(value func(string) any) bool {
	v := value(c.name)
	if v == nil {
		return c.op == NotEqual
	}
	order := c.field.compare(c.name, v, c.value)
	switch c.op {
	case Equal:
		return order == 0
	case NotEqual:
		return order != 0
	case Greater:
		return order > 0
	case GreaterOrEqual:
		return order >= 0
	case Less:
		return order < 0
	default:
		return order <= 0
	}
}

// compare orders a value of the field and one of a literal; for what has no
// order it only tells equal from unequal.
func (f Field) compare(name string, v, literal any) int {
	switch f.Kind {
	case String:
		if s, ok := v.(string); ok {
			return cmp.Compare(s, literal.(string))
		}
	case ID, Enum:
		if s, ok := v.(string); ok {
			return cmp.Compare(lower(s), literal.(string))
		}
	case Int:
		if n, ok := integer(v); ok {
			return cmp.Compare(n, literal.(int64))
		}
	case Float:
		if x, ok := v.(float64); ok {
			return cmp.Compare(x, literal.(float64))
		}
	case Bool:
		if b, ok := v.(bool); ok {
			if b == literal.(bool) {
				return 0
			}
			return 1
		}
	case Time:
		if t, ok := v.(time.Time); ok {
			return cmp.Compare(t.UnixMicro(), literal.(int64))
		}
	}
	panic(fmt.Sprintf("odata: field %s is given as %T", name, v))
}

func integer(v any) (int64, bool) {
	switch n := v.(type) {
	case int:
		return int64(n), true
	case int32:
		return int64(n), true
	case int64:
		return n, true
	default:
		return 0, false
	}
}

// operators gives for an operator its SQL and that of its opposite.
var operators = map[Word][2]string{
	Equal: {" = ", " <> "}, NotEqual: {" <> ", " = "},
	Greater: {" > ", " <= "}, LessOrEqual: {" <= ", " > "},
	Less: {" < ", " >= "}, GreaterOrEqual: {" >= ", " < "},
}

func (c *comparison) sql(w *writer, want bool) {
	op := operators[c.op][0]
	if !want {
		op = operators[c.op][1]
	}
	// Without a value, ne holds and the others do not.
	withNull := (c.op == NotEqual) == want
	w.leaf(column(c.name, c.field), withNull, func(column string) {
		w.text(column, op)
		w.argument(c.value)
	})
}

// beginning is startswith.
type beginning struct {
	name   string
	field  Field
	prefix string
}

func (s *beginning) match(value func(string) any) bool {
	v := value(s.name)
	if v == nil {
		return false
	}
	text, ok := v.(string)
	if !ok {
		panic(fmt.Sprintf("odata: field %s is given as %T", s.name, v))
	}
	if s.field.Kind == ID {
		text = lower(text)
	}
	return strings.HasPrefix(text, s.prefix)
}

// LIKE would fold case on SQLite and not on PostgreSQL, and has signs of its
// own, so the first characters are compared. Both count characters, not bytes.
// An index knows nothing of that: for a plain column it is told the range too.
func (s *beginning) sql(w *writer, want bool) {
	op := " = "
	if !want {
		op = " <> "
	}
	w.leaf(column(s.name, s.field), !want, func(column string) {
		w.text("substr(", column, ", 1, ")
		w.argument(int64(len([]rune(s.prefix))))
		w.text(")", op)
		w.argument(s.prefix)
		if end := successor(s.prefix); want && end != "" && plain(column) {
			w.text(" AND ", column, " >= ")
			w.argument(s.prefix)
			w.text(" AND ", column, " < ")
			w.argument(end)
		}
	})
}

// successor is the first text, in byte order, after all that begin with a
// prefix; empty if there is none that a database would take.
func successor(prefix string) string {
	last, size := utf8.DecodeLastRuneInString(prefix)
	if size == 0 || last == utf8.RuneError || !utf8.ValidRune(last+1) {
		return ""
	}
	return prefix[:len(prefix)-size] + string(last+1)
}

// plain tells a column from an expression.
func plain(column string) bool { return !strings.ContainsAny(column, "( '") }
