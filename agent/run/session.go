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
	link    *Wire
	welcome *Welcome
	lease   int64         // the lease that hello told
	gone    chan struct{} // closed when the connection has ended
	final   bool          // the keeper has been shut down; belongs to the reader

	mu    sync.Mutex // guards all below
	calls map[uint64]chan *Message
	next  uint64
	last  uint64 // the request to shut down, if there was one
}

// greet says hello on a new link and reads the keeper's welcome.
func greet(l *Wire, node NodeLimits, lease int64) (*session, error) {
	err := l.Send(&Message{ID: 1, Hello: &Hello{Version: ProtocolVersion, Node: node, Lease: lease}})
	var m Message
	if err == nil {
		err = l.Receive(&m)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	switch {
	case m.Error != nil:
		return nil, m.Error.err()
	case m.Welcome == nil:
		return nil, errors.New("keeper did not say welcome")
	case m.Welcome.Version < oldestVersion || m.Welcome.Version > ProtocolVersion:
		return nil, fmt.Errorf("keeper speaks version %d of the protocol, this agent %d to %d",
			m.Welcome.Version, oldestVersion, ProtocolVersion)
	}
	l.Speak(m.Welcome.Version)
	return &session{
		link:    l,
		welcome: m.Welcome,
		lease:   lease,
		gone:    make(chan struct{}),
		calls:   map[uint64]chan *Message{},
		next:    1,
	}, nil
}

// read hands out replies and events until the connection breaks.
func (s *session) read(exited func(*Held)) error {
	for {
		var m Message
		if err := s.link.Receive(&m); err != nil {
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
	s.link.Close()
	close(s.gone)
}

// call sends a request and waits for its reply. It returns errGone if the
// connection broke meanwhile, and the keeper's error if it refused.
func (s *session) call(ctx context.Context, m *Message) (*Message, error) {
	reply := make(chan *Message, 1)
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
	send := s.link.Send
	if m.posted != nil {
		send = s.link.Post
	}
	if err := send(&request); err != nil {
		select {
		case <-s.gone:
			return nil, errGone
		default:
		}
		if s.link.Broken() {
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

func answered(r *Message) (*Message, error) {
	if r.Error != nil {
		return nil, r.Error.err()
	}
	return r, nil
}
