// Package cli has the commands of the program, one file a command, and all
// wiring: it alone knows every other package, and it alone starts goroutines
// of the server.
//
//	main.go          Main: the whole program as a function
//	dev.go           batchyard dev: everything on one machine
//	server.go        batchyard server: production
//	agent.go         batchyard agent: a compute node, and its keeper
//	stack.go         the parts of a server and the order in which they run
//	config.go        defaults, file, environment, flags
//	listen.go        one port that speaks HTTP and HTTPS
//	accounts.go      who may call, and which keys everybody knows
//	run.go           batchyard run: a program as a task
//	job.go, task.go  looking at jobs and tasks
//	session.go       which account of which service a command is about
//	reference.go     how a person names a job or a task
//	output.go        tables, JSON, YAML, text
//	refusal.go       errors in words, and exit codes
//	node.go          what a node's agent is told when it is started
package cli
