// Package storage takes the disk away from a real server and looks whether it keeps its word.
//
// # Power cuts
//
// `batchyard dev` runs under strace, which writes down what the server and its database ask of the
// file system, while clients write tasks and blobs, each on its own objects and one call after
// the other. From that record a model of a disk (disk_test.go) rebuilds what could be there had the
// power failed at any moment of it:
//
//   - What a file held when it was last synced is there. What was written later may be there,
//     wholly, in part, by sectors of 512 bytes, in any order, or not at all; what lies between may
//     be garbage if the file was never that long before.
//   - A name is there once its folder was synced after it was given. Later names, new names and
//     removals may be there or not, in any combination.
//
// An answer counts as given from the moment in which the server begins to write it to the socket.
// After a cut everything that was answered must be there, and of what was not yet answered all or
// nothing; the database must be sound, its counters must equal a recount, and a sweep must leave
// no file without a blob.
//
// That the checks see what they look for is itself tested: on a disk that ignores one kind of sync,
// the same record must lose something.
// # Full disks
//
// The database, the blobs and a node each get a small disk of memory, which is then filled. Writes
// must be refused by an error of the protocol that names the folder and can be tried again, reads
// must go on, what was accepted before must stay, also after a crash, and work must go on by itself
// when there is room.
package storage
