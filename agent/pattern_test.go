package agent

import (
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// A walk finds what the matcher of whole paths finds, each file once.
func TestAWalkFindsWhatThePatternMatches(t *testing.T) {
	t.Parallel()
	part := rapid.SampledFrom([]string{"a", "b", "ab", "ba", "bab"})
	segment := rapid.SampledFrom([]string{"a", "b", "*", "**", "?", "a*", "*b", "[ab]", "[!a]b", "b?b", "**b"})
	rapid.Check(t, func(r *rapid.T) {
		files := fstest.MapFS{}
		for range rapid.IntRange(1, 12).Draw(r, "files") {
			name := strings.Join(rapid.SliceOfN(part, 1, 4).Draw(r, "name"), "/") + "/f"
			files[name] = &fstest.MapFile{}
			files["f"] = &fstest.MapFile{}
		}
		segments := rapid.SliceOfN(segment, 1, 5).Draw(r, "pattern")
		pattern := strings.Join(append(segments, rapid.SampledFrom([]string{"f", "*", "**"}).Draw(r, "last")), "/")
		got, _, err := match(files, pattern)
		if err != nil {
			r.Fatalf("%s: %v", pattern, err)
		}
		reference := pattern
		for strings.Contains(reference, "**/**/") { // of which it makes something else
			reference = strings.ReplaceAll(reference, "**/**/", "**/")
		}
		reference = strings.TrimSuffix(strings.TrimSuffix(reference, "/**"), "/**")
		if strings.HasSuffix(pattern, "/**") { // files, and not what is a file itself
			reference += "/**/*"
		}
		var want []string
		for name := range files {
			if doublestar.MatchUnvalidated(reference, name) {
				want = append(want, name)
			}
		}
		if diff := cmp.Diff(want, got, cmpopts.SortSlices(strings.Compare), cmpopts.EquateEmpty()); diff != "" {
			r.Fatalf("%s in %v (-want +got):\n%s", pattern, files, diff)
		}
	})
}

func TestAPatternOfManyStarsIsOneWalk(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{strings.Repeat("a/", 60) + "ax": {}, strings.Repeat("a/", maxDeep+9) + "deep": {}}
	begun := time.Now()
	got, shut, err := match(files, strings.Repeat("**/a*/", 25)+"**")
	if err != nil || len(got) != 1 || len(shut) != 1 {
		t.Errorf("%d files, %d folders too deep, %v", len(got), len(shut), err)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	for _, pattern := range []string{"[", "a/[", "[a"} {
		if _, _, err := match(files, pattern); err == nil {
			t.Errorf("%s is no pattern, and is taken", pattern)
		}
	}
}

func TestAShortPatternOfLongVariablesIsNotMade(t *testing.T) {
	t.Parallel()
	env := []string{"A=" + strings.Repeat("a", 1<<20), "B=b"}
	// The whole would have 512 MiB: only a fraction is taken. Other tests take
	// memory meanwhile, so what is measured is no more than a bound.
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := expand(strings.Repeat("$A", 512), env)
	runtime.ReadMemStats(&after)
	if spent := after.TotalAlloc - before.TotalAlloc; err == nil || spent > 256<<20 {
		t.Errorf("it takes %d bytes, and the error is %v", spent, err)
	}
	if got, err := expand("$B/${B}$C", env); err != nil || got != "b/b$C" {
		t.Errorf("got %q, %v", got, err)
	}
}
