package run

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-json-experiment/json"
	jsonv1 "github.com/go-json-experiment/json/v1"

	"github.com/batchyard/batchyard/agent/link"
)

// What the client here and the process of package keeper say to each other.

// encoding writes durations as numbers of nanoseconds.
func encoding() json.Options { return jsonv1.FormatDurationAsNano(true) }

// ProtocolVersion is what this program speaks. A keeper outlives upgrades of the
// agent as long as it holds tasks, so an agent must understand every keeper back
// to oldestVersion; fields are only ever added. Each end says its version in its
// greeting, which is JSON in all versions, and what follows is of the lower one.
const (
	ProtocolVersion = 3
	oldestVersion   = 1
	// lineVersion is the first that knows LineUp and Withdraw.
	lineVersion = 2
	// frameVersion is the first that reads and writes frames, see frame.go.
	frameVersion = 3
)

// Message is what agent and keeper say to each other. ID joins a request and its reply and is 0 for messages that have
// none. Exactly one of the other fields is set, or none in a bare "done".
type Message struct {
	ID uint64 `json:"id,omitzero"`

	// Requests of the agent.
	Hello    *Hello       `json:"hello,omitempty"`
	Start    *Spec        `json:"start,omitempty"`
	LineUp   *Spec        `json:"lineUp,omitempty"`
	Withdraw string       `json:"withdraw,omitempty"`
	Kill     *KillRequest `json:"kill,omitempty"`
	Forget   []string     `json:"forget,omitempty"`
	Lease    int64        `json:"lease,omitzero"`
	List     bool         `json:"list,omitzero"`
	Clear    bool         `json:"clear,omitzero"`
	Shutdown bool         `json:"shutdown,omitzero"`
	Bye      bool         `json:"bye,omitzero"`
	// framed: the other end reads frames.
	framed bool
	// posted is called when a request that nobody hurries for is under way.
	posted func()

	// Replies and events of the keeper.
	Welcome *Welcome   `json:"welcome,omitempty"`
	Started *Started   `json:"started,omitempty"`
	Held    []Held     `json:"held,omitempty"`
	Exited  *Held      `json:"exited,omitempty"`
	Error   *WireError `json:"error,omitempty"`
}

// Hello is the first message of an agent. Lease is the end of its lease as
// nanoseconds of the boot clock, which both sides read and which goes on while
// the machine sleeps; 0 leaves the keeper's as it is.
type Hello struct {
	Version int        `json:"version"`
	Node    NodeLimits `json:"node"`
	Lease   int64      `json:"lease,omitzero"`
}

// Welcome is the keeper's answer to hello. Instance names this keeper process
// and no other.
type Welcome struct {
	Version      int          `json:"version"`
	Instance     string       `json:"instance"`
	Build        string       `json:"build,omitempty"`
	PID          int          `json:"pid"`
	Capabilities Capabilities `json:"capabilities"`
	Held         []Held       `json:"held,omitempty"`
}

// KillRequest asks for the end of an execution; Grace is in nanoseconds.
type KillRequest struct {
	ID    string `json:"id"`
	Grace int64  `json:"grace,omitzero"`
}

// AppendBinary appends the message's encoding.
func (m *Message) AppendBinary(b []byte) ([]byte, error) {
	if m.framed {
		if out, ok := m.appendFrame(b); ok {
			return out, nil
		}
	}
	buffer := bytes.NewBuffer(b)
	err := json.MarshalWrite(buffer, m, encoding())
	return buffer.Bytes(), err
}

// UnmarshalBinary reads a message in either form, and keeps nothing of body.
func (m *Message) UnmarshalBinary(body []byte) error {
	*m = Message{}
	if len(body) > 0 && body[0] != '{' {
		return m.readFrame(body)
	}
	if err := json.Unmarshal(body, m, encoding()); err != nil {
		return fmt.Errorf("decode message: %w", err)
	}
	return nil
}

// Wire carries messages over a link.
type Wire struct {
	*link.Link
	frames bool
}

// Speak has messages be sent in the forms that the other end's version reads. It
// is called before anybody else sends.
func (w *Wire) Speak(version int) { w.frames = version >= frameVersion }

// Send sends a message and never blocks, see [link.Link.Send].
func (w *Wire) Send(m *Message) error {
	m.framed = w.frames
	return w.Link.Send(m)
}

// Post is Send for what nobody waits for, see [link.Link.Post].
func (w *Wire) Post(m *Message) error {
	m.framed = w.frames
	return w.Link.Post(m)
}

// Receive reads the next message. Only one goroutine may call it.
func (w *Wire) Receive(m *Message) error {
	body, err := w.Link.Receive()
	if err != nil {
		return err
	}
	return m.UnmarshalBinary(body)
}

// KeeperConfig is what a client writes to a new keeper's standard input.
type KeeperConfig struct {
	// Dir is the node's private folder, absolute and without symbolic links.
	Dir          string        `json:"dir"`
	Cgroups      Cgroups       `json:"cgroups,omitempty"`
	CgroupParent string        `json:"cgroupParent,omitempty"`
	Build        string        `json:"build,omitempty"`
	Linger       time.Duration `json:"linger"`
	Machine      *Machine      `json:"machine,omitempty"`
	// MemoryBytes is what all tasks together may have, 0 if that is not bounded.
	MemoryBytes int64 `json:"memoryBytes,omitzero"`
	// Inside is set by a keeper that starts itself again in namespaces of the
	// node's own: the control groups that it has found, in their own form.
	Inside string `json:"inside,omitempty"`
}

// WriteTo writes the configuration as ReadKeeperConfig reads it.
func (c *KeeperConfig) WriteTo(w io.Writer) (int64, error) {
	text, err := json.Marshal(c, encoding())
	if err != nil {
		return 0, fmt.Errorf("write configuration: %w", err)
	}
	n, err := w.Write(text)
	return int64(n), err
}

// ReadKeeperConfig reads what a client has written.
func ReadKeeperConfig(in io.Reader) (*KeeperConfig, error) {
	var config KeeperConfig
	if err := json.UnmarshalRead(io.LimitReader(in, 64<<10), &config, encoding()); err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return &config, nil
}

// ErrBusy says that the node has a living keeper.
var ErrBusy = errors.New("the node has a keeper already")

// readiness is what a new keeper answers on its standard output, once.
type readiness struct {
	// Busy: another keeper of the node is alive; talk to that one.
	Busy bool `json:"busy,omitzero"`
	// Error says why this one cannot work, "" if it can.
	Error string `json:"error,omitempty"`
	// PID is the process that is the keeper, as the client numbers it.
	PID int `json:"pid,omitzero"`
}

// Ready tells the client that started a keeper by which process it can be
// reached, or why it cannot work if err is not nil.
func Ready(out io.Writer, pid int, err error) error {
	r := readiness{PID: pid}
	if err != nil {
		r = readiness{Busy: errors.Is(err, ErrBusy), Error: err.Error()}
	}
	if err := json.MarshalWrite(out, r); err != nil {
		return fmt.Errorf("report readiness: %w", err)
	}
	return nil
}

// awaitReady is the other end of Ready.
func awaitReady(in io.Reader) (pid int, err error) {
	var r readiness
	if err := json.UnmarshalRead(in, &r); err != nil {
		return 0, fmt.Errorf("keeper ended at once: %w", err)
	}
	switch {
	case r.Busy:
		return 0, ErrBusy
	case r.Error != "":
		return 0, errors.New(r.Error)
	}
	return r.PID, nil
}
