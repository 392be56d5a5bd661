package odata

import "slices"

// Bounds is what every item that passes a filter has in one of its fields. They
// may be wider than the filter, and let a store begin where the items are.
type Bounds struct {
	// Words are those that an Enum may have; nil if it may have any.
	Words []string
	// Named tells that a text or an ID is to be a certain one, to begin with
	// something or to be in a range.
	Named bool
	// From and To are the first and the last value that an Int or a Time, in
	// microseconds since 1970 UTC, may have; nil where there is no end.
	From, To *int64
}

// Bounds tells within which bounds the filter asks for a field.
func (f Filter) Bounds(name string) Bounds {
	var b Bounds
	if f.root != nil {
		b.take(f.root, name)
	}
	return b
}

// take narrows the bounds by a condition that must hold.
func (b *Bounds) take(n node, name string) {
	switch n := n.(type) {
	case *junction:
		if n.all {
			for _, term := range n.terms {
				b.take(term, name)
			}
		} else if words, ok := anyWord(n, name); ok {
			b.keep(words)
		}
	case *comparison:
		if n.name == name {
			b.compare(n)
		}
	case *beginning:
		b.Named = b.Named || n.name == name && n.prefix != ""
	}
}

// anyWord is the words of a condition like state eq 'a' or state eq 'b'.
func anyWord(n *junction, name string) ([]string, bool) {
	var words []string
	for _, term := range n.terms {
		c, ok := term.(*comparison)
		if !ok || c.name != name || c.op != Equal || c.field.Kind != Enum {
			return nil, false
		}
		words = append(words, c.value.(string))
	}
	return words, true
}

func (b *Bounds) compare(c *comparison) {
	switch value := c.value.(type) {
	case string:
		switch {
		case c.op == NotEqual:
		case c.field.Kind == Enum:
			b.keep([]string{value})
		default:
			b.Named = true
		}
	case int64:
		b.order(c.op, value)
	}
}

// keep leaves only words that were possible before too.
func (b *Bounds) keep(words []string) {
	kept := []string{}
	for _, word := range words {
		if word = lower(word); (b.Words == nil || slices.Contains(b.Words, word)) && !slices.Contains(kept, word) {
			kept = append(kept, word)
		}
	}
	b.Words = kept
}

// order narrows the ends. They stay on the side of letting too much through.
func (b *Bounds) order(op Word, value int64) {
	if op == Equal || op == Greater || op == GreaterOrEqual {
		if b.From == nil || *b.From < value {
			b.From = &value
		}
	}
	if op == Equal || op == Less || op == LessOrEqual {
		if b.To == nil || *b.To > value {
			b.To = &value
		}
	}
}
