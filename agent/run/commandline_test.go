package run_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/agent/run"
)

func TestSplitCommandLine(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, line string
		want       []string
	}{
		{"blanks of all kinds separate", "  a \t b\nc\r\n", []string{"a", "b", "c"}},
		{"single quotes keep everything", `a 'b  \n "$c' d`, []string{"a", `b  \n "$c`, "d"}},
		{"double quotes keep blanks and single quotes", `a "b  it's"`, []string{"a", "b  it's"}},
		{"double quotes know four escapes and no other", `"\"\\\$\` + "`" + `\n"`, []string{"\"\\$`\\n"}},
		{"a backslash keeps the next character", `a\ b \"c \'d \\`, []string{"a b", `"c`, "'d", `\`}},
		{"quotes join with what is beside them", `a'b'"c"d`, []string{"abcd"}},
		{"empty quotes are an argument", `a '' ""`, []string{"a", "", ""}},
		{"nothing is expanded", `echo $HOME *.txt ~ a|b >c;d &`, []string{"echo", "$HOME", "*.txt", "~", "a|b", ">c;d", "&"}},
		{"a backslash joins lines", "a\\\nb \"c\\\nd\"", []string{"ab", "cd"}},
		{"a last backslash stands for itself", `a\`, []string{`a\`}},
		{"a shell is a program like others", `/bin/bash -c 'echo "$X"; exit 3'`, []string{"/bin/bash", "-c", `echo "$X"; exit 3`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := run.SplitCommandLine(test.line)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("arguments (-want +got):\n%s", diff)
			}
		})
	}
	for line, says := range map[string]string{
		"":       "empty",
		" \t\n":  "empty",
		"''":     "empty program",
		"a 'b":   "single quote that is not closed",
		`a "b\"`: "double quote that is not closed",
		"a\x00b": "zero byte",
	} {
		if _, err := run.SplitCommandLine(line); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q answers %v, want something about %q", line, err, says)
		}
	}
}

// FuzzSplitCommandLine holds the splitter against a shell, for lines in which a
// shell expands nothing.
func FuzzSplitCommandLine(f *testing.F) {
	for _, line := range []string{"a b", `a 'b c' "d\"e" f\ g`, `'' "" \\`, "a\\\nb"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args, err := run.SplitCommandLine(line)
		if err != nil || strings.ContainsAny(line, "$`*?[]~#|&;<>(){}!^\r\n=\x00") || strings.HasSuffix(line, `\`) {
			return
		}
		for i := range line {
			if line[i] < ' ' && line[i] != '\t' || line[i] > '~' {
				return
			}
		}
		out, err := exec.Command("/bin/sh", "-c", `printf '%s\n' `+line).Output()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Join(args, "\n")+"\n", string(out)); diff != "" {
			t.Errorf("shell splits %q differently (-ours +shell):\n%s", line, diff)
		}
	})
}
