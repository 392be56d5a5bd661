package run

import (
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// fill gives every field of a value something that is not zero, so that one that
// a frame leaves out is seen.
func fill(v reflect.Value, n *int) {
	*n++
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(1_700_000_000, int64(*n))))
	case v.Kind() == reflect.String:
		v.SetString("text ü" + string(rune('a'+*n%26)))
	case v.CanInt():
		v.SetInt(int64(*n) - 7)
	case v.CanUint():
		v.SetUint(1<<32 - uint64(*n))
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 3, 3))
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case v.Kind() == reflect.Struct:
		for _, field := range v.Fields() {
			if field.CanSet() {
				fill(field, n)
			}
		}
	default:
		panic("no filling for " + v.Type().String())
	}
}

// filled is a value with nothing in it that is zero.
func filled[T any]() *T {
	var v T
	n := 0
	fill(reflect.ValueOf(&v).Elem(), &n)
	return &v
}

// framedMessages are one of each kind, full and as empty as can be.
func framedMessages() map[string]*Message {
	return map[string]*Message{
		"start":            {ID: 1 << 40, Start: filled[Spec]()},
		"empty start":      {ID: 1, Start: &Spec{}},
		"line up":          {ID: 2, LineUp: filled[Spec]()},
		"started":          {ID: 3, Started: filled[Started]()},
		"not started":      {ID: 3, Started: &Started{}},
		"exited":           {Exited: filled[Held]()},
		"exited with zero": {Exited: &Held{Result: &Result{}}},
		"forget":           {Forget: []string{"a", "", "job/task/3"}},
	}
}

var asSent = []cmp.Option{
	cmpopts.IgnoreUnexported(Message{}), cmpopts.EquateEmpty(), cmpopts.EquateApproxTime(0),
	cmpopts.IgnoreFields(Started{}, "Age"), // no end says it, each reckons it
}

func TestFrame(t *testing.T) {
	t.Parallel()
	for name, m := range framedMessages() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, framed := range []bool{true, false} {
				m := *m
				m.framed = framed
				body, err := m.AppendBinary([]byte("before"))
				if err != nil {
					t.Fatal(err)
				}
				body = body[len("before"):]
				if isFrame := body[0] != '{'; isFrame != framed {
					t.Errorf("is a frame: %t, wanted %t", isFrame, framed)
				}
				var got Message
				if err := got.UnmarshalBinary(body); err != nil {
					t.Fatal(err)
				}
				clear(body) // nothing of it may be kept
				if diff := cmp.Diff(&m, &got, asSent...); diff != "" {
					t.Errorf("framed %t: sent and received differ (-sent +received):\n%s", framed, diff)
				}
			}
		})
	}
}

func TestFrameOfAnotherVersion(t *testing.T) {
	t.Parallel()
	m := &Message{ID: 7, Start: filled[Spec](), framed: true}
	body, err := m.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("fields behind those that are known are ignored", func(t *testing.T) {
		t.Parallel()
		var got Message
		if err := got.UnmarshalBinary(append(body[:len(body):len(body)], "more fields"...)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, &got, asSent...); diff != "" {
			t.Errorf("read (-sent +received):\n%s", diff)
		}
	})
	t.Run("fields that are missing at the end are zero", func(t *testing.T) {
		t.Parallel()
		var got Message
		if err := got.UnmarshalBinary(body[:len(body)-1]); err != nil {
			t.Fatal(err)
		}
		want := filled[Spec]()
		want.Private = false
		if diff := cmp.Diff(want, got.Start, asSent...); diff != "" {
			t.Errorf("read (-want +got):\n%s", diff)
		}
	})
	t.Run("a kind that is not known is refused", func(t *testing.T) {
		t.Parallel()
		var got Message
		if err := got.UnmarshalBinary([]byte{99, 1, 2}); err == nil {
			t.Errorf("read as %+v", got)
		}
	})
	t.Run("a length beyond the frame is refused", func(t *testing.T) {
		t.Parallel()
		var got Message
		if err := got.UnmarshalBinary([]byte{forgetFrame, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f}); err == nil {
			t.Errorf("read as %+v", got)
		}
	})
}

func FuzzFrame(f *testing.F) {
	for _, m := range framedMessages() {
		m.framed = true
		body, err := m.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var first, second Message
		if len(body) == 0 || body[0] == '{' || first.UnmarshalBinary(body) != nil {
			return
		}
		again, ok := first.appendFrame(nil)
		if !ok {
			return // an empty list
		}
		if err := second.UnmarshalBinary(again); err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		if diff := cmp.Diff(&first, &second, asSent...); diff != "" {
			t.Errorf("read twice:\n%s", diff)
		}
	})
}
