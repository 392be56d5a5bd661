// Package api speaks the Batch wire protocol: the REST interface that the
// published clients of the Batch service use, in every published api-version
// from 2015-06-01.2.0 to today.
//
// # One request
//
//	route ─ version ─ signature ─ body ─ verb of control ─ answer
//	 │         │          │         │                        │
//	 │         │          │         └ shape of the version ──┘
//	 │         │          └ auth: which account, which key
//	 │         └ versions.go: what older clients call differently
//	 └ routes.go: the whole surface in one table
//
// A handler decodes, calls one verb of package control and encodes. It has no
// rule of the domain: what a pool may be is in package batch, what may happen
// to it in control. What goes wrong is an error that the handler returns; the
// one place that writes errors is errors.go.
//
// # Versions
//
// The types of package batch are those of the newest version. An older client
// is served by two rewrites of JSON objects, one on the way in and one on the
// way out, which are compiled from the table in versions.go. A version that
// differs in nothing for some object has no rewrite for it, so that new
// clients pay nothing for old ones.
//
// # What is not served
//
// Every published operation has its row in routes.go. One that this release
// does not serve answers OperationNotSupported and says why; none is accepted
// and ignored, and none is a 404 by accident.
//
// The package must not import another edge (portal, blob), and opens no
// listener: package cli mounts the handler.
package api
