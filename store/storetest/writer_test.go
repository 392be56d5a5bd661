package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// hold keeps the writer inside an update until the function returned is called,
// so that everything submitted meanwhile ends in one group.
func hold(t *testing.T, db *store.DB) (release func()) {
	t.Helper()
	entered, leave, left := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		first := true
		left <- db.Update(context.Background(), func(*store.Tx) error {
			if first {
				first = false
				close(entered)
				<-leave
			}
			return nil
		})
	}()
	<-entered
	return func() {
		t.Helper()
		close(leave)
		if err := <-left; err != nil {
			t.Error(err)
		}
	}
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		withTable(t, db)
		refused := errors.New("refused")

		t.Run("failing function is rolled back alone", func(t *testing.T) {
			release := hold(t, db)
			var wait sync.WaitGroup
			var wrong atomic.Int32
			for i := range 60 {
				wait.Go(func() {
					err := db.Update(t.Context(), func(tx *store.Tx) error {
						if err := insert(tx, fmt.Sprintf("%02d", i)); err != nil {
							return err
						}
						if i%3 == 0 {
							return refused
						}
						return nil
					})
					if (i%3 == 0) != errors.Is(err, refused) {
						wrong.Add(1)
					}
				})
			}
			release()
			wait.Wait()
			if wrong.Load() != 0 {
				t.Errorf("%d callers got the answer of another", wrong.Load())
			}
			if got := len(names(t, db)); got != 40 {
				t.Errorf("got %d rows, want 40", got)
			}
		})

		t.Run("duplicate is known as such and spoils only its own update", func(t *testing.T) {
			update(t, db, func(tx *store.Tx) error { return insert(tx, "twin") })
			err := db.Update(t.Context(), func(tx *store.Tx) error {
				if err := insert(tx, "before twin"); err != nil {
					return err
				}
				return insert(tx, "twin")
			})
			if !store.IsDuplicate(err) {
				t.Errorf("got error %v", err)
			}
			err = db.Update(t.Context(), func(tx *store.Tx) error {
				_ = insert(tx, "twin") // ignored against the rules
				return insert(tx, "after twin")
			})
			if err == nil {
				t.Error("an update went on after a failed statement")
			}
			err = db.Update(t.Context(), func(tx *store.Tx) error {
				if err := insert(tx, "before twin"); err != nil {
					return err
				}
				_ = insert(tx, "twin") // ignored, and not even followed by another
				return nil
			})
			if err == nil {
				t.Error("an update that ignored a failed statement was committed")
			}
			for _, name := range names(t, db) {
				if name == "before twin" || name == "after twin" {
					t.Errorf("%q is there", name)
				}
			}
			if store.IsDuplicate(refused) {
				t.Error("any error passes for a duplicate")
			}
		})

		t.Run("panic is an error of its caller", func(t *testing.T) {
			err := db.Update(t.Context(), func(tx *store.Tx) error {
				if err := insert(tx, "panicked"); err != nil {
					return err
				}
				panic("bug")
			})
			if err == nil {
				t.Error("got no error")
			}
			update(t, db, func(tx *store.Tx) error { return insert(tx, "survived") })
			for _, name := range names(t, db) {
				if name == "panicked" {
					t.Error("what it wrote is there")
				}
			}
		})

		t.Run("canceled caller leaves the queue and harms nobody", func(t *testing.T) {
			release := hold(t, db)
			ctx, cancel := context.WithCancel(t.Context())
			gone, other := make(chan error, 1), make(chan error, 1)
			go func() { gone <- db.Update(ctx, func(tx *store.Tx) error { return insert(tx, "gone") }) }()
			go func() { other <- db.Update(t.Context(), func(tx *store.Tx) error { return insert(tx, "other") }) }()
			cancel()
			if err := <-gone; !errors.Is(err, context.Canceled) {
				t.Errorf("got error %v", err)
			}
			release()
			if err := <-other; err != nil {
				t.Error(err)
			}
		})

		t.Run("cancellation inside a transaction does not undo it", func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			err := db.Update(ctx, func(tx *store.Tx) error {
				cancel()
				return insert(tx, "reported")
			})
			if err != nil {
				t.Error(err)
			}
		})
	})
}

func TestCallersShareCommits(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		withTable(t, db)
		before := db.Stats()
		release := hold(t, db)
		var wait, queued sync.WaitGroup
		for i := range 64 {
			queued.Add(1)
			ctx := &noticed{Context: t.Context(), notice: sync.OnceFunc(queued.Done)}
			wait.Go(func() {
				if err := db.Update(ctx, func(tx *store.Tx) error { return insert(tx, fmt.Sprint(i)) }); err != nil {
					t.Error(err)
				}
			})
		}
		queued.Wait()
		release()
		wait.Wait()
		after := db.Stats()
		if got := after.Updates - before.Updates; got != 65 {
			t.Errorf("got %d updates, want 65", got)
		}
		if got := after.Commits - before.Commits; got > 40 {
			t.Errorf("65 updates took %d commits", got)
		}
		if got := len(names(t, db)); got != 64 {
			t.Errorf("got %d rows", got)
		}
	})
}

// noticed is a context that tells when somebody is about to wait.
type noticed struct {
	context.Context
	notice func()
}

// Done is called by who waits.
func (n *noticed) Done() <-chan struct{} {
	n.notice()
	return n.Context.Done()
}

func TestAnswerComesAfterCommit(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		withTable(t, db)
		watch := db.Watch("thing")
		defer watch.Close()
		var inside []string
		update(t, db, func(tx *store.Tx) error {
			tx.Changed("thing")
			if err := insert(tx, "one"); err != nil {
				return err
			}
			inside = names(t, db) // another connection: sees what is committed
			select {
			case <-watch.C:
				return errors.New("announced before the commit")
			default:
				return nil
			}
		})
		if len(inside) != 0 {
			t.Errorf("%v was visible before the commit", inside)
		}
		<-watch.C
		if diff := cmp.Diff([]string{"one"}, names(t, db)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestTimeOfTransaction(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, url string) {
		now := time.Date(2026, 11, 1, 12, 0, 0, 123456789, time.FixedZone("", 3600))
		db := storetest.Open(t, store.Options{URL: url, Now: func() time.Time { return now }})
		update(t, db, func(tx *store.Tx) error {
			if want := time.Date(2026, 11, 1, 11, 0, 0, 123456000, time.UTC); tx.Now() != want {
				return fmt.Errorf("got %v", tx.Now())
			}
			return nil
		})
	})
}

func TestLogOfSQLiteStaysBounded(t *testing.T) {
	t.Parallel()
	path := storetest.SQLite(t)
	db := storetest.Open(t, store.Options{URL: path})
	withTable(t, db)
	stop := make(chan struct{})
	var reading sync.WaitGroup
	for range 2 { // readers keep the log from starting over while they look at it
		reading.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				err := db.View(t.Context(), func(tx *store.Tx) error {
					var n int
					return tx.QueryRow(`SELECT count(*) FROM things WHERE bytes <> $1`, []byte{1}).Scan(&n)
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 80 {
		update(t, db, func(tx *store.Tx) error {
			if _, err := tx.Exec(`DELETE FROM things WHERE at < $1`, i-8); err != nil {
				return err
			}
			_, err := tx.Exec(`
				INSERT INTO things (name, body, bytes, done, at)
				VALUES ($1, '{}', $2, TRUE, $3)`, fmt.Sprint(i), make([]byte, 1<<20), i)
			return err
		})
	}
	close(stop)
	reading.Wait()
	info, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 64<<20 {
		t.Errorf("log has grown to %d MiB", info.Size()>>20)
	}
}

func BenchmarkUpdate(b *testing.B) {
	open := map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.PostgreSQL}
	for name, url := range open {
		for _, callers := range []int{1, 16, 64, 256} {
			b.Run(fmt.Sprintf("%s/%d callers", name, callers), func(b *testing.B) {
				db := storetest.Open(b, store.Options{URL: url(b)})
				err := db.Update(b.Context(), func(tx *store.Tx) error {
					_, err := tx.Exec(`CREATE TABLE rows (n bigint NOT NULL PRIMARY KEY, body jsontext NOT NULL)`)
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
				benchmark(b, db, callers)
			})
		}
	}
}

func benchmark(b *testing.B, db *store.DB, callers int) {
	body := `{"id":"task","commandLine":"/bin/true","padding":"0123456789012345678901234567890123456789"}`
	before := db.Stats()
	var next atomic.Int64
	var wait sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wait.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				err := db.Update(context.Background(), func(tx *store.Tx) error {
					_, err := tx.Exec(`INSERT INTO rows (n, body) VALUES ($1, $2)`, n, body)
					return err
				})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	commits := db.Stats().Commits - before.Commits
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
	b.ReportMetric(float64(b.N)/float64(max(commits, 1)), "updates/commit")
}
