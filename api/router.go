package api

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/batchyard/batchyard/batch"
)

// handler answers one operation or says what is wrong.
type handler func(*call) error

// route is an operation of the protocol. In its pattern {name} is one segment
// of the path and {name...} all that follow, file names have slashes; a
// segment that ends in () matches what has anything between parentheses.
type route struct {
	method, pattern string
	handle          handler
	// streams marks operations whose answer may take longer than the time
	// allowed for the work before it.
	streams bool
	// class is where the operation waits for its turn.
	class class
}

// router is a tree of path segments. The path is matched as it was sent, still
// escaped, because an encoded slash is part of a name and because that is what
// was signed.
type router struct {
	literal map[string]*router
	param   *router
	rest    map[string]*route
	routes  map[string]*route
}

// newRouter makes the tree of a table, whose rows it goes on pointing to.
func newRouter(table []route) *router {
	root := &router{}
	for i := range table {
		root.add(&table[i])
	}
	return root
}

// add makes the branches of a pattern that are missing. Parameters of all patterns
// at a place are one branch: their names are for the reader of the table.
func (t *router) add(r *route) {
	segments := strings.Split(r.pattern, "/")
	for i, segment := range segments {
		last := i == len(segments)-1
		switch {
		case last && strings.HasSuffix(segment, "...}"):
			if t.rest == nil {
				t.rest = map[string]*route{}
			}
			t.rest[r.method] = r
			return
		case strings.HasPrefix(segment, "{"):
			if t.param == nil {
				t.param = &router{}
			}
			t = t.param
		default:
			if t.literal == nil {
				t.literal = map[string]*router{}
			}
			if t.literal[segment] == nil {
				t.literal[segment] = &router{}
			}
			t = t.literal[segment]
		}
	}
	if t.routes == nil {
		t.routes = map[string]*route{}
	}
	t.routes[r.method] = r
}

// find gives the operations at a path by method, and the parameters, still
// escaped. The path has no slash at its beginning.
//
// A literal segment goes before a parameter, and there is no way back: no pattern
// of the table needs one, and a path costs as much as it has segments. Whatever
// follows a folder of files is a name, with its slashes, so that "rest" is taken
// wherever there is one. A parameter is never empty: pools//nodes is nothing.
func (t *router) find(path string) (routes map[string]*route, params []string) {
	rest := path
	for {
		if t.rest != nil && rest != "" {
			return t.rest, append(params, rest)
		}
		segment, after, more := strings.Cut(rest, "/")
		next := t.literal[segment]
		if next == nil {
			if i := strings.IndexByte(segment, '('); i > 0 && strings.HasSuffix(segment, ")") {
				next = t.literal[segment[:i]+"()"]
			}
		}
		if next == nil && segment != "" {
			if next = t.param; next != nil {
				params = append(params, segment)
			}
		}
		if next == nil {
			return nil, nil
		}
		t, rest = next, after
		if !more {
			return t.routes, params
		}
	}
}

// findRoute finds the operation. In the oldest versions the action is a bare
// word of the query; it is read as the path segment that later ones have.
func (c *call) findRoute() error {
	path := strings.TrimPrefix(c.r.URL.EscapedPath(), "/")
	if len(c.words) > 0 && c.r.Method == http.MethodPost {
		v, err := c.parseVersion(c.query["api-version"])
		if err != nil {
			return err
		}
		if c.version = v; v.before(queryActions) {
			path += "/" + c.words[0]
		}
	}
	found, params := c.router.find(path)
	if len(found) == 0 {
		return &batch.Error{
			Code:    batch.CodeInvalidURI,
			Message: "The requested URI does not represent any resource on the server.",
		}
	}
	c.route = found[c.r.Method]
	if c.route == nil {
		c.w.Header().Set("Allow", strings.Join(slices.Sorted(maps.Keys(found)), ", "))
		return batch.Errorf(batch.CodeUnsupportedVerb, "The resource does not support the method %s.", clip(c.r.Method))
	}
	for _, p := range params {
		plain, err := url.PathUnescape(p)
		if err != nil {
			return batch.Errorf(batch.CodeInvalidURI, "The path of the request is not well encoded.")
		}
		if !utf8.ValidString(plain) || strings.Contains(plain, "\x00") {
			return batch.Errorf(batch.CodeInvalidURI, "The path of the request is not text in UTF-8.")
		}
		c.params = append(c.params, plain)
	}
	return nil
}
