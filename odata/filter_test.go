package odata_test

import (
	"bufio"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/batchyard/batchyard/odata"
)

// fields has one of each kind.
var fields = odata.Fields{
	"id":            {Kind: odata.ID, Column: "id_key"},
	"name":          {Kind: odata.String, Column: "name"},
	"state":         {Kind: odata.Enum, Column: "state", Words: []string{"active", "deleting", "resizing"}},
	"count":         {Kind: odata.Int, Column: "count"},
	"cost":          {Kind: odata.Float, Column: "cost"},
	"dedicated":     {Kind: odata.Bool, Column: "dedicated"},
	"created":       {Kind: odata.Time, Column: "created"},
	"info/exitCode": {Kind: odata.Int, Column: "exit_code"},
}

// row is an item under a label, with the values that it has.
type row struct {
	label  string
	values map[string]any
}

func (r row) value(name string) any { return r.values[name] }

// column gives a value as the store keeps it.
func (r row) column(name string) any {
	switch v := r.values[name].(type) {
	case bool:
		if v {
			return 1
		}
		return 0
	case time.Time:
		return v.UnixMicro()
	case string:
		if name == "id" || name == "state" {
			return strings.ToLower(v)
		}
		return v
	default:
		return v
	}
}

// table is a database with rows.
type table struct {
	name string
	db   *sql.DB
	rows []row
}

// postgresVariable holds the URL of a server if there is one to test with.
const postgresVariable = "BATCHYARD_TEST_POSTGRES"

// newTables opens an empty table in each kind of database. It is temporary,
// hence seen by one connection alone.
func newTables(t *testing.T) []*table {
	t.Helper()
	tables := []*table{open(t, "sqlite", ":memory:", "text")}
	if url := os.Getenv(postgresVariable); url != "" {
		tables = append(tables, open(t, "pgx", url, `text COLLATE "C"`))
	}
	return tables
}

func open(t *testing.T, driver, url, text string) *table {
	t.Helper()
	db, err := sql.Open(driver, url)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	if _, err := db.Exec(strings.ReplaceAll(`CREATE TEMPORARY TABLE items (seq bigint, label TEXT, id_key TEXT, name TEXT,
		state TEXT, count bigint, cost double precision, dedicated bigint, created bigint, exit_code bigint)`, "TEXT", text)); err != nil {
		t.Fatal(err)
	}
	return &table{name: driver, db: db}
}

func (tb *table) insert(r row) error {
	tb.rows = append(tb.rows, r)
	_, err := tb.db.Exec(`INSERT INTO items VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`, len(tb.rows), r.label,
		r.column("id"), r.column("name"), r.column("state"), r.column("count"), r.column("cost"),
		r.column("dedicated"), r.column("created"), r.column("info/exitCode"))
	return err
}

// matched gives the labels of the rows that pass in memory.
func (tb *table) matched(f odata.Filter) string {
	var labels []string
	for _, r := range tb.rows {
		if f.Match(r.value) {
			labels = append(labels, r.label)
		}
	}
	return strings.Join(labels, " ")
}

// selected gives the labels of the rows that pass in the database. The clause
// stands among other parameters, as it does in a list.
func (tb *table) selected(f odata.Filter) (labels, clause string, err error) {
	clause, args := f.SQL(3)
	query := "SELECT label FROM items WHERE label <> $1 AND " + clause + " ORDER BY seq LIMIT $2"
	rows, err := tb.db.Query(query, append([]any{"", 1000}, args...)...)
	if err != nil {
		return "", clause, fmt.Errorf("%s: %w", query, err)
	}
	defer rows.Close()
	var got []string
	for rows.Next() {
		var label string
		if err := rows.Scan(&label); err != nil {
			return "", clause, err
		}
		got = append(got, label)
	}
	return strings.Join(got, " "), clause, rows.Err()
}

// readRow turns the JSON of a script into values of the fields' types.
func readRow(t *testing.T, label, text string) row {
	t.Helper()
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		t.Fatalf("row %s: %v", label, err)
	}
	r := row{label: label, values: map[string]any{}}
	for name, v := range raw {
		var err error
		switch fields[name].Kind {
		case odata.Int:
			r.values[name], err = read[int64](v)
		case odata.Float:
			r.values[name], err = read[float64](v)
		case odata.Bool:
			r.values[name], err = read[bool](v)
		case odata.Time:
			r.values[name], err = read[time.Time](v)
		default:
			r.values[name], err = read[string](v)
		}
		if err != nil {
			t.Fatalf("row %s: %s: %v", label, name, err)
		}
	}
	return r
}

func read[T any](text json.RawMessage) (T, error) {
	var v T
	err := json.Unmarshal(text, &v)
	return v, err
}

// statement is a line of a script with the indented lines under it by their
// first word; of "fails" the whole line is kept under "".
type statement struct {
	line       int
	verb, text string
	under      map[string]string
}

func readScript(t *testing.T, name string) []statement {
	t.Helper()
	file, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var script []statement
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		indented := strings.HasPrefix(line, "  ")
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		verb, text, _ := strings.Cut(line, " ")
		if !indented {
			script = append(script, statement{line: n, verb: verb, text: strings.TrimSpace(text), under: map[string]string{}})
			continue
		}
		last := script[len(script)-1]
		if last.verb == "fails" {
			verb, text = "", line
		}
		last.under[verb] = text
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return script
}

func TestFilterScript(t *testing.T) {
	t.Parallel()
	tables := newTables(t)
	for _, s := range readScript(t, "filter.test") {
		switch s.verb {
		case "row":
			label, text, _ := strings.Cut(s.text, " ")
			for _, tb := range tables {
				if err := tb.insert(readRow(t, label, text)); err != nil {
					t.Fatal(err)
				}
			}
		case "filter":
			for _, tb := range tables {
				checkFilter(t, tb, s)
			}
		case "fails":
			checkFailure(t, s)
		default:
			t.Fatalf("line %d: unknown word %s", s.line, s.verb)
		}
	}
}

func checkFilter(t *testing.T, tb *table, s statement) {
	t.Helper()
	f, err := odata.ParseFilter(s.text, fields)
	if err != nil {
		t.Errorf("line %d: %s: %v", s.line, s.text, err)
		return
	}
	want, ok := s.under["rows"]
	if !ok {
		t.Errorf("line %d: no rows are expected", s.line)
	}
	if got := tb.matched(f); got != want {
		t.Errorf("line %d: %s: matched %q, want %q", s.line, s.text, got, want)
	}
	got, clause, err := tb.selected(f)
	if err != nil || got != want {
		t.Errorf("line %d: %s: %s selected %q by %s, want %q, error %v", s.line, s.text, tb.name, got, clause, want, err)
	}
	if want, ok := s.under["sql"]; ok && clause != want {
		t.Errorf("line %d: %s: got clause %s, want %s", s.line, s.text, clause, want)
	}
	prints := s.text
	if p, ok := s.under["prints"]; ok {
		prints = p
	}
	if f.String() != prints {
		t.Errorf("line %d: %s: prints %s, want %s", s.line, s.text, f, prints)
	}
}

func checkFailure(t *testing.T, s statement) {
	t.Helper()
	e, err := odata.Parse(s.text)
	if err == nil {
		_, err = odata.Check(e, fields)
	}
	var refused *odata.Error
	if !errors.As(err, &refused) {
		t.Errorf("line %d: %s: got error %v", s.line, s.text, err)
		return
	}
	if diff := cmp.Diff(refused.Error(), s.under[""]); diff != "" {
		t.Errorf("line %d: %s (-got +want):\n%s", s.line, s.text, diff)
	}
}

func TestZeroFilterLetsEverythingThrough(t *testing.T) {
	t.Parallel()
	f, err := odata.ParseFilter("", fields)
	if err != nil || !f.IsZero() || f.String() != "" {
		t.Fatalf("got filter %q and error %v", f, err)
	}
	clause, args := f.SQL(1)
	if clause != "1 = 1" || len(args) != 0 || !f.Match(row{}.value) {
		t.Errorf("got clause %s with %v", clause, args)
	}
}

func TestFilterLimits(t *testing.T) {
	t.Parallel()
	terms := func(n int) string { return strings.Repeat("id eq 'a' or ", n-1) + "id eq 'a'" }
	nested := func(n int) string { return strings.Repeat("(", n) + "id eq 'a'" + strings.Repeat(")", n) }
	cases := []struct {
		name, text, want string
	}{
		{"many comparisons", terms(300), ""},
		{"too many comparisons", terms(301), "more than 300 comparisons"},
		{"deep nesting", nested(49), ""},
		{"too deep nesting", nested(50), "more than 50"},
		{"too many nots", strings.Repeat("not ", 50) + "id eq 'a'", "more than 50"},
		{"a long text", "id eq '" + strings.Repeat("a", 8<<10) + "'", "longer than 8192 bytes"},
		{"bytes that are not text", "id eq '\xff'", "UTF-8"},
		{"a zero byte, which PostgreSQL refuses", "id eq '\x00'", "UTF-8"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f, err := odata.ParseFilter(c.text, fields)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				for _, tb := range newTables(t) {
					if _, _, err := tb.selected(f); err != nil {
						t.Error(err)
					}
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestMessagesQuoteLittle(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 3000)
	for _, text := range []string{"id eq " + strings.Repeat("a", 5000), strings.Repeat("a", 5000) + " eq 1", "count eq '" + long + "'", "created lt DateTime'" + long + "'"} {
		_, err := odata.ParseFilter(text, fields)
		if err == nil || len(err.Error()) > 500 {
			t.Errorf("got error %v", err)
		}
	}
}

func TestWrongValuesAreMistakesOfTheProgram(t *testing.T) {
	t.Parallel()
	f, err := odata.ParseFilter("count eq 1", odata.Fields{"count": {Kind: odata.Int}})
	if err != nil {
		t.Fatal(err)
	}
	for name, run := range map[string]func(){
		"a value of the wrong type": func() { f.Match(func(string) any { return "1" }) },
		"a field without a column":  func() { f.SQL(1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s is let pass", name)
				}
			}()
			run()
		}()
	}
}
