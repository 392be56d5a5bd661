package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// screen is how wide help may be, in columns.
const screen = 80

// printUsage writes how a command is called, within the width of a screen.
func printUsage(command *cobra.Command) error {
	w := command.OutOrStderr()
	_, _ = fmt.Fprint(w, "Usage:\n")
	if command.Runnable() && !command.HasAvailableSubCommands() {
		_, _ = fmt.Fprintf(w, "  %s\n", command.UseLine())
	} else {
		_, _ = fmt.Fprintf(w, "  %s COMMAND\n", command.CommandPath())
	}
	if command.HasExample() {
		_, _ = fmt.Fprintf(w, "\nExamples:\n%s\n", command.Example)
	}
	if command.HasAvailableSubCommands() {
		_, _ = fmt.Fprint(w, "\nCommands:\n")
		for _, c := range command.Commands() {
			if c.IsAvailableCommand() {
				_, _ = fmt.Fprintf(w, "  %-12s %s\n", c.Name(), c.Short)
			}
		}
	}
	if command.HasAvailableLocalFlags() {
		_, _ = fmt.Fprint(w, "\nFlags:\n")
		command.LocalFlags().VisitAll(func(flag *pflag.Flag) { printFlag(w, flag) })
	}
	if command.HasAvailableSubCommands() {
		_, _ = fmt.Fprintf(w, "\n'%s COMMAND --help' tells about a command.\n", command.CommandPath())
	}
	return nil
}

// printFlag writes what a flag does beside its name, or below a long one.
func printFlag(w io.Writer, flag *pflag.Flag) {
	const column = 26
	if flag.Hidden {
		return
	}
	name := "      --" + flag.Name
	if flag.Shorthand != "" {
		name = "  -" + flag.Shorthand + ", --" + flag.Name
	}
	value, usage := pflag.UnquoteUsage(flag)
	if value != "" && flag.Value.Type() != "bool" {
		name += " " + value
	}
	if d := flag.DefValue; d != "" && d != "0" && d != "false" && d != "[]" && d != "0s" && !strings.Contains(usage, "default") {
		usage += " (default " + d + ")"
	}
	lines := wrap(usage, screen-column)
	if len(name) > column-2 {
		_, _ = fmt.Fprintln(w, name)
		name = ""
	}
	for _, line := range lines {
		_, _ = fmt.Fprintf(w, "%-*s%s\n", column, name, line)
		name = ""
	}
}

// wrap breaks a text between words into lines of at most so many columns, as far
// as its words let it.
func wrap(text string, columns int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > columns:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
