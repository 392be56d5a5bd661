// Package isolation keeps the tasks of a node apart from the machine and from
// each other by what the kernel has for it: control groups, and marks where none
// may be written.
//
// Hosts differ, so what a slot needs is behind two small interfaces. A [Tracker]
// finds every process of a slot again and kills it; a [Limiter] bounds what they
// use. [Find] looks which of the kernel's ways are open on this host, and
// [Groups] says what is missing. A [Record] in the node's private folder tells
// the next keeper which groups there were, so that it can clear them.
//
// It imports package run, for the words in which limits are given, and nothing
// else of ours.
package isolation
