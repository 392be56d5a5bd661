// Package upkeep keeps the promises that take time: pools reach their targets,
// silent nodes are given up, jobs end when their clock says so, long deletions
// go on, tasks that can never run are told so, files are removed when their
// retention is over.
//
// Each duty is a file and a loop: do what is due, then sleep until somebody
// announces that there may be more, or until the next deadline. A slow tick
// covers what neither tells. A duty remembers nothing that a restart would
// miss: what is to be done is read from the database each time, and one verb of
// package control does it, a slice at a time, so a server may be killed
// anywhere.
//
// One server does the duties: it is the only one on its database; see package store.
package upkeep
