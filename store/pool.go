package store

import (
	"database/sql"
	"fmt"

	"github.com/batchyard/batchyard/batch"
)

// PoolRef names a pool of any account.
type PoolRef struct {
	Account batch.AccountName
	Pool    batch.PoolID // its key
}

// poolBody is what no statement looks at.
type poolBody struct {
	Specification  batch.PoolSpecification      `json:"specification"`
	ResizeErrors   []batch.ResizeError          `json:"resizeErrors,omitempty"`
	ResizeDeadline *batch.Time                  `json:"resizeDeadline,omitempty"`
	RunningTimeout batch.Duration               `json:"runningTimeout,omitzero"`
	Deallocation   batch.NodeDeallocationOption `json:"deallocation,omitempty"`
}

const poolColumns = `account, state, changed, allocation_state, allocation_changed, created, stamp, dedicated, low, body`

// Pool returns the pool, or ErrNotFound.
func (tx *Tx) Pool(account batch.AccountName, id batch.PoolID) (batch.Pool, error) {
	return one("get pool", tx.QueryRow(`
		SELECT `+poolColumns+`
		FROM pool
		WHERE account = $1 AND id = $2`, string(account), batch.Key(id)), tx.scanPool)
}

// PoolVersion returns the stamp and the state of a pool, which is less than the
// pool, or ErrNotFound.
func (tx *Tx) PoolVersion(account batch.AccountName, id batch.PoolID) (stamp batch.Stamp, state batch.PoolState, err error) {
	err = tx.QueryRow(`
		SELECT stamp, state
		FROM pool
		WHERE account = $1 AND id = $2`, string(account), batch.Key(id)).Scan(&stamp, &state)
	if err != nil {
		err = rowError("get version of pool", err)
	}
	return stamp, state, err
}

// PoolsThere tells which of the keys are those of pools that exist.
func (tx *Tx) PoolsThere(account batch.AccountName, keys []string) (map[string]bool, error) {
	there := make(map[string]bool, len(keys))
	for from, to := range cut(len(keys)) {
		args := []any{string(account)}
		for _, key := range keys[from:to] {
			args = append(args, key)
		}
		rows, err := tx.Query(`
			SELECT id
			FROM pool
			WHERE account = $1 AND id IN (`+parameters(2, to-from)+`)`, args...)
		found, err := all("look for pools", rows, err, func(row scanner) (key string, err error) {
			return key, row.Scan(&key)
		})
		if err != nil {
			return nil, err
		}
		for _, key := range found {
			there[key] = true
		}
	}
	return there, nil
}

// Pools returns the pools of an account.
func (tx *Tx) Pools(account batch.AccountName, list List) ([]batch.Pool, error) {
	text, args := list.query(`
		SELECT `+poolColumns+`
		FROM pool
		WHERE account = $1`, "id", string(account))
	rows, err := tx.Query(text, args...)
	return listed("list pools", list, rows, err, tx.scanPool)
}

// ResizingPools returns the pools of all accounts whose number of nodes is
// changing or which are being deleted.
func (tx *Tx) ResizingPools() ([]batch.Pool, error) {
	rows, err := tx.Query(`
		SELECT ` + poolColumns + `
		FROM pool
		WHERE allocation_state <> 'steady' OR state = 'deleting'
		ORDER BY account, id`)
	return all("list resizing pools", rows, err, tx.scanPool)
}

// ActivePools names the pools of all accounts that are not being deleted.
func (tx *Tx) ActivePools() ([]PoolRef, error) {
	rows, err := tx.Query(`
		SELECT account, id
		FROM pool
		WHERE state = 'active'
		ORDER BY account, id`)
	return all("list active pools", rows, err, func(row scanner) (ref PoolRef, err error) {
		return ref, row.Scan(&ref.Account, &ref.Pool)
	})
}

// InsertPool adds a pool. If there is one of that key the error is one that
// IsDuplicate knows.
func (tx *Tx) InsertPool(p *batch.Pool) error {
	body, err := tx.encodePool(p)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`
		INSERT INTO pool (account, id, display_name, vm_size, state, changed, allocation_state, allocation_changed,
			created, stamp, slots, target_dedicated, target_low, dedicated, low, body)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`,
		string(p.Account), batch.Key(p.ID), p.DisplayName, p.VMSize,
		string(p.State), p.StateTransitionTime.UnixMicro(), string(p.AllocationState), p.AllocationStateTransitionTime.UnixMicro(),
		p.CreationTime.UnixMicro(), int64(p.Stamp), p.TaskSlotsPerNode, p.TargetDedicatedNodes, p.TargetLowPriorityNodes,
		p.CurrentDedicatedNodes, p.CurrentLowPriorityNodes, body)
	if err != nil {
		return fmt.Errorf("insert pool: %w", err)
	}
	return nil
}

// UpdatePool writes the whole pool, its counts of nodes included. ErrNotFound if
// it is gone.
func (tx *Tx) UpdatePool(p *batch.Pool) error {
	body, err := tx.encodePool(p)
	if err != nil {
		return err
	}
	return tx.changeOne("update pool", `
		UPDATE pool
		SET display_name = $3, vm_size = $4, state = $5, changed = $6, allocation_state = $7, allocation_changed = $8,
			stamp = $9, slots = $10, target_dedicated = $11, target_low = $12, dedicated = $13, low = $14, body = $15
		WHERE account = $1 AND id = $2`,
		string(p.Account), batch.Key(p.ID), p.DisplayName, p.VMSize,
		string(p.State), p.StateTransitionTime.UnixMicro(), string(p.AllocationState), p.AllocationStateTransitionTime.UnixMicro(),
		int64(p.Stamp), p.TaskSlotsPerNode, p.TargetDedicatedNodes, p.TargetLowPriorityNodes,
		p.CurrentDedicatedNodes, p.CurrentLowPriorityNodes, body)
}

// DeletePool removes the row of a pool whose nodes are gone. ErrNotFound if it
// is gone itself.
func (tx *Tx) DeletePool(account batch.AccountName, id batch.PoolID) error {
	return tx.changeOne("delete pool", `
		DELETE FROM pool
		WHERE account = $1 AND id = $2`, string(account), batch.Key(id))
}

// CountNodes counts the nodes of pools by state. The map has the keys of the
// pools that have nodes.
func (tx *Tx) CountNodes(account batch.AccountName, pools []batch.PoolID) (map[string]batch.PoolNodeCounts, error) {
	counts := make(map[string]batch.PoolNodeCounts, len(pools))
	for from, to := range cut(len(pools)) {
		args := []any{string(account)}
		for _, id := range pools[from:to] {
			args = append(args, batch.Key(id))
		}
		rows, err := tx.Query(`
			SELECT pool, min(pool_name), dedicated, state, count(*)
			FROM node
			WHERE account = $1 AND pool IN (`+parameters(2, to-from)+`)
			GROUP BY pool, dedicated, state`, args...)
		_, err = all("count nodes", rows, err, func(row scanner) (struct{}, error) {
			return struct{}{}, addNodeCount(counts, row)
		})
		if err != nil {
			return nil, err
		}
	}
	return counts, nil
}

// addNodeCount adds one group of CountNodes.
func addNodeCount(counts map[string]batch.PoolNodeCounts, row scanner) error {
	var key string
	var id batch.PoolID
	var dedicated bool
	var state batch.NodeState
	var n int
	if err := row.Scan(&key, &id, &dedicated, &state, &n); err != nil {
		return err
	}
	c, ok := counts[key]
	if !ok {
		c = batch.PoolNodeCounts{Pool: id, Dedicated: batch.NodeCounts{}, LowPriority: batch.NodeCounts{}}
		counts[key] = c
	}
	if dedicated {
		c.Dedicated[state] = n
	} else {
		c.LowPriority[state] = n
	}
	return nil
}

func (tx *Tx) encodePool(p *batch.Pool) (string, error) {
	body := poolBody{Specification: p.PoolSpecification, ResizeErrors: p.ResizeErrors, Deallocation: p.Deallocation, RunningTimeout: p.RunningTimeout}
	if !p.ResizeDeadline.IsZero() {
		at := batch.At(p.ResizeDeadline.Add(-tx.lead))
		body.ResizeDeadline = &at
	}
	return encode(&body)
}

func (tx *Tx) scanPool(row scanner) (batch.Pool, error) {
	var p batch.Pool
	var changed, allocationChanged, created sql.NullInt64
	var text []byte
	err := row.Scan(&p.Account, &p.State, &changed, &p.AllocationState, &allocationChanged, &created, &p.Stamp,
		&p.CurrentDedicatedNodes, &p.CurrentLowPriorityNodes, &text)
	if err != nil {
		return p, err
	}
	var body poolBody
	if err := decode(text, &body); err != nil {
		return p, err
	}
	p.PoolSpecification = body.Specification
	p.ResizeErrors, p.Deallocation, p.RunningTimeout = body.ResizeErrors, body.Deallocation, body.RunningTimeout
	if body.ResizeDeadline != nil {
		p.ResizeDeadline = body.ResizeDeadline.Add(tx.lead)
	}
	p.StateTransitionTime, p.AllocationStateTransitionTime, p.CreationTime = moment(changed), moment(allocationChanged), moment(created)
	return p, nil
}
