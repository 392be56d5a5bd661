// Package agent is the compute node: it makes the node be what the server's
// orders say and reports what it is.
//
// There is one call, Sync, see package nodelink. Its answer is the desired
// state, or what has changed of it. The agent compares it with what it holds and
// converges: it begins attempts it did not have, ends those that it is not to
// hold any more, gives back those that are asked for, and repeats results until
// a report that has them was answered.
//
//	          ┌────────── orders ──────────┐
//	server ───┤                            ├─▶ desk ─▶ one goroutine an attempt:
//	          └───────── report ◀──────────┘      directories, fetch, run, upload
//
// Files:
//
//	agent.go        options, start and end
//	serve.go        the loop that reports and takes orders, the lease
//	keeper.go       the parent of the node's processes, as the agent needs it
//	clock.go        the clock that leases go by, one file a system
//	desk.go         what the node holds; comparing it with orders
//	line.go         attempts that wait for a slot
//	living.go       attempts that have a goroutine, found quickly
//	owed.go         results for the next agent to hand over
//	removal.go      directories that are to go
//	attempt.go      one attempt of a task
//	command.go      from directories to outcome, for tasks and start tasks
//	boot.go         boots, images, the start task
//	directory.go    the layout of a node's folders
//	environment.go  AZ_BATCH_* variables
//	user.go         which user a task runs as
//	rights_linux.go files opened with the rights of a task
//	fetch.go        resource files
//	upload.go       output files
//	dial.go         which addresses a fetch may reach
//	disk.go         the node's share of the disk
//	failure.go      errors in the protocol's words
//	file.go         answers to file requests
//	list.go         pages of lists of files
//	health.go       what is wrong with the node
//	lives.go        agents before this one, and what they died at
//	starts.go       whether tasks start at all
//	leftovers.go    memory that tasks left behind
//
// Processes are run by the node's keeper, which outlives the agent. The packages
// below this one are, lowest first: link, the line to the keeper; run, what an
// execution is, and the keeper's client; isolation, control groups and their
// like; keeper, the keeper's process, which this package does not import. So the agent
// keeps no state of its own on disk but what it knows of its last boot. After a
// restart it asks the server what it should hold and the keeper what it does.
//
// The agent never imports the store, control or an edge.
package agent
