package control

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/odata"
	"github.com/batchyard/batchyard/store"
)

// Query selects a page of a list.
type Query struct {
	// Filter is an OData filter; empty selects all.
	Filter string
	// Max is the size of the page; 0 is the largest there is, which is 1000,
	// for node counts 10.
	Max int
	// Token is the Next of the page before; empty for the first page.
	Token string
	// Detail is how much of each task is wanted.
	Detail store.Detail
}

// Page is a part of a list. Next is the token of the page after it, or empty.
type Page[T any] struct {
	Items []T
	Next  string
}

const (
	// maxPage is the largest page of most lists.
	maxPage = 1000
	// maxToken bounds the key in a token, in bytes; those of ours are shorter.
	maxToken = 1024
)

// list checks the query. The list it returns asks for one item more than the
// page has, which tells whether there is another page.
func (q Query) list(fields odata.Fields, largest int) (store.List, error) {
	size := q.Max
	if size == 0 {
		size = largest
	}
	if size < 1 || size > largest {
		return store.List{}, badQuery("maxresults", strconv.Itoa(q.Max), "It is 1 to "+strconv.Itoa(largest))
	}
	after, err := base64.RawURLEncoding.DecodeString(q.Token)
	// A database may not take what is no text.
	if err != nil || len(after) > maxToken || !utf8.Valid(after) || bytes.IndexByte(after, 0) >= 0 {
		return store.List{}, badQuery("$skiptoken", q.Token, "It is not a token that this service gave")
	}
	list := store.List{After: string(after), Max: size + 1, Cut: new(bool)}
	filter, err := odata.ParseFilter(q.Filter, fields)
	if err != nil {
		return store.List{}, badQuery("$filter", q.Filter, err.Error())
	}
	if !filter.IsZero() {
		list.Where = filter.SQL
	}
	return list, nil
}

// page cuts off the item too many and makes the token of the next page from
// the last one's key. A list that was cut because of its size has another page,
// which may be empty.
func page[T any](items []T, list store.List, key func(*T) string) Page[T] {
	size := min(len(items), list.Max-1)
	if size == 0 || len(items) == size && !*list.Cut {
		return Page[T]{Items: items}
	}
	items = items[:size]
	return Page[T]{Items: items, Next: base64.RawURLEncoding.EncodeToString([]byte(key(&items[size-1])))}
}

func badQuery(name, value, reason string) error {
	return &batch.Error{
		Code:    batch.CodeInvalidQueryParameterValue,
		Message: "The value specified for one of the HTTP query parameters is not valid.",
		Details: []batch.Detail{
			{Key: "QueryParameterName", Value: name},
			{Key: "QueryParameterValue", Value: value},
			{Key: "Reason", Value: reason},
		},
	}
}
