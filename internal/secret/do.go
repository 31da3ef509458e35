//go:build !goexperiment.runtimesecret

package secret

// Do runs f, in which clear secrets are at work. In a build with
// GOEXPERIMENT=runtimesecret the stack and the registers that f used are
// erased when it returns; in any other it just runs f. f must be pure Go: a
// call into C in the erasing region ends the process, so no token is reached
// from inside.
func Do(f func()) { f() }
