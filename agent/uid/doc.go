// Package uid hands out the user numbers that tasks run as.
//
// Tasks have numbers and no entry in the machine's user database. A number
// means the same to every process of the machine, so that two servers which
// each count for themselves give the tasks of one the files and processes of
// the other. The machine therefore has one [Ledger], in a folder that only root
// can enter, and whoever makes a node asks it for a [Block].
//
// What a task has left behind somewhere may last for ever, and then belongs to
// whoever gets the number next. So numbers are not given again before all others
// have been: the ledger remembers where it stands, begins at a place chosen at
// random, and passes over what a node still has when it comes round, which with
// the half a million blocks of an ordinary machine is a matter of years.
package uid
