package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/goccy/go-yaml"
	"github.com/jmespath-community/go-jmespath"
	"github.com/spf13/cobra"
)

// Forms of output. Except for the table all show what the service answered, as
// it answered it.
const (
	formTable = "table"
	formJSON  = "json"
	formLines = "jsonl"
	formYAML  = "yaml"
	formTSV   = "tsv"
	formName  = "name"
)

// forms are all of them, the default first.
var forms = []string{formTable, formJSON, formLines, formYAML, formTSV, formName}

// outputFlags are the flags that say how results are printed.
type outputFlags struct{ form, query string }

func (f *outputFlags) add(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVarP(&f.form, "output", "o", formTable, "print as `FORM`: "+strings.Join(forms, ", "))
	flags.StringVar(&f.query, "query", "", "print what a JMESPath `EXPRESSION` finds in the JSON")
	_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(forms, cobra.ShellCompDirectiveNoFileComp))
}

// output prints results.
type output struct {
	form  string
	query jmespath.JMESPath // nil for all
	to    io.Writer
}

// open checks form and query before the service is asked for anything.
func (f *outputFlags) open(p Process) (output, error) {
	o := output{form: f.form, to: p.Stdout}
	if !slices.Contains(forms, f.form) {
		return o, fmt.Errorf("output %q is none of %s", f.form, strings.Join(forms, ", "))
	}
	if f.query == "" {
		return o, nil
	}
	query, err := jmespath.Compile(f.query)
	if err != nil {
		return o, fmt.Errorf("--query %q: %w", f.query, err)
	}
	o.query = query
	return o, nil
}

// column is one fact of an item in a table.
type column struct {
	title string
	show  func(item) string
}

// list prints items as they come, or whole where the form or a query needs all
// of them.
func (o *output) list(items iter.Seq2[jsontext.Value, error], columns []column) error {
	switch {
	case o.query != nil && o.form != formLines, o.form == formJSON, o.form == formYAML, o.form == formTSV:
		return o.together(items)
	case o.form == formTable:
		return o.table(items, columns)
	}
	for value, err := range items {
		if err != nil {
			return err
		}
		if err := o.line(value); err != nil {
			return err
		}
	}
	return nil
}

// line prints one item of a list on a line.
func (o *output) line(value jsontext.Value) error {
	if o.form == formName {
		return o.print(printable(readItem(value).text("id")))
	}
	if o.query == nil {
		if err := value.Compact(); err != nil {
			return fmt.Errorf("print item: %w", err)
		}
		return o.print(value.String())
	}
	found, err := o.find(value)
	if err != nil {
		return err
	}
	text, err := json.Marshal(found)
	if err != nil {
		return fmt.Errorf("print item: %w", err)
	}
	return o.print(string(text))
}

// together prints a list as one value.
func (o *output) together(items iter.Seq2[jsontext.Value, error]) error {
	var all bytes.Buffer
	all.WriteByte('[')
	for value, err := range items {
		if err != nil {
			return err
		}
		if all.Len() > 1 {
			all.WriteByte(',')
		}
		all.Write(value)
	}
	all.WriteByte(']')
	return o.value(all.Bytes())
}

// table lines up items. Columns are as wide as the widest of a hundred rows, so
// that a long list is shown while it is read.
func (o *output) table(items iter.Seq2[jsontext.Value, error], columns []column) error {
	w := tabwriter.NewWriter(o.to, 0, 0, 2, ' ', 0)
	titles := make([]string, len(columns))
	for i, c := range columns {
		titles[i] = c.title
	}
	rows := 0
	for value, err := range items {
		if err != nil {
			return errors.Join(w.Flush(), err)
		}
		if rows == 0 {
			_, _ = fmt.Fprintln(w, strings.Join(titles, "\t"))
		}
		cells, of := make([]string, len(columns)), readItem(value)
		for i, c := range columns {
			cells[i] = orDash(printable(c.show(of)))
		}
		_, _ = fmt.Fprintln(w, strings.Join(cells, "\t"))
		if rows++; rows%100 == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
	return w.Flush()
}

// one prints a single item; a table shows a fact a line.
func (o *output) one(value jsontext.Value, facts []column) error {
	switch {
	case o.form == formName || o.form == formLines:
		return o.line(value)
	case o.query != nil || o.form != formTable:
		return o.value(value)
	}
	w, of := tabwriter.NewWriter(o.to, 0, 0, 2, ' ', 0), readItem(value)
	for _, fact := range facts {
		if text := fact.show(of); text != "" {
			_, _ = fmt.Fprintf(w, "%s\t%s\n", fact.title, printable(text))
		}
	}
	return w.Flush()
}

// value prints JSON, or what the query finds in it, in the form asked for. A
// table has no columns of its own for the result of a query: it is shown as
// lines of values, as tsv is.
func (o *output) value(value jsontext.Value) error {
	if o.query == nil && o.form == formJSON {
		if err := value.Indent(jsontext.WithIndent("  ")); err != nil {
			return fmt.Errorf("print answer: %w", err)
		}
		return o.print(value.String())
	}
	found, err := o.find(value)
	if err != nil {
		return err
	}
	switch o.form {
	case formJSON:
		text, err := json.MarshalIndent(found, "", "  ")
		if err != nil {
			return fmt.Errorf("print answer: %w", err)
		}
		return o.print(string(text))
	case formYAML:
		text, err := yaml.Marshal(whole(found))
		if err != nil {
			return fmt.Errorf("print answer: %w", err)
		}
		_, err = o.to.Write(text)
		return err
	}
	return o.rows(found)
}

// find is what the query finds, all if there is none.
func (o *output) find(value jsontext.Value) (any, error) {
	var data any
	if err := json.Unmarshal(value, &data); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if o.query == nil {
		return data, nil
	}
	found, err := o.query.Search(data)
	if err != nil {
		return nil, usageError{fmt.Errorf("--query: %w", err)}
	}
	return found, nil
}

// whole has numbers without a fraction as integers, which YAML writes otherwise.
func whole(value any) any {
	switch value := value.(type) {
	case []any:
		for i := range value {
			value[i] = whole(value[i])
		}
	case map[string]any:
		for name := range value {
			value[name] = whole(value[name])
		}
	case float64:
		if value == math.Trunc(value) && math.Abs(value) < 1<<53 {
			return int64(value)
		}
	}
	return value
}

// rows prints a value in lines, the parts of each separated by tabs.
func (o *output) rows(found any) error {
	rows, ok := found.([]any)
	if !ok {
		rows = []any{found}
	}
	for _, row := range rows {
		if row == nil {
			continue
		}
		if err := o.print(strings.Join(cellsOf(row), "\t")); err != nil {
			return err
		}
	}
	return nil
}

// cellsOf are the parts of a row: the elements of a list, the values of an object
// in the order of their names.
func cellsOf(row any) []string {
	var parts []any
	switch row := row.(type) {
	case []any:
		parts = row
	case map[string]any:
		names := make([]string, 0, len(row))
		for name := range row {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			parts = append(parts, row[name])
		}
	default:
		parts = []any{row}
	}
	cells := make([]string, len(parts))
	for i, part := range parts {
		cells[i] = cellOf(part)
	}
	return cells
}

// cellOf is one part as it is shown between tabs: a text without its quotes,
// anything else as JSON.
func cellOf(part any) string {
	switch part := part.(type) {
	case nil:
		return ""
	case string:
		return printable(part)
	}
	text, _ := json.Marshal(part) // it came from JSON
	return string(text)
}

// print tells of a reader that went away, on which a list ends.
func (o *output) print(line string) error {
	_, err := fmt.Fprintln(o.to, line)
	return err
}

// printable keeps a text of somebody else on one line and away from the
// terminal's controls.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, text)
}

// orDash keeps a column of a table from being empty, which programs that split
// lines at blanks would not see.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// raw gets one item as the service has it.
func (s *session) raw(ctx context.Context, path string) (jsontext.Value, error) {
	var value jsontext.Value
	_, err := s.Call(ctx, "GET", path, nil, nil, &value)
	return value, err
}
