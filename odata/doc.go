// Package odata reads the query options $filter, $select and $expand of the
// Batch protocol.
//
// A filter passes through three forms:
//
//	text ──Parse──▶ Expr ──Check(fields)──▶ Filter ──▶ SQL(n)     a clause and its arguments
//	       lexer,   syntax,                 types,  └▶ Match(get) the same, in memory
//	       parser   prints back             columns
//
// [Parse] knows the grammar alone and gives a syntax tree with positions, which
// prints as text that parses to the same tree. [Check] holds the tree against
// the fields of a resource: names exist, literals fit, words are among those
// that an enumeration has. Only a checked [Filter] can be carried out, so
// nothing that is not a parameter or a column of ours ever reaches the database.
//
// # Meaning
//
// The grammar is the part of OData version 3 that the service has: eq, ne, gt,
// ge, lt, le, and, or, not, parentheses, startswith(name,'prefix'), nested names
// written with a slash, and literals: 'text' with a quote doubled inside,
// integers, doubles, true, false, null and times.
//
// A field without a value equals null alone, differs from every literal, and is
// neither less nor greater than any, nor does it start with anything. A filter
// is therefore always true or false, never unknown, and so is its negation: SQL
// writes out what its own logic of three values would answer otherwise.
//
// Every input is bounded in length, nesting and number of terms. An [*Error]
// says in words what is wrong, and where.
//
// The package imports the standard library only and knows no resource.
package odata
