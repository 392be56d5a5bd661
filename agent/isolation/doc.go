// Package isolation keeps the tasks of a node apart from the machine and from
// each other by what the kernel has for it: control groups, and marks where none
// may be written, and namespaces. In these the node is a [Machine]: [Namespaces]
// says how its keeper is born, and [Enter] makes the machine of what it was born
// into.
//
// Hosts differ, so what a slot needs is behind two small interfaces. A [Tracker]
// finds every process of a slot again and kills it; a [Limiter] bounds what they
// use. [Find] looks which of the kernel's ways are open on this host, and
// [Groups] says what is missing. A [Record] in the node's private folder tells
// the next keeper which groups there were, so that it can clear them.
//
// Files:
//
//	machine.go    a node's own machine: Enter
//	root.go       mounts that are not seen outside, also in a chroot
//	mount.go      what is hidden, and what stays in sight
//	furniture.go  temporary files, shared memory and message queues
//	private.go    all of these for one task
//	clear.go      all of these as they were at the beginning
//	find.go       control groups of this host; form.go hands them on
//	groups.go     those of a node; v1.go and v2.go the two versions
//	mark.go       where there are none
//	sweep.go      what an earlier keeper left; process.go one process of it
//
// It imports package run, for the words in which limits are given, and disk, to
// remove files, and nothing else of ours.
package isolation
