// Command bench measures a server from outside, as its users meet it: over
// HTTP, with signatures, every answer durable, tasks as real processes. It
// prints one table in Markdown; docs/performance.md says what the rows mean
// and keeps the figures. bench/run.sh runs it.
//
//	main.go     flags, the order of the rows, the table
//	server.go   a server of its own, and what it and its nodes use
//	tasks.go    rows about running tasks
//	submit.go   rows about adding them
package main
