package isoswitch

import "slices"

// storable returns DE 55 of an answer if it holds nothing but what an issuer
// sends to a card: authentication data (91), authorization code and response
// code (89, 8A) and scripts (71, 72), EMV book 3, annex A. Of anything else,
// which could be card data, nothing is kept, and a repeat of the sale is
// answered without it.
func storable(emv []byte) []byte {
	issuer := []byte{0x71, 0x72, 0x89, 0x8A, 0x91}
	for rest := emv; len(rest) > 0; {
		if len(rest) < 2 || !slices.Contains(issuer, rest[0]) {
			return nil
		}
		n, head := int(rest[1]), 2
		if n == 0x81 && len(rest) > 2 {
			n, head = int(rest[2]), 3
		} else if n > 0x7F {
			return nil
		}
		if head+n > len(rest) {
			return nil
		}
		rest = rest[head+n:]
	}
	return emv
}
