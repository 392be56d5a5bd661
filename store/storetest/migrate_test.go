package storetest_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/batchyard/batchyard/admin"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// TestMigration opens a database of the third step, as the first programs wrote
// it, with jobs and tasks in it: all that waited is found, and every task is as
// it was.
func TestMigration(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, url string) {
		storetest.Old(t, url, "../migrations", 3, oldRows()...)
		db := storetest.Open(t, store.Options{URL: url})
		update(t, db, func(tx *store.Tx) error {
			return admin.Faults(tx, func(f admin.Fault) error {
				if f.Kind == "queue" || strings.Contains(f.Kind, "specification") {
					t.Errorf("%s: %s: %s", f.Kind, f.Where, f.What)
				}
				return nil
			})
		})
		var heads []int64
		for _, slots := range []int{1, 4} {
			for _, q := range view(t, db, func(tx *store.Tx) ([]store.Queue, error) { return tx.OpenQueues("acct", "pool", slots, 9) }) {
				heads = append(heads, q.Head)
			}
		}
		diff(t, []int64{2, 3}, heads)
		tasks := view(t, db, func(tx *store.Tx) ([]batch.Task, error) { return tx.Tasks("acct", "job", store.List{}) })
		var lines []string
		for i := range tasks {
			lines = append(lines, string(tasks[i].ID)+" "+string(tasks[i].State)+" "+tasks[i].CommandLine)
		}
		diff(t, []string{"One running run 1", "Two active run 2", "Three active run 3", "Four active run 4", "Five completed run 5"}, inOrder(lines, tasks))
		specs := view(t, db, func(tx *store.Tx) ([]store.Specification, error) {
			return tx.SpecificationsByRef("acct", []store.TaskRef{{Job: "Job", Task: "Two"}})
		})
		if len(specs) != 1 || specs[0].Task.CommandLine != "run 2" {
			t.Errorf("specification of a task from before: %+v", specs)
		}
		wantOldTimes(t, db)
		wantOldBlobs(t, db)
	})
}

// wantOldTimes wants the times that columns of other names had.
func wantOldTimes(t *testing.T, db *store.DB) {
	t.Helper()
	five := view(t, db, func(tx *store.Tx) (batch.Task, error) { return tx.Task("acct", "job", "five") })
	e := five.ExecutionInfo
	diff(t, []int64{11, 12, 13, 14}, []int64{e.StartTime.UnixMicro(), e.EndTime.UnixMicro(), e.LastRetryTime.UnixMicro(), e.LastRequeueTime.UnixMicro()})
	node := view(t, db, func(tx *store.Tx) (batch.Node, error) { return tx.Node("tvmps_1") })
	if got := node.AheadTime.UnixMicro(); got != 15 {
		t.Errorf("what a node from before has ahead is of %d, want 15", got)
	}
}

// wantOldBlobs wants the storage that tables of other names had.
func wantOldBlobs(t *testing.T, db *store.DB) {
	t.Helper()
	account := view(t, db, func(tx *store.Tx) (store.StorageAccount, error) { return tx.StorageAccount("storage") })
	diff(t, "one two", string(account.Keys[0])+" "+string(account.Keys[1]))
	box := view(t, db, func(tx *store.Tx) (store.BlobContainer, error) { return tx.BlobContainer("storage", "box") })
	diff(t, int64(2), box.Modified.UnixMicro())
	small := view(t, db, func(tx *store.Tx) (store.Blob, error) { return tx.Blob("life", "small") })
	diff(t, []string{"abc", "3", "4"}, []string{string(small.Data), strconv.FormatInt(small.Created.UnixMicro(), 10), strconv.FormatInt(small.Modified.UnixMicro(), 10)})
	dropped := view(t, db, func(tx *store.Tx) ([]string, error) { return tx.DroppedBlobContainers() })
	diff(t, []string{"over"}, dropped)
	var files []string
	err := db.View(t.Context(), func(tx *store.Tx) error {
		return tx.EachBlobFile(func(f store.BlobFile) error { files = append(files, f.Blob+" "+f.File); return nil })
	})
	slices.Sort(files)
	diff(t, []string{"coming file4", "parts file2", "whole file1"}, must(t, files, err))
}

// TestSchemaNames wants one naming of everything in the schema: a table for one of
// its rows, a time for what happened, an index for its table first.
func TestSchemaNames(t *testing.T) {
	t.Parallel()
	db := storetest.Open(t, store.Options{URL: storetest.SQLite(t)})
	rows := view(t, db, func(tx *store.Tx) ([][2]string, error) {
		rows, err := tx.Query(`
			SELECT m.tbl_name, m.name FROM sqlite_schema AS m WHERE m.type IN ('table', 'index') AND m.sql <> ''
			UNION ALL
			SELECT m.name, m.name || '.' || c.name FROM sqlite_schema AS m JOIN pragma_table_info(m.name) AS c WHERE m.type = 'table'`)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var names [][2]string
		for rows.Next() {
			var table, name string
			if err := rows.Scan(&table, &name); err != nil {
				return nil, err
			}
			names = append(names, [2]string{table, name})
		}
		return names, rows.Err()
	})
	seen := 0
	for _, row := range rows {
		table, name := row[0], row[1]
		if strings.HasPrefix(table, "goose_") || strings.HasPrefix(table, "sqlite_") {
			continue
		}
		seen++
		switch {
		case strings.HasSuffix(table, "s"):
			t.Errorf("table %s is not named for one of its rows", table)
		case strings.HasSuffix(name, "_at"):
			t.Errorf("column %s is not named as other times are", name)
		case name != table && !strings.HasPrefix(name, table+"_") && !strings.HasPrefix(name, table+"."):
			t.Errorf("index %s of %s is not named for it", name, table)
		}
	}
	if seen < 100 {
		t.Errorf("%d names were looked at, which is not all", seen)
	}
}

// inOrder puts lines in the order in which their tasks were added.
func inOrder(lines []string, tasks []batch.Task) []string {
	ordered := make([]string, len(lines))
	for i := range tasks {
		ordered[tasks[i].Sequence-1] = lines[i]
	}
	return ordered
}

// oldRows are a job with a task that runs, three that wait and one that is over,
// and a disabled job and one at its limit, each with a task that waits; a node;
// and blobs of every kind.
func oldRows() []string {
	jobs := `INSERT INTO job (account, id, name, display_name, pool, pool_name, state, changed, prev_state, created, stamp, priority, max_parallel,
		on_all, on_failure, active, running, succeeded, failed, active_slots, running_slots, succeeded_slots, failed_slots, bound, body) VALUES `
	job := func(key, name, state, limit, counts string) string {
		return `('acct', '` + key + `', '` + name + `', '', 'pool', 'Pool', '` + state + `', 1, '', 1, 1, 0, ` + limit + `, 'noaction', 'noaction', ` + counts +
			`, '{"specification":{"id":"` + name + `","poolInfo":{"poolId":"Pool"},"maxParallelTasks":` + limit + `,"constraints":{"maxTaskRetryCount":0,"maxWallClockTime":"P10675199DT2H48M5.4775807S"}}}')`
	}
	tasks := `INSERT INTO task (account, job, id, name, display_name, seq, slots, affinity, max_retries, retention, stamp, created, state, changed, prev_state,
		pool_name, node, bound, attempt, release, retry_count, requeue_count, result, start_at, end_at, retried_at, requeued_at, body) VALUES `
	task := func(job, key, name, seq, slots, state, bound, result string) string {
		return `('acct', '` + job + `', '` + key + `', '` + name + `', '', ` + seq + `, ` + slots + `, '', 0, 0, 1, 1, '` + state + `', 1, '', 'Pool', '', ` + bound +
			`, ` + seq + `, '', 0, 0, '` + result + `', 11, 12, 13, 14, '{"id":"` + name + `","commandLine":"run ` + seq + `","requiredSlots":` + slots + `,"constraints":{"maxTaskRetryCount":0,"retentionTime":"PT0S"}}')`
	}
	blobs := `INSERT INTO storage_blobs (container, name, etag, size, created_at, modified_at, properties, content, blocks, data) VALUES `
	return []string{
		jobs + job("job", "Job", "active", "-1", "3, 1, 1, 0, 6, 1, 1, 0, 1"),
		jobs + job("off", "Off", "disabled", "-1", "1, 0, 0, 0, 1, 0, 0, 0, 0"),
		jobs + job("full", "Full", "active", "1", "1, 1, 0, 0, 1, 1, 0, 0, 1"),
		tasks + task("job", "one", "One", "1", "1", "running", "TRUE", ""),
		tasks + task("job", "two", "Two", "2", "1", "active", "FALSE", ""),
		tasks + task("job", "three", "Three", "3", "4", "active", "FALSE", ""),
		tasks + task("job", "four", "Four", "4", "1", "active", "FALSE", ""),
		tasks + task("job", "five", "Five", "5", "1", "completed", "FALSE", "success"),
		tasks + task("off", "waits", "waits", "6", "1", "active", "FALSE", ""),
		tasks + task("full", "waits", "waits", "7", "1", "active", "FALSE", ""),
		`INSERT INTO node (id, account, pool, pool_name, dedicated, state, scheduling, changed, ip, vm_size, takes, slots, free, bound_tasks, bound_slots,
			running_tasks, running_slots, total_run, total_ok, pace, pace_at, revision, settings, boot, image, boot_done, pending_reboot, leaving, instance,
			recent, start_task, body) VALUES ('tvmps_1', 'acct', 'pool', 'Pool', TRUE, 'idle', 'enabled', 1, '', 'small', TRUE, 1, 1, 0, 0,
			0, 0, 0, 0, 1000, 15, 1, 1, 1, 1, 1, '', '', '', '[]', 'null', '{}')`,
		`INSERT INTO storage_accounts (name, key1, key2, created_at) VALUES ('storage', CAST('one' AS blob), CAST('two' AS blob), 1)`,
		`INSERT INTO storage_containers (account, name, id, etag, modified_at, metadata) VALUES ('storage', 'box', 'life', 'e', 2, '{}')`,
		`INSERT INTO storage_dropped (container, dropped_at) VALUES ('over', 5)`,
		blobs + `('life', 'small', 'e', 3, 3, 4, '{}', '', 0, CAST('abc' AS blob))`,
		blobs + `('life', 'whole', 'e', 3, 3, 4, '{}', 'file1', 0, NULL)`,
		blobs + `('life', 'parts', 'e', 3, 3, 4, '{}', 'list', 1, NULL)`,
		`INSERT INTO storage_parts (content, seq, block, start, size, file) VALUES ('list', 0, 'a', 0, 3, 'file2')`,
		`INSERT INTO storage_blocks (container, blob, block, size, file, created_at) VALUES ('life', 'coming', 'a', 3, 'file4', 6)`,
	}
}
