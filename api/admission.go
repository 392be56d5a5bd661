package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/gate"
)

// Classes are the kinds of requests, by what they cost and what they wait for.
// Each has its own places, so that no kind can keep out another.
type Classes struct {
	// Reads are of one thing, Writes of one thing. Adds add up to a hundred
	// tasks. Lists give a page of things. Files wait for a compute node.
	Reads, Writes, Adds, Lists, Files *gate.Class
}

// class says which of the classes a route is in.
type class int

const (
	byMethod class = iota // a read or a write of one thing
	adds
	lists
	files
)

// fill makes the classes that are missing.
func (c *Classes) fill() {
	for _, missing := range []struct {
		class  **gate.Class
		name   string
		places int
	}{{&c.Reads, "reads", 64}, {&c.Writes, "writes", 256}, {&c.Adds, "adds", 16}, {&c.Lists, "lists", 8}, {&c.Files, "files", 256}} {
		if *missing.class == nil {
			*missing.class = gate.New(gate.Options{Name: missing.name, Places: missing.places, Line: 512, Patience: 3 * time.Second})
		}
	}
}

// of puts most operations in a class by their method, since what one thing costs
// does not depend on which; the others say theirs in the table of routes.
func (c *Classes) of(r *route) *gate.Class {
	switch {
	case r.class == adds:
		return c.Adds
	case r.class == lists:
		return c.Lists
	case r.class == files:
		return c.Files
	case r.method == http.MethodGet, r.method == http.MethodHead:
		return c.Reads
	}
	return c.Writes
}

// admit lets the request in when it is its turn. Its body has been received by
// then: a client that takes its time to send it takes no place meanwhile.
func (c *call) admit() error {
	// Full is asked before the body is read, so that a crowd costs no memory; Enter
	// is asked after it, because the place is for the work alone.
	to := c.Classes.of(c.route)
	if c.Late != nil && c.Late(c.r) || to.Full() {
		return c.refuseWork()
	}
	if err := c.receive(); err != nil {
		return err
	}
	switch err := to.Enter(c.context(), string(c.account)); {
	case err == nil:
		c.place = to
		return nil
	// The caller went away; whoever ran out of time instead is told to come
	// back, as nothing was done for it yet.
	case errors.Is(err, context.Canceled) && !errors.Is(context.Cause(c.context()), context.DeadlineExceeded):
		return err
	}
	return c.refuseWork()
}

// refuseWork refuses what would be done if there were room. Nothing has happened,
// so that a client may send the same again, and clients of the service do.
func (c *call) refuseWork() error {
	if c.r.ContentLength != 0 || c.Late != nil && c.Late(c.r) {
		c.w.Header().Set("Connection", "close") // nobody will read the body
	}
	return busy("The server has more to do than it can do in time.")
}

// leave gives the place back: when the answer is ready, since how long a client
// takes to read it is none of the others' business.
func (c *call) leave() {
	if c.place != nil {
		c.place.Leave()
		c.place = nil
	}
}

// hold takes memory for the request until its end.
func (c *call) hold(n int) error {
	if !c.Buffers.Take(int64(n)) {
		return busy("The server has no memory for more requests.")
	}
	c.held += int64(n)
	return nil
}

// firstHold is for how much of a body of unknown length memory is taken at
// first; then for as much again each time.
const firstHold = 8 << 10

// receive reads the body of a request that may have one, within the limit. What
// is wrong with it is told to those who want to have it.
func (c *call) receive() error {
	if c.r.ContentLength == 0 || c.r.Method == http.MethodGet || c.r.Method == http.MethodHead || c.r.Method == http.MethodDelete {
		return nil
	}
	if encoding := c.r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		c.bodyErr = badHeader("Content-Encoding", encoding, "Bodies are not compressed")
		return nil
	}
	// A deadline for the connection, so that a body that trickles in is cut
	// off; it must be gone before the answer is awaited.
	conn := http.NewResponseController(c.w)
	if deadline, ok := c.context().Deadline(); ok && conn.SetReadDeadline(deadline) == nil {
		defer conn.SetReadDeadline(time.Time{}) //nolint:errcheck // it worked just before
	}
	if c.r.ContentLength > c.MaxBody {
		c.bodyErr = c.tooLarge()
		return nil
	}
	c.body = getBuffer()
	step := int64(firstHold)
	if c.r.ContentLength > 0 && c.r.ContentLength < step {
		step = c.r.ContentLength
	}
	// What a client says of the length may be a lie or missing, so memory is taken
	// as the body arrives, twice as much each time, and never for more than a byte
	// beyond the limit: that byte tells that the body is too large.
	for {
		if err := c.hold(int(step)); err != nil {
			c.w.Header().Set("Connection", "close")
			return err
		}
		n, err := c.body.ReadFrom(io.LimitReader(c.r.Body, step))
		switch {
		case err != nil && c.context().Err() != nil:
			return c.context().Err()
		case err != nil:
			c.bodyErr = &batch.Error{Code: batch.CodeInvalidRequestBody, Message: "The body of the request could not be read.", Err: err}
			return nil
		case int64(c.body.Len()) > c.MaxBody:
			c.bodyErr = c.tooLarge()
			return nil
		case n < step, int64(c.body.Len()) == c.r.ContentLength:
			return nil
		}
		step = min(int64(c.body.Len()), c.MaxBody+1-int64(c.body.Len()))
		if left := c.r.ContentLength - int64(c.body.Len()); left > 0 {
			step = min(step, left)
		}
	}
}

// readBody gives the whole body, for whose values there is memory.
func (c *call) readBody() ([]byte, error) {
	if c.bodyErr != nil || c.body == nil {
		return nil, c.bodyErr
	}
	text := bytes.TrimPrefix(c.body.Bytes(), byteOrderMark)
	// The text was held as it came in. What it becomes once it is decoded may be many
	// times as large, and is asked for before it is made.
	m, err := measure(text)
	if err != nil {
		return nil, err
	}
	c.measured = m
	return text, c.hold(m.values * valueCost)
}

// maxWasted is how much of a body that is too large is read all the same: a
// hundred tasks of the largest size there is.
const maxWasted = 16 << 20

// tooLarge reads the body to its end before it refuses it. Clients split what
// was too large, but most send all of it before they read the answer, which a
// connection that is closed in between takes with it.
func (c *call) tooLarge() error {
	if _, err := io.CopyN(io.Discard, c.r.Body, maxWasted); !errors.Is(err, io.EOF) {
		c.w.Header().Set("Connection", "close") // what is left is not worth reading
	}
	return &batch.Error{
		Code:    batch.CodeRequestBodyTooLarge,
		Message: "The size of the request body exceeds the maximum permitted.",
		Details: []batch.Detail{{Key: "MaxLimit", Value: strconv.FormatInt(c.MaxBody, 10)}},
	}
}

// The slowest reader is given so many bytes a second, and patience on top: a
// connection, and at the other end a compute node, are not held for ever.
const (
	slowest  = 16 << 10
	patience = 2 * time.Minute
)

// allowWrite gives the client the time to take so many bytes.
func (c *call) allowWrite(n int64) {
	// What is no connection, as in a test, knows no such time.
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(patience + time.Duration(n/slowest)*time.Second))
}
