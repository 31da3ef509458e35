package keys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Block is a key as it is stored: a header, the value wrapped under the local
// master key by the token, and a MAC by a second token key over both, so that
// no part of it can be exchanged for a part of another block. A Block holds
// nothing secret; without the token it is useless.
//
// The wrap is RFC 3394, which gives the same bytes on every module.
type Block struct {
	ID         ID
	Version    uint32 // of this key under its alias, from 1
	LMK        uint32 // generation of the local master key, from 1
	Attributes Attributes
	Origin     Origin
	CheckBy    CheckMethod
	Check      KCV               // key check value
	CreatedMs  int64             // Unix time, milliseconds
	Policy     map[string]string // policy tags ("keyd:custody" and its kin)
	Wrapped    []byte            // RFC 3394 of the value
	Companion  []byte            // RFC 3394 of the companion's value; nil where the usage has none
	MAC        [16]byte          // AES-CMAC over MACInput
}

// Origin says where a key's value came from.
type Origin byte

// The origins.
const (
	Generated Origin = 'G' // made by keyd
	External  Origin = 'E' // came in from outside
)

// CheckMethod says how a check value is computed.
type CheckMethod byte

// The methods of section 8.2 of the API: over zeros, by CMAC, by HMAC.
const (
	CheckByZeros CheckMethod = 'Z'
	CheckByCMAC  CheckMethod = 'C'
	CheckByHMAC  CheckMethod = 'H'
)

// tagCustody is the policy tag of [Block.TokenOnly], tokenCustody its value.
const (
	tagCustody   = "keyd:custody"
	tokenCustody = "token"
)

// TokenOnly reports whether the key's policy forbids operations that would need
// a clear secret outside the token.
func (b *Block) TokenOnly() bool { return b.Policy[tagCustody] == tokenCustody }

const (
	blockMagic   = "KDKB\x01"
	blockIDBytes = 32
	maxWrapped   = 512
	maxPolicy    = 4096
)

// ErrBlock is returned for bytes that are not a key block of this version.
var ErrBlock = errors.New("keys: not a key block")

// MACInput returns the bytes that the MAC covers: all of the block but the MAC,
// in one form only, so that two blocks that differ in anything differ here.
func (b *Block) MACInput() []byte {
	p := make([]byte, 0, 160+len(b.Wrapped)+len(b.Companion))
	p = append(p, blockMagic...)
	p = binary.BigEndian.AppendUint32(p, b.LMK)
	p = appendBytes(p, []byte(b.ID))
	p = binary.BigEndian.AppendUint32(p, b.Version)
	p = appendBytes(p, []byte(b.Attributes.Usage))
	p = append(p, byte(b.Attributes.Algorithm), byte(b.Attributes.Mode), byte(b.Attributes.Exportability))
	p = append(p, byte(b.Origin), byte(b.CheckBy))
	p = append(p, b.Check[:]...)
	p = binary.BigEndian.AppendUint64(p, uint64(b.CreatedMs))
	p = appendBytes(p, b.policyText())
	p = appendBytes(p, b.Wrapped)
	return appendBytes(p, b.Companion)
}

// MarshalBinary returns the block as it is stored: MACInput and the MAC.
func (b *Block) MarshalBinary() ([]byte, error) {
	if len(b.ID) != blockIDBytes {
		return nil, fmt.Errorf("%w: id of %d characters, want %d", ErrBlock, len(b.ID), blockIDBytes)
	}
	return append(b.MACInput(), b.MAC[:]...), nil
}

// ParseBlock reads a stored block. It checks the form only: whether the block
// is genuine is for its MAC, which the token checks when the key is loaded.
// Bytes that do not encode to themselves again are refused with [ErrBlock].
func ParseBlock(p []byte) (*Block, error) {
	r := blockReader{rest: p}
	if string(r.take(len(blockMagic))) != blockMagic {
		return nil, fmt.Errorf("%w: unknown version", ErrBlock)
	}
	b := &Block{LMK: r.uint32()}
	b.ID = ID(r.bytes(blockIDBytes))
	b.Version = r.uint32()
	b.Attributes.Usage = Usage(r.bytes(2))
	fixed := r.take(8)
	if fixed != nil {
		b.Attributes.Algorithm = Algorithm(fixed[0])
		b.Attributes.Mode = Mode(fixed[1])
		b.Attributes.Exportability = Exportability(fixed[2])
		b.Origin, b.CheckBy = Origin(fixed[3]), CheckMethod(fixed[4])
		copy(b.Check[:], fixed[5:])
	}
	b.CreatedMs = int64(r.uint64())
	policy := r.bytes(maxPolicy)
	b.Wrapped = r.bytes(maxWrapped)
	b.Companion = r.bytes(maxWrapped)
	copy(b.MAC[:], r.take(len(b.MAC)))
	if r.bad || len(r.rest) != 0 {
		return nil, fmt.Errorf("%w: wrong length", ErrBlock)
	}
	var err error
	if b.Policy, err = parsePolicy(string(policy)); err != nil {
		return nil, err
	}
	if again, err := b.MarshalBinary(); err != nil || !slices.Equal(again, p) {
		return nil, fmt.Errorf("%w: not in its one form", ErrBlock)
	}
	return b, nil
}

// policyText is the policy in its one form: a line a tag, sorted by name.
func (b *Block) policyText() []byte {
	lines := make([]string, 0, len(b.Policy))
	for name, value := range b.Policy {
		lines = append(lines, name+"="+value+"\n")
	}
	slices.Sort(lines)
	return []byte(strings.Join(lines, ""))
}

func parsePolicy(text string) (map[string]string, error) {
	if text == "" {
		return nil, nil
	}
	policy := make(map[string]string)
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok {
			return nil, fmt.Errorf("%w: a policy line without '='", ErrBlock)
		}
		policy[name] = value
	}
	return policy, nil
}

func appendBytes(p, field []byte) []byte {
	p = binary.BigEndian.AppendUint16(p, uint16(len(field)))
	return append(p, field...)
}

// blockReader takes fields off the front; once it runs short it stays bad.
type blockReader struct {
	rest []byte
	bad  bool
}

func (r *blockReader) take(n int) []byte {
	if r.bad || len(r.rest) < n {
		r.bad = true
		return nil
	}
	field := r.rest[:n]
	r.rest = r.rest[n:]
	return field
}

func (r *blockReader) bytes(most int) []byte {
	head := r.take(2)
	if head == nil {
		return nil
	}
	n := int(binary.BigEndian.Uint16(head))
	if n > most {
		r.bad = true
		return nil
	}
	if n == 0 {
		return nil
	}
	return slices.Clone(r.take(n))
}

func (r *blockReader) uint32() uint32 {
	if p := r.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (r *blockReader) uint64() uint64 {
	if p := r.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}
