package store

import (
	"database/sql"
	"fmt"
	"iter"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	jsonv1 "github.com/go-json-experiment/json/v1"

	"github.com/batchyard/batchyard/batch"
)

// List selects a page of a list, which is always in the order of keys.
type List struct {
	// After is the key of the last item of the page before, empty at first.
	After string
	// Until is the last key that is wanted, empty for no end.
	Until string
	// Max is how many items are wanted; 0 for all.
	Max int
	// Where adds a condition on the columns of the table. It is given the
	// number of its first parameter, so that it can write $3, $4 and so on.
	Where func(first int) (clause string, args []any)
	// Cut, unless it is nil, lets the list end early when its items have very
	// many bytes, and is set to whether it did.
	Cut *bool
}

// maxRead is after how many bytes of specifications a list that may be cut ends.
const maxRead = 16 << 20

// query completes a SELECT that has its WHERE clause and args already; id is
// the column of the key.
func (l List) query(text, id string, args ...any) (string, []any) {
	var b strings.Builder
	b.WriteString(text)
	if l.After != "" {
		args = append(args, l.After)
		b.WriteString("\nAND " + id + " > $" + strconv.Itoa(len(args)))
	}
	if l.Until != "" {
		args = append(args, l.Until)
		b.WriteString("\nAND " + id + " <= $" + strconv.Itoa(len(args)))
	}
	if l.Where != nil {
		clause, more := l.Where(len(args) + 1)
		if clause != "" {
			args = append(args, more...)
			b.WriteString("\nAND (" + clause + ")")
		}
	}
	b.WriteString("\nORDER BY " + id)
	if l.Max > 0 {
		args = append(args, l.Max)
		b.WriteString("\nLIMIT $" + strconv.Itoa(len(args)))
	}
	return b.String(), args
}

// scanner is a row to read, of one or of many.
type scanner interface{ Scan(dest ...any) error }

// one reads the row of a query for one row.
func one[T any](what string, row *sql.Row, scan func(scanner) (T, error)) (T, error) {
	v, err := scan(row)
	if err != nil {
		return v, rowError(what, err)
	}
	return v, nil
}

// rowsAtOnce is how many rows are read before others have a turn at the
// processor: a long list is in less of a hurry than what waits behind it.
const rowsAtOnce = 32

// all reads the rows of a query and closes them. It takes what Tx.Query
// returns.
func all[T any](what string, rows *sql.Rows, err error, scan func(scanner) (T, error)) ([]T, error) {
	return some(what, rows, err, scan, func() bool { return false })
}

// listed is all for the rows of a list, which may be cut.
func listed[T any](what string, list List, rows *sql.Rows, err error, scan func(scanner) (T, error)) ([]T, error) {
	if list.Cut == nil {
		return all(what, rows, err, scan)
	}
	w := &weighed{}
	*list.Cut = false
	return some(what, rows, err, func(row scanner) (T, error) {
		w.scanner = row
		return scan(w)
	}, func() bool {
		*list.Cut = w.bytes >= maxRead
		return *list.Cut
	})
}

// weighed counts the bytes of what is read as bytes: the specifications.
type weighed struct {
	scanner
	bytes int
}

// Scan reads a row.
func (w *weighed) Scan(dest ...any) error {
	err := w.scanner.Scan(dest...)
	for _, d := range dest {
		if text, ok := d.(*[]byte); ok {
			w.bytes += len(*text)
		}
	}
	return err
}

// some is all that ends early once there is enough.
func some[T any](what string, rows *sql.Rows, err error, scan func(scanner) (T, error), enough func() bool) ([]T, error) {
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer rows.Close()
	var items []T
	for rows.Next() {
		item, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		items = append(items, item)
		if enough() {
			return items, nil
		}
		if len(items)%rowsAtOnce == 0 {
			runtime.Gosched()
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return items, nil
}

// rowError turns the absence of a row into ErrNotFound.
func rowError(what string, err error) error {
	if isNone(err) {
		return ErrNotFound
	}
	return fmt.Errorf("%s: %w", what, err)
}

// changeOne runs a statement that must affect a row.
func (tx *Tx) changeOne(what, query string, args ...any) error {
	n, err := tx.Exec(query, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if n == 0 {
		return ErrNotFound
	}
	return nil
}

// micros is how a column keeps a time; the zero time is NULL.
func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

// microsAt is micros of a time of the protocol.
func microsAt(t *batch.Time) any {
	if t == nil {
		return nil
	}
	return micros(t.Time)
}

// moment reads what micros wrote.
func moment(us sql.NullInt64) time.Time {
	if !us.Valid {
		return time.Time{}
	}
	return time.UnixMicro(us.Int64).UTC()
}

func momentAt(us sql.NullInt64) *batch.Time {
	if !us.Valid {
		return nil
	}
	t := batch.At(moment(us))
	return &t
}

// legacyEmpty keeps parts such as {} that a user sent and wants back; version 2
// would leave them out.
var legacyEmpty = jsonv1.OmitEmptyWithLegacySemantics(true)

// encode writes JSON for a column.
func encode(v any) (string, error) {
	b, err := json.Marshal(v, legacyEmpty)
	if err != nil {
		return "", fmt.Errorf("encode row: %w", err)
	}
	return string(b), nil
}

// decode reads JSON of a column.
func decode(text []byte, v any) error {
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("decode row: %w", err)
	}
	return nil
}

// name is the column that keeps an ID in its own case, if that differs from the
// key.
func name[T ~string](id T) string {
	if batch.Key(id) == string(id) {
		return ""
	}
	return string(id)
}

// named undoes name.
func named[T ~string](key, name string) T {
	if name == "" {
		return T(key)
	}
	return T(name)
}

// Set-wise statements take their rows as VALUES. So that a few texts serve all
// numbers of rows, and stay prepared, rows are cut into pieces of these sizes;
// 100 is what one request may add.
var pieces = []int{100, 50, 24, 12, 6, 3, 2, 1}

// cut yields the pieces of n rows as [from, to).
func cut(n int) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		from := 0
		for _, size := range pieces {
			for ; n-from >= size; from += size {
				if !yield(from, from+size) {
					return
				}
			}
		}
	}
}

// tuples writes n rows of parameters, "($3, CAST($4 AS bigint)), ($5, $6)",
// numbered from first on. The types, of which text needs none, are said in the
// first row and hold for all.
func tuples(first, n int, types ...string) string {
	b := make([]byte, 0, n*len(types)*6)
	for row := range n {
		if row > 0 {
			b = append(b, ", "...)
		}
		b = append(b, '(')
		for i, kind := range types {
			if i > 0 {
				b = append(b, ", "...)
			}
			typed := row == 0 && kind != "text"
			if typed {
				b = append(b, "CAST("...)
			}
			b = append(b, '$')
			b = strconv.AppendInt(b, int64(first+row*len(types)+i), 10)
			if typed {
				b = append(b, " AS "+kind+")"...)
			}
		}
		b = append(b, ')')
	}
	return string(b)
}

// parameters writes n parameters, "$3, $4, $5", numbered from first on.
func parameters(first, n int) string {
	b := make([]byte, 0, n*5)
	for i := range n {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(b, '$')
		b = strconv.AppendInt(b, int64(first+i), 10)
	}
	return string(b)
}
