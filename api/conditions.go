package api

import (
	"net/http"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// conditions reads the conditional headers. They are handed on and not checked
// here: only the transaction that changes something knows what it is changing.
func (c *call) conditions() (batch.Conditions, error) {
	h := c.r.Header
	conditions := batch.Conditions{IfMatch: h.Get("If-Match"), IfNoneMatch: h.Get("If-None-Match")}
	var err error
	if conditions.IfModifiedSince, err = headerTime(h, "If-Modified-Since"); err != nil {
		return conditions, err
	}
	conditions.IfUnmodifiedSince, err = headerTime(h, "If-Unmodified-Since")
	return conditions, err
}

// fresh holds the conditions of a read against what was read. The stamp goes
// out with a 304 too.
func (c *call) fresh(s batch.Stamp) error {
	conditions, err := c.conditions()
	if err != nil {
		return err
	}
	if err := conditions.Check(s, true); err != nil {
		if batch.CodeOf(err) == batch.CodeNotModified {
			c.setStamp(s)
		}
		return err
	}
	return nil
}

// headerTime reads a date of HTTP; some clients write UTC for its GMT, or ISO
// 8601.
func headerTime(h http.Header, name string) (time.Time, error) {
	text := h.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := http.ParseTime(text); err == nil {
		return t, nil
	}
	for _, layout := range []string{time.RFC1123, time.RFC3339Nano} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, badHeader(name, text, "It is a date like "+http.TimeFormat)
}
