package api

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/batchyard/batchyard/batch"
)

const (
	// maxNested is how deep objects and lists of a body may stand in each other;
	// those of the protocol need ten.
	maxNested = 64
	// maxItems is how many values a list of a body may have: more than there is
	// room for in a body of things that mean something.
	maxItems = 64 << 10
	// valueCost is what a value of a body may take in memory once it is read,
	// in bytes: more than the largest thing of which a list may have many.
	valueCost = 160
)

// byteOrderMark is what some programs write before a text in UTF-8.
var byteOrderMark = []byte{0xEF, 0xBB, 0xBF}

// measured is what a look at a body tells before it is read: what it will take
// in memory follows from how many values it has, not from its length.
type measured struct {
	values int
	// items are the values in the longest list that stands in the body itself.
	items int
}

// measure counts without reading: text that is no JSON is counted somehow, and
// refused later. One pass over the bytes and no memory is all it costs, so that it
// comes before anything that a hostile body could make expensive. It refuses what nests too deep, before anything that calls
// itself for each level meets it, and lists that are too long.
func measure(text []byte) (measured, error) {
	var m measured
	depth, items := 0, [maxNested + 1]int{}
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			i = endOfText(text, i+1)
		case '{', '[':
			m.values++
			if depth++; depth > maxNested {
				return m, badShape(deepProperty(text), "Objects and lists stand in each other more than %d deep", maxNested)
			}
			items[depth] = 1
		case '}', ']':
			depth = max(0, depth-1)
		case ',':
			m.values++
			items[depth]++
			if items[depth] > maxItems {
				return m, badShape("", "A list has more than %d items", maxItems)
			}
			if depth == 2 {
				m.items = max(m.items, items[2])
			}
		}
	}
	return m, nil
}

// endOfText is where the quote is that ends a text, or the end.
func endOfText(text []byte, begin int) int {
	for i := begin; ; i++ {
		next := bytes.IndexByte(text[i:], '"')
		if next < 0 {
			return len(text)
		}
		i += next
		slashes := 0
		for i-slashes > begin && text[i-slashes-1] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return i
		}
	}
}

// badShape refuses a body for how it is built, whatever it says.
func badShape(property, reason string, most int) *batch.Error {
	e := &batch.Error{Code: batch.CodeInvalidRequestBody, Message: "The specified request body is not valid."}
	if property != "" {
		e.Details = append(e.Details, batch.Detail{Key: "PropertyName", Value: clip(property)})
	}
	e.Details = append(e.Details, batch.Detail{Key: "Reason", Value: fmt.Sprintf(reason, most)})
	return e
}

// deepProperty is the property of a body in which something nests too deep.
func deepProperty(text []byte) string {
	d := jsontext.NewDecoder(bytes.NewReader(text))
	for d.StackDepth() <= maxNested {
		if _, err := d.ReadToken(); err != nil {
			return "" // it is no JSON before that
		}
	}
	property := propertyPath(d.StackPointer())
	for strings.HasSuffix(property, "]") { // only the lists in it
		property = property[:strings.LastIndexByte(property, '[')]
	}
	return property
}
