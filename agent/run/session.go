package run

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// errGone says that a connection broke before a request was answered.
var errGone = errors.New("connection to the keeper broke")

// session is one connection to a keeper, after hello.
type session struct {
	link    *link
	welcome *welcome
	lease   int64         // the lease that hello told
	gone    chan struct{} // closed when the connection has ended
	final   bool          // the keeper has been shut down; belongs to the reader

	mu    sync.Mutex // guards all below
	calls map[uint64]chan *message
	next  uint64
	last  uint64 // the request to shut down, if there was one
}

// greet says hello on a new link and reads the keeper's welcome.
func greet(l *link, node NodeLimits, lease int64) (*session, error) {
	err := l.send(&message{ID: 1, Hello: &hello{Version: protocolVersion, Node: node, Lease: lease}})
	var m message
	if err == nil {
		err = l.receive(&m)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	switch {
	case m.Error != nil:
		return nil, m.Error.err()
	case m.Welcome == nil:
		return nil, errors.New("keeper did not say welcome")
	case m.Welcome.Version < oldestVersion || m.Welcome.Version > protocolVersion:
		return nil, fmt.Errorf("keeper speaks version %d of the protocol, this agent %d to %d",
			m.Welcome.Version, oldestVersion, protocolVersion)
	}
	return &session{
		link:    l,
		welcome: m.Welcome,
		lease:   lease,
		gone:    make(chan struct{}),
		calls:   map[uint64]chan *message{},
		next:    1,
	}, nil
}

// read hands out replies and events until the connection breaks.
func (s *session) read(exited func(*Held)) error {
	for {
		var m message
		if err := s.link.receive(&m); err != nil {
			return err
		}
		if m.Exited != nil {
			exited(m.Exited)
			continue
		}
		if m.ID == 0 && m.Error != nil {
			return m.Error.err()
		}
		s.mu.Lock()
		call := s.calls[m.ID]
		delete(s.calls, m.ID)
		s.final = s.final || m.ID == s.last && m.ID != 0 && m.Error == nil
		s.mu.Unlock()
		if call != nil {
			reply := m
			call <- &reply
		}
	}
}

// close ends the connection and all requests that wait. Read must have
// returned, or never have been called.
func (s *session) close() {
	s.link.close()
	close(s.gone)
}

// call sends a request and waits for its reply. It returns errGone if the
// connection broke meanwhile, and the keeper's error if it refused.
func (s *session) call(ctx context.Context, m *message) (*message, error) {
	reply := make(chan *message, 1)
	request := *m
	s.mu.Lock()
	s.next++
	request.ID = s.next
	s.calls[request.ID] = reply
	if m.Shutdown {
		s.last = request.ID
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.calls, request.ID)
		s.mu.Unlock()
	}()
	send := s.link.send
	if m.posted != nil {
		send = s.link.post
	}
	if err := send(&request); err != nil {
		select {
		case <-s.gone:
			return nil, errGone
		default:
		}
		if s.link.broken() {
			return nil, errGone
		}
		return nil, err
	}
	if m.posted != nil {
		m.posted()
	}
	select {
	case r := <-reply:
		return answered(r)
	case <-s.gone:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	// The last answer of a keeper that ends comes just before its end.
	select {
	case r := <-reply:
		return answered(r)
	default:
		return nil, errGone
	}
}

func answered(r *message) (*message, error) {
	if r.Error != nil {
		return nil, r.Error.err()
	}
	return r, nil
}
