// Package keeper is the process that is the parent of a compute node's tasks. It
// forks them, waits for them, kills what they leave behind, and remembers how
// each ended until the agent has that safe. What it promises is told in package
// run, whose client starts it and speaks to it.
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
// it could escape. How tasks are found again and limited is package isolation.
//
// A short task passes two threads of the keeper, both waiting in the kernel: the
// one that reads the agent's requests also forks, and the one that waits for
// children also reports.
//
// # The line
//
// When tasks are short, the way from the end of one to the agent and back with
// the next takes longer than the tasks do. So the agent lines up what it has
// prepared, and the thread that sees a task end well forks the first in line in
// its place, before the agent is told. The agent hears of both together with what
// else happens in those two milliseconds. Whoever is in line has not begun: it
// can be withdrawn, and it leaves the line with the agent that lined it up.
//
// Threads that fork run before tasks whenever they are ready to: a keeper that
// waits for the processor behind the tasks it has just started is a node with
// empty slots.
//
// Files:
//
//	main.go     from start to end of the process
//	premises.go what comes first: lock, groups, the node's own machine
//	serve.go    the agent's requests; hub.go which agent
//	hold.go     the books: tasks, their phases and slots
//	line.go     tasks that start when others make room
//	fork.go     threads that fork; thread.go one of them, and how it does
//	newborn.go  what a child is when its program begins
//	vfork.go    a fork of our own, one file an architecture
//	program.go  which file a command means, and why it did not start
//	output.go   where output goes
//	birth.go    resource limits that a child is born with
//	reap.go     children that have ended
//	end.go      killing, and what comes after an end
//	lease.go    the end of the agent's lease
//
// It imports packages run, link and isolation, and nobody but the command that
// starts it imports this package.
package keeper
