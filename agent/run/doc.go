// Package run is what it means to run something on a compute node: an
// [Execution] can be started, waited for and killed, a [Spec] says what it is
// and a [Result] how it ended. Its client side is here too: [Open] reaches the
// node's keeper, whose executions are processes.
//
//	agent ── Start, Kill, Forget, Lease ──▶ keeper ── clone, wait ──▶ tasks
//	      ◀── started, exited ────────────
//
// The agent is not the parent of its tasks. One keeper process per compute node
// is, package keeper: a second instance of the same program, started detached by
// [Open] and reached over a Unix socket in the node's private folder, package
// link. It remembers how each task ended until the agent says [Keeper.Forget].
// The agent may therefore be killed, upgraded and started again at any moment:
// the tasks run on, and their exit codes wait.
//
// What else runs something, a container for instance, is another Execution
// beside [Process]. It must be started by the keeper or hang on its lease, since
// nothing of a task may outlive that. Only processes can be lined up, see
// [Process.LineUp]; who wants that asks for it by an interface of its own.
//
// # What the keeper promises
//
//   - No process of a task outlives the task. When the main process has ended,
//     or the task is killed, everything else that it left behind, daemons
//     included, is killed first and the end is reported after.
//   - No task outlives the agent's lease. The agent tells the keeper how long
//     it may go on, each time the server grants it more; when that moment has
//     passed the keeper kills every task by itself.
//   - No task outlives the keeper. Main processes die with it by the parent
//     death signal; the next keeper of the node kills what else it finds in
//     the node's groups before it accepts work, and the agent reports those
//     tasks as [Lost].
//
// Files:
//
//	run.go          Execution, Spec, Result and their parts
//	commandline.go  from a command line to arguments
//	errors.go       what can be said of a start that failed
//	process.go      Process, the execution by the keeper
//	client.go       the connection to the keeper, kept up
//	session.go      one connection
//	launch.go       reaching or starting a keeper, one file a system
//	protocol.go     what client and keeper say to each other
//	clock.go        the clock of leases, one file a system
//
// This package must not import anything of the server, and of the agent only
// package link.
package run
