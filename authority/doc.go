// Package authority makes the certificate of a server that was given none: from
// an authority of its own, kept in a folder, which clients have to be told to
// trust once.
//
// Both come to an end, and nobody is there to see to it: so the certificate is
// renewed while the server runs, when a third of its time is left, and the
// authority gets a successor years before it is over. What clients trust is a
// file with the authority and its successor, so that whoever has read it within
// these years goes on without a word when the successor takes over.
//
// Times of certificates are those of calendars, and so is the clock that is read
// here; one that was set back or forth makes a new certificate, not a broken one.
package authority
