package storetest_test

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// named gives the connections of a server a name, by which they can be ended.
func named(t *testing.T, server, name string) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	name += query.Get("search_path")
	query.Set("application_name", name)
	u.RawQuery = query.Encode()
	return u.String()
}

func TestASecondServerIsRefused(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, url string) {
		first := storetest.Open(t, store.Options{URL: url})
		withTable(t, first)
		if _, err := store.Open(t.Context(), store.Options{URL: url}); !errors.Is(err, store.ErrInUse) {
			t.Errorf("second server: got %v, want ErrInUse", err)
		}
		update(t, first, func(tx *store.Tx) error { return insert(tx, "still here") })
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		second := storetest.Open(t, store.Options{URL: url})
		diff(t, []string{"still here"}, names(t, second))
	})
}

// A server whose connections broke while another waited for its place writes no
// more, and hears that it is over. Nothing that it says to be written is lost.
func TestAServerThatLostItsPlaceWritesNoMore(t *testing.T) {
	t.Parallel()
	server := storetest.PostgreSQL(t)
	ours := named(t, server, "lost")
	u, err := url.Parse(ours)
	if err != nil {
		t.Fatal(err)
	}
	first := storetest.Open(t, store.Options{URL: ours})
	withTable(t, first)
	update(t, first, func(tx *store.Tx) error { return insert(tx, "first") })

	opened := make(chan *store.DB)
	go func() {
		second, err := store.Open(context.Background(), store.Options{URL: server})
		if err != nil {
			t.Error(err)
		}
		opened <- second
	}()
	awaitQueue(t, first)
	terminate(t, server, u.Query().Get("application_name"))
	second := <-opened
	if second == nil {
		t.FailNow()
	}
	defer func() {
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	}()
	update(t, second, func(tx *store.Tx) error { return insert(tx, "second") })
	for range 2 {
		start := time.Now()
		err := first.Update(t.Context(), func(tx *store.Tx) error { return insert(tx, "first again") })
		if !errors.Is(err, store.ErrTaken) {
			t.Errorf("after %v: got %v, want ErrTaken", time.Since(start), err)
		}
	}
	<-first.Lost()
	diff(t, []string{"first", "second"}, names(t, second))
	select {
	case <-second.Lost():
		t.Error("the server that has the database says that it lost it")
	default:
	}
}

// awaitQueue waits until somebody waits for the lock that a server holds. That is
// known to PostgreSQL alone, which tells nobody when it changes.
func awaitQueue(t *testing.T, db *store.DB) {
	t.Helper()
	for waiting := 0; waiting == 0; {
		if t.Context().Err() != nil {
			t.Fatal("nobody waits")
		}
		waiting = view(t, db, func(tx *store.Tx) (n int, err error) {
			return n, tx.QueryRow(`
				SELECT count(*)
				FROM pg_locks AS w
				JOIN pg_locks AS h ON h.locktype = w.locktype AND h.classid = w.classid AND h.objid = w.objid AND h.granted
				JOIN pg_stat_activity AS a ON a.pid = h.pid
				WHERE w.locktype = 'advisory' AND NOT w.granted
					AND a.application_name = current_setting('application_name')`).Scan(&n)
		})
	}
}

// A server whose connections broke and whose place nobody took goes on.
func TestAServerTakesItsPlaceAgain(t *testing.T) {
	t.Parallel()
	server := storetest.PostgreSQL(t)
	ours := named(t, server, "again")
	u, err := url.Parse(ours)
	if err != nil {
		t.Fatal(err)
	}
	db := storetest.Open(t, store.Options{URL: ours})
	withTable(t, db)
	for range 3 {
		terminate(t, server, u.Query().Get("application_name"))
		update(t, db, func(tx *store.Tx) error {
			_, err := tx.Exec(`DELETE FROM things`)
			return err
		})
		if _, err := store.Open(t.Context(), store.Options{URL: server}); !errors.Is(err, store.ErrInUse) {
			t.Errorf("another server: got %v, want ErrInUse", err)
		}
	}
}
