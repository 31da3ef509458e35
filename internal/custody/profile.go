package custody

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"

	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/unionpay"
)

// TerminalProfile says which keys the terminals of one kind have.
type TerminalProfile struct {
	Name    string
	Master  keys.Algorithm // of the terminal master key
	Working keys.Algorithm // of PIN, MAC and data key
	MAC     keys.Usage     // of the MAC key: M1, M3 or M6
	// MACBytes is the length of the MAC key: 8 or 16 where Working is TDES_2KEY.
	// One of 8 bytes is single DES (U-45).
	MACBytes int
	// Algorithm is the MAC algorithm. Empty is what the usage stands for; only
	// cup_ecb must be named, which has the usage M1 too.
	Algorithm TerminalAlgorithm
	// Single permits form 001 of field 62, in which every key is single DES and
	// no terminal sees two exchanged keys.
	Single bool
	// Overlap is how long replaced working keys still verify and decipher.
	Overlap time.Duration
	// MaxAge is when working keys are too old and the terminal must sign in; whole
	// seconds, 0 for never. MaxMessages is how many messages a MAC key verifies
	// (M-14); 0 is 1,048,576.
	MaxAge      time.Duration
	MaxMessages uint64
}

// usualMessages is the product's default of M-14.
const usualMessages = 1 << 20

// messages is how many messages a MAC key verifies.
func (p TerminalProfile) messages() uint64 {
	if p.MaxMessages == 0 {
		return usualMessages
	}
	return p.MaxMessages
}

// mostOverlap bounds an overlap: after it two sets of keys are no change any more.
const mostOverlap = 7 * 24 * time.Hour

// TerminalProfiles are the profiles that need no configuration. UnionPay replaces
// its MAC key at once (U-51); a terminal that signs in every day never meets the
// age.
func TerminalProfiles() []TerminalProfile {
	return []TerminalProfile{
		{Name: "unionpay", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 8, Algorithm: CUPECB, MaxAge: 48 * time.Hour},
		{Name: "tdes", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg3, MACBytes: 16, Overlap: 10 * time.Minute},
		{Name: "aes", Master: keys.AES128, Working: keys.AES128, MAC: keys.UsageCMAC, MACBytes: 16, Overlap: 10 * time.Minute},
	}
}

var profileForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// Check refuses a profile that no terminal could have.
func (p TerminalProfile) Check() error {
	switch {
	case !profileForm.MatchString(p.Name):
		return fmt.Errorf("custody: terminal profile %q: a name is 1 to 32 of a-z, 0-9 and -, and begins with a letter", p.Name)
	case p.Working != keys.TDES2 && p.Working != keys.AES128:
		return fmt.Errorf("custody: terminal profile %q: working keys are %s or %s", p.Name, keys.TDES2, keys.AES128)
	case p.Working.IsTDES() != p.Master.IsTDES() || p.Master.IsHMAC() || p.Master == 0:
		return fmt.Errorf("custody: terminal profile %q: the master key must be of the cipher of the working keys", p.Name)
	case p.MAC != keys.UsageMACAlg1 && p.MAC != keys.UsageMACAlg3 && p.MAC != keys.UsageCMAC:
		return fmt.Errorf("custody: terminal profile %q: MAC keys have usage M1, M3 or M6", p.Name)
	case p.MACBytes != 16 && (p.MACBytes != 8 || p.Working != keys.TDES2 || p.MAC != keys.UsageMACAlg1):
		return fmt.Errorf("custody: terminal profile %q: a MAC key has 16 bytes, or 8 with %s and usage M1", p.Name, keys.TDES2)
	case p.Algorithm != "" && p.Algorithm != p.standard() && (p.Algorithm != CUPECB || p.MAC != keys.UsageMACAlg1 || p.Working != keys.TDES2):
		return fmt.Errorf("custody: terminal profile %q: MAC keys of usage %s and %d bytes are not for %s", p.Name, p.MAC, p.MACBytes, p.Algorithm)
	case p.MaxAge < 0 || p.MaxAge%time.Second != 0 || p.MaxAge > mostAge*time.Second:
		return fmt.Errorf("custody: terminal profile %q: an age is whole seconds, at most ten years", p.Name)
	case p.MaxMessages > mostUses:
		return fmt.Errorf("custody: terminal profile %q: at most %d messages", p.Name, uint64(mostUses))
	case p.Single && p.Working != keys.TDES2:
		return fmt.Errorf("custody: terminal profile %q: single-length keys are TDES", p.Name)
	case p.Overlap < 0 || p.Overlap > mostOverlap:
		return fmt.Errorf("custody: terminal profile %q: an overlap of 0 to %s", p.Name, mostOverlap)
	}
	for _, a := range []keys.Attributes{p.attributes(slotMaster), p.attributes(slotPIN), p.attributes(slotMAC), p.attributes(slotData)} {
		if err := a.Validate(); err != nil {
			return fmt.Errorf("custody: terminal profile %q: %w", p.Name, err)
		}
	}
	return nil
}

// slot is one of the keys of a terminal.
type slot uint8

const (
	slotMaster slot = iota
	slotPIN
	slotMAC
	slotData
)

// String is the name of the key in the field's words.
func (s slot) String() string { return [...]string{"TMK", "TPK", "TAK", "TDK"}[s] }

// attributes are those of a terminal's key at keyd. Terminals encipher PINs and
// tracks; keyd only deciphers them. Working keys leave under the terminal's
// master key and in no other way; a master key that keyd made must be able to
// reach the terminal.
func (p TerminalProfile) attributes(s slot) keys.Attributes {
	a := keys.Attributes{Algorithm: p.Working, Mode: keys.ModeDecrypt, Exportability: keys.NonExportable}
	switch s {
	case slotMaster:
		return keys.Attributes{Usage: keys.UsageKEK, Algorithm: p.Master, Mode: keys.ModeBoth, Exportability: keys.Exportable}
	case slotPIN:
		a.Usage = keys.UsagePIN
	case slotMAC:
		a.Usage, a.Mode = p.MAC, keys.ModeMAC
	case slotData:
		a.Usage = keys.UsageData
	}
	return a
}

// standard is the algorithm that usage and length of the MAC key stand for; empty
// where it is none of those that terminals have.
func (p TerminalProfile) standard() TerminalAlgorithm {
	switch {
	case p.MAC == keys.UsageCMAC:
		return CMAC
	case p.Working != keys.TDES2:
		return ""
	case p.MAC == keys.UsageMACAlg3:
		return X919
	case p.MAC == keys.UsageMACAlg1 && p.MACBytes == 8:
		return X99
	case p.MAC == keys.UsageMACAlg1:
		return CBCMAC3DES
	}
	return ""
}

// algorithm is the one of a MAC key; form 001 has it in single length.
func (p TerminalProfile) algorithm(single bool) TerminalAlgorithm {
	switch {
	case p.Algorithm == CUPECB:
		return CUPECB
	case single:
		return X99
	}
	return p.standard()
}

// suits refuses a sign-in in a dialect whose MAC keys are others than the
// profile's.
func (p TerminalProfile) suits(q SignIn) error {
	single := q.Form == string(unionpay.Form001)
	length := p.MACBytes
	if single {
		length = 8
	}
	if a := p.algorithm(single); a != q.Algorithm || !single && length != q.MACBytes {
		return fmt.Errorf("%w: MAC keys of profile %s have %d bytes and are for %s; the dialect has %d and %s",
			ErrConflict, p.Name, length, a, q.MACBytes, q.Algorithm)
	}
	return nil
}

// policy is what the block of a terminal's working key says beside its
// attributes: whose it is, for what and how long. used are the uses of the id
// that the key gets, where it had another value before.
func (p TerminalProfile) policy(tid string, s slot, used uint64) map[string]string {
	policy := map[string]string{keptTerminal: tid}
	if p.MaxAge > 0 {
		policy[keptAge] = strconv.FormatInt(int64(p.MaxAge/time.Second), 10)
	}
	if s != slotMAC {
		return policy
	}
	policy[TagMaxUses] = strconv.FormatUint(p.messages(), 10)
	if used > 0 {
		policy[keptFrom] = strconv.FormatUint(used, 10)
	}
	if p.Algorithm == CUPECB {
		policy[TagMACAlgorithm] = algorithmUnionPay
	}
	return policy
}

// profilesOf joins the built-in profiles with the configured ones, which may
// take the place of one.
func profilesOf(configured []TerminalProfile) (map[string]TerminalProfile, error) {
	all := make(map[string]TerminalProfile)
	for _, p := range TerminalProfiles() {
		all[p.Name] = p
	}
	seen := make(map[string]bool)
	for _, p := range configured {
		if err := p.Check(); err != nil {
			return nil, err
		}
		if seen[p.Name] {
			return nil, fmt.Errorf("custody: two terminal profiles are called %q", p.Name)
		}
		seen[p.Name], all[p.Name] = true, p
	}
	return all, nil
}

// profile returns a profile by name. It returns [ErrRequest].
func (r *terminals) profile(name string) (TerminalProfile, error) {
	profiles := *r.profiles.Load()
	p, ok := profiles[name]
	if !ok {
		return p, fmt.Errorf("%w: no terminal profile %q; there are %v", ErrRequest, name, slices.Sorted(maps.Keys(profiles)))
	}
	return p, nil
}
