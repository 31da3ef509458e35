// Package dukpt is Derived Unique Key Per Transaction: key serial numbers and
// the derivations of ANSI X9.24-1 (TDES) and ANSI X9.24-3 (AES).
//
// A terminal holds no key that opens more than one transaction. It was given
// an initial key (IK), derived from the acquirer's base derivation key (BDK)
// and the terminal's identity; from the IK and a counter both sides derive the
// key of one transaction, and from that a working key for each use: PIN, MAC
// of the request, MAC of the response, data. The key serial number (KSN) that
// travels with a message names the BDK, the terminal and the counter.
//
//	            TDES, [TDESKSN]                  AES, [AESKSN]
//	KSN         10 bytes: 59 bits identity,      12 bytes: BDK id 4, derivation
//	            21 bits counter                  id 4, counter 4
//	counter     1 to 10 one bits                 1 to 16 one bits
//	BDK → IK    [InitialKeyData] under BDK       [InitialKeyStep]
//	            and [Companion]
//	IK → key    [Walk]                           [Steps], [AESWalk]
//	of use      [WorkingKey]                     [WorkingKeyStep], [Derive]
//
// The package holds no keys and reaches no token. Where a token can derive, as
// every PKCS #11 module can for AES, it says what to derive with: a [Step] is
// the data that goes under the deriving key. Where the token cannot, as for
// TDES, it computes with the clear IK and leaves erasing it to the caller.
//
// # TDES in the process
//
// The BDK stays in the token; two single-block encryptions make the IK:
//
//	s := dukpt.InitialKeyData(ksn)   // under the BDK: left half of the IK
//	                                 // under the companion: right half
//	key, err := dukpt.Walk(&ik, ksn) // the transaction key
//	pinKey, err := dukpt.WorkingKey(&key, dukpt.PIN)
//
// # AES in the token
//
// Each step is one ECB encryption of its data under the key before it, and its
// result, cut to length, is the next key:
//
//	step := dukpt.InitialKeyStep(ksn.InitialKeyID(), dukpt.AES128)
//	ik := derive(bdk, step.Data())
//	for step := range dukpt.Steps(ksn, dukpt.AES128) {
//		key = derive(key, step.Data())
//	}
//	step, err := dukpt.WorkingKeyStep(ksn, dukpt.AES128, dukpt.MACRequest, dukpt.AES128)
//	macKey := derive(key, step.Data())
//
// Nothing here adjusts parity: the standards do not, and a register that were
// adjusted would derive another key.
package dukpt
