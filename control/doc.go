// Package control is the verbs of the service: what a client or a loop
// of the server may do to accounts, pools, nodes, jobs and tasks.
//
// One verb is one transaction: it reads what it decides on, asks package batch
// what follows, writes it, and names what changed. A verb that returned nil is
// on disk. A verb that returned an error changed nothing. Errors a caller may
// see are *batch.Error; all others are internal.
//
// # Tasks and nodes
//
// A task is bound to a node by the scheduler and unbound by what its node says
// or by what somebody decides about it:
//
//	           Assign                     Sync: ended, or released
//	unbound ───────────▶ bound to a node ──────────────────────────▶ unbound
//	                         │
//	                         └── ended by a user or its job, node lost ──▶ unbound
//
// Nothing is sent to a node. A verb changes rows and raises the revision of the
// node's orders; package conversation tells the node, and brings what it says
// into the ledger.
//
// # Counts
//
// How many tasks of a job are active, running and so on, and how many a node
// holds, is kept in their rows by the transaction that changes a task, one
// statement a job (ledger.go). The same place decides what follows from the
// last task: the job completes, is disabled, or is gone.
//
// # Long work
//
// Ending or deleting a job touches every task of it. The verb itself marks the
// job; EndJob does the rest a slice at a time, driven by package upkeep, and
// may be killed anywhere.
//
// The package must not import anything above it: scheduler, upkeep, edges.
package control
