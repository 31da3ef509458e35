package keys

import "fmt"

// Algorithm is the cipher or hash a key is for, and its length.
type Algorithm uint8

// The algorithms of symmetric keys.
const (
	TDES2      Algorithm = iota + 1 // two-key triple DES, 16 bytes
	TDES3                           // three-key triple DES, 24 bytes
	AES128                          // 16 bytes
	AES192                          // 24 bytes
	AES256                          // 32 bytes
	HMACSHA224                      // 32 bytes as keyd makes it
	HMACSHA256                      // 32 bytes
	HMACSHA384                      // 48 bytes
	HMACSHA512                      // 64 bytes
)

// Usage is a two-character key usage of X9.143 (TR-31), "P0" for example.
type Usage string

// The usages that keyd knows.
const (
	UsageBDK         Usage = "B0" // base derivation key
	UsageInitialKey  Usage = "B1" // DUKPT initial key
	UsageCVK         Usage = "C0" // card verification
	UsageData        Usage = "D0" // symmetric data encryption
	UsageKEK         Usage = "K0" // key encryption or wrapping
	UsageKBPK        Usage = "K1" // key block protection
	UsageMACISO16609 Usage = "M0"
	UsageMACAlg1     Usage = "M1" // ISO 9797-1 algorithm 1
	UsageMACAlg3     Usage = "M3" // ISO 9797-1 algorithm 3
	UsageCMAC        Usage = "M6" // ISO 9797-1:2011 algorithm 5
	UsageHMAC        Usage = "M7"
	UsagePIN         Usage = "P0" // PIN encryption
	UsagePVKIBM3624  Usage = "V1" // PIN verification, IBM 3624
	UsagePVKVisa     Usage = "V2" // PIN verification, Visa PVV

	// Issuer's EMV master keys, by what they derive.
	UsageEMVCryptograms     Usage = "E0"
	UsageEMVConfidentiality Usage = "E1"
	UsageEMVIntegrity       Usage = "E2"
	UsageEMVDynamicNumbers  Usage = "E4"
	UsageEMVPersonalization Usage = "E5"
	UsageEMVOther           Usage = "E6"
)

// Mode is the mode-of-use character of X9.143.
type Mode byte

// The modes of use.
const (
	ModeBoth    Mode = 'B' // encrypt and decrypt, wrap and unwrap
	ModeEncrypt Mode = 'E' // encrypt, wrap
	ModeDecrypt Mode = 'D' // decrypt, unwrap
	ModeMAC     Mode = 'C' // generate and verify
	ModeMake    Mode = 'G' // generate
	ModeVerify  Mode = 'V' // verify
	ModeDerive  Mode = 'X' // derive
	ModeSign    Mode = 'S' // sign
	ModeAny     Mode = 'N' // no restriction
)

// Exportability is the exportability character of X9.143.
type Exportability byte

// The exportabilities.
const (
	Exportable    Exportability = 'E' // under a trusted key-encryption key, in a key block
	NonExportable Exportability = 'N'
	Sensitive     Exportability = 'S' // under any key-encryption key
)

// Attributes are what a key may do. They are fixed when it is made and are
// bound to its value by the MAC of its [Block].
type Attributes struct {
	Usage         Usage
	Algorithm     Algorithm
	Mode          Mode
	Exportability Exportability
}

// ID names a key: 32 characters of [0-9a-z], chosen at random when it is made.
type ID string

func (a Attributes) String() string {
	return fmt.Sprintf("%s %s mode %c", a.Usage, a.Algorithm, a.Mode)
}
