package batch_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/batchyard/batchyard/batch"
)

func TestShorten(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		bytes      int
		want       string
	}{
		{"what fits stays", "abc", 3, "abc"},
		{"nothing of it", "abc", 0, ""},
		{"less than nothing", "abc", -1, ""},
		{"between letters", "abcdef", 4, "abcd"},
		{"before a character that would be cut", "aéé", 2, "a"},
		{"after one", "aéé", 3, "aé"},
		{"before one of four bytes", "a😀b", 4, "a"},
		{"a first character that does not fit", "😀", 3, ""},
		{"bytes that are no characters", "\x80\x80\x80\x80\x80\x80", 5, "\x80\x80\x80\x80\x80"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := batch.Shorten(c.text, c.bytes); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestFailuresCanBeKept(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 3000) + "\x00\xff"
	f := batch.FailureInfo{Category: batch.FailureCategory(long), Code: "\xffcode", Message: "m\x00" + long}
	for range 30 {
		f.Details = append(f.Details, batch.NameValue{Name: "a" + long, Value: "b" + long})
	}
	got := f.Bounded()
	texts := []string{string(got.Category), string(got.Code), got.Message}
	for _, d := range got.Details {
		texts = append(texts, d.Name, d.Value)
	}
	for _, text := range texts {
		if !utf8.ValidString(text) || strings.Contains(text, "\x00") || len(text) > 4096 {
			t.Errorf("%d bytes, ends with %q", len(text), text[max(0, len(text)-8):])
		}
	}
	if len(got.Details) != 20 || len(f.Details) != 30 || f.Details[0].Value != "b"+long {
		t.Errorf("%d of %d details are kept, or the original has changed", len(got.Details), len(f.Details))
	}
}
