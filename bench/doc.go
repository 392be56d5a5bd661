// Command bench measures a server from outside, as its users meet it: over
// HTTP, with signatures, every answer durable, tasks as real processes. It
// prints one table in Markdown and puts it into docs/performance.md, which says
// what the rows mean. bench/run.sh runs it.
//
//	main.go       flags, the order of the rows
//	goal.go       what is aimed at, and how a figure is judged
//	table.go      the table, and its place in the document
//	machine.go    what the figures were measured on
//	server.go     a server of its own, and the pools of it
//	meter.go      processor time and memory of its processes
//	profile.go    where the time of a missed row goes
//	call.go       HTTP with as little of our own time as possible
//	add.go        adding tasks, at full speed or at a given one
//	spawn.go      the raw cost of starting processes
//	noop.go       the smallest program there is
//	work.go       commits, reports and statements, and idle processors
//	drain.go      rows 1, 2, 4 and 15: running tasks
//	variant.go    rows 1a to 1c: the first second, slow commits
//	seen.go       row 17: how soon a client sees a task completed
//	submit.go     rows 5 and 6: adding tasks
//	latency.go    row 7: how soon a task starts
//	million.go    rows 8 to 11 and 14: a million tasks that wait
//	simulated.go  row 13: nodes that start nothing
//	idle.go       row 16: a server that has nothing to do
//	peer.go       row 3: other schedulers on the same machine
//
// The program also is the server and the nodes of row 13: started as
// `bench dev` it is batchyard, whose nodes are `bench agent run`, which is a
// simulated one.
package main
