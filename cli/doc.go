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
//	certificate.go   the local authority and its certificate
//	node.go          what a node's agent is told when it is started
package cli
