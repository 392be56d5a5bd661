package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path"
	"strings"

	"github.com/pressly/goose/v3"
)

// The schema, as numbered steps that only go forward.
//
//go:embed migrations/*.sql
var migrations embed.FS

// schema prepares the steps for a database. It fails if the database has steps
// that this program does not know: it was written by a newer one.
func schema(ctx context.Context, dialect goose.Dialect, pool *sql.DB, options ...goose.ProviderOption) (p *goose.Provider, current, target int64, err error) {
	p, current, target, err = versions(ctx, dialect, pool, options...)
	if err == nil && current > target {
		err = fmt.Errorf("database has schema %d and this program knows %d: it was written by a newer one", current, target)
	}
	return p, current, target, err
}

// versions tells which step a database is at and which is the last there is.
func versions(ctx context.Context, dialect goose.Dialect, pool *sql.DB, options ...goose.ProviderOption) (p *goose.Provider, current, target int64, err error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, 0, 0, err
	}
	if dialect == goose.DialectSQLite3 {
		files = clustered{files}
	}
	options = append(options, goose.WithDisableGlobalRegistry(true))
	p, err = goose.NewProvider(dialect, pool, files, options...)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read migrations: %w", err)
	}
	current, target, err = p.GetVersions(ctx)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read version of schema: %w", err)
	}
	return p, current, target, nil
}

// LatestSchema is the number of the last migration that this program has.
func LatestSchema() (int64, error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("read migrations: %w", err)
	}
	return goose.NumericComponent(files[len(files)-1])
}

// clustered are the steps as SQLite takes them. The mark of a table that is kept
// in the order of its key becomes SQLite's word for that: the key is then no
// second tree beside the rows. PostgreSQL has no such tables, and sees a comment.
type clustered struct{ fs.FS }

const clusteredMark, clusteredWord = "/* clustered */", "WITHOUT ROWID"

// Open opens a step.
func (c clustered) Open(name string) (fs.File, error) {
	file, err := c.FS.Open(name)
	if err != nil || path.Ext(name) != ".sql" {
		return file, err
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return step{file, strings.NewReader(strings.ReplaceAll(string(text), clusteredMark, clusteredWord))}, nil
}

// step is a file with another text.
type step struct {
	fs.File
	text io.Reader
}

// Read reads that text.
func (s step) Read(p []byte) (int, error) { return s.text.Read(p) }

// up takes the missing steps.
func up(ctx context.Context, log *slog.Logger, p *goose.Provider) error {
	steps, err := p.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	for _, step := range steps {
		log.Info("migrated database", "step", step.Source.Path, "took", step.Duration)
	}
	return nil
}

// migrateSQLite copies an existing database before it changes its schema.
func migrateSQLite(ctx context.Context, log *slog.Logger, pool *sql.DB, path string) error {
	p, current, target, err := schema(ctx, goose.DialectSQLite3, pool)
	if err != nil || current == target {
		return err
	}
	if current > 0 {
		name, err := copySQLite(ctx, pool, path, current)
		if err != nil {
			return err
		}
		log.Info("copied database before migration", "copy", name)
	}
	return up(ctx, log, p)
}
