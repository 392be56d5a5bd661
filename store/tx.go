package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync/atomic"
	"time"
)

// errReadOnly says that a View tried to write.
var errReadOnly = errors.New("view cannot write")

// Tx is a transaction, handed to the function that View or Update runs and
// useless after it returns. It serves one goroutine.
type Tx struct {
	ctx        context.Context //nolint:containedctx // a transaction is one call, and its methods need no context each
	session    *session
	statements *atomic.Uint64 // counts them
	now        time.Time
	lead       time.Duration // by which now is ahead of the steady clock
	readOnly   bool
	topics     []string
	failed     error // the first statement of an update that failed
}

// Now is the date of the transaction, UTC, in whole microseconds; it stays the
// same throughout. No transaction has an earlier one than those before it, even
// if the machine's date is set back. Moments that the database says are due are to
// be compared with it, and with nothing that was read in another transaction: they
// move with the date when that is set.
func (tx *Tx) Now() time.Time { return tx.now }

// Exec runs a statement that returns no rows and says how many it affected.
func (tx *Tx) Exec(query string, args ...any) (int64, error) {
	if tx.readOnly {
		return 0, errReadOnly
	}
	if tx.failed != nil {
		return 0, tx.failed
	}
	tx.statements.Add(1)
	n, err := tx.session.execute(tx.ctx, query, args)
	if err != nil {
		tx.failed = err
	}
	return n, err
}

// Query runs a statement that returns rows, which the caller closes before the
// next statement.
func (tx *Tx) Query(query string, args ...any) (*sql.Rows, error) {
	if tx.failed != nil {
		return nil, tx.failed
	}
	tx.statements.Add(1)
	rows, err := tx.session.query(tx.ctx, query, args)
	if err != nil && !tx.readOnly {
		tx.failed = err
	}
	return rows, err
}

// QueryRow runs a statement that returns at most one row. Scan on the result
// returns sql.ErrNoRows if there was none.
func (tx *Tx) QueryRow(query string, args ...any) *sql.Row {
	tx.statements.Add(1)
	return tx.session.queryRow(tx.ctx, query, args)
}

// Changed names topics to announce once the transaction is committed. Naming
// one twice costs nothing.
func (tx *Tx) Changed(topics ...string) {
	tx.topics = append(tx.topics, topics...)
}

// maxStatements bounds the statements a connection keeps prepared. The fixed
// ones of this package are far fewer; the rest are lists with filters, whose
// texts have no end.
const maxStatements = 512

// session is one connection and, where the driver keeps none itself, the
// statements prepared on it.
type session struct {
	conn     *sql.Conn
	prepared map[string]*statement // nil if the driver has a cache of its own
	joined   bool                  // several statements may travel in one text
}

// statement is a text that SQLite has prepared. SQLite takes $1 for a name and
// looks up each name among all, which is slow when there are a thousand: so it
// is given question marks, and the arguments in the order of these.
type statement struct {
	*sql.Stmt
	order []int // index of the argument for each question mark
}

// arrange puts arguments in the order of the question marks. A missing one is
// left for the driver to complain about.
func (s *statement) arrange(args []any) []any {
	arranged := make([]any, 0, len(s.order))
	for _, i := range s.order {
		if i < len(args) {
			arranged = append(arranged, args[i])
		}
	}
	return arranged
}

// anonymous replaces each $n outside of quotes by a question mark and says which
// arguments these stand for.
func anonymous(query string) (text string, order []int) {
	b := make([]byte, 0, len(query))
	quote := byte(0)
	for i := 0; i < len(query); i++ {
		c := query[i]
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '-' && i+1 < len(query) && query[i+1] == '-':
			quote = '\n'
		case c == '$':
			n := 0
			for ; i+1 < len(query) && '0' <= query[i+1] && query[i+1] <= '9'; i++ {
				n = n*10 + int(query[i+1]-'0')
			}
			order = append(order, n-1)
			c = '?'
		}
		b = append(b, c)
	}
	return string(b), order
}

// discard closes a connection that can no longer be used, rather than give it
// back to its pool, and returns nil. Nothing is left to lose or to report.
func discard(s *session) *session {
	s.unprepare()
	_ = s.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = s.conn.Close()
	return nil
}

// close gives the connection back to its pool.
func (s *session) close() error {
	s.unprepare()
	return s.conn.Close()
}

// unprepare closes the statements while their connection is still there.
func (s *session) unprepare() {
	for _, stmt := range s.prepared {
		_ = stmt.Close() // says again what the last use of the statement said
	}
	clear(s.prepared)
}

// exec runs statements without parameters, in one trip where possible.
func (s *session) exec(ctx context.Context, statements ...string) error {
	if s.joined {
		_, err := s.conn.ExecContext(ctx, join(statements))
		return err
	}
	for _, statement := range statements {
		if _, err := s.execute(ctx, statement, nil); err != nil {
			return err
		}
	}
	return nil
}

func join(statements []string) string {
	if len(statements) == 1 {
		return statements[0]
	}
	var text string
	for _, statement := range statements {
		text += statement + ";\n"
	}
	return text
}

func (s *session) execute(ctx context.Context, query string, args []any) (int64, error) {
	result, err := s.result(ctx, query, args)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (s *session) result(ctx context.Context, query string, args []any) (sql.Result, error) {
	if s.prepared == nil {
		return s.conn.ExecContext(ctx, query, args...)
	}
	stmt, err := s.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return stmt.ExecContext(ctx, stmt.arrange(args)...)
}

func (s *session) query(ctx context.Context, query string, args []any) (*sql.Rows, error) {
	if s.prepared == nil {
		return s.conn.QueryContext(ctx, query, args...)
	}
	stmt, err := s.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(ctx, stmt.arrange(args)...)
}

func (s *session) queryRow(ctx context.Context, query string, args []any) *sql.Row {
	if s.prepared != nil {
		if stmt, err := s.prepare(ctx, query); err == nil {
			return stmt.QueryRowContext(ctx, stmt.arrange(args)...)
		}
	}
	return s.conn.QueryRowContext(ctx, query, args...) // reports a bad text again, in its Scan
}

// prepare returns the statement for a text, prepared once a connection.
func (s *session) prepare(ctx context.Context, query string) (*statement, error) {
	if stmt := s.prepared[query]; stmt != nil {
		return stmt, nil
	}
	text, order := anonymous(query)
	prepared, err := s.conn.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	if len(s.prepared) >= maxStatements {
		s.forget()
	}
	stmt := &statement{Stmt: prepared, order: order}
	s.prepared[query] = stmt
	return stmt, nil
}

// forget drops one statement, any: one in use comes back at the price of
// preparing it again.
func (s *session) forget() {
	for query, stmt := range s.prepared {
		_ = stmt.Close() // a statement that is still being read closes with its rows
		delete(s.prepared, query)
		return
	}
}
