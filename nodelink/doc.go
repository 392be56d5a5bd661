// Package nodelink is the wire between a compute node's agent and the server:
// one long-polled call for everything a node does, and one for the bytes of
// files that somebody asked to see.
//
//	POST /nodelink/{node}/sync          batch.NodeReport → batch.NodeOrders
//	POST /nodelink/{node}/files/{id}    batch.FileAnswer, a newline, the bytes
//
// Both carry the node's token as a bearer token. Only agents open connections,
// since nodes sit behind address translation. The messages are states, so a
// lost, late or repeated call costs nothing; see package batch.
//
// It has both ends, so that they cannot part, and knows neither the store nor
// the agent.
package nodelink
