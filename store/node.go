package store

import (
	"database/sql"
	"fmt"
	"math"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// NodeTopic is announced when the orders of a node have changed.
func NodeTopic(id batch.NodeID) string { return "node/" + batch.Key(id) }

// NodeLoad is what is added to the load of a node.
type NodeLoad struct {
	Node         batch.NodeID
	Tasks, Slots int
}

// NodeSlots is what the scheduler looks at in a node.
type NodeSlots struct {
	Node         batch.NodeID
	Dedicated    bool
	Slots        int     // that the node has
	Bound        int     // tasks that it holds, begun or not
	BoundSlots   int     // slots of these; more than Slots when tasks wait there
	RunningSlots int     // slots of those that have begun
	Ahead        float64 // slots of tasks that are worth having wait there
	AheadTime    time.Time
}

// nodeBody is what no statement looks at.
type nodeBody struct {
	StartTaskInfo  *batch.StartTaskInfo `json:"startTaskInfo,omitempty"`
	Errors         []batch.NodeError    `json:"errors,omitempty"`
	Unfit          bool                 `json:"unfit,omitzero"`
	AgentVersion   string               `json:"agentVersion,omitempty"`
	AgentTime      *batch.Time          `json:"agentTime,omitempty"`
	PendingReimage bool                 `json:"pendingReimage,omitzero"`
	HoldUntil      *batch.Time          `json:"holdUntil,omitempty"`
	Kept           bool                 `json:"kept,omitzero"`
	Notices        []batch.NodeError    `json:"notices,omitempty"`
}

// recentTask is a recent task as it is stored: what became of it is in its row.
type recentTask struct {
	Job  batch.JobID  `json:"j"`
	Task batch.TaskID `json:"t"`
}

const nodeColumns = `id, account, pool_name, dedicated, slots, state, scheduling, changed, allocated, booted, ip, vm_size,
			bound_tasks, bound_slots, running_tasks, running_slots, total_run, total_ok, ahead, ahead_changed,
			revision, settings, boot, image, boot_done, pending_reboot, leaving, token_hash, instance, recent, start_task, body`

// Node returns the node, or ErrNotFound. Its recent tasks have their IDs only.
func (tx *Tx) Node(id batch.NodeID) (batch.Node, error) {
	return one("get node", tx.QueryRow(`
		SELECT `+nodeColumns+`
		FROM node
		WHERE id = $1`, batch.Key(id)), tx.scanNode)
}

// Nodes returns the nodes of a pool, with the IDs of their recent tasks.
func (tx *Tx) Nodes(account batch.AccountName, pool batch.PoolID, list List) ([]batch.Node, error) {
	text, args := list.query(`
		SELECT `+nodeColumns+`
		FROM node
		WHERE account = $1 AND pool = $2`, "id", string(account), batch.Key(pool))
	rows, err := tx.Query(text, args...)
	return listed("list nodes", list, rows, err, tx.scanNode)
}

// NodesByID returns the named nodes, as far as they exist, in any order.
func (tx *Tx) NodesByID(ids []batch.NodeID) ([]batch.Node, error) {
	var nodes []batch.Node
	for from, to := range cut(len(ids)) {
		args := make([]any, 0, to-from)
		for _, id := range ids[from:to] {
			args = append(args, batch.Key(id))
		}
		rows, err := tx.Query(`
			SELECT `+nodeColumns+`
			FROM node
			WHERE id IN (`+parameters(1, to-from)+`)`, args...)
		some, err := all("get nodes", rows, err, tx.scanNode)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, some...)
	}
	return nodes, nil
}

// AllNodes returns the nodes of all pools, ordered by account and pool.
func (tx *Tx) AllNodes() ([]batch.Node, error) {
	rows, err := tx.Query(`
		SELECT ` + nodeColumns + `
		FROM node
		ORDER BY account, pool, id`)
	return all("list all nodes", rows, err, tx.scanNode)
}

// AwaitedNodes names the nodes of all pools that should be heard: those that
// may have been in contact, that hold tasks, or that are to leave.
func (tx *Tx) AwaitedNodes() ([]batch.NodeID, error) {
	rows, err := tx.Query(`
		SELECT id
		FROM node
		WHERE state NOT IN ('creating', 'unknown', 'preempted') OR bound_tasks > 0 OR leaving <> ''`)
	return all("list awaited nodes", rows, err, func(row scanner) (id batch.NodeID, err error) {
		return id, row.Scan(&id)
	})
}

// InsertNodes adds nodes to pools that exist; the pools' counts are for the
// caller to change.
func (tx *Tx) InsertNodes(nodes []batch.Node) error {
	for i := range nodes {
		n := &nodes[i]
		start, recent, body, err := tx.encodeNode(n)
		if err != nil {
			return err
		}
		err = tx.changeOne("insert node", `
			INSERT INTO node (id, account, pool, pool_name, dedicated, state, scheduling, changed, allocated, booted,
				ip, vm_size, takes, slots, free, bound_tasks, bound_slots, running_tasks, running_slots, total_run, total_ok,
				ahead, ahead_changed, revision, settings, boot, image, boot_done, pending_reboot, leaving, token_hash, instance,
				recent, start_task, body)
			SELECT $1, account, id, $4, $5, $6, $7, $8, $9, $10,
				$11, $12, $13, slots, slots - CAST($14 AS bigint), $15, $14, $16, $17, $18, $19,
				$20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30,
				$31, $32, $33
			FROM pool
			WHERE account = $2 AND id = $3`,
			batch.Key(n.ID), string(n.Account), batch.Key(n.Pool), string(n.Pool), n.Dedicated,
			string(n.State), string(n.SchedulingState), micros(n.StateTransitionTime), micros(n.AllocationTime), micros(n.LastBootTime),
			n.IPAddress, n.VMSize, n.TakesTasks(), n.BoundSlots, n.BoundTasks, n.RunningTasks, n.RunningSlots, n.TotalTasksRun, n.TotalTasksSucceeded,
			ahead(n), micros(n.AheadTime), n.Revision, n.Settings, n.Boot, n.Image, n.BootDone,
			string(n.PendingReboot), string(n.Leaving), n.TokenHash, n.Instance,
			recent, start, body)
		if err != nil {
			return err
		}
	}
	return nil
}

// UpdateNode writes the whole node, its counts and its revision included.
// ErrNotFound if it is gone.
func (tx *Tx) UpdateNode(n *batch.Node) error {
	start, recent, body, err := tx.encodeNode(n)
	if err != nil {
		return err
	}
	return tx.changeOne("update node", `
		UPDATE node
		SET state = $2, scheduling = $3, changed = $4, allocated = $5, booted = $6, ip = $7, vm_size = $8, takes = $9,
			free = slots - CAST($10 AS bigint), bound_slots = $10, bound_tasks = $11, running_tasks = $12, running_slots = $13,
			total_run = $14, total_ok = $15, ahead = $16, ahead_changed = $17, revision = $18, settings = $19,
			boot = $20, image = $21, boot_done = $22, pending_reboot = $23, leaving = $24, token_hash = $25, instance = $26,
			recent = $27, start_task = $28, body = $29
		WHERE id = $1`,
		batch.Key(n.ID), string(n.State), string(n.SchedulingState),
		micros(n.StateTransitionTime), micros(n.AllocationTime), micros(n.LastBootTime), n.IPAddress, n.VMSize, n.TakesTasks(),
		n.BoundSlots, n.BoundTasks, n.RunningTasks, n.RunningSlots,
		n.TotalTasksRun, n.TotalTasksSucceeded, ahead(n), micros(n.AheadTime), n.Revision, n.Settings,
		n.Boot, n.Image, n.BootDone, string(n.PendingReboot), string(n.Leaving), n.TokenHash, n.Instance,
		recent, start, body)
}

// SaveNodes writes what tasks and verbs change of nodes: states, counts and
// revision, but not what their agents say about themselves. Nodes that are gone
// are left out.
func (tx *Tx) SaveNodes(nodes []batch.Node) error {
	const n, t = "bigint", "text"
	for from, to := range cut(len(nodes)) {
		args := make([]any, 0, 14*(to-from))
		for i := range nodes[from:to] {
			n := &nodes[from+i]
			args = append(args, batch.Key(n.ID), string(n.State), string(n.SchedulingState), micros(n.StateTransitionTime),
				n.TakesTasks(), n.BoundTasks, n.BoundSlots, n.RunningTasks, n.RunningSlots, n.Revision,
				string(n.PendingReboot), string(n.Leaving), n.Boot, n.Image)
		}
		_, err := tx.Exec(`
			UPDATE node
			SET state = v.column2, scheduling = v.column3, changed = v.column4, takes = v.column5,
				bound_tasks = v.column6, bound_slots = v.column7, free = slots - v.column7,
				running_tasks = v.column8, running_slots = v.column9, revision = v.column10,
				pending_reboot = v.column11, leaving = v.column12, boot = v.column13, image = v.column14
			FROM (VALUES `+tuples(1, to-from, t, t, t, n, "boolean", n, n, n, n, n, t, t, n, n)+`) AS v
			WHERE id = v.column1`, args...)
		if err != nil {
			return fmt.Errorf("save nodes: %w", err)
		}
	}
	return nil
}

// DeleteNode removes a node and what it was still asked to remove; the pool's
// counts are for the caller to change. ErrNotFound if it is gone.
func (tx *Tx) DeleteNode(id batch.NodeID) error {
	if _, err := tx.Exec(`DELETE FROM removal WHERE node = $1`, batch.Key(id)); err != nil {
		return fmt.Errorf("delete removals: %w", err)
	}
	tx.Changed(NodeTopic(id))
	return tx.changeOne("delete node", `
		DELETE FROM node
		WHERE id = $1`, batch.Key(id))
}

// RaiseRevisions says that the orders of nodes have changed, and announces it.
func (tx *Tx) RaiseRevisions(ids []batch.NodeID) error {
	for from, to := range cut(len(ids)) {
		args := make([]any, 0, to-from)
		for _, id := range ids[from:to] {
			args = append(args, batch.Key(id))
			tx.Changed(NodeTopic(id))
		}
		_, err := tx.Exec(`
			UPDATE node
			SET revision = revision + 1
			WHERE id IN (`+parameters(1, to-from)+`)`, args...)
		if err != nil {
			return fmt.Errorf("raise revisions: %w", err)
		}
	}
	return nil
}

// BindNodes adds to the load of nodes of an account, each named once, and raises
// their revisions.
func (tx *Tx) BindNodes(account batch.AccountName, loads []NodeLoad) error {
	for from, to := range cut(len(loads)) {
		args := make([]any, 1, 1+3*(to-from))
		args[0] = string(account)
		for _, l := range loads[from:to] {
			args = append(args, batch.Key(l.Node), l.Tasks, l.Slots)
			tx.Changed(NodeTopic(l.Node))
		}
		_, err := tx.Exec(`
			UPDATE node
			SET bound_tasks = bound_tasks + v.column2, bound_slots = bound_slots + v.column3,
				free = free - v.column3, revision = revision + 1
			FROM (VALUES `+tuples(2, to-from, "text", "bigint", "bigint")+`) AS v
			WHERE account = $1 AND id = v.column1`, args...)
		if err != nil {
			return fmt.Errorf("bind nodes: %w", err)
		}
	}
	return nil
}

const slotColumns = `id, dedicated, slots, bound_tasks, bound_slots, running_slots, ahead, ahead_changed`

// FreeNodes returns nodes of a pool that take tasks and have a free slot: those
// with the most free slots first, or those with the fewest.
func (tx *Tx) FreeNodes(account batch.AccountName, pool batch.PoolID, limit int, fullestFirst bool) ([]NodeSlots, error) {
	order := "free DESC, id DESC"
	if fullestFirst {
		order = "free, id"
	}
	rows, err := tx.Query(`
		SELECT `+slotColumns+`
		FROM node
		WHERE account = $1 AND pool = $2 AND takes AND free > 0
		ORDER BY `+order+`
		LIMIT $3`, string(account), batch.Key(pool), limit)
	return all("list free nodes", rows, err, scanSlots)
}

// CrowdedNodes returns nodes of a pool that take tasks and hold more than they
// have slots for, the fullest first.
func (tx *Tx) CrowdedNodes(account batch.AccountName, pool batch.PoolID) ([]NodeSlots, error) {
	rows, err := tx.Query(`
		SELECT `+slotColumns+`
		FROM node
		WHERE account = $1 AND pool = $2 AND takes AND free < 0
		ORDER BY free, id`, string(account), batch.Key(pool))
	return all("list crowded nodes", rows, err, scanSlots)
}

// QuickNodes returns nodes of a pool that take tasks, have no free slot, and
// completed a task since the given time.
func (tx *Tx) QuickNodes(account batch.AccountName, pool batch.PoolID, since time.Time) ([]NodeSlots, error) {
	rows, err := tx.Query(`
		SELECT `+slotColumns+`
		FROM node
		WHERE account = $1 AND pool = $2 AND takes AND free <= 0 AND ahead_changed >= $3
		ORDER BY free DESC, id`, string(account), batch.Key(pool), since.UnixMicro())
	return all("list quick nodes", rows, err, scanSlots)
}

// SlowNodes returns nodes of a pool on which tasks wait for a slot although they
// have completed none since the given time.
func (tx *Tx) SlowNodes(account batch.AccountName, pool batch.PoolID, since time.Time) ([]NodeSlots, error) {
	rows, err := tx.Query(`
		SELECT `+slotColumns+`
		FROM node
		WHERE account = $1 AND pool = $2 AND takes AND free < 0 AND (ahead_changed IS NULL OR ahead_changed < $3)
		ORDER BY free, id`, string(account), batch.Key(pool), since.UnixMicro())
	return all("list slow nodes", rows, err, scanSlots)
}

// FreeNode returns one node, or ErrNotFound unless it takes tasks and has a free
// slot.
func (tx *Tx) FreeNode(id batch.NodeID) (NodeSlots, error) {
	return one("get free node", tx.QueryRow(`
		SELECT `+slotColumns+`
		FROM node
		WHERE id = $1 AND takes AND free > 0`, batch.Key(id)), scanSlots)
}

func scanSlots(row scanner) (NodeSlots, error) {
	var n NodeSlots
	var milli int64
	var at sql.NullInt64
	err := row.Scan(&n.Node, &n.Dedicated, &n.Slots, &n.Bound, &n.BoundSlots, &n.RunningSlots, &milli, &at)
	n.Ahead, n.AheadTime = float64(milli)/1000, moment(at)
	return n, err
}

// ahead is what the column keeps: thousandths of a slot.
func ahead(n *batch.Node) int64 { return int64(math.Round(n.Ahead * 1000)) }

func (tx *Tx) encodeNode(n *batch.Node) (start, recent, body string, err error) {
	rest := nodeBody{StartTaskInfo: n.StartTaskInfo, Errors: n.Errors, Unfit: n.Unfit, AgentVersion: n.AgentVersion, PendingReimage: n.PendingReimage, Kept: n.Kept, Notices: n.Notices}
	if !n.AgentTime.IsZero() {
		at := batch.At(n.AgentTime)
		rest.AgentTime = &at
	}
	if !n.HoldUntil.IsZero() {
		until := batch.At(n.HoldUntil.Add(-tx.lead))
		rest.HoldUntil = &until
	}
	if start, err = encode(n.StartTask); err != nil {
		return "", "", "", err
	}
	refs := make([]recentTask, len(n.Recent))
	for i, t := range n.Recent {
		refs[i] = recentTask{t.Job, t.Task}
	}
	if recent, err = encode(refs); err != nil {
		return "", "", "", err
	}
	body, err = encode(&rest)
	return start, recent, body, err
}

func (tx *Tx) scanNode(row scanner) (batch.Node, error) {
	var n batch.Node
	var changed, allocated, booted, aheadAt sql.NullInt64
	var milli int64
	var recent, start, body []byte
	err := row.Scan(&n.ID, &n.Account, &n.Pool, &n.Dedicated, &n.Slots, &n.State, &n.SchedulingState, &changed, &allocated, &booted,
		&n.IPAddress, &n.VMSize, &n.BoundTasks, &n.BoundSlots, &n.RunningTasks, &n.RunningSlots,
		&n.TotalTasksRun, &n.TotalTasksSucceeded, &milli, &aheadAt, &n.Revision, &n.Settings,
		&n.Boot, &n.Image, &n.BootDone, &n.PendingReboot, &n.Leaving, &n.TokenHash, &n.Instance, &recent, &start, &body)
	if err != nil {
		return n, err
	}
	n.StateTransitionTime, n.AllocationTime, n.LastBootTime = moment(changed), moment(allocated), moment(booted)
	n.Ahead, n.AheadTime = float64(milli)/1000, moment(aheadAt)
	return n, tx.decodeNode(&n, recent, start, body)
}

func (tx *Tx) decodeNode(n *batch.Node, recent, start, body []byte) error {
	var refs []recentTask
	if err := decode(recent, &refs); err != nil {
		return err
	}
	for _, ref := range refs {
		n.Recent = append(n.Recent, batch.RecentTask{Job: ref.Job, Task: ref.Task})
	}
	if err := decode(start, &n.StartTask); err != nil {
		return err
	}
	var rest nodeBody
	if err := decode(body, &rest); err != nil {
		return err
	}
	n.StartTaskInfo, n.Errors, n.AgentVersion = rest.StartTaskInfo, rest.Errors, rest.AgentVersion
	n.Unfit, n.PendingReimage = rest.Unfit, rest.PendingReimage
	n.Kept, n.Notices = rest.Kept, rest.Notices
	if rest.AgentTime != nil {
		n.AgentTime = rest.AgentTime.Time
	}
	if rest.HoldUntil != nil {
		n.HoldUntil = rest.HoldUntil.Add(tx.lead)
	}
	return nil
}
