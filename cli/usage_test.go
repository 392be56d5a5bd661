package cli_test

import (
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"
)

// Help of every command fits on a screen of 80 columns.
func TestHelpFitsOnAScreen(t *testing.T) {
	t.Parallel()
	program, seen := batchyard(t), 0
	var read func(words ...string)
	read = func(words ...string) {
		text, err := exec.CommandContext(t.Context(), program, append(words, "--help")...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v", words, err)
		}
		seen++
		for line := range strings.Lines(string(text)) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
				t.Errorf("%v: a line has %d columns: %s", words, n, line)
			}
		}
		_, commands, _ := strings.Cut(string(text), "\nCommands:\n")
		commands, _, _ = strings.Cut(commands, "\n\n")
		for line := range strings.Lines(commands) {
			if name := strings.Fields(line)[0]; name != "completion" { // whose words are the library's
				read(append(words[:len(words):len(words)], name)...)
			}
		}
	}
	read()
	if seen < 15 {
		t.Errorf("%d commands were found", seen)
	}
}
