package blob

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/batchyard/batchyard/gate"
)

// Limits bound what the endpoint takes on.
type Limits struct {
	// Transfers are requests that carry content: each holds a file and lasts as
	// long as its client takes. Others are all the rest. Nil: no more than suits
	// a small machine.
	Transfers, Others *gate.Class
	// Buffers bounds the memory of lists of blocks; nil is no bound.
	Buffers *gate.Budget
	// Late tells requests that came over a connection for which there was no
	// room any more; they are refused. Nil: none did.
	Late func(*http.Request) bool
}

func (l *Limits) fill() {
	if l.Transfers == nil {
		l.Transfers = gate.New(gate.Options{Name: "transfers", Places: 256, Line: 256, Patience: 3 * time.Second})
	}
	if l.Others == nil {
		l.Others = gate.New(gate.Options{Name: "storage", Places: 64, Line: 256, Patience: 3 * time.Second})
	}
}

// transfers are the operations that carry content.
var transfers = []string{"PutBlob", "PutBlock", "GetBlob"}

// admit lets a request in when it is its turn, and says how to leave.
func (s *Server) admit(c *call, op operation) (leave func(), err error) {
	class := s.limits.Others
	if slices.Contains(transfers, op.name) && c.r.Method != http.MethodHead {
		class = s.limits.Transfers
	}
	if s.limits.Late != nil && s.limits.Late(c.r) {
		return nil, busy()
	}
	switch err := class.Enter(c.r.Context(), c.at.account); {
	case err == nil:
		return class.Leave, nil
	case errors.Is(err, context.Canceled):
		return nil, err
	}
	return nil, busy()
}

func busy() *fault {
	return refuse(serverBusy, "The server has more to do than it can do in time. Try again later.")
}

// hold takes memory for a request.
func (s *Server) hold(n int64) (release func(), err error) {
	if !s.limits.Buffers.Take(n) {
		return nil, busy()
	}
	return func() { s.limits.Buffers.Give(n) }, nil
}
