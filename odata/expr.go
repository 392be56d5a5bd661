package odata

import (
	"strconv"
	"strings"
	"time"
)

// Expr is a condition: a *Logic, *Not, *Compare, *StartsWith or Name. Its String
// is text that parses to the same tree.
type Expr interface {
	// Position is where the expression begins, in characters counted from 1.
	Position() int
	String() string
	isExpr()
}

// Operand is a side of a comparison: a Name or a Literal.
type Operand interface {
	Position() int
	String() string
	isOperand()
}

// Word is an operator as it is written.
type Word string

// The operators.
const (
	And Word = "and"
	Or  Word = "or"

	Equal          Word = "eq"
	NotEqual       Word = "ne"
	Greater        Word = "gt"
	GreaterOrEqual Word = "ge"
	Less           Word = "lt"
	LessOrEqual    Word = "le"
)

// Logic joins two or more conditions by the same operator, And or Or.
type Logic struct {
	Op    Word
	Terms []Expr
}

// Not is the negation of a condition.
type Not struct {
	At int
	X  Expr
}

// Compare sets two operands against each other.
type Compare struct {
	Op          Word
	Left, Right Operand
}

// StartsWith asks whether a field begins with a text.
type StartsWith struct {
	At     int
	Name   Name
	Prefix Literal
}

// Name is a field, nested ones written with a slash. On its own it is a
// condition on a field that is true or false.
type Name struct {
	At   int
	Path string
}

// Literal is a value: string, int64, float64, bool, time.Time in UTC, or nil.
type Literal struct {
	At    int
	Value any
}

// Position is that of the first term.
func (e *Logic) Position() int { return e.Terms[0].Position() }

// Position is that of the word not.
func (e *Not) Position() int { return e.At }

// Position is that of the left operand.
func (e *Compare) Position() int { return e.Left.Position() }

// Position is that of the function's name.
func (e *StartsWith) Position() int { return e.At }

// Position is that of the name.
func (n Name) Position() int { return n.At }

// Position is that of the literal.
func (l Literal) Position() int { return l.At }

func (*Logic) isExpr()      {}
func (*Not) isExpr()        {}
func (*Compare) isExpr()    {}
func (*StartsWith) isExpr() {}
func (Name) isExpr()        {}
func (Name) isOperand()     {}
func (Literal) isOperand()  {}

// String puts parentheses around terms that need or have had them.
func (e *Logic) String() string {
	var b strings.Builder
	for i, term := range e.Terms {
		if i > 0 {
			b.WriteString(" " + string(e.Op) + " ")
		}
		if inner, ok := term.(*Logic); ok && !(e.Op == Or && inner.Op == And) {
			b.WriteString("(" + inner.String() + ")")
		} else {
			b.WriteString(term.String())
		}
	}
	return b.String()
}

// String puts parentheses around joined terms.
func (e *Not) String() string {
	if _, joined := e.X.(*Logic); joined {
		return "not (" + e.X.String() + ")"
	}
	return "not " + e.X.String()
}

// String writes the operands around the operator.
func (e *Compare) String() string {
	return e.Left.String() + " " + string(e.Op) + " " + e.Right.String()
}

// String writes the call.
func (e *StartsWith) String() string {
	return "startswith(" + e.Name.String() + "," + e.Prefix.String() + ")"
}

// String is the path.
func (n Name) String() string { return n.Path }

// String writes the literal so that it keeps its type.
func (l Literal) String() string {
	switch v := l.Value.(type) {
	case string:
		return "'" + strings.ReplaceAll(v, "'", "''") + "'"
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		s := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(s, ".e") {
			s += ".0"
		}
		return s
	case bool:
		return strconv.FormatBool(v)
	case time.Time:
		return "DateTime'" + v.Format(time.RFC3339Nano) + "'"
	default:
		return "null"
	}
}
