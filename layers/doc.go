// Package layers says which package of Batchyard may import which. It holds
// no code of the program: its test compares the table below with what the go
// command reports, and fails with the import that breaks it.
//
//	0  batch                              standard library only, no I/O, no clock
//	1  odata  autoscale  auth             standard library and batch
//	1' disk                               standard library only, no package of ours
//	2  store                              0, 1
//	3  control                            0 to 2
//	4  scheduler  upkeep  apps  fleet     0 to 3; upkeep also fleet
//	5  api  portal  blob                  0 to 4: edges, never each other
//	   admin                              0 to 4 and blob
//	5' nodelink  client                   batch, auth: both ends of a wire
//	6' agent                              batch, auth, nodelink, client
//	7  cli  cmd  batchtest  bench  demo   everything; the places that wire
//
// Packages of one folder (store and store/storetest) may import each other as far
// as Go lets them, save in agent, where link, run, isolation and keeper have a
// table of their own in the test. Tests may import what they like.
//
// Two more rules are kept here. A library that is not ours is imported from
// one folder alone, so that it can be replaced there; the few exceptions are
// listed in the test. And nothing that an agent links, however far down,
// belongs to the server.
package layers
