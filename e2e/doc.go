// Package e2e runs unmodified clients of other makers against a real server process.
//
// Each walk under walks/ is a program in its client's own language that reads as an example: it
// makes a pool, runs 200 tasks on it, reads what they wrote and deletes everything again. The
// tests start one server, put a proxy in front of it for each walk and run the program. The proxy
// judges every answer with package shapetest.
//
// The module is separate so that the clients' Go packages stay out of the main one. It sees of
// Batchyard only bin/batchyard and api/shapetest. install.sh installs the clients.
package e2e
