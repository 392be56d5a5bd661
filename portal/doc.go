// Package portal is what a person sees who opens the address of the service in
// a browser.
//
// It is one page today, plain HTML without a script: what this is, how to
// connect, and where the account is public knowledge ('batchyard dev') its pools
// and newest jobs. A page that shows nothing of an account needs no sign-in, so
// on any other server it shows none.
package portal
