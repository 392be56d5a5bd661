// Package scheduler decides which task runs on which node.
//
// [Plan] is the decision: a function of values that reads no clock and no
// database. The loop around it is thin. A worker for each pool sleeps until
// somebody announces that tasks of the pool became ready or slots free, then
//
//	read a window ──▶ Plan ──▶ write, all in one transaction of control.Assign
//	      ▲                      │
//	      └ again, if more may fit
//
// The database is the queue. A worker remembers nothing between passes. What
// waits in a pool stands in the index of table queue, by number of slots,
// priority and age: a row for each job and number of slots, with its oldest task.
// A window holds as many tasks of each number of slots as would fill what is
// free, read through that index, so a pass costs the same with ten tasks waiting
// as with a million, in one job or in ten thousand.
//
// # Order
//
// Jobs go by priority, tasks of one priority by when they were added, however
// many jobs there are. The first task for which no node has slots enough free
// reserves the node that comes closest, so that small tasks behind it do not keep
// it out for ever; they may have all other nodes. A task that needs more slots
// than a node of its pool has is not in the way of any: it is passed over, and
// package upkeep fails it with the reason.
//
// # Ahead of time
//
// A node that completes tasks quickly would idle for the time of two round
// trips after each. So when no node of a pool has a free slot, nodes that
// completed tasks lately get some more to hold: as many as they complete in two
// rounds of report, commit, assignment and orders, and again when half are left.
// What a round takes is measured for each node, see package conversation, and
// taken for a tenth of a second at least and half a second at most. It is never
// more than [control.MaxAhead] slots, and only as many as a few times what the
// node has completed lately: a short task does not say that the next are. If
// another node of the pool becomes free and nothing else is ready, nodes are asked
// to give back what they have not begun; so is a node that has completed nothing
// for five seconds while tasks wait, since these may be more urgent.
//
// One server schedules: it is the only one on its database; see package store.
package scheduler
