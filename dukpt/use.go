package dukpt

import "fmt"

// Use is what a working key is for. Directions are the terminal's: a request
// is what the terminal sends. Its names of the X9.24-3 usages are the device's
// too, so the host verifies a request with the key that the standard names
// "MAC generation" and makes its answer with the one named "MAC verification".
type Use uint8

// The uses, with the X9.24-3 usage code and the half of the X9.24-1 variant.
const (
	PIN           Use = iota + 1 // 1000; 00000000000000FF
	MACRequest                   // 2000; 000000000000FF00
	MACResponse                  // 2001; 00000000FF000000 (edition 2009)
	MACBoth                      // 2002; as MACRequest: the one MAC key of edition 2004
	DataRequest                  // 3000; 0000000000FF0000, then one-way (edition 2009)
	DataResponse                 // 3001; 000000FF00000000, then one-way (edition 2009)
	DataBoth                     // 3002; none in X9.24-1
	KeyEncryption                // 0002; none in X9.24-1
)

// useRows hold what the constants' comment says.
var useRows = [...]struct {
	name    string
	code    uint16 // X9.24-3:2017, table of key usage indicators
	variant int    // byte of each half of the X9.24-1 key that is inverted, -1 for none
	oneWay  bool
}{
	PIN:           {"PIN", 0x1000, 7, false},
	MACRequest:    {"MAC request", 0x2000, 6, false},
	MACResponse:   {"MAC response", 0x2001, 4, false},
	MACBoth:       {"MAC both ways", 0x2002, 6, false},
	DataRequest:   {"data request", 0x3000, 5, true},
	DataResponse:  {"data response", 0x3001, 3, true},
	DataBoth:      {"data both ways", 0x3002, -1, false},
	KeyEncryption: {"key encryption", 0x0002, -1, false},
}

// Usages of derivation keys. X9.24-3:2017, table of key usage indicators.
const (
	usageDerivation = 0x8000
	usageInitialKey = 0x8001
)

// String names the use.
func (u Use) String() string {
	if !u.known() {
		return fmt.Sprintf("Use(%d)", uint8(u))
	}
	return useRows[u].name
}

func (u Use) known() bool { return u >= PIN && u <= KeyEncryption }
