// Package link is the line between an agent and the keeper of its node: a Unix
// socket in the node's private folder that only processes of the same user may
// use, and on it messages, each a length of four bytes and a body.
//
// A keeper starts short tasks with both ends busy on the same processors, so a
// message wakes as few threads as can be: what is sent is written by the sender
// as far as the socket takes it; what nobody waits for is posted and leaves with
// others; who receives may wait in the kernel on a thread of its own.
//
// What the messages say is package run's. This package imports nothing of ours.
package link
