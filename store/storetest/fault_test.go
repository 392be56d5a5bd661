package storetest_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// childVariable makes the test binary write until it is killed, instead of
// running tests.
const childVariable = "BATCHYARD_TEST_WRITE_UNTIL_KILLED"

func TestMain(m *testing.M) {
	if path := os.Getenv(childVariable); path != "" {
		if err := writeUntilKilled(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// writeUntilKilled prints the number of each row once it is said to be on disk.
func writeUntilKilled(path string) error {
	db, err := store.Open(context.Background(), store.Options{URL: path})
	if err != nil {
		return err
	}
	err = db.Update(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Exec(`CREATE TABLE rows (n bigint NOT NULL PRIMARY KEY, padding blob)`)
		return err
	})
	failed := make(chan error)
	for caller := range 8 {
		go func() {
			for n := caller; ; n += 8 {
				err := db.Update(context.Background(), func(tx *store.Tx) error {
					_, err := tx.Exec(`INSERT INTO rows (n, padding) VALUES ($1, $2)`, n, make([]byte, 4000))
					return err
				})
				if err != nil {
					failed <- err
				}
				fmt.Println(n)
			}
		}()
	}
	return errors.Join(err, <-failed)
}

func TestKilledServerKeepsWhatItAnswered(t *testing.T) {
	t.Parallel()
	path := storetest.SQLite(t)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childVariable+"="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var answered []int64
	lines := bufio.NewScanner(out)
	for len(answered) < 2500 && lines.Scan() {
		n, err := strconv.ParseInt(lines.Text(), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		answered = append(answered, n)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
		if n, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil { // the last line may be cut
			answered = append(answered, n)
		}
	}
	_ = child.Wait() // killed, as was asked for

	db := storetest.Open(t, store.Options{URL: path})
	missing := view(t, db, func(tx *store.Tx) (missing int, err error) {
		for _, n := range answered[:len(answered)-1] {
			var there bool
			if err := tx.QueryRow(`SELECT EXISTS (SELECT 1 FROM rows WHERE n = $1)`, n).Scan(&there); err != nil {
				return 0, err
			}
			if !there {
				missing++
			}
		}
		return missing, nil
	})
	if missing != 0 || len(answered) < 2500 {
		t.Errorf("%d of %d answered rows are missing", missing, len(answered))
	}
}

func TestFullDiskFailsOnlyWhatNeedsIt(t *testing.T) {
	t.Parallel()
	db := storetest.Open(t, store.Options{URL: storetest.SQLite(t)})
	withTable(t, db)
	update(t, db, func(tx *store.Tx) error {
		var pages int
		if err := tx.QueryRow(`PRAGMA page_count`).Scan(&pages); err != nil {
			return err
		}
		return tx.QueryRow(`PRAGMA max_page_count = ` + strconv.Itoa(pages+60)).Scan(&pages)
	})
	release := hold(t, db)
	var wait sync.WaitGroup
	answers := make([]error, 9)
	for i := range answers {
		wait.Go(func() {
			answers[i] = db.Update(t.Context(), func(tx *store.Tx) error {
				if err := insert(tx, fmt.Sprint(i)); err != nil || i%3 != 0 {
					return err
				}
				_, err := tx.Exec(`UPDATE things SET bytes = $1`, make([]byte, 1<<20))
				return err
			})
		})
	}
	release()
	wait.Wait()
	for i, err := range answers {
		if (err != nil) != (i%3 == 0) {
			t.Errorf("update %d: got error %v", i, err)
		}
	}
	diff(t, []string{"1", "2", "4", "5", "7", "8"}, names(t, db))
}

func TestPostgresMayRestart(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(storetest.PostgreSQL(t))
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	name := "restarted_" + query.Get("search_path")
	other := u.String()
	query.Set("application_name", name)
	u.RawQuery = query.Encode()

	db := storetest.Open(t, store.Options{URL: u.String()})
	withTable(t, db)
	for i := range 3 {
		terminate(t, other, name)
		update(t, db, func(tx *store.Tx) error { return insert(tx, fmt.Sprint(i)) })
		if got := names(t, db); len(got) != i+1 {
			t.Errorf("got %v", got)
		}
	}
}

// TestWatchersLookAfterACommitWithoutAnAnswer loses the connection as a commit is
// under way: it fails, but whoever would have had to know of it is woken, since it
// may be on disk.
func TestWatchersLookAfterACommitWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	db := storetest.Open(t, store.Options{URL: storetest.PostgreSQL(t)})
	withTable(t, db)
	update(t, db, func(tx *store.Tx) error {
		for _, statement := range []string{
			`CREATE FUNCTION hang_up() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'`,
			`CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON things DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hang_up()`,
		} {
			if _, err := tx.Exec(statement); err != nil {
				return err
			}
		}
		return nil
	})
	watch := db.Watch("things")
	defer watch.Close()
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		tx.Changed("things")
		return insert(tx, "perhaps")
	})
	if err == nil || !strings.Contains(err.Error(), "outcome is unknown") {
		t.Fatalf("a commit whose connection broke: %v", err)
	}
	select {
	case <-watch.C:
	default:
		t.Error("nobody was told to look again")
	}
}

// terminate ends all connections of an application, as the end of the server
// would.
func terminate(t *testing.T, server, application string) {
	t.Helper()
	db, err := sql.Open("pgx", server)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var n int
	err = db.QueryRow(`
		SELECT count(pg_terminate_backend(pid, 5000))
		FROM pg_stat_activity
		WHERE application_name = $1`, application).Scan(&n)
	if err != nil || n == 0 {
		t.Fatalf("terminated %d connections: %v", n, err)
	}
}

func TestDatabaseLivesInABubble(t *testing.T) {
	t.Parallel()
	path := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		db := storetest.Open(t, store.Options{URL: path})
		start := time.Now()
		watch := db.Watch("accounts")
		defer watch.Close()
		go func() {
			for i := range 200 {
				<-time.After(time.Minute)
				a := batch.Account{Name: batch.AccountName(fmt.Sprintf("a%06d", i)), Keys: [2][]byte{{1}, {2}}, Created: time.Now()}
				if err := db.Update(t.Context(), func(tx *store.Tx) error {
					tx.Changed("accounts")
					return tx.InsertAccount(&a)
				}); err != nil {
					t.Error(err)
				}
			}
		}()
		for {
			<-watch.C
			accounts := view(t, db, (*store.Tx).Accounts)
			if len(accounts) < 200 {
				continue
			}
			if got, want := accounts[199].Created, start.Add(200*time.Minute); !got.Equal(want.Truncate(time.Microsecond)) {
				t.Errorf("got %v, want %v", got, want)
			}
			return
		}
	})
}

func TestTextsAreNotMistakenForParameters(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		got := view(t, db, func(tx *store.Tx) (s string, err error) {
			return s, tx.QueryRow(`
				SELECT '$2 it''s ' || CAST($2 AS text) || CAST($1 AS text) || "$3" || CAST($2 AS text) -- not $4
				FROM (SELECT ' $ ' AS "$3") AS v`, "one", "two").Scan(&s)
		})
		if want := "$2 it's twoone $ two"; strings.TrimSpace(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
