// Package auth decides who a request speaks for, and makes the signatures that say so.
//
// Three kinds of proof are known:
//
//   - Shared Key and Shared Key Lite: an HMAC-SHA256 over the method, some
//     headers and the address of a request, made with one of the two keys of
//     an account. The Batch endpoint and the storage endpoint have different
//     rules for the text that is signed: batch.go and blob.go.
//   - Shared access signatures (SAS): a signed query string that lends a part
//     of a storage account for a while: sas.go, with the layouts of the signed
//     text in sas_service.go and sas_account.go.
//   - Tokens: random text of which only a hash is kept, for compute nodes and
//     whatever else speaks for itself alone: token.go.
//
// Signing and verifying stand side by side in one file and share the function
// that builds the text to sign, so that they cannot part.
//
// # Candidates
//
// Published clients do not agree on the text to sign: one lower-cases the
// account, another skips empty parameters, a third leaves the case of
// parameter names alone. A verifier therefore builds the few texts that a
// client may have meant, differing only where this very request leaves room for
// doubt, and accepts a signature that fits one of them. Every candidate covers
// the method, the whole path and the date. Of the query a candidate may leave
// out a parameter that has an equals sign and no value, and the later values of
// one that is repeated: the edges must take neither for anything.
//
// # Failure
//
// Everything refused is an [*Error] with a [Reason] and words for the person at
// the client. It may quote what was sent and the text that was verified; it
// never holds a key or a signature that would have been right.
//
// The package reads requests and opens none, keeps no state, and knows
// accounts, keys and times only as arguments. It must import nothing but the
// standard library.
package auth
