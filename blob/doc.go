// Package blob is the storage endpoint: containers and block blobs as clients
// of Azure Blob Storage know them, with Shared Key and shared access signatures.
//
// A request passes four stations, in files of their own: its URL is taken apart
// (path.go), it is held against the table of operations (routes.go), its
// signature is verified and must allow the operation (authorize.go), and the
// operation does its work and answers (container.go, put.go, get.go, block.go,
// copy.go, list.go). What is refused is a fault (errors.go) and is written in
// one place.
//
// # Where the bytes are
//
// Bytes keeps immutable files under random names; rows of the store say which
// file is the content of which blob. An upload goes
//
//	file written → file synced → name synced → row committed → answered
//
// so that what was answered is durable, and a crash before the commit leaves a
// file without a row, which Sweep removes. Replacing a blob changes its row to
// another file; only after that commit is the old file removed, and not before
// the last reader of it in this process is done (readers.go). A file has one
// blob and is never shared, so no counts are kept.
//
// A block list is committed without moving bytes: the blob's row then stands
// for a list of parts, each the file of one block. It costs a reader one more
// open a block, and saves writing gigabytes twice and having to be there twice
// while it happens. Content of a few kilobytes is kept in the row itself: one
// commit, shared with others, in place of syncing a file and its folder.
//
// # What is not served
//
// Append and page blobs, snapshots, versions, leases, tiers, tags, policies and
// public access are refused with the protocol's own errors. HTTP of the standard
// library folds the case of header names, so names of metadata come back in
// lower case.
//
// One process owns the folder of a Disk. The package must not import api,
// portal or control.
package blob
