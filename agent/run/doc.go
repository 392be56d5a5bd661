// Package run starts, limits, watches and ends the processes of tasks on a
// compute node.
//
// # The keeper
//
// The agent is not the parent of its tasks. One keeper process per compute
// node is: a second instance of the same program, started detached by [Open]
// and reached over a Unix socket in the node's private folder. The keeper
// forks the tasks, waits for them, and remembers how each ended until the
// agent says [Keeper.Forget]. The agent may therefore be killed, upgraded and
// started again at any moment: the tasks run on, and their exit codes wait.
//
//	agent ── Start, Kill, Forget, Lease ──▶ keeper ── clone, wait ──▶ tasks
//	      ◀── started, exited ────────────
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
// # Slots and threads
//
// A control group costs as much as a process, so the keeper makes one set of
// groups per slot, and a slot serves one task after another. Tasks are forked by
// a few operating system threads that live as long as the keeper and have given
// up new privileges, unless the task is an administrator's. With the kernel's
// first version of control groups such a thread enters the slot's groups, with
// the second a child is cloned into them, and resource limits are set on the
// keeper itself meanwhile: a child is born limited, there is no moment in which
// it could escape. How tasks are found again and limited is behind two small
// interfaces, tracker and limiter, because hosts differ: see groups_linux.go.
//
// A short task passes two threads of the keeper, both waiting in the kernel: the
// one that reads the agent's requests also forks, and the one that waits for
// children also reports.
//
// # The line
//
// When tasks are short, the way from the end of one to the agent and back with
// the next takes longer than the tasks do. So the agent lines up what it has
// prepared ([Process.LineUp]), and the thread that sees a task end well forks the
// first in line in its place, before the agent is told. The agent hears of both
// together with what else happens in those two milliseconds. Whoever is in line
// has not begun: it can be withdrawn, and it leaves the line with the agent that
// lined it up.
//
// Threads that fork run before tasks whenever they are ready to: a keeper that
// waits for the processor behind the tasks it has just started is a node with
// empty slots.
//
// This package must not import anything of the server, and nothing of the
// agent above it.
package run
