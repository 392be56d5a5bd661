package batch

import (
	"strings"
	"time"
	"unicode/utf8"
)

// Shorten cuts a text so that it has at most the given number of bytes, between
// two characters. Text that is not UTF-8 stays as it is.
func Shorten(text string, bytes int) string {
	if len(text) <= bytes {
		return text
	}
	bytes = max(bytes, 0)
	for i := range utf8.UTFMax { // longer runs of what cannot begin one are no character
		if at := bytes - i; at <= 0 || utf8.RuneStart(text[at]) {
			return text[:max(at, 0)]
		}
	}
	return text[:bytes]
}

// Printable is what a node, a task or a stranger wrote, made fit to be kept and
// shown: UTF-8, without the null that PostgreSQL cannot keep, and at most so
// many bytes.
func Printable(text string, bytes int) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	return Shorten(text, bytes)
}

// Bounds of what is kept of a failure. A command line, the longest of what one
// quotes, may have 32 KiB.
const (
	maxFailureWord    = 128
	maxFailureText    = 4096
	maxFailureDetails = 20
)

// Bounded is the failure with texts that can be kept and shown.
func (f FailureInfo) Bounded() FailureInfo {
	f.Category = FailureCategory(Printable(string(f.Category), maxFailureWord))
	f.Code = FailureCode(Printable(string(f.Code), maxFailureWord))
	f.Message = Printable(f.Message, maxFailureText)
	f.Details = boundedDetails(f.Details)
	return f
}

// Bounded is the outcome with texts and times that can be kept and shown. A time
// of no sense is that of a clock that nobody has set: now stands for it.
func (o Outcome) Bounded(now time.Time) Outcome {
	o.End = o.End.Plausible(now)
	if o.Failure != nil {
		failure := o.Failure.Bounded()
		o.Failure = &failure
	}
	return o
}

// Bounded is the run with texts and times that can be kept and shown.
func (i StartTaskInfo) Bounded(now time.Time) StartTaskInfo {
	i.State = StartTaskState(Printable(string(i.State), maxFailureWord))
	i.Result = TaskResult(Printable(string(i.Result), maxFailureWord))
	i.StartTime = i.StartTime.Plausible(now)
	for _, at := range []**Time{&i.EndTime, &i.LastRetryTime} {
		if *at != nil {
			bounded := (*at).Plausible(now)
			*at = &bounded
		}
	}
	if i.FailureInfo != nil {
		failure := i.FailureInfo.Bounded()
		i.FailureInfo = &failure
	}
	return i
}

// Plausible is the time, or now for one that the protocol cannot write.
func (t Time) Plausible(now time.Time) Time {
	if year := t.UTC().Year(); year < 1970 || year > 9999 {
		return At(now)
	}
	return t
}

// Bounded is the trouble with texts that can be kept and shown.
func (e NodeError) Bounded() NodeError {
	e.Code, e.Message = Printable(e.Code, maxFailureWord), Printable(e.Message, maxNodeErrorText)
	e.ErrorDetails = boundedDetails(e.ErrorDetails)
	return e
}

// maxNodeErrorText bounds a trouble of a node.
const maxNodeErrorText = 1024

func boundedDetails(details []NameValue) []NameValue {
	var bounded []NameValue
	for _, d := range details[:min(len(details), maxFailureDetails)] {
		bounded = append(bounded, NameValue{
			Name: Printable(d.Name, maxFailureWord), Value: Printable(d.Value, maxFailureText),
		})
	}
	return bounded
}
