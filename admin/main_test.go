package admin_test

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // the protocol's sum of a blob
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/batchyard/batchyard/admin"
	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/blob"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/conversation"
	"github.com/batchyard/batchyard/site"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

const acct = "acct"

// house is the data of a server on which some work was done: two nodes, a job
// whose tasks are in every state, and blobs of every kind. No server runs.
type house struct {
	t     *testing.T
	place site.Place
	nodes []batch.NodeID
	files map[string]string // of blobs, by what they are: whole, part, part2, block
}

// each runs a test on the data of a server, with either database.
func each(t *testing.T, test func(h *house)) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, url string) { test(newHouse(t, url)) })
}

func newHouse(t *testing.T, url string) *house {
	t.Helper()
	h := &house{t: t, place: placeOf(t, url), files: map[string]string{}}
	db := h.open()
	h.work(db)
	h.store(db)
	h.check(db.Close())
	for _, id := range h.nodes {
		h.check(os.MkdirAll(filepath.Join(h.place.Data, "nodes", string(id), "state"), 0o700))
	}
	return h
}

// placeOf is a data folder with the database of a test.
func placeOf(t *testing.T, url string) site.Place {
	t.Helper()
	if filepath.IsAbs(url) {
		return site.Place{Data: filepath.Dir(url)}
	}
	return site.Place{Data: t.TempDir(), Database: url}
}

func (h *house) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) open() *store.DB { return open(h.t, h.place) }

func open(t *testing.T, place site.Place) *store.DB {
	t.Helper()
	url := place.Database
	if url == "" {
		url = filepath.Join(place.Data, "batchyard.db")
	}
	db, err := store.Open(context.Background(), store.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// change runs statements on the database, as no server would.
func (h *house) change(statements ...string) {
	h.t.Helper()
	db := h.open()
	err := db.Update(context.Background(), func(tx *store.Tx) error {
		for _, statement := range statements {
			n, err := tx.Exec(statement)
			if err == nil && n == 0 {
				err = fmt.Errorf("%s changes nothing", statement)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	h.check(err)
	h.check(db.Close())
}

// work has a pool of two nodes do some tasks: ended well, failed, running, held
// and waiting, the last after the agent of its node died under it.
func (h *house) work(db *store.DB) {
	h.t.Helper()
	ctx := context.Background()
	s := control.New(control.Options{DB: db})
	room := conversation.New(conversation.Options{DB: db, Control: s})
	h.check(s.AddAccount(ctx, batch.Account{Name: acct, Keys: [2][]byte{{1}, {2}}}))
	_, err := s.AddPool(ctx, acct, poolSpec("pool"))
	h.check(err)
	h.check(s.StepPool(ctx, acct, "pool", func(*batch.Pool, []batch.Node, time.Time) control.PoolStep {
		return control.PoolStep{AddDedicated: 2}
	}))
	_, err = s.AddJob(ctx, acct, batch.JobSpecification{ID: "Job", PoolInfo: batch.PoolInfo{PoolID: "pool"}})
	h.check(err)
	for _, id := range []batch.TaskID{"well", "badly", "runs", "held", "waits"} {
		_, err := s.AddTask(ctx, acct, "Job", batch.TaskSpecification{ID: id, CommandLine: "/bin/true"})
		h.check(err)
	}
	wanted, err := s.DesiredNodes(ctx)
	h.check(err)
	for _, n := range wanted {
		h.nodes = append(h.nodes, n.Node)
		h.boot(s, room, n.Node)
	}
	node := h.nodes[0]
	var assignments []control.Assignment
	for _, id := range []batch.TaskID{"well", "badly", "runs", "held"} {
		assignments = append(assignments, control.Assignment{TaskRef: store.TaskRef{Job: "Job", Task: id}, Node: node})
	}
	n, err := s.Assign(ctx, acct, func(*store.Tx) (control.Decision, error) {
		return control.Decision{Pool: "Pool", Assign: assignments}, nil
	})
	h.check(err)
	if n != len(assignments) {
		h.t.Fatalf("%d tasks are assigned, want %d", n, len(assignments))
	}
	h.report(s, room, node)
	h.check(db.Update(ctx, func(tx *store.Tx) error {
		waits, err := tx.Task(acct, "Job", "waits")
		if err == nil {
			_, err = tx.AddDeath(&waits, true)
		}
		return err
	}))
}

func poolSpec(id batch.PoolID) batch.PoolSpecification {
	return batch.PoolSpecification{
		ID: id, VMSize: "custom_4c_4g", TaskSlotsPerNode: 4, TargetDedicatedNodes: 2,
		VirtualMachineConfiguration: &batch.VirtualMachineConfiguration{
			NodeAgentSKUID: "batch.node.debian 12", ImageReference: batch.ImageReference{Publisher: "debian", Offer: "debian-12"},
		},
	}
}

// boot has a node come up.
func (h *house) boot(s *control.Service, room *conversation.Room, node batch.NodeID) {
	h.t.Helper()
	token, err := s.NewNodeToken(h.t.Context(), node)
	h.check(err)
	orders, err := room.Sync(h.t.Context(), node, token, batch.NodeReport{Instance: "i", NoWait: true})
	h.check(err)
	_, err = room.Sync(h.t.Context(), node, token, batch.NodeReport{Instance: "i", Revision: orders.Revision, Settings: orders.Settings.Version, Boot: orders.Boot, NoWait: true})
	h.check(err)
}

// report has a node say how far it is with its tasks.
func (h *house) report(s *control.Service, room *conversation.Room, node batch.NodeID) {
	h.t.Helper()
	token, err := s.NewNodeToken(h.t.Context(), node)
	h.check(err)
	orders, err := room.Sync(h.t.Context(), node, token, batch.NodeReport{Instance: "j", Boot: 1, NoWait: true})
	h.check(err)
	now := batch.At(time.Now())
	report := batch.NodeReport{Instance: "j", Revision: orders.Revision, Settings: orders.Settings.Version, Boot: 1, NoWait: true}
	for _, o := range orders.Tasks {
		r := batch.TaskReport{Job: o.Job, Task: o.Task, Attempt: o.Attempt, Start: &now, Phase: batch.PhaseEnded}
		code := 0
		switch o.Task {
		case "well":
			r.Outcome = &batch.Outcome{End: now, ExitCode: &code}
		case "badly":
			code = 1
			r.Outcome = &batch.Outcome{End: now, ExitCode: &code, Failure: &batch.FailureInfo{Category: batch.UserError, Code: batch.FailureExitCode}}
		case "runs":
			r.Phase = batch.PhaseRunning
		case "held":
			r.Phase, r.Start = batch.PhaseHeld, nil
		}
		report.Tasks = append(report.Tasks, r)
	}
	_, err = room.Sync(h.t.Context(), node, token, report)
	h.check(err)
}

// store puts blobs: one in the database, one in a file, one of two blocks, and a
// block of one to come.
func (h *house) store(db *store.DB) {
	h.t.Helper()
	ctx := context.Background()
	h.check(db.Update(ctx, func(tx *store.Tx) error {
		return tx.PutStorageAccount(store.StorageAccount{Name: "storage", Keys: auth.Keys{{1}, {2}}})
	}))
	disk, err := blob.OpenDisk(filepath.Join(h.place.Data, "blobs"))
	h.check(err)
	defer disk.Close()
	for _, name := range []string{"whole", "part", "part2", "block"} {
		w, err := disk.Create(ctx)
		h.check(err)
		_, err = w.Write(content(name))
		h.check(err)
		h.files[name], err = w.Commit(ctx)
		h.check(err)
	}
	now := time.Now()
	h.check(db.Update(ctx, func(tx *store.Tx) error {
		if err := tx.AddBlobContainer(store.BlobContainer{Account: "storage", Name: "box", ID: "life", ETag: "1", Modified: now}); err != nil {
			return err
		}
		for _, b := range []store.Blob{
			{Name: "small", Size: 5, Data: content("small"), Properties: store.BlobProperties{ContentMD5: sum("small")}},
			{Name: "whole", Size: 5, Content: h.files["whole"], Properties: store.BlobProperties{ContentMD5: sum("whole")}},
			{Name: "blocks", Size: 9, Content: "list", Blocks: 2},
		} {
			b.ETag, b.Created, b.Modified = "1", now, now
			var parts []store.BlobPart
			if b.Blocks > 0 {
				parts = []store.BlobPart{
					{Block: "a", Start: 0, Size: 4, File: h.files["part"]},
					{Block: "b", Start: 4, Size: 5, File: h.files["part2"]},
				}
			}
			if _, err := tx.PutBlob("life", store.Blob{}, b, parts); err != nil {
				return err
			}
		}
		_, err := tx.PutBlobBlock("life", "coming", store.BlobBlock{Block: "a", Size: 5, File: h.files["block"]})
		return err
	}))
}

// content is what a blob or block of a name holds.
func content(name string) []byte { return []byte(name) }

func sum(name string) string {
	s := md5.Sum(content(name)) //nolint:gosec // see the import
	return base64.StdEncoding.EncodeToString(s[:])
}

// path is where the file of a blob is.
func (h *house) path(name string) string {
	file := h.files[name]
	return filepath.Join(h.place.Data, "blobs", file[:1], file)
}

// fsck checks, or mends, and gives what was found.
func (h *house) fsck(change ...func(*admin.CheckOptions)) []admin.Finding {
	h.t.Helper()
	o := admin.CheckOptions{Place: h.place, Grace: admin.DefaultGrace}
	for _, c := range change {
		c(&o)
	}
	var found []admin.Finding
	h.check(admin.Check(context.Background(), o, func(f admin.Finding) error {
		found = append(found, f)
		return nil
	}))
	return found
}

func repair(o *admin.CheckOptions) { o.Repair = true }
func deep(o *admin.CheckOptions)   { o.Deep = true }

// kinds are what is wrong, each word once.
func kinds(found []admin.Finding) []string {
	var words []string
	seen := map[string]bool{}
	for _, f := range found {
		if !seen[f.Kind] {
			words = append(words, f.Kind)
		}
		seen[f.Kind] = true
	}
	return words
}

// works does with the data some of what a server does: it adds a pool, a job and
// a task, and reads a blob.
func (h *house) works() {
	h.t.Helper()
	ctx := h.t.Context()
	db := h.open()
	defer func() { h.check(db.Close()) }()
	s := control.New(control.Options{DB: db})
	_, err := s.AddPool(ctx, acct, poolSpec("fresh"))
	h.check(err)
	_, err = s.AddJob(ctx, acct, batch.JobSpecification{ID: "after", PoolInfo: batch.PoolInfo{PoolID: "fresh"}})
	h.check(err)
	_, err = s.AddTask(ctx, acct, "after", batch.TaskSpecification{ID: "t", CommandLine: "/bin/true"})
	h.check(err)
	job, err := s.Job(ctx, acct, "after")
	h.check(err)
	if job.Counts.Active != 1 {
		h.t.Errorf("a new job counts %d active tasks, want 1", job.Counts.Active)
	}
	var small store.Blob
	h.check(db.View(ctx, func(tx *store.Tx) (err error) {
		small, err = tx.Blob("life", "small")
		return err
	}))
	if !bytes.Equal(small.Data, content("small")) {
		h.t.Errorf("blob holds %q, want %q", small.Data, content("small"))
	}
}
