package audit

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// The signature types of signed notes.
const (
	sigEd25519 = 0x01
	sigECDSA   = 0x02 // P-256 with SHA-256, ASN.1 DER
)

// Checkpoint is a log's signed size and root.
type Checkpoint struct {
	Origin string
	Size   uint64
	Root   Hash
}

// body returns the three lines that are signed.
func (c Checkpoint) body() string {
	return c.Origin + "\n" + strconv.FormatUint(c.Size, 10) + "\n" + base64.StdEncoding.EncodeToString(c.Root[:]) + "\n"
}

// parseBody reads exactly three lines. The error is [ErrFormat].
func parseBody(text string) (Checkpoint, error) {
	bad := func(what string) (Checkpoint, error) {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint: %s", ErrFormat, what)
	}
	lines := strings.SplitAfter(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return bad("must have exactly three lines")
	}
	c := Checkpoint{Origin: strings.TrimSuffix(lines[0], "\n")}
	if !isOrigin(c.Origin) {
		return bad("first line is no origin")
	}
	size := strings.TrimSuffix(lines[1], "\n")
	n, err := strconv.ParseUint(size, 10, 53)
	if err != nil || strconv.FormatUint(n, 10) != size {
		return bad("second line is no size")
	}
	c.Size = n
	root := strings.TrimSuffix(lines[2], "\n")
	h, err := base64.StdEncoding.Strict().DecodeString(root)
	if err != nil || len(h) != len(c.Root) || base64.StdEncoding.EncodeToString(h) != root {
		return bad("third line is no root")
	}
	c.Root = Hash(h)
	return c, nil
}

// isOrigin reports whether s may name a log: printable ASCII without space or
// plus, of the characters of identifiers.
func isOrigin(s string) bool { return isID(s) && !strings.Contains(s, "+") }

// openCheckpoint verifies a signed checkpoint. Lines of unknown keys are
// ignored; one line of a known key is needed. Errors: [ErrFormat],
// [ErrSignature].
func openCheckpoint(msg []byte, known ...note.Verifier) (Checkpoint, error) {
	if len(msg) > 1<<16 {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint of %d bytes", ErrFormat, len(msg))
	}
	n, err := note.Open(msg, note.VerifierList(known...))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	c, err := parseBody(n.Text)
	if err != nil {
		return c, err
	}
	for _, s := range n.Sigs {
		if s.Name == c.Origin {
			return c, nil
		}
	}
	return c, fmt.Errorf("%w: no line of key %s", ErrSignature, c.Origin)
}

// unverifiedCheckpoint reads a checkpoint without looking at its signatures.
func unverifiedCheckpoint(msg []byte) (Checkpoint, error) {
	text, _, ok := bytes.Cut(msg, []byte("\n\n"))
	if !ok {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint without signatures", ErrFormat)
	}
	return parseBody(string(text) + "\n")
}

// verifier is a public key under a name. It implements [note.Verifier].
type verifier struct {
	name string
	kind byte
	key  []byte // 32 bytes of Ed25519, or SPKI DER
	pub  crypto.PublicKey
}

// newVerifier names a public key, which is Ed25519 or ECDSA P-256. The error
// is [ErrConfig].
func newVerifier(name string, pub crypto.PublicKey) (*verifier, error) {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		if len(k) == ed25519.PublicKeySize {
			return &verifier{name, sigEd25519, k, k}, nil
		}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			break
		}
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			return nil, fmt.Errorf("%w: encoding the public key: %w", ErrConfig, err)
		}
		return &verifier{name, sigECDSA, der, k}, nil
	}
	return nil, fmt.Errorf("%w: public key %T; need Ed25519 or ECDSA P-256", ErrConfig, pub)
}

// Name returns the key's name, which is the origin.
func (v *verifier) Name() string { return v.name }

// KeyHash returns the key id.
func (v *verifier) KeyHash() uint32 {
	if v.kind == sigECDSA {
		sum := sha256.Sum256(v.key)
		return binary.BigEndian.Uint32(sum[:])
	}
	h := sha256.New()
	h.Write([]byte(v.name))
	h.Write([]byte{'\n', v.kind})
	h.Write(v.key)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// Verify reports whether sig is a signature of msg.
func (v *verifier) Verify(msg, sig []byte) bool {
	switch k := v.pub.(type) {
	case ed25519.PublicKey:
		return len(sig) == ed25519.SignatureSize && ed25519.Verify(k, msg, sig)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(msg)
		return ecdsa.VerifyASN1(k, sum[:], sig)
	}
	return false
}

func (v *verifier) String() string {
	return fmt.Sprintf("%s+%08x+%s", v.name, v.KeyHash(), base64.StdEncoding.EncodeToString(append([]byte{v.kind}, v.key...)))
}

// pem returns the key as SPKI PEM.
func (v *verifier) pem() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(v.pub)
	if err != nil {
		return nil, fmt.Errorf("encoding the public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// Vkey returns the note verifier key of a public key, Ed25519 or ECDSA P-256,
// for an origin (C2SP signed-note). The error is [ErrConfig].
func Vkey(origin string, pub crypto.PublicKey) (string, error) {
	if !isOrigin(origin) {
		return "", fmt.Errorf("%w: origin %q", ErrConfig, origin)
	}
	v, err := newVerifier(origin, pub)
	if err != nil {
		return "", err
	}
	return v.String(), nil
}

// parseVkey reads a verifier key. The error is [ErrFormat].
func parseVkey(vkey string) (*verifier, error) {
	bad := func(what string) (*verifier, error) { return nil, fmt.Errorf("%w: vkey: %s", ErrFormat, what) }
	name, rest, _ := strings.Cut(vkey, "+")
	id, material, ok := strings.Cut(rest, "+")
	if !ok || !isOrigin(name) || !all(id, classLower, 8, 8) {
		return bad("need origin, + and 8 hexadecimal digits, + and base64")
	}
	key, err := base64.StdEncoding.Strict().DecodeString(material)
	if err != nil || len(key) < 2 || len(material) > 512 {
		return bad("key material is no base64")
	}
	var pub crypto.PublicKey
	switch key[0] {
	case sigEd25519:
		if len(key) != 1+ed25519.PublicKeySize {
			return bad("an Ed25519 key has 32 bytes")
		}
		pub = ed25519.PublicKey(key[1:])
	case sigECDSA:
		if pub, err = x509.ParsePKIXPublicKey(key[1:]); err != nil {
			return bad("key material is no SPKI")
		}
	default:
		return bad(fmt.Sprintf("signature type 0x%02x; need Ed25519 or ECDSA P-256", key[0]))
	}
	v, err := newVerifier(name, pub)
	if err != nil {
		return bad("key is neither Ed25519 nor ECDSA P-256")
	}
	if v.String() != vkey {
		return bad("key id is not that of the key")
	}
	return v, nil
}

// OriginOf returns the origin that a vkey is for. The error is [ErrFormat].
func OriginOf(vkey string) (string, error) {
	v, err := parseVkey(vkey)
	if err != nil {
		return "", err
	}
	return v.name, nil
}

// sign signs msg the way the key's kind wants it.
func sign(s crypto.Signer, msg []byte) ([]byte, error) {
	if _, ok := s.Public().(ed25519.PublicKey); ok {
		return s.Sign(rand.Reader, msg, crypto.Hash(0))
	}
	sum := sha256.Sum256(msg)
	return s.Sign(rand.Reader, sum[:], crypto.SHA256)
}

// signCheckpoint signs a checkpoint with each signer and verifies what came
// back. The error is [ErrSignature].
func signCheckpoint(c Checkpoint, signers ...crypto.Signer) ([]byte, error) {
	body := c.body()
	msg := []byte(body + "\n")
	for _, s := range signers {
		v, err := newVerifier(c.Origin, s.Public())
		if err != nil {
			return nil, err
		}
		sig, err := sign(s, []byte(body))
		if err != nil {
			return nil, fmt.Errorf("%w: signing a checkpoint of %s: %w", ErrSignature, c.Origin, err)
		}
		if !v.Verify([]byte(body), sig) {
			return nil, fmt.Errorf("%w: the signer's signature on %s does not verify", ErrSignature, c.Origin)
		}
		id := binary.BigEndian.AppendUint32(nil, v.KeyHash())
		msg = append(msg, "— "+c.Origin+" "+base64.StdEncoding.EncodeToString(append(id, sig...))+"\n"...)
	}
	return msg, nil
}

// selfTest signs a text that cannot be taken for a checkpoint, so that a
// signer with another encoding is found before service. The error is
// [ErrSignature] or [ErrConfig].
func selfTest(s crypto.Signer) error {
	v, err := newVerifier("keyd-selftest", s.Public())
	if err != nil {
		return err
	}
	text := []byte("keyd-selftest\n")
	sig, err := sign(s, text)
	if err != nil {
		return fmt.Errorf("%w: self-test of the signer: %w", ErrSignature, err)
	}
	if !v.Verify(text, sig) {
		return fmt.Errorf("%w: self-test of the signer: its signature does not verify", ErrSignature)
	}
	return nil
}

// emptyRoot is the root of a tree without leaves.
var emptyRoot = sha256.Sum256(nil)

func leafHash(record []byte) Hash { return Hash(tlog.RecordHash(record)) }

func nodeHash(left, right Hash) Hash { return Hash(tlog.NodeHash(tlog.Hash(left), tlog.Hash(right))) }
