package batch_test

import (
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"pgregory.net/rapid"
)

func TestDurationsAreReadAndWrittenAsTheServiceDoes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"PT0S": "PT0S", "P1D": "P1D", "PT15M": "PT15M", "PT90M": "PT1H30M", "P3Y6M4DT12H30M5S": "P1279DT12H30M5S",
		"PT7M9.497S": "PT7M9.497S", "P10675199DT2H48M5.4775807S": "P10675199DT2H48M5.4775807S", "P1W": "P7D",
		"PT0.5H": "PT30M", "-PT5S": "-PT5S", "PT36H": "P1DT12H", "P0D": "PT0S",
	} {
		got, err := batch.ParseDuration(text)
		if err != nil || got.String() != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %s", text, got, err, want)
		}
	}
	if got, err := batch.ParseDuration("P10675199DT2H48M5.4775807S"); err != nil || got != batch.Unlimited {
		t.Errorf("the longest duration is %d, %v; want Unlimited", got, err)
	}
	for _, text := range []string{"", "P", "PT", "15M", "PT15", "P1H", "PTM", "PT1.S1", "P10675200D", "PT99999999999999999999S", "1:00:00", "PT-5S"} {
		if got, err := batch.ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %v; want an error", text, got)
		}
	}
}

func TestDurationsSurviveARoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := batch.Duration(rapid.Int64Range(-1<<62, int64(batch.Unlimited)).Draw(t, "ticks"))
		got, err := batch.ParseDuration(want.String())
		if err != nil || got != want {
			t.Fatalf("%d is written %s and read %d, %v", want, want, got, err)
		}
	})
}

func TestUnlimitedIsTheLongestStandardDuration(t *testing.T) {
	t.Parallel()
	if got := batch.Unlimited.Std(); got != 1<<63-1 {
		t.Errorf("Unlimited.Std() = %v", got)
	}
	if got := batch.DurationOf(90 * time.Second); got != 90*batch.Second {
		t.Errorf("DurationOf(90s) = %v", got)
	}
}

func TestTimesDropTrailingZeros(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"2026-11-23T18:56:00Z": "2026-11-23T18:56:00Z", "2026-11-23T18:56:00.1000000Z": "2026-11-23T18:56:00.1Z",
		"2026-11-23T18:56:00.123456789Z": "2026-11-23T18:56:00.1234567Z", "2026-11-23T19:56:00+01:00": "2026-11-23T18:56:00Z",
		"2026-11-23T18:56:00": "2026-11-23T18:56:00Z",
	} {
		parsed, err := batch.ParseTime(text)
		if err != nil {
			t.Errorf("ParseTime(%q): %v", text, err)
			continue
		}
		if got, _ := parsed.MarshalText(); string(got) != want {
			t.Errorf("%q is written %s; want %s", text, got, want)
		}
	}
	if _, err := batch.ParseTime("yesterday"); err == nil {
		t.Error(`ParseTime("yesterday") gives no error`)
	}
}
