package run

import (
	"encoding/binary"
	"errors"
	"time"
)

// The messages that every task needs are frames rather than JSON: a byte that
// says which, then the fields in a fixed order, numbers as varints, texts behind
// their lengths. JSON begins with a brace, which no kind of frame has for its
// number, so that a reader knows which form a message has.
//
// A field that comes later is written behind all others. A reader ignores what
// is behind those it knows, and one that is missing stays zero. Versions do not
// differ in anything else.
const (
	startFrame byte = 1 + iota
	lineUpFrame
	startedFrame
	exitedFrame
	forgetFrame
)

var errFrame = errors.New("frame is cut short or has a length that cannot be")

// appendFrame appends a message as a frame, false if it has no such form.
func (m *Message) appendFrame(b []byte) ([]byte, bool) {
	kind := m.frameKind()
	if kind == 0 {
		return b, false
	}
	f := fields{writes: true, out: append(b, kind)}
	m.fields(&f, kind)
	return f.out, true
}

func (m *Message) frameKind() byte {
	switch {
	case m.Error != nil:
		return 0
	case m.Start != nil:
		return startFrame
	case m.LineUp != nil:
		return lineUpFrame
	case m.Started != nil:
		return startedFrame
	case m.Exited != nil && m.Exited.Result != nil:
		return exitedFrame
	case len(m.Forget) > 0:
		return forgetFrame
	}
	return 0
}

// readFrame is the inverse of appendFrame. It keeps nothing of body.
func (m *Message) readFrame(body []byte) error {
	switch body[0] {
	case startFrame:
		m.Start = &Spec{}
	case lineUpFrame:
		m.LineUp = &Spec{}
	case startedFrame:
		m.Started = &Started{}
	case exitedFrame:
		m.Exited = &Held{Result: &Result{}}
	case forgetFrame:
	default:
		return errors.New("frame is of no kind that is known")
	}
	f := fields{in: string(body[1:])}
	m.fields(&f, body[0])
	return f.err
}

func (m *Message) fields(f *fields, kind byte) {
	integer(f, &m.ID)
	switch kind {
	case startFrame:
		m.Start.fields(f)
	case lineUpFrame:
		m.LineUp.fields(f)
	case startedFrame:
		m.Started.fields(f)
	case exitedFrame:
		f.text(&m.Exited.ID)
		m.Exited.Started.fields(f)
		m.Exited.Result.fields(f)
	case forgetFrame:
		f.texts(&m.Forget)
	}
}

func (s *Spec) fields(f *fields) {
	f.text(&s.ID)
	f.texts(&s.Args)
	f.texts(&s.Env)
	f.text(&s.Dir)
	f.text(&s.Stdout)
	f.text(&s.Stderr)
	if own := s.User != nil; f.bool(&own) {
		if s.User == nil {
			s.User = &User{}
		}
		s.User.fields(f)
	}
	f.bool(&s.Admin)
	integer(f, &s.Limits.MemoryBytes)
	integer(f, &s.Limits.Processes)
	integer(f, &s.Limits.FileBytes)
	integer(f, &s.Limits.OpenFiles)
	integer(f, &s.Room)
	f.bool(&s.Yields)
	f.bool(&s.Private)
}

func (u *User) fields(f *fields) {
	integer(f, &u.UID)
	integer(f, &u.GID)
	for i := range sized(f, &u.Groups) {
		integer(f, &u.Groups[i])
	}
}

func (s *Started) fields(f *fields) {
	integer(f, &s.PID)
	f.time(&s.At)
	integer(f, &s.Up)
}

func (r *Result) fields(f *fields) {
	f.text((*string)(&r.Reason))
	integer(f, &r.ExitCode)
	integer(f, &r.Signal)
	f.time(&r.Started)
	f.time(&r.Ended)
	integer(f, &r.UserCPU)
	integer(f, &r.SystemCPU)
	integer(f, &r.MaxRSS)
	integer(f, &r.OOMKills)
	integer(f, &r.MemoryLimit)
	integer(f, &r.MemoryPeak)
	f.bool(&r.Leftovers)
	f.text(&r.Next)
}

// fields are those of a frame, written to out or read from in one after another,
// so that one description serves both directions.
type fields struct {
	writes bool
	out    []byte
	in     string
	err    error
}

// integer is a field that is a number.
func integer[T ~int | ~int64 | ~uint32 | ~uint64](f *fields, v *T) {
	if f.writes {
		f.out = binary.AppendVarint(f.out, int64(*v))
		return
	}
	*v = T(f.readInteger())
}

// readInteger reads a signed varint of at most ten bytes.
func (f *fields) readInteger() int64 {
	if f.in == "" {
		return 0
	}
	var bits uint64
	for i := 0; i < len(f.in) && i < binary.MaxVarintLen64; i++ {
		b := f.in[i]
		bits |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			f.in = f.in[i+1:]
			return int64(bits>>1) ^ -int64(bits&1)
		}
	}
	f.fail()
	return 0
}

// fail makes all that follows be zero.
func (f *fields) fail() { f.in, f.err = "", errFrame }

func (f *fields) bool(v *bool) bool {
	var n int
	if *v {
		n = 1
	}
	integer(f, &n)
	*v = n != 0
	return *v
}

// time is a moment in nanoseconds since 1970; the zero time stays that.
func (f *fields) time(v *time.Time) {
	var ns int64
	if f.writes && !v.IsZero() {
		ns = v.UnixNano()
	}
	integer(f, &ns)
	if !f.writes && ns != 0 {
		*v = time.Unix(0, ns)
	}
}

func (f *fields) text(v *string) {
	n := len(*v)
	integer(f, &n)
	switch {
	case f.writes:
		f.out = append(f.out, *v...)
	case n < 0 || n > len(f.in):
		f.fail()
	default:
		*v, f.in = f.in[:n], f.in[n:]
	}
}

func (f *fields) texts(v *[]string) {
	for i := range sized(f, v) {
		f.text(&(*v)[i])
	}
}

// sized is the number of a list's items, which is made when it is read. Each
// takes a byte at least, so that no length asks for more memory than some times
// the frame's own.
func sized[T any](f *fields, v *[]T) int {
	n := len(*v)
	integer(f, &n)
	switch {
	case f.writes || n == 0:
	case n < 0 || n > len(f.in):
		f.fail()
		return 0
	default:
		*v = make([]T, n)
	}
	return n
}
