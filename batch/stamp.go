package batch

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Stamp identifies one version of a resource: its ETag and the time of its
// last change. Both come from one number, microseconds since 1970, which the
// store raises by at least one with every change.
type Stamp int64

// ETag is the bare hexadecimal form the service uses, never quoted.
func (s Stamp) ETag() string { return "0x8D" + strings.ToUpper(strconv.FormatInt(int64(s), 16)) }

// Modified is the time of the change.
func (s Stamp) Modified() time.Time { return time.UnixMicro(int64(s)).UTC() }

// Next is the stamp of a change made now to a resource that had s.
func (s Stamp) Next(now time.Time) Stamp { return max(s+1, Stamp(now.UnixMicro())) }

// Conditions are the conditional headers of a request. Zero values ask
// nothing.
type Conditions struct {
	IfMatch, IfNoneMatch               string
	IfModifiedSince, IfUnmodifiedSince time.Time
}

// Check holds the conditions against the current version. A failed one is
// ConditionNotMet (412); for a read, one that says the caller has the newest
// version already is NotModified (304).
func (c Conditions) Check(current Stamp, read bool) error {
	failed := func(header string) error {
		return &Error{
			Code:    CodeConditionNotMet,
			Message: fmt.Sprintf("The condition specified by the header %s is not met.", header),
		}
	}
	unchanged := func(header string) error {
		if read {
			return Errorf(CodeNotModified, "The resource has not changed.")
		}
		return failed(header)
	}
	switch {
	case c.IfMatch != "" && !matches(c.IfMatch, current):
		return failed("If-Match")
	case c.IfNoneMatch != "" && matches(c.IfNoneMatch, current):
		return unchanged("If-None-Match")
	// HTTP dates have seconds only, so the comparison drops the rest.
	case !c.IfUnmodifiedSince.IsZero() && current.Modified().Truncate(time.Second).After(c.IfUnmodifiedSince):
		return failed("If-Unmodified-Since")
	case !c.IfModifiedSince.IsZero() && !current.Modified().Truncate(time.Second).After(c.IfModifiedSince):
		return unchanged("If-Modified-Since")
	}
	return nil
}

// matches accepts a list of ETags, quoted or not, and the star.
func matches(header string, current Stamp) bool {
	for tag := range strings.SplitSeq(header, ",") {
		tag = strings.Trim(strings.TrimPrefix(strings.TrimSpace(tag), "W/"), `"`)
		if tag == "*" || strings.EqualFold(tag, current.ETag()) {
			return true
		}
	}
	return false
}
