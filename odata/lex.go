package odata

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxText  = 8 << 10 // bytes of a filter
	maxDepth = 50      // parentheses and nots around each other
	maxTerms = 300     // comparisons in a filter
	maxPath  = 8       // names in a nested name
)

// kind tells tokens apart.
type kind int

const (
	end kind = iota
	word
	literal // of any type, in value
	open
	closed
	comma
)

// token is a piece of the text. For a word, text is as written.
type token struct {
	kind  kind
	text  string
	value any // of a literal
	at    int // in characters counted from 1
}

// describe names a token in a message.
func (t token) describe() string {
	switch t.kind {
	case end:
		return "the end"
	case literal:
		return "the value " + clip(Literal{Value: t.value}.String())
	default:
		return "'" + clip(t.text) + "'"
	}
}

// lexer cuts the text into tokens.
type lexer struct {
	text string
	next int // in bytes
	at   int // of next, in characters counted from 1
}

// take moves over n bytes, which are whole characters.
func (l *lexer) take(n int) string {
	s := l.text[l.next : l.next+n]
	l.next += n
	l.at += utf8.RuneCountInString(s)
	return s
}

func (l *lexer) token() (token, error) {
	rest := l.text[l.next:]
	l.take(len(rest) - len(strings.TrimLeft(rest, " \t")))
	rest = l.text[l.next:]
	t := token{at: l.at}
	if rest == "" {
		return t, nil
	}
	c := rest[0]
	switch {
	case c == '(':
		t.kind, t.text = open, l.take(1)
	case c == ')':
		t.kind, t.text = closed, l.take(1)
	case c == ',':
		t.kind, t.text = comma, l.take(1)
	case c == '\'':
		s, err := l.quoted()
		t.kind, t.value = literal, s
		return t, err
	case isDigit(c) || c == '-':
		v, err := l.number()
		t.kind, t.value = literal, v
		return t, err
	case isLetter(c):
		return l.word(t)
	default:
		r, _ := utf8.DecodeRuneInString(rest)
		return t, fail(t.at, "%q does not belong into a filter", r)
	}
	return t, nil
}

// quoted reads a text in quotes. A quote in it is written twice.
func (l *lexer) quoted() (string, error) {
	at := l.at
	var b strings.Builder
	l.take(1)
	for {
		rest := l.text[l.next:]
		i := strings.IndexByte(rest, '\'')
		if i < 0 {
			return "", fail(at, "the text that begins here has no closing quote")
		}
		b.WriteString(l.take(i))
		l.take(1)
		if !strings.HasPrefix(l.text[l.next:], "'") {
			return b.String(), nil
		}
		b.WriteString(l.take(1))
	}
}

// number reads an integer or a double, with the suffix that OData may put
// behind it, or a time without quotes as later versions of OData write it.
func (l *lexer) number() (any, error) {
	at, rest := l.at, l.text[l.next:]
	n := 1
	for n < len(rest) && (isLetter(rest[n]) || isDigit(rest[n]) || strings.IndexByte(".:+-", rest[n]) >= 0) {
		n++
	}
	s := l.take(n)
	if v, err := strconv.ParseInt(strings.TrimRight(s, "lL"), 10, 64); err == nil {
		return v, nil
	}
	if isDouble(s) {
		if v, err := strconv.ParseFloat(strings.TrimRight(s, "dDfFmM"), 64); err == nil {
			return v, nil
		}
	}
	if v, ok := parseTime(s); ok {
		return v, nil
	}
	return nil, fail(at, "%q is neither a number within 64 bits nor a time", clip(s))
}

// isDouble keeps out what only Go takes for a number: hexadecimal, underscores,
// and a point without a digit before it. Integers too large stay out as well.
func isDouble(s string) bool {
	digits := strings.TrimPrefix(s, "-")
	return digits != "" && isDigit(digits[0]) && strings.ContainsAny(digits, ".eEdDfFmM") &&
		strings.Trim(strings.TrimRight(digits, "dDfFmM"), "0123456789.eE+-") == ""
}

// timeLayouts are the ways to write a time. Seconds may have a fraction; what
// has no offset is UTC.
var timeLayouts = []string{
	time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", time.DateOnly,
}

func parseTime(s string) (time.Time, bool) {
	for _, layout := range timeLayouts {
		// Years beyond four digits, which an offset can make, do not print back.
		if at, err := time.Parse(layout, s); err == nil && at.UTC().Year() >= 0 && at.UTC().Year() <= 9999 {
			return at.UTC().Truncate(time.Microsecond), true
		}
	}
	return time.Time{}, false
}

// word reads a name, with slashes between nested ones, or a word of the
// grammar, or a time in quotes behind its type.
func (l *lexer) word(t token) (token, error) {
	rest := l.text[l.next:]
	n := 1
	for n < len(rest) && (isLetter(rest[n]) || isDigit(rest[n]) || rest[n] == '_' || rest[n] == '/' || rest[n] == '.') {
		n++
	}
	t.kind, t.text = word, l.take(n)
	switch t.text {
	case "true", "false":
		t.kind, t.value = literal, t.text == "true"
	case "null":
		t.kind = literal
	}
	if n == len(rest) || rest[n] != '\'' || slices.Contains(reserved, t.text) {
		return t, nil // the service takes eq'active' without a blank between
	}
	if !strings.EqualFold(t.text, "DateTime") && !strings.EqualFold(t.text, "DateTimeOffset") {
		return t, fail(t.at, "values of type %s are not supported: write 'text', a number, true, false, null or DateTime'…'", clip(t.text))
	}
	s, err := l.quoted()
	if err != nil {
		return t, err
	}
	v, ok := parseTime(s)
	if !ok {
		return t, fail(t.at, "%q is not a time like 2030-01-31T12:00:00Z", clip(s))
	}
	t.kind, t.value = literal, v
	return t, nil
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
