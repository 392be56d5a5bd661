package odata

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Parse reads the text of a $filter. What it refuses is an [*Error].
//
//	or         = and { "or" and }
//	and        = unary { "and" unary }
//	unary      = "not" unary | "(" or ")" | startswith | comparison
//	startswith = "startswith" "(" name "," text ")" [ ( "eq" | "ne" ) ( "true" | "false" ) ]
//	comparison = operand [ ( "eq" | "ne" | "gt" | "ge" | "lt" | "le" ) operand ]
//	operand    = name | literal
//
// Strictly read, OData binds not more tightly than a comparison; nobody who
// writes "not state eq 'active'" means that, so here it negates the comparison.
func Parse(text string) (Expr, error) {
	if len(text) > maxText {
		return nil, fail(0, "the filter is longer than %d bytes", maxText)
	}
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return nil, fail(0, "the filter is not text in UTF-8")
	}
	p := parser{lexer: lexer{text: text, at: 1}}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.tok.kind == end {
		return nil, fail(0, "the filter is empty")
	}
	e, err := p.logic(Or)
	if err != nil {
		return nil, err
	}
	if p.tok.kind != end {
		return nil, fail(p.tok.at, "expected and, or, or the end, not %s", p.tok.describe())
	}
	return e, nil
}

// parser holds one token that has not been used.
type parser struct {
	lexer
	tok   token
	depth int
	terms int
}

func (p *parser) advance() (err error) {
	p.tok, err = p.token()
	return err
}

func (p *parser) is(k kind, text string) bool { return p.tok.kind == k && p.tok.text == text }

// logic reads terms joined by one operator; a single term stands for itself.
func (p *parser) logic(op Word) (Expr, error) {
	var terms []Expr
	for {
		term, err := p.term(op)
		if err != nil {
			return nil, err
		}
		terms = append(terms, term)
		if !p.is(word, string(op)) {
			break
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
	}
	if len(terms) == 1 {
		return terms[0], nil
	}
	return &Logic{Op: op, Terms: terms}, nil
}

func (p *parser) term(op Word) (Expr, error) {
	if op == Or {
		return p.logic(And)
	}
	return p.unary()
}

func (p *parser) unary() (Expr, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, fail(p.tok.at, "more than %d parentheses and nots are nested", maxDepth)
	}
	defer func() { p.depth-- }()
	switch {
	case p.is(word, "not"):
		at := p.tok.at
		if err := p.advance(); err != nil {
			return nil, err
		}
		x, err := p.unary()
		return &Not{At: at, X: x}, err
	case p.tok.kind == open:
		return p.parenthesis()
	}
	if p.terms++; p.terms > maxTerms {
		return nil, fail(p.tok.at, "the filter has more than %d comparisons", maxTerms)
	}
	return p.comparison()
}

func (p *parser) parenthesis() (Expr, error) {
	at := p.tok.at
	if err := p.advance(); err != nil {
		return nil, err
	}
	e, err := p.logic(Or)
	if err != nil {
		return nil, err
	}
	if p.tok.kind != closed {
		return nil, fail(p.tok.at, "expected ')' for the '(' at character %d, not %s", at, p.tok.describe())
	}
	return e, p.advance()
}

func (p *parser) comparison() (Expr, error) {
	first := p.tok
	left, err := p.operand()
	if err != nil {
		return nil, err
	}
	if p.tok.kind == open {
		return p.call(first)
	}
	op, ok := p.operator()
	if !ok {
		if n, ok := left.(Name); ok && (p.tok.kind == end || p.tok.kind == closed || p.is(word, "and") || p.is(word, "or")) {
			return n, nil
		}
		return nil, fail(p.tok.at, "expected eq, ne, gt, ge, lt or le, not %s", p.tok.describe())
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	right, err := p.operand()
	if err != nil {
		return nil, err
	}
	return &Compare{Op: op, Left: left, Right: right}, nil
}

func (p *parser) operator() (Word, bool) {
	op := Word(p.tok.text)
	switch op {
	case Equal, NotEqual, Greater, GreaterOrEqual, Less, LessOrEqual:
		return op, p.tok.kind == word
	default:
		return "", false
	}
}

// reserved are the words that cannot be names.
var reserved = []string{"and", "or", "not", "eq", "ne", "gt", "ge", "lt", "le"}

func (p *parser) operand() (Operand, error) {
	t := p.tok
	switch {
	case t.kind == literal:
		return Literal{At: t.at, Value: t.value}, p.advance()
	case t.kind == word && !slices.Contains(reserved, t.text):
		if err := checkPath(t.text, t.at); err != nil {
			return nil, err
		}
		return Name{At: t.at, Path: t.text}, p.advance()
	default:
		return nil, fail(t.at, "expected a property or a value, not %s", t.describe())
	}
}

// checkPath refuses what looks like a nested name and is none.
func checkPath(path string, at int) error {
	parts := strings.Split(path, "/")
	if slices.Contains(parts, "") {
		return fail(at, "%q has a slash without a name on both sides", clip(path))
	}
	if len(parts) > maxPath {
		return fail(at, "%q is nested deeper than %d names", clip(path), maxPath)
	}
	return nil
}

// call reads what follows the name of a function.
func (p *parser) call(function token) (Expr, error) {
	if function.kind != word || function.text != "startswith" {
		return nil, fail(function.at, "the function %s is not supported: there is startswith(name,'prefix')", function.describe())
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	name, err := p.operand()
	if err != nil {
		return nil, err
	}
	field, ok := name.(Name)
	if !ok {
		return nil, fail(name.Position(), "the first argument of startswith must be a property")
	}
	if p.tok.kind != comma {
		return nil, fail(p.tok.at, "expected ',' and the prefix, not %s", p.tok.describe())
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	prefix := Literal{At: p.tok.at, Value: p.tok.value}
	if _, ok := prefix.Value.(string); p.tok.kind != literal || !ok {
		return nil, fail(p.tok.at, "expected the prefix as a text in quotes, not %s", p.tok.describe())
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.tok.kind != closed {
		return nil, fail(p.tok.at, "expected ')' after the prefix, not %s", p.tok.describe())
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	return p.truth(&StartsWith{At: function.at, Name: field, Prefix: prefix})
}

// truth reads the "eq true" that some clients put behind a function.
func (p *parser) truth(e *StartsWith) (Expr, error) {
	op, ok := p.operator()
	if !ok {
		return e, nil
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	want, ok := p.tok.value.(bool)
	if !ok || op != Equal && op != NotEqual {
		return nil, fail(p.tok.at, "startswith can only be compared by eq or ne with true or false")
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if want != (op == Equal) {
		return &Not{At: e.At, X: e}, nil
	}
	return e, nil
}
