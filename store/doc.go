// Package store keeps what the service knows in one database: SQLite in a
// file, or PostgreSQL. One server at a time works on it (presence.go).
//
// # Transactions
//
// All access goes through two methods, in the manner of Bolt. View runs a
// function on a read-only snapshot. Update runs a function that may write, and
// returns nil only after the commit is on disk:
//
//	err := db.Update(ctx, func(tx *store.Tx) error {
//		n, err := tx.Exec(`UPDATE jobs SET state = $1 WHERE …`, …)
//		…
//		tx.Changed("ready")
//		return nil
//	})
//
// Updates share commits. One goroutine, the writer, runs every update that is
// waiting in a single transaction, each behind a savepoint of its own, commits
// once, and then answers all of them (writer.go). A function that fails loses
// its own changes and nobody else's. The function passed to Update therefore
// does nothing but SQL, is brief, never waits, never calls View or Update, and
// may run a second time if the database asks for it. It runs on the writer's
// goroutine, so a test must not call t.Fatal inside it.
//
// On PostgreSQL, too, there is one writer: its connection holds a lock that no
// other server can have. A verb that is correct with SQLite is thereby correct
// there, without serialization failures or deadlocks.
//
// # One SQL text
//
// Statements and migrations are the same text for both databases: parameters
// are $1, $2, …; times are 64-bit microseconds UTC; identifiers are compared by
// their key, the ID in lower case. Three column types are domains on
// PostgreSQL and plain affinities on SQLite:
//
//	keytext   text in byte order (COLLATE "C"), for anything sorted or paged
//	jsontext  JSON kept byte for byte as it was written (PostgreSQL's json, not
//	          jsonb, which would reorder fields and rewrite numbers); ->> works
//	          on both, equality and DISTINCT on such a column do not
//	blob      bytes
//
// A statement that has failed spoils the rest of its update, as PostgreSQL has
// it: later statements fail with the same error and the update is rolled back.
// Rows must be read to the end or closed before the next statement.
//
// # Changes
//
// Tx.Changed names topics; after the commit every Watch on one of them is
// woken (changes.go). A wake-up says "look again", never what happened, and many
// may be merged into one.
//
// The package must not import control or anything above it.
package store
