package admin

import (
	"fmt"
	"strings"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// Fault is something in the database that cannot be true, or two things in it
// that cannot both be.
type Fault struct {
	Kind  string // the rule that is broken, one word
	Where string // the row, as a person would name it
	What  string // what is wrong with it
	Mend  string // what a repair does about it
}

// rule is one thing that always holds in a sound database.
type rule struct {
	kind string
	mend string // what is done, in words
	// find gives a row for each place where the rule is broken: where and what.
	find string
	// fix are statements that make the rule hold. $1 is the present, in
	// microseconds, in those that name it.
	fix []string
	// unbinds: a task that a node may still run is queued again.
	unbinds bool
}

// The places that faults are in, as find names them.
const (
	atTask      = `'task ' || task.account || '/' || task.job || '/' || task.id`
	atJob       = `'job ' || job.account || '/' || job.id`
	atNode      = `'node ' || node.id`
	atPool      = `'pool ' || pool.account || '/' || pool.id`
	atContainer = `'container ' || container`
)

// queueAgain is the SET clause of a task that goes back to the queue; see
// batch.Task.Requeue.
const queueAgain = `
	bound = FALSE, release = '',
	requeue_count = requeue_count + CASE WHEN state = 'active' THEN 0 ELSE 1 END,
	requeued = CASE WHEN state = 'active' THEN requeued ELSE CAST($1 AS bigint) END,
	prev_state = CASE WHEN state = 'active' THEN prev_state ELSE state END,
	prev_changed = CASE WHEN state = 'active' THEN prev_changed ELSE changed END,
	changed = CASE WHEN state = 'active' THEN changed ELSE CAST($1 AS bigint) END,
	stamp = CASE WHEN stamp >= CAST($1 AS bigint) THEN stamp + 1 ELSE CAST($1 AS bigint) END,
	state = 'active'`

// Conditions that find and fix share.
const (
	poolGone     = `NOT EXISTS (SELECT 1 FROM pool WHERE pool.account = node.account AND pool.id = node.pool)`
	jobGone      = `NOT EXISTS (SELECT 1 FROM job WHERE job.account = task.account AND job.id = task.job)`
	unspecified  = `NOT EXISTS (SELECT 1 FROM specification AS s WHERE s.account = task.account AND s.job = task.job AND s.id = task.id)`
	taskGone     = `NOT EXISTS (SELECT 1 FROM task WHERE task.account = specification.account AND task.job = specification.job AND task.id = specification.id)`
	holderGone   = `task.bound AND NOT EXISTS (SELECT 1 FROM node WHERE node.id = task.node AND node.account = task.account)`
	removerGone  = `NOT EXISTS (SELECT 1 FROM node WHERE node.id = removal.node)`
	runsNowhere  = `NOT task.bound AND task.state IN ('preparing', 'running')`
	heldAndDone  = `task.bound AND task.state = 'completed'`
	doneUntold   = `task.state = 'completed' AND (task.result = '' OR task.ended IS NULL)`
	takesWrongly = `node.takes <> (node.scheduling = 'enabled' AND node.pending_reboot = '' AND node.leaving = '' AND node.state IN ('idle', 'running'))`
	unfinished   = `job.state = 'completed' AND EXISTS (
		SELECT 1 FROM task
		WHERE task.state IN ('active', 'preparing', 'running') AND task.account = job.account AND task.job = job.id)`
	unknownContainer = `
		NOT EXISTS (SELECT 1 FROM storage_container WHERE storage_container.id = container)
		AND NOT EXISTS (SELECT 1 FROM storage_dropped WHERE storage_dropped.container = used.container)`
	blobGone = `NOT EXISTS (SELECT 1 FROM storage_blob WHERE storage_blob.content = storage_part.content AND storage_blob.content <> '' AND storage_blob.blocks > 0)`
)

// usedContainers are the lives of containers that have blobs or blocks.
const usedContainers = `(SELECT container FROM storage_blob UNION SELECT container FROM storage_block) AS used`

// jobCounts is a recount of each job that has tasks.
const jobCounts = `
	SELECT account, job,
		sum(CASE WHEN state = 'active' THEN 1 ELSE 0 END) AS active,
		sum(CASE WHEN state IN ('preparing', 'running') THEN 1 ELSE 0 END) AS running,
		sum(CASE WHEN state = 'completed' AND result = 'success' THEN 1 ELSE 0 END) AS succeeded,
		sum(CASE WHEN state = 'completed' AND result <> 'success' THEN 1 ELSE 0 END) AS failed,
		sum(CASE WHEN state = 'active' THEN slots ELSE 0 END) AS active_slots,
		sum(CASE WHEN state IN ('preparing', 'running') THEN slots ELSE 0 END) AS running_slots,
		sum(CASE WHEN state = 'completed' AND result = 'success' THEN slots ELSE 0 END) AS succeeded_slots,
		sum(CASE WHEN state = 'completed' AND result <> 'success' THEN slots ELSE 0 END) AS failed_slots,
		sum(CASE WHEN bound THEN 1 ELSE 0 END) AS bound
	FROM task
	GROUP BY account, job`

// wrongJobCounts joins each job with its recount where the two differ.
const wrongJobCounts = `
	FROM job
	LEFT JOIN (` + jobCounts + `) AS c ON c.account = job.account AND c.job = job.id
	WHERE job.active <> COALESCE(c.active, 0) OR job.running <> COALESCE(c.running, 0)
		OR job.succeeded <> COALESCE(c.succeeded, 0) OR job.failed <> COALESCE(c.failed, 0)
		OR job.active_slots <> COALESCE(c.active_slots, 0) OR job.running_slots <> COALESCE(c.running_slots, 0)
		OR job.succeeded_slots <> COALESCE(c.succeeded_slots, 0) OR job.failed_slots <> COALESCE(c.failed_slots, 0)
		OR job.bound <> COALESCE(c.bound, 0)`

// nodeCounts is a recount of each node that holds tasks.
const nodeCounts = `
	SELECT node, count(*) AS bound, sum(slots) AS bound_slots,
		sum(CASE WHEN state IN ('preparing', 'running') THEN 1 ELSE 0 END) AS running,
		sum(CASE WHEN state IN ('preparing', 'running') THEN slots ELSE 0 END) AS running_slots
	FROM task
	WHERE bound
	GROUP BY node`

// wrongNodeCounts joins each node with its recount where the two differ.
const wrongNodeCounts = `
	FROM node
	LEFT JOIN (` + nodeCounts + `) AS c ON c.node = node.id
	WHERE node.bound_tasks <> COALESCE(c.bound, 0) OR node.bound_slots <> COALESCE(c.bound_slots, 0)
		OR node.running_tasks <> COALESCE(c.running, 0) OR node.running_slots <> COALESCE(c.running_slots, 0)
		OR node.free <> node.slots - COALESCE(c.bound_slots, 0)`

// wrongQueues finds queues that do not say what waits. Those of a job that is
// being deleted say nothing to anybody, and a completed one has nothing to run.
const wrongQueues = `
	SELECT 'queue ' || w.account || '/' || w.job || '/' || w.slots, 'tasks wait in it where the scheduler does not find them'
	FROM (` + store.RightQueues + ` WHERE job.state NOT IN ('completed', 'deleting')) AS w
	LEFT JOIN queue ON queue.account = w.account AND queue.job = w.job AND queue.slots = w.slots
	WHERE queue.job IS NULL OR queue.head IS DISTINCT FROM w.head OR queue.open <> w.open
		OR queue.pool <> w.pool OR queue.priority <> w.priority
	UNION ALL
	SELECT 'queue ' || queue.account || '/' || queue.job || '/' || queue.slots, 'no task waits in it, and the scheduler looks for one'
	FROM queue
	LEFT JOIN job ON job.account = queue.account AND job.id = queue.job
	WHERE (job.id IS NULL OR queue.head IS NOT NULL AND job.state NOT IN ('completed', 'deleting')) AND NOT EXISTS (
		SELECT 1 FROM task
		WHERE task.account = queue.account AND task.job = queue.job AND task.slots = queue.slots
			AND CASE WHEN task.bound THEN FALSE ELSE task.state = 'active' END)`

// poolCounts is a recount of each pool that has nodes.
const poolCounts = `
	SELECT account, pool,
		sum(CASE WHEN dedicated THEN 1 ELSE 0 END) AS dedicated, sum(CASE WHEN dedicated THEN 0 ELSE 1 END) AS low
	FROM node
	GROUP BY account, pool`

// wrongPoolCounts joins each pool with its recount where the two differ.
const wrongPoolCounts = `
	FROM pool
	LEFT JOIN (` + poolCounts + `) AS c ON c.account = pool.account AND c.pool = pool.id
	WHERE pool.dedicated <> COALESCE(c.dedicated, 0) OR pool.low <> COALESCE(c.low, 0)`

// wrongBlob finds blobs whose bytes, as far as the database has them, are not
// those that the blob says it has.
const wrongBlob = `
	FROM storage_blob
	LEFT JOIN (
		SELECT content, count(*) AS n, sum(size) AS size, max(start + size) AS past
		FROM storage_part
		GROUP BY content
	) AS p ON p.content = storage_blob.content
	WHERE (storage_blob.blocks > 0 AND (COALESCE(p.n, 0) <> storage_blob.blocks
			OR COALESCE(p.size, 0) <> storage_blob.size OR COALESCE(p.past, 0) <> storage_blob.size))
		OR (storage_blob.blocks = 0 AND storage_blob.content = ''
			AND COALESCE(length(storage_blob.data), 0) <> storage_blob.size)`

// rules are in the order in which they are mended: what an earlier one changes,
// a later one counts. Counts come after what they count, and queues after the jobs
// whose state they depend on. Storage, of which nothing else speaks, is at the end.
func rules() []rule {
	return []rule{
		{
			kind: "node-without-pool", mend: "delete the node and queue its tasks again", unbinds: true,
			find: `SELECT ` + atNode + `, 'there is no pool ' || node.account || '/' || node.pool FROM node WHERE ` + poolGone,
			fix:  []string{`DELETE FROM node WHERE ` + poolGone},
		},
		{
			kind: "removal-without-node", mend: "forget it",
			find: `SELECT 'removal ' || removal.job || '/' || removal.task, 'it is for node ' || removal.node || ', which is no more' FROM removal WHERE ` + removerGone,
			fix:  []string{`DELETE FROM removal WHERE ` + removerGone},
		},
		{
			kind: "task-without-job", mend: "delete the task", unbinds: true,
			find: `SELECT ` + atTask + `, 'there is no such job' FROM task WHERE ` + jobGone,
			fix: []string{
				`DELETE FROM task WHERE ` + jobGone,
				`DELETE FROM specification WHERE ` + taskGone,
				`DELETE FROM queue WHERE NOT EXISTS (SELECT 1 FROM job WHERE job.account = queue.account AND job.id = queue.job)`,
			},
		},
		{
			kind: "task-without-specification", mend: "delete the task, of which nobody knows what it is to run", unbinds: true,
			find: `SELECT ` + atTask + `, 'its specification is lost' FROM task WHERE NOT ` + jobGone + ` AND ` + unspecified,
			fix:  []string{`DELETE FROM task WHERE ` + unspecified},
		},
		{
			kind: "specification-without-task", mend: "forget it",
			find: `SELECT 'specification ' || account || '/' || job || '/' || id, 'there is no such task' FROM specification WHERE ` + taskGone,
			fix:  []string{`DELETE FROM specification WHERE ` + taskGone},
		},
		{
			kind: "task-completed-and-held", mend: "take it from the node",
			find: `SELECT ` + atTask + `, 'it is completed and node ' || task.node || ' holds it' FROM task WHERE ` + heldAndDone,
			fix:  []string{`UPDATE task SET bound = FALSE, release = '' WHERE ` + heldAndDone},
		},
		{
			kind: "task-held-by-nobody", mend: "queue the task again", unbinds: true,
			find: `SELECT ` + atTask + `, 'it is ' || task.state || ' on node ' || CASE WHEN task.node = '' THEN '(none)' ELSE task.node END || ', which is no more' FROM task WHERE ` + holderGone,
			fix:  []string{`UPDATE task SET ` + queueAgain + ` WHERE ` + holderGone},
		},
		{
			kind: "task-runs-nowhere", mend: "queue the task again", unbinds: true,
			find: `SELECT ` + atTask + `, 'it is ' || task.state || ' and no node holds it' FROM task WHERE ` + runsNowhere,
			fix:  []string{`UPDATE task SET ` + queueAgain + ` WHERE ` + runsNowhere},
		},
		{
			kind: "task-without-result", mend: "give it the result that its exit code says, failure if there is none",
			find: `SELECT ` + atTask + `, 'it is completed without a result or an end' FROM task WHERE ` + doneUntold,
			fix: []string{`
				UPDATE task
				SET ended = COALESCE(ended, changed), result = CASE WHEN result <> '' THEN result
					WHEN exit_code = 0 AND failure IS NULL THEN 'success' ELSE 'failure' END
				WHERE ` + doneUntold},
		},
		{
			kind: "task-attempt", mend: "raise the attempt",
			find: `SELECT ` + atTask + `, 'its attempt ' || attempt || ' is before its first, ' || seq FROM task WHERE attempt < seq`,
			fix:  []string{`UPDATE task SET attempt = seq WHERE attempt < seq`},
		},
		{
			kind: "job-completed-early", mend: "end the job again, with its tasks",
			find: `SELECT ` + atJob + `, 'it is completed and has tasks that are not' FROM job WHERE ` + unfinished,
			fix:  []string{`UPDATE job SET state = 'terminating', changed = $1, prev_state = 'completed', prev_changed = changed WHERE ` + unfinished},
		},
		{
			kind: "node-flag", mend: "set the flag",
			find: `SELECT ` + atNode + `, 'it is ' || state || ' and scheduling is ' || scheduling || ', but its mark for the scheduler says otherwise' FROM node WHERE ` + takesWrongly,
			fix:  []string{`UPDATE node SET takes = NOT takes WHERE ` + takesWrongly},
		},
		{
			kind: "node-counts", mend: "count again",
			find: `SELECT ` + atNode + `, 'it counts ' || node.bound_tasks || ' tasks (' || node.running_tasks || ' begun, ' || node.bound_slots || ' slots, '
				|| node.free || ' free) and holds ' || COALESCE(c.bound, 0) || ' (' || COALESCE(c.running, 0) || ', ' || COALESCE(c.bound_slots, 0) || ', '
				|| (node.slots - COALESCE(c.bound_slots, 0)) || ')' ` + wrongNodeCounts,
			fix: []string{`
				UPDATE node
				SET bound_tasks = v.bound, bound_slots = v.bound_slots, free = slots - v.bound_slots,
					running_tasks = v.running, running_slots = v.running_slots, revision = revision + 1
				FROM (SELECT node.id AS id, COALESCE(c.bound, 0) AS bound, COALESCE(c.bound_slots, 0) AS bound_slots,
					COALESCE(c.running, 0) AS running, COALESCE(c.running_slots, 0) AS running_slots ` + wrongNodeCounts + `) AS v
				WHERE node.id = v.id`},
		},
		{
			kind: "pool-counts", mend: "count again and bring the pool to its target",
			find: `SELECT ` + atPool + `, 'it counts ' || pool.dedicated || ' dedicated and ' || pool.low || ' low-priority nodes and has '
				|| COALESCE(c.dedicated, 0) || ' and ' || COALESCE(c.low, 0) ` + wrongPoolCounts,
			fix: nil, // see refillPools
		},
		{
			kind: "job-counts", mend: "count again",
			find: `SELECT ` + atJob + `, 'it counts ' || job.active || ' active, ' || job.running || ' running, ' || job.succeeded || ' succeeded, '
				|| job.failed || ' failed, ' || job.bound || ' held and has ' || COALESCE(c.active, 0) || ', ' || COALESCE(c.running, 0) || ', '
				|| COALESCE(c.succeeded, 0) || ', ' || COALESCE(c.failed, 0) || ', ' || COALESCE(c.bound, 0) || ', or counts other slots than they take' ` + wrongJobCounts,
			fix: []string{`
				UPDATE job
				SET active = v.active, running = v.running, succeeded = v.succeeded, failed = v.failed,
					active_slots = v.active_slots, running_slots = v.running_slots,
					succeeded_slots = v.succeeded_slots, failed_slots = v.failed_slots, bound = v.bound
				FROM (SELECT job.account AS account, job.id AS id, COALESCE(c.active, 0) AS active, COALESCE(c.running, 0) AS running,
					COALESCE(c.succeeded, 0) AS succeeded, COALESCE(c.failed, 0) AS failed,
					COALESCE(c.active_slots, 0) AS active_slots, COALESCE(c.running_slots, 0) AS running_slots,
					COALESCE(c.succeeded_slots, 0) AS succeeded_slots, COALESCE(c.failed_slots, 0) AS failed_slots,
					COALESCE(c.bound, 0) AS bound ` + wrongJobCounts + `) AS v
				WHERE job.account = v.account AND job.id = v.id`},
		},
		{
			kind: "queue", mend: "make all queues anew",
			find: wrongQueues,
			fix:  store.RemakeQueues(),
		},
		{
			kind: "container-dropped-and-there", mend: "keep the container",
			find: `SELECT ` + atContainer + `, 'it is there and yet to be purged' FROM storage_dropped WHERE container IN (SELECT id FROM storage_container)`,
			fix:  []string{`DELETE FROM storage_dropped WHERE container IN (SELECT id FROM storage_container)`},
		},
		{
			kind: "blob-without-container", mend: "have the server remove the blobs and blocks in it",
			find: `SELECT ` + atContainer + `, 'it is no more, but has blobs or blocks' FROM ` + usedContainers + ` WHERE ` + unknownContainer,
			fix:  []string{`INSERT INTO storage_dropped (container, dropped) SELECT container, CAST($1 AS bigint) FROM ` + usedContainers + ` WHERE ` + unknownContainer},
		},
		{
			kind: "block-without-blob", mend: "delete the blocks",
			find: `SELECT 'content ' || content, count(*) || ' committed blocks belong to no blob' FROM storage_part WHERE ` + blobGone + ` GROUP BY content`,
			fix:  []string{`DELETE FROM storage_part WHERE ` + blobGone},
		},
		{
			kind: "blob-incomplete", mend: "delete the blob, whose bytes are lost",
			find: `SELECT 'blob ' || storage_blob.container || '/' || storage_blob.name, 'it has ' || storage_blob.size || ' bytes in '
				|| storage_blob.blocks || ' blocks, and of these ' || COALESCE(p.size, length(storage_blob.data), 0) || ' in ' || COALESCE(p.n, 0) || ' are there' ` + wrongBlob,
			fix: []string{
				`DELETE FROM storage_part WHERE content IN (SELECT storage_blob.content ` + wrongBlob + ` AND storage_blob.content <> '')`,
				`DELETE FROM storage_blob WHERE (container, name) IN (SELECT storage_blob.container, storage_blob.name ` + wrongBlob + `)`,
			},
		},
	}
}

// Faults tells found of everything in the database that is broken. An error of
// found ends the search.
func Faults(tx *store.Tx, found func(Fault) error) error {
	for _, r := range rules() {
		if _, err := r.check(tx, found); err != nil {
			return err
		}
	}
	return nil
}

// mendFaults mends everything that Faults finds, and what only shows once
// something else is mended, and tells found of each. Nobody else may be working
// on the database. It keeps the server that starts next from giving tasks to
// nodes for a while, see store.Tx.HoldTasks, if a node may still run one that was
// queued again.
func mendFaults(tx *store.Tx, found func(Fault) error) error {
	for _, r := range rules() {
		n, err := r.check(tx, found)
		if err != nil {
			return err
		}
		if n == 0 {
			continue
		}
		if r.kind == "pool-counts" {
			err = refillPools(tx)
		}
		for _, statement := range r.fix {
			if err == nil {
				err = fix(tx, statement)
			}
		}
		if err == nil && r.unbinds {
			err = tx.HoldTasks()
		}
		if err != nil {
			return fmt.Errorf("mend %s: %w", r.kind, err)
		}
	}
	return nil
}

// check looks for the faults of one rule and says how many there are.
func (r rule) check(tx *store.Tx, found func(Fault) error) (n int, err error) {
	rows, err := tx.Query(r.find)
	if err != nil {
		return 0, fmt.Errorf("look for %s: %w", r.kind, err)
	}
	defer rows.Close()
	for rows.Next() {
		f := Fault{Kind: r.kind, Mend: r.mend}
		if err := rows.Scan(&f.Where, &f.What); err != nil {
			return n, fmt.Errorf("look for %s: %w", r.kind, err)
		}
		if err := found(f); err != nil {
			return n, err
		}
		n++
	}
	if err := rows.Err(); err != nil {
		return n, fmt.Errorf("look for %s: %w", r.kind, err)
	}
	return n, nil
}

// fix runs a statement, with the time if it wants it.
func fix(tx *store.Tx, statement string) error {
	var args []any
	if strings.Contains(statement, "$1") {
		args = append(args, tx.Now().UnixMicro())
	}
	_, err := tx.Exec(statement, args...)
	return err
}

// refillPools counts the nodes of the pools whose counts are wrong, and sets
// these pools on the way to their targets.
func refillPools(tx *store.Tx) error {
	type count struct {
		ref            store.PoolRef
		dedicated, low int
	}
	rows, err := tx.Query(`SELECT pool.account, pool.id, COALESCE(c.dedicated, 0), COALESCE(c.low, 0) ` + wrongPoolCounts)
	if err != nil {
		return fmt.Errorf("count nodes: %w", err)
	}
	defer rows.Close()
	var counts []count
	for rows.Next() {
		var c count
		if err := rows.Scan(&c.ref.Account, &c.ref.Pool, &c.dedicated, &c.low); err != nil {
			return fmt.Errorf("count nodes: %w", err)
		}
		counts = append(counts, c)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("count nodes: %w", err)
	}
	for _, c := range counts {
		p, err := tx.Pool(c.ref.Account, c.ref.Pool)
		if err != nil {
			return err
		}
		p.CurrentDedicatedNodes, p.CurrentLowPriorityNodes = c.dedicated, c.low
		if err := refill(tx, &p); err != nil {
			return err
		}
	}
	return nil
}

// refill sets a pool on the way to the target that it has, unless it is on the
// way somewhere already, and writes it.
func refill(tx *store.Tx, p *batch.Pool) error {
	if p.State == batch.PoolActive && p.AllocationState == batch.AllocationSteady {
		if err := p.Resize(batch.PoolResize{TargetDedicatedNodes: &p.TargetDedicatedNodes}, tx.Now()); err != nil {
			return err
		}
	}
	return tx.UpdatePool(p)
}
