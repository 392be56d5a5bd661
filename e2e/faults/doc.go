// Package faults breaks a real server on purpose and looks whether it keeps its word.
//
// Each test starts `batchyard server` as a process, with a data folder, ports and a pool of its
// own, and calls it as a client does. Servers and agents are stopped and killed while tasks run,
// tasks do what they should not, nodes are taken away; then every task must have run as often as
// it should, its exit code and output must be right, nothing of it may still run, and the next
// task must find a node as good as before.
//
// TestKills is a storm instead of one fault: customers ask for things all the time and keep what
// they were answered, random processes are killed at random moments, and at the end a judge
// compares the customers' records with the service and with the log that the tasks themselves have
// written through to the disk.
//
// What tests see of the machine beside the API: the log that their tasks append to, the folder of
// the server's data, and /proc, in which processes of tasks are found by a variable of their
// environment.
package faults
