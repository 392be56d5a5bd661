package batch_test

import (
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
)

func TestConditions(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 12, 0, 0, 500, time.UTC)
	stamp := batch.Stamp(now.UnixMicro())
	other := stamp.Next(now)
	for name, c := range map[string]struct {
		conditions batch.Conditions
		write      batch.Code
		read       batch.Code
	}{
		"none":                       {batch.Conditions{}, "", ""},
		"the same tag":               {batch.Conditions{IfMatch: stamp.ETag()}, "", ""},
		"the same tag in quotes":     {batch.Conditions{IfMatch: `"` + stamp.ETag() + `"`}, "", ""},
		"any tag":                    {batch.Conditions{IfMatch: "*"}, "", ""},
		"one of two tags":            {batch.Conditions{IfMatch: other.ETag() + ", " + stamp.ETag()}, "", ""},
		"another tag":                {batch.Conditions{IfMatch: other.ETag()}, batch.CodeConditionNotMet, batch.CodeConditionNotMet},
		"none match, same tag":       {batch.Conditions{IfNoneMatch: stamp.ETag()}, batch.CodeConditionNotMet, batch.CodeNotModified},
		"none match, another tag":    {batch.Conditions{IfNoneMatch: other.ETag()}, "", ""},
		"modified since before":      {batch.Conditions{IfModifiedSince: now.Add(-time.Minute)}, "", ""},
		"modified since this second": {batch.Conditions{IfModifiedSince: now.Truncate(time.Second)}, batch.CodeConditionNotMet, batch.CodeNotModified},
		"unmodified since before":    {batch.Conditions{IfUnmodifiedSince: now.Add(-time.Minute)}, batch.CodeConditionNotMet, batch.CodeConditionNotMet},
		"unmodified this second":     {batch.Conditions{IfUnmodifiedSince: now.Truncate(time.Second)}, "", ""},
	} {
		if got := batch.CodeOf(c.conditions.Check(stamp, false)); got != c.write {
			t.Errorf("%s: a write gives %q, want %q", name, got, c.write)
		}
		if got := batch.CodeOf(c.conditions.Check(stamp, true)); got != c.read {
			t.Errorf("%s: a read gives %q, want %q", name, got, c.read)
		}
	}
}

func TestAStampGrowsThoughTheClockGoesBack(t *testing.T) {
	t.Parallel()
	now := time.Now()
	first := batch.Stamp(now.UnixMicro())
	if second := first.Next(now.Add(-time.Hour)); second <= first || second.ETag() == first.ETag() {
		t.Errorf("stamp %d is followed by %d", first, second)
	}
}
