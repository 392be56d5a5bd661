// Package gate decides how much work is let in. A server that takes on more
// than it can do gets slower for everybody, at last for the compute nodes too,
// whose tasks then die; one that says so early stays quick for those it let in.
//
// There are two bounds. A [Class] bounds the requests of one kind that are
// worked on at a time: more of them wait in a short line, one line for each
// caller, and the lines take turns, so that a caller with a thousand requests
// does not keep out one with a single request. A [Budget] bounds the bytes that
// requests hold in memory together.
//
// Calls of compute nodes pass no gate: there are few of them, each is small,
// and nothing that clients do may hold them up.
//
// It knows nothing of requests, so that every edge can use it.
package gate
