// Package disk has what a program must do so that files outlive a power cut,
// and so that they are gone when they are to be, and tells when a disk is full.
//
// A file is safe once it was synced, and its name once the folder was synced
// that the name is in. What is only written, made or renamed may be gone after
// a power cut, in any combination.
//
// It imports nothing of the program.
package disk
