// Package conversation is what nodes and the server say to each other: reports
// come in, orders go out, and whoever is silent for too long is given up.
//
//	sync.go     the one call of a node: report, transaction, orders, wait
//	observe.go  what a report says, held against what is known
//	orders.go   what the node should be doing
//	account.go  what a node should be doing at a revision, and since when
//	memory.go   when nodes were heard, what they hold, which call waits
//	lost.go     nodes that are given up
//	files.go    callers of the API that wait for a file of a node
//
// It stands on the verbs of package control: what a report changes about tasks
// goes through a [control.Ledger], in one transaction with the node itself.
// What it remembers between calls is behind one type, [memory]: it is of this
// process, and is rebuilt from the database after a start.
package conversation
