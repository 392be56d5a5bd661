package auth

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// maxSigned is how many bytes of address and headers a signed request may have.
// It bounds the work that somebody without a key can ask for.
const maxSigned = 32 << 10

// checkSize refuses a request whose texts to sign would be too long, before any
// of them is built.
func checkSize(r *http.Request) error {
	size := len(r.URL.RawQuery) + len(r.URL.Path) + len(r.URL.RawPath)
	for name, values := range r.Header {
		for _, v := range values {
			size += len(name) + len(v)
		}
	}
	if size > maxSigned {
		return refuse(RequestTooLong, "the address and headers of the request are longer than %d bytes", maxSigned)
	}
	return nil
}

// The standard headers of the full text to sign, in their order. Content-Length
// and Date stand for themselves in it, because clients differ in them.
var (
	headersBeforeLength = []string{"Content-Encoding", "Content-Language"}
	headersBeforeDate   = []string{"Content-Md5", "Content-Type"}
	headersAfterDate    = []string{"If-Modified-Since", "If-Match", "If-None-Match", "If-Unmodified-Since", "Range"}
)

// headerLines is the part of the text to sign that ends with the standard
// headers, each on a line, an absent one as an empty line.
func headerLines(scheme Scheme, r *http.Request, length, date string) string {
	var b strings.Builder
	line := func(s string) {
		b.WriteString(s)
		b.WriteByte('\n')
	}
	lines := func(names []string) {
		for _, n := range names {
			line(headerValue(r.Header, n))
		}
	}
	line(r.Method)
	if scheme == SharedKey {
		lines(headersBeforeLength)
		line(length)
	}
	lines(headersBeforeDate)
	line(date)
	if scheme == SharedKey {
		lines(headersAfterDate)
	}
	return b.String()
}

func headerValue(h http.Header, canonicalName string) string {
	switch values := h[canonicalName]; len(values) {
	case 0:
		return ""
	case 1:
		return values[0]
	default:
		return strings.Join(values, ",")
	}
}

// lengthLines are the Content-Length lines that a client may have signed. Some
// sign 0 and send nothing, some send 0 and sign nothing; with a body there is
// one truth.
func lengthLines(scheme Scheme, r *http.Request) []string {
	literal := sentLength(r)
	if scheme == SharedKeyLite {
		return []string{""} // the short form has no such line
	}
	if literal != "" && literal != "0" {
		return []string{literal}
	}
	return []string{"", "0"}
}

// sentLength is the literal Content-Length: of the header where a server has
// received it, else what a transport is going to send.
func sentLength(r *http.Request) string {
	if v := headerValue(r.Header, "Content-Length"); v != "" {
		return v
	}
	if r.ContentLength > 0 {
		return strconv.FormatInt(r.ContentLength, 10)
	}
	return ""
}

// dateLines are the Date lines that a client may have signed. With the
// protocol's own date header the line is empty; a client that sends Date
// besides may have signed it all the same.
func dateLines(h http.Header, own string) []string {
	date := h.Get("Date")
	if h.Get(own) == "" {
		return []string{date}
	}
	if date == "" {
		return []string{""}
	}
	return []string{"", date}
}

// customHeaders gives the names, in lower case and unsorted, of the headers
// with a prefix, and whether one of them has no value.
func customHeaders(h http.Header, prefix string) (names []string, empty bool) {
	for name := range h {
		if len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
			names = append(names, strings.ToLower(name))
			empty = empty || headerValue(h, name) == ""
		}
	}
	return names, empty
}

// customLines writes the named headers as name:value lines in the given order.
// A value that was folded over lines has been unfolded by the HTTP server.
func customLines(h http.Header, names []string, skipEmpty bool) string {
	var b strings.Builder
	for _, n := range names {
		value := headerValue(h, http.CanonicalHeaderKey(n))
		if skipEmpty && value == "" {
			continue
		}
		b.WriteString(n)
		b.WriteByte(':')
		b.WriteString(value)
		b.WriteByte('\n')
	}
	return b.String()
}

// accountNames are the forms of the account that a client may have signed.
func accountNames(name string) []string {
	if lower := strings.ToLower(name); lower != name {
		return []string{name, lower}
	}
	return []string{name}
}

// resourcePath is the path exactly as it stands in the address, still escaped.
func resourcePath(u *url.URL) string {
	if p := u.EscapedPath(); p != "" {
		return p
	}
	return "/"
}

// param is one name=value of a query, percent-decoded.
type param struct {
	name, value string
	bare        bool // a word without '=', which in old versions is the action asked for
}

// blank reports whether a client may have left the parameter out of what it
// signed. A bare word never may be: adding one would turn a captured request
// into another action.
func (p param) blank() bool { return p.value == "" && !p.bare }

// splitQuery takes a query apart as the clients do: at each '&' and nowhere
// else, a plus meaning a space. What does not decode is left as it is.
func splitQuery(raw string) []param {
	var params []param
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, equals := strings.Cut(part, "=")
		params = append(params, param{unescape(name), unescape(value), !equals})
	}
	return params
}

func unescape(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}

// queryForm says how a client writes the query into the text to sign.
type queryForm struct {
	asSent    bool // names keep their case and are sorted so
	skipBlank bool // a parameter without a value is left out
	firstOnly bool // of several values the first stands for all
}

// lines writes the query as name:value, sorted by name, each after a line
// break. Several values of a name are sorted and joined by commas.
func (f queryForm) lines(params []param) string {
	values := make(map[string][]string, len(params))
	var names []string
	for _, p := range params {
		if f.skipBlank && p.blank() {
			continue
		}
		name := p.name
		if !f.asSent {
			name = strings.ToLower(name)
		}
		if _, seen := values[name]; !seen {
			names = append(names, name)
		}
		values[name] = append(values[name], p.value)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		v := values[name]
		if f.firstOnly {
			v = v[:1]
		}
		slices.Sort(v)
		b.WriteByte('\n')
		b.WriteString(name)
		b.WriteByte(':')
		b.WriteString(strings.Join(v, ","))
	}
	return b.String()
}

// queryForms are the forms that differ for this query, the documented first.
func queryForms(params []param) []queryForm {
	var upper, blank, repeated bool
	seen := make(map[string]bool, len(params))
	for _, p := range params {
		lower := strings.ToLower(p.name)
		upper = upper || strings.ContainsFunc(p.name, unicode.IsUpper)
		blank = blank || p.blank()
		repeated = repeated || seen[lower]
		seen[lower] = true
	}
	forms := []queryForm{{}}
	widen := func(differs bool, change func(*queryForm)) {
		if !differs {
			return
		}
		for _, f := range forms {
			change(&f)
			forms = append(forms, f)
		}
	}
	widen(upper, func(f *queryForm) { f.asSent = true })
	widen(blank, func(f *queryForm) { f.skipBlank = true })
	widen(repeated, func(f *queryForm) { f.firstOnly = true })
	return forms
}
