package main

import (
	"crypto/fips140"
	"errors"
)

// errNoDES is C-18: with GODEBUG=fips140=only Go refuses DES and TDES, in which
// PIN blocks of formats 0, 1 and 3, DUKPT terminals and most zone keys are. The
// test of the module at each start works with TDES too, so that there is no node
// without.
var errNoDES = errors.New("GODEBUG=fips140=only forbids DES and TDES, which keys and profiles of terminals, PIN blocks and the self-test of the token need")

// desWorks refuses a process in which DES does not work.
func desWorks() error {
	if !fips140.Enforced() {
		return nil
	}
	return advise(errNoDES, "use GODEBUG=fips140=on, which uses the same cryptographic module and leaves DES, or leave GODEBUG out")
}
