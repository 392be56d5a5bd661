// Package batchtest is a cluster in a test: a real server (verbs, scheduler,
// upkeep and an SQLite database) and real agents, in a bubble of
// testing/synctest, so that hours pass in milliseconds.
//
// Only what a test cannot have is played. Time is the bubble's. Processes are
// scripts, see [Script], held by a keeper that kills them when the lease of its
// node is over, as the real one does. The network between agents and server
// loses, delays and repeats what it is told to; what it carries has the form of
// the wire, by both ends of package nodelink. Dates of machines are set by
// hours without moving their monotonic clocks ([Clock]).
//
//	Cluster ── server: store, control, scheduler, upkeep; may be killed
//	   │
//	   ├── Machine ── agent.Agent; may be killed, machine or keeper too
//	   │      ├── Link     the calls of its agent, and what befalls them
//	   │      ├── keeper   its processes
//	   │      └── Clock    its date
//	   ├── Witness   sees every process begin and end, in true time
//	   └── Audit     counts everything anew and compares
//
// The [Witness] is the judge of what was promised: no task runs twice at a
// time, none runs again that the server knows as completed, no node runs more
// than it has slots for. [Cluster.Audit] compares what the server counts with
// what it lists.
//
// What follows from a seed is the schedule: what happens when to whom, how long
// scripts run and what becomes of the n-th call of an agent. The order of
// goroutines that are awake at one moment, the names of nodes and the jitter of
// retries do not follow from it.
package batchtest
