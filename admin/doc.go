// Package admin is what an operator does to the data of a server as a whole:
// check it and mend it (Check), and, in later files, copy it and put it back.
//
// A server's data are three things that must agree: rows of the database, files
// of blobs, folders of nodes. The database is the truth. A file is written
// before the row that names it and removed after it, and a folder is made after
// a node's row and removed after it; so what is killed in between leaves files
// and folders of which no row speaks, never rows without their file. The first
// is what a server clears up by itself, given time. The second is damage, as is
// everything in the database that contradicts itself: only a broken disk, a
// copy of the wrong parts, a hand in the tables, or a bug bring it about.
//
// Nothing here talks to a server. Reading is allowed beside one that runs;
// mending is not.
package admin
