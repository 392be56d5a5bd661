package api

import (
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
)

// maxPage is the most items that a page of a list may have.
const maxPage = 1000

// tokenParameter holds the place at which a page begins. Its value is opaque
// to callers.
const tokenParameter = "$skiptoken"

// page reads which part of a list is asked for, at most most items of it.
func (c *call) page(most int) (control.Query, error) {
	q := control.Query{Filter: c.query["$filter"], Token: c.query[tokenParameter], Max: most}
	if text := c.query["maxresults"]; text != "" {
		n, err := parseCount(text)
		if err != nil || n < 1 || n > int64(most) {
			return q, badParameter("maxresults", text, "It is a number from 1 to "+strconv.Itoa(most))
		}
		q.Max = int(n)
	}
	// Options of OData that clients know from elsewhere are refused rather than
	// ignored: a list that comes in another order than asked for looks right.
	for _, name := range []string{"$orderby", "$top", "$skip", "$count", "$search", "$inlinecount"} {
		if c.query[name] != "" {
			return q, badParameter(name, c.query[name], "The option is not part of the protocol; lists have $filter, $select and maxresults")
		}
	}
	return q, c.checkExpand()
}

// itemsAtOnce is how many items are encoded before others have a turn at the
// processor: a long list is in less of a hurry than what waits behind it.
const itemsAtOnce = 32

// list answers with a page of items; show gives the protocol's form of one.
//
// An item is written in one of three ways, the cheapest that will do: as it is,
// in the newest version and whole; its selected members alone, see projection; or
// encoded, rewritten for the version and cut to the selection.
//
// The page is complete before its first byte goes out. An error in its last item
// is thus still an error and not half a list.
func list[T any](c *call, k kind, metadata string, page control.Page[T], show func(*call, *T) any) error {
	selected, err := c.selection(k)
	if err != nil {
		return err
	}
	b := getBuffer()
	defer putBuffer(b)
	b.WriteString(`{"odata.metadata":`)
	b.Write(appendString(nil, c.metadata(metadata)))
	b.WriteString(`,"value":[`)
	plain, some := selected.All() && c.version.shapes[k] == nil, c.project(k, selected)
	for i := range page.Items {
		if i > 0 {
			b.WriteByte(',')
		}
		if i%itemsAtOnce == itemsAtOnce-1 {
			runtime.Gosched()
		}
		item := show(c, &page.Items[i])
		if plain {
			if err := json.MarshalWrite(b, item); err != nil {
				return err
			}
			continue
		}
		if some != nil {
			if err := some.write(b, item); err != nil {
				return err
			}
			continue
		}
		text, err := c.encode(k, item, selected)
		if err != nil {
			return err
		}
		b.Write(text)
	}
	b.WriteByte(']')
	if page.Next != "" {
		b.WriteString(`,"odata.nextLink":`)
		b.Write(appendString(nil, c.nextLink(page.Next)))
	}
	b.WriteByte('}')
	if err := c.hold(b.Len()); err != nil {
		return err
	}
	c.writeText(http.StatusOK, b.Bytes())
	return nil
}

// nextLink is the address of the next page: this request's with the place at
// which to go on. Clients follow it as it stands, so that everything is in it.
func (c *call) nextLink(token string) string {
	var b strings.Builder
	b.WriteString(c.base + c.r.URL.EscapedPath())
	sep := byte('?')
	for _, p := range append(c.sent, param{tokenParameter, token}) {
		if strings.EqualFold(p.name, tokenParameter) && p.value != token {
			continue
		}
		b.WriteByte(sep)
		b.WriteString(escapeQuery(p.name))
		b.WriteByte('=')
		b.WriteString(escapeQuery(p.value))
		sep = '&'
	}
	return b.String()
}

// escapeQuery escapes a name or a value with nothing but percent signs: some
// clients do not take a plus for a space when they sign.
func escapeQuery(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(url.QueryEscape(s), "+", "%20"), "%24", "$")
}

// empty answers a list that is empty because there is nothing of its kind.
func empty(metadata string) handler {
	return func(c *call) error {
		if _, err := c.page(maxPage); err != nil {
			return err
		}
		return list(c, kindOther, metadata, control.Page[struct{}]{}, func(*call, *struct{}) any { return nil })
	}
}

// optionalTime is a time that is left out when it is not set.
func optionalTime(t batch.Time) *batch.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
