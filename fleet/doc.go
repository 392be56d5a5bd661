// Package fleet is where compute nodes come from. The rows of nodes say which
// nodes should be; a provider makes it so, and undoes what has no row.
//
// There is one provider: [Local] runs each node as a child process on the
// server's own machine.
//
// A provider never fences: an engine may start a replacement while the old
// process still runs. Leases and attempts in the node protocol do that, see
// packages control and agent.
package fleet
