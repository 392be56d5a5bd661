// Package site knows where the data of a server are, and that they belong
// together: a data folder, and a database, which may be elsewhere.
//
// What stands in no row of the database is garbage that a server removes from
// the folder, and what has no file in the folder is lost to a blob: so whoever
// works on the two must be sure that they are the right two. Folder and database
// carry one identity, which is compared before anything is done. Neither alone
// is proof of anything: an empty database beside a full folder is not a new
// server but a forgotten setting, and an empty folder beside a full database is a
// disk that is not mounted.
//
// A site also says what it is used for: the data of a development server, whose
// keys everybody knows, are never opened by a server for others.
package site
