// Package hostile sends a real server what no client of good will sends, and runs tasks that want
// to harm their node or to see what is not theirs.
//
// Requests come in tables: a row is a request and the answer that the protocol has for it, status,
// code and the value that is at fault. Every answer, expected or not, is held against four rules:
// it comes in time, it is no internal error, it is in the protocol's own form, and it has nothing of
// what lies outside of the folder that the request is about. When a server has gone through its
// tables it must still serve, and its log must not tell of an error that it did not expect.
//
// Tasks come as scripts. They leave links, pipes, sockets, devices, files without end and folders
// without number behind, which the files operations, uploads and removals then meet.
package hostile
