// Package batch is the domain: the nouns of the Batch service, what makes
// each of them valid, and how each of them may change. It is pure: no I/O, no
// clock, standard library only. Functions that need the time take it.
//
// # The service in two screens
//
// An [Account] owns everything else. A [Pool] is a set of compute nodes of one
// size; a [Node] is one machine (or one agent process) of a pool. A [Job] is
// bound to a pool and collects tasks; a [Task] is one command line that runs
// on a node, reads resource files and leaves output files.
//
//	account ─┬─ pool ──── node (runs up to taskSlotsPerNode task slots)
//	         └─ job ───── task (runs on one node of the job's pool)
//
// A noun is one file: its specification (what a client sends), its resource
// (specification plus what the service knows), Validate, the table of legal
// states and the verbs that move between them. States are documented in
// docs/states.md, which is generated from those tables.
//
// The types carry the protocol's property names, so they are also the wire
// types of api-version 2025-06-01. What older versions name differently is in
// package api (versions.go).
//
// # The two ends of a node
//
// [NodeReport] and [NodeOrders] are the only messages between a node's agent
// and the server. Both are states, not commands: the report says what the node
// is doing, the orders say what it should be doing. A lost, late or repeated
// message costs nothing.
//
// # A task's life
//
//	         assigned to a node, not started yet
//	             ┌──────────────┐
//	add ──▶ active ──▶ (bound) ─┴─▶ running ──▶ completed
//	          ▲                        │            │
//	          └── retry, requeue ──────┘            │
//	          └────────── reactivate ───────────────┘
//
// Every binding to a node gets a new attempt number. Reports name the attempt,
// and only the current one is believed.
//
// # Map of the packages
//
//	odata autoscale auth   languages and signatures; know nothing of the nouns
//	store                  the only truth: rows, transactions, what changed
//	control                the verbs: one verb is one transaction
//	scheduler upkeep fleet decide who runs what, keep promises over time, make nodes
//	api blob portal        the edges users talk to
//	nodelink agent         the two ends of a node
//	cli                    commands and all wiring
package batch
