// Package shapetest holds answers of the Batch data plane against the shapes of the protocol.
//
// It knows, for every operation and every api-version from 2015 on, the status and the headers of
// a success, the fields of the body with their types, which of them the service always sends, and
// the words of each enumeration in their casing on the wire. That knowledge lives in testdata,
// whose README explains its form; the code here only reads and applies it.
//
// Check judges one answer and suits a handler's own test. Proxy stands between a client and a
// server and judges everything that passes, which is how the walks of unmodified clients use it.
//
// The package is for tests. It imports the standard library only, and nothing of the server.
package shapetest
