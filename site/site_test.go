package site_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/site"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// yard is a place and what a server does with it.
type yard struct {
	t     *testing.T
	place site.Place
}

// each runs a test with a new place for each kind of database.
func each(t *testing.T, test func(y *yard)) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, url string) { test(&yard{t, placeOf(t, url)}) })
}

func placeOf(t *testing.T, url string) site.Place {
	t.Helper()
	if filepath.IsAbs(url) {
		return site.Place{Data: filepath.Dir(url)}
	}
	return site.Place{Data: t.TempDir(), Database: url}
}

func (y *yard) check(err error) {
	y.t.Helper()
	if err != nil {
		y.t.Fatal(err)
	}
}

// open opens the place as a server does, and closes it.
func (y *yard) open(use site.Use) (site.Identity, error) {
	y.t.Helper()
	s, err := site.Open(context.Background(), site.Options{Place: y.place, Use: use})
	if err != nil {
		return site.Identity{}, err
	}
	return s.Identity, s.Close()
}

// serve has a server work: it makes an account, a blob with a file and a node's
// folder.
func (y *yard) serve(use site.Use, account batch.AccountName) site.Identity {
	y.t.Helper()
	s, err := site.Open(context.Background(), site.Options{Place: y.place, Use: use})
	y.check(err)
	y.check(s.DB.Update(context.Background(), func(tx *store.Tx) error {
		a := batch.Account{Name: account, Keys: [2][]byte{{1}, {2}}}
		blob := store.Blob{Name: "b", ETag: "1", Size: 1, Content: "afile"}
		_, err := tx.PutBlob("life", store.Blob{}, blob, nil)
		return errors.Join(err, tx.InsertAccount(&a))
	}))
	y.write("blobs/a/afile")
	y.check(s.Close())
	return s.Identity
}

func (y *yard) write(name string) {
	y.t.Helper()
	path := filepath.Join(y.place.Data, name)
	y.check(os.MkdirAll(filepath.Dir(path), 0o700))
	y.check(os.WriteFile(path, []byte("x"), 0o600))
}

// mismatch wants a server to refuse the place, to name what is there in so many
// words, and to leave it as it is.
func (y *yard) mismatch(use site.Use, words string) {
	y.t.Helper()
	before := y.files()
	_, err := y.open(use)
	if !errors.Is(err, site.ErrMismatch) || !strings.Contains(err.Error(), words) {
		y.t.Errorf("got %v, want a mismatch that says %q", err, words)
	}
	if after := y.files(); after != before {
		y.t.Errorf("the folder had\n%s\nand has\n%s", before, after)
	}
}

// files are the names in the data folder, but for the lock.
func (y *yard) files() string {
	y.t.Helper()
	var names []string
	y.check(filepath.WalkDir(y.place.Data, func(path string, _ os.DirEntry, err error) error {
		if !strings.HasSuffix(path, ".lock") {
			names = append(names, path)
		}
		return err
	}))
	return strings.Join(names, "\n")
}

func TestASiteIsTheSameEachTime(t *testing.T) {
	t.Parallel()
	each(t, func(y *yard) {
		first := y.serve(site.ForServer, "acme")
		again, err := y.open(site.ForServer)
		y.check(err)
		if first != again || first.ID == "" || first.Use != site.ForServer {
			y.t.Errorf("site is %+v and then %+v", first, again)
		}
	})
}

// The database is moved away for a moment, or the setting that names it is
// forgotten: the server does not start on a new one.
func TestANewDatabaseBesideAFullFolderIsRefused(t *testing.T) {
	t.Parallel()
	t.Run("moved away", func(t *testing.T) {
		t.Parallel()
		y := &yard{t, placeOf(t, storetest.SQLite(t))}
		first := y.serve(site.ForServer, "acme")
		database := y.place.URL()
		y.check(os.Rename(database, database+".away"))
		y.mismatch(site.ForServer, "the database is new")
		y.check(os.Rename(database+".away", database))
		if again, err := y.open(site.ForServer); err != nil || again != first {
			t.Errorf("with its database back: %+v, %v", again, err)
		}
	})
	t.Run("setting forgotten", func(t *testing.T) {
		t.Parallel()
		y := &yard{t, placeOf(t, storetest.PostgreSQL(t))}
		y.serve(site.ForServer, "acme")
		y.place.Database = ""
		y.mismatch(site.ForServer, "the database is new")
	})
	t.Run("another new one", func(t *testing.T) {
		t.Parallel()
		y := &yard{t, placeOf(t, storetest.PostgreSQL(t))}
		y.serve(site.ForServer, "acme")
		y.place.Database = storetest.PostgreSQL(t)
		y.mismatch(site.ForServer, "the database is new")
	})
	for _, name := range []string{"blobs/a/afile", "nodes/tvmps_1/number"} {
		t.Run("a folder of before sites, "+name, func(t *testing.T) {
			t.Parallel()
			each(t, func(y *yard) {
				y.write(name)
				y.mismatch(site.ForServer, "the database is new and the folder is not")
			})
		})
	}
}

func TestTheDatabaseOfAnotherSiteIsRefused(t *testing.T) {
	t.Parallel()
	y := &yard{t, placeOf(t, storetest.PostgreSQL(t))}
	other := &yard{t, placeOf(t, storetest.PostgreSQL(t))}
	y.serve(site.ForServer, "acme")
	other.serve(site.ForServer, "acme")
	y.place.Database = other.place.Database
	y.mismatch(site.ForServer, "the folder is of site")
}

// The data folder is a disk that is not mounted.
func TestAnEmptyFolderBesideAFullDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	y := &yard{t, placeOf(t, storetest.PostgreSQL(t))}
	first := y.serve(site.ForServer, "acme")
	full := y.place.Data
	y.place.Data = t.TempDir()
	y.mismatch(site.ForServer, "of 1 files that the database names 1 are not in the folder")
	y.place.Data = full
	if again, err := y.open(site.ForServer); err != nil || again != first {
		t.Errorf("with its folder back: %+v, %v", again, err)
	}
}

// A server was killed between the word of the database and that of the folder,
// or somebody removed the latter, knowing better.
func TestTheWordOfTheFolderIsWrittenAgain(t *testing.T) {
	t.Parallel()
	each(t, func(y *yard) {
		first := y.serve(site.ForServer, "acme")
		y.check(os.Remove(filepath.Join(y.place.Data, site.FileName)))
		for range 2 {
			if again, err := y.open(site.ForServer); err != nil || again != first {
				y.t.Errorf("got %+v, %v, want %+v", again, err, first)
			}
		}
	})
}

// Data of a program that knew of no sites are taken over.
func TestDataOfBeforeSitesGetOne(t *testing.T) {
	t.Parallel()
	for account, was := range map[batch.AccountName]site.Use{"acme": site.ForServer, site.DevAccount: site.ForDev} {
		t.Run(string(was), func(t *testing.T) {
			t.Parallel()
			each(t, func(y *yard) {
				y.serve(was, account)
				y.forget()
				other := map[site.Use]site.Use{site.ForServer: site.ForDev, site.ForDev: site.ForServer}[was]
				if _, err := y.open(other); err == nil || !strings.Contains(err.Error(), "use another folder") {
					y.t.Errorf("for another use: %v", err)
				}
				i, err := y.open(was)
				if err != nil || i.Use != was {
					y.t.Errorf("got %+v, %v", i, err)
				}
			})
		})
	}
}

// forget makes the place one of a program that knew of no sites.
func (y *yard) forget() {
	y.t.Helper()
	db, err := store.Open(context.Background(), store.Options{URL: y.place.URL()})
	y.check(err)
	y.check(db.Update(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM site`)
		return err
	}))
	y.check(errors.Join(db.Close(), os.Remove(filepath.Join(y.place.Data, site.FileName))))
}

func TestDevAndServerRefuseEachOthersData(t *testing.T) {
	t.Parallel()
	each(t, func(y *yard) {
		y.serve(site.ForDev, site.DevAccount)
		_, err := y.open(site.ForServer)
		if err == nil || !strings.Contains(err.Error(), "keys everybody knows") {
			y.t.Errorf("a server on the data of dev: %v", err)
		}
		_, err = y.open(site.ForDev)
		y.check(err)
	})
	each(t, func(y *yard) {
		y.serve(site.ForServer, "acme")
		_, err := y.open(site.ForDev)
		if err == nil || !strings.Contains(err.Error(), "data of 'batchyard server'") {
			y.t.Errorf("dev on the data of a server: %v", err)
		}
	})
}

func TestOnlyOneProcessWrites(t *testing.T) {
	t.Parallel()
	each(t, func(y *yard) {
		s, err := site.Open(y.t.Context(), site.Options{Place: y.place, Use: site.ForServer})
		y.check(err)
		if _, err := y.open(site.ForServer); !errors.Is(err, store.ErrInUse) {
			y.t.Errorf("a second server: %v, want ErrInUse", err)
		}
		y.check(s.Close())
		_, err = y.open(site.ForServer)
		y.check(err)
	})
}
