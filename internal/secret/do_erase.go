//go:build goexperiment.runtimesecret

package secret

import erase "runtime/secret"

// Do runs f, in which clear secrets are at work, and erases the stack and the
// registers that f used. f must be pure Go: a call into C in this region ends
// the process, so no token is reached from inside.
func Do(f func()) { erase.Do(f) }
