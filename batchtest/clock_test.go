package batchtest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/batchyard/batchyard/batchtest"
)

func TestSettingTheDateLeavesTheMonotonicClockAlone(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{5 * time.Hour, -7 * time.Hour, time.Second, 0} {
		synctest.Test(t, func(t *testing.T) {
			var clock batchtest.Clock
			before, date := clock.Now(), time.Now()
			clock.Jump(jump)
			time.Sleep(90 * time.Second)
			after := clock.Now()
			if got := after.Sub(before); got != 90*time.Second {
				t.Errorf("after a jump by %v a difference is %v", jump, got)
			}
			if got, want := after.UTC().Round(0), date.Add(jump+90*time.Second).UTC().Round(0); !got.Equal(want) {
				t.Errorf("after a jump by %v the date is %v, want %v", jump, got, want)
			}
		})
	}
}
