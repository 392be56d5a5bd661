package blob

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// maxHashedRange is the largest range of which a checksum can be asked.
const maxHashedRange = 4 << 20

// byteRange is what a client asked for: from first to last, both included, or
// to the end if last is negative.
type byteRange struct{ first, last int64 }

// readRange reads x-ms-range or else Range. It is nil if all is asked for. As
// HTTP allows, a Range of a form that is not served here is passed over.
func readRange(h http.Header) (*byteRange, error) {
	if value := h.Get("X-Ms-Range"); value != "" {
		r, ok := parseRange(value)
		if !ok {
			return nil, invalidHeader("x-ms-range", value, "it must read bytes=first-last or bytes=first-")
		}
		return &r, nil
	}
	if r, ok := parseRange(h.Get("Range")); ok {
		return &r, nil
	}
	return nil, nil
}

func parseRange(value string) (byteRange, bool) {
	span, ok := strings.CutPrefix(value, "bytes=")
	first, last, dash := strings.Cut(span, "-")
	if !ok || !dash {
		return byteRange{}, false
	}
	r := byteRange{last: -1}
	var err error
	if r.first, err = parseOffset(first); err != nil {
		return byteRange{}, false
	}
	if last == "" {
		return r, true
	}
	if r.last, err = parseOffset(last); err != nil || r.last < r.first {
		return byteRange{}, false
	}
	return r, true
}

// parseOffset takes digits only: no sign, which ParseInt would allow.
func parseOffset(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}

// within gives the offsets, the second excluded, of the range in a blob of a
// size. One that starts at the end or after it, as any does in an empty blob,
// is refused.
func (r byteRange) within(size int64) (from, to int64, err error) {
	if r.first >= size {
		return 0, 0, refuse(invalidRange, "The range specified is invalid for the current size of the resource.").of(size)
	}
	if r.last < 0 || r.last >= size {
		return r.first, size, nil
	}
	return r.first, r.last + 1, nil
}

// contentRange is the header that goes with a part of a blob.
func contentRange(from, to, size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", from, to-1, size)
}
