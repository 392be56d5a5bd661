package admin

import (
	"fmt"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// resume makes a copy of a database the beginning of a new life of it. All nodes
// of the copy are gone: those that still run know of times after the copy, and
// the service must believe nothing of what they say. It knows them by no name any
// more, so each call of theirs is refused, upon which they end their tasks and
// themselves; pools get new nodes. What nodes held is queued again, and no task
// is given to a node before the leases of the old ones are over.
func resume(tx *store.Tx) error {
	for _, statement := range []string{
		`UPDATE task SET ` + queueAgain + ` WHERE bound`,
		`DELETE FROM removal`,
		`DELETE FROM node`,
	} {
		if err := fix(tx, statement); err != nil {
			return fmt.Errorf("forget nodes: %w", err)
		}
	}
	if err := tx.ForgetHolders(); err != nil {
		return err
	}
	refs, err := allPools(tx)
	if err != nil {
		return err
	}
	for _, ref := range refs {
		p, err := tx.Pool(ref.Account, ref.Pool)
		if err != nil {
			return err
		}
		p.CurrentDedicatedNodes, p.CurrentLowPriorityNodes = 0, 0
		p.AllocationState = batch.AllocationSteady // and from there anew, with all the time there is
		if err := refill(tx, &p); err != nil {
			return err
		}
	}
	for _, r := range rules() {
		if r.kind == "job-counts" {
			if err := fix(tx, r.fix[0]); err != nil {
				return fmt.Errorf("count tasks: %w", err)
			}
		}
	}
	if err := remakeQueues(tx); err != nil {
		return err
	}
	return tx.HoldTasks()
}

// allPools names the pools of all accounts.
func allPools(tx *store.Tx) (refs []store.PoolRef, err error) {
	rows, err := tx.Query(`SELECT account, id FROM pool`)
	if err != nil {
		return nil, fmt.Errorf("list pools: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var ref store.PoolRef
		if err := rows.Scan(&ref.Account, &ref.Pool); err != nil {
			return nil, fmt.Errorf("list pools: %w", err)
		}
		refs = append(refs, ref)
	}
	return refs, rows.Err()
}

// remakeQueues makes the queues anew from the tasks, which resume has changed
// underneath them.
func remakeQueues(tx *store.Tx) error {
	for _, statement := range store.RemakeQueues() {
		if _, err := tx.Exec(statement); err != nil {
			return fmt.Errorf("make queues anew: %w", err)
		}
	}
	return nil
}
