// Package client speaks the Batch wire protocol from the caller's side: the
// newest api-version, Shared Key, the types of package batch. Commands, tests
// and measurements use it; it works against any server of the protocol.
//
// [Client.Call] makes one signed call and turns the protocol's errors back into
// *batch.Error. The methods in resource.go name the calls that
// are made often.
package client
