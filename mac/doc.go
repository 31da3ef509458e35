// Package mac computes and verifies message authentication codes: ISO/IEC
// 9797-1 algorithms 1 and 3, CMAC, HMAC, the UnionPay terminal MAC, and AS
// 2805.4.1.
//
// The block cipher stands behind [Cipher], which a token key satisfies as well
// as [NewTDES] and [NewAES] over a clear key; so a MAC is computed where its
// key is. The package keeps no key. Every function returns the whole MAC, of
// which [Truncate] takes the left part and [Verify] compares it:
//
//	full, err := mac.Algorithm3(left, key, message, mac.Padding1)
//	field, err := mac.Truncate(full, 4)     // to send
//	err = mac.Verify(full, received, 4)     // to check
//
// What a message says about its own MAC is not believed: the length comes from
// the caller's configuration, and a received MAC of any other length is wrong.
//
// Algorithms and their older names:
//
//	ISO 9797-1 algorithm 1   X9.9 with a single-length key
//	ISO 9797-1 algorithm 3   X9.19, "retail MAC"; AS 2805.4.1 with a double-length key
//	ISO 9797-1 algorithm 5   CMAC
package mac
