package blob

import (
	"net/http"
	"strings"
	"time"
)

// conditions are the conditional headers of a request. A zero one asks nothing.
type conditions struct {
	match, noneMatch     []string // ETags without quotes, or "*"
	modified, unmodified time.Time
	unmet                code // what a failed one is called
}

// readConditions reads the conditional headers whose names start with a prefix:
// "" for those on the blob, "X-Ms-Source-" for those on the source of a copy.
func readConditions(h http.Header, prefix string) (conditions, error) {
	c := conditions{
		match:     etags(h.Get(prefix + "If-Match")),
		noneMatch: etags(h.Get(prefix + "If-None-Match")),
		unmet:     conditionNotMet,
	}
	if prefix != "" {
		c.unmet = sourceConditionNotMet
	}
	for name, to := range map[string]*time.Time{"If-Modified-Since": &c.modified, "If-Unmodified-Since": &c.unmodified} {
		value := h.Get(prefix + name)
		if value == "" {
			continue
		}
		at, err := http.ParseTime(value)
		if err != nil {
			return conditions{}, invalidHeader(prefix+name, value, "it must be an HTTP date")
		}
		*to = at
	}
	return c, nil
}

// etags takes a list of ETags apart. Clients quote them or not: lists of blobs
// show them without quotes.
func etags(value string) []string {
	var tags []string
	for tag := range strings.SplitSeq(value, ",") {
		tag = strings.Trim(strings.TrimPrefix(strings.TrimSpace(tag), "W/"), `"`)
		if tag != "" {
			tags = append(tags, tag)
		}
	}
	return tags
}

// checkRead holds the conditions of a read against what is there. That the
// client has it already is answered with 304.
func (c conditions) checkRead(etag string, modified time.Time) error {
	if has(c.noneMatch, "*") {
		return refuse(unsatisfiableCondition, "The condition If-None-Match: * cannot be met by a read.")
	}
	failed, old := c.failed(etag, modified)
	switch {
	case failed == "":
		return nil
	case old && c.unmet == conditionNotMet:
		f := c.refuse(failed)
		f.status = http.StatusNotModified
		return f
	default:
		return c.refuse(failed)
	}
}

// checkWrite holds the conditions of a write against what is there; etag is
// empty if nothing is.
func (c conditions) checkWrite(etag string, modified time.Time) error {
	if etag == "" {
		if c.match != nil {
			return c.refuse("If-Match")
		}
		return nil // there is nothing that could have changed
	}
	if has(c.noneMatch, "*") {
		return refuse(blobAlreadyExists, "The specified blob already exists.")
	}
	if failed, _ := c.failed(etag, modified); failed != "" {
		return c.refuse(failed)
	}
	return nil
}

// failed names the header whose condition does not hold, and says if it is one
// of those by which a client asks for something newer. As in HTTP, a condition
// on the ETag makes the one on the time void.
func (c conditions) failed(etag string, modified time.Time) (header string, old bool) {
	modified = modified.Truncate(time.Second) // HTTP dates have no fractions
	switch {
	case c.match != nil && !has(c.match, etag) && !has(c.match, "*"):
		return "If-Match", false
	case c.match == nil && !c.unmodified.IsZero() && modified.After(c.unmodified):
		return "If-Unmodified-Since", false
	case c.noneMatch != nil && has(c.noneMatch, etag):
		return "If-None-Match", true
	case c.noneMatch == nil && !c.modified.IsZero() && !modified.After(c.modified):
		return "If-Modified-Since", true
	}
	return "", false
}

func (c conditions) refuse(header string) *fault {
	return refuse(c.unmet, "The condition specified using HTTP conditional header(s) is not met: %s.", header)
}

func has(tags []string, tag string) bool {
	for _, t := range tags {
		if t == tag {
			return true
		}
	}
	return false
}
