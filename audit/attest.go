package audit

import (
	"crypto"
	"fmt"
)

// attested is what is signed of a message: a first line that no log has for its
// name, since origins have no space, then the message. So a signature of one
// can never pass for that of a checkpoint, nor for one of another domain.
func attested(domain string, message []byte) ([]byte, error) {
	if !isPrintable(domain, 64) || isOrigin(domain) {
		return nil, fmt.Errorf("%w: domain %q must be up to 64 printable characters and no name of a log", ErrConfig, domain)
	}
	return append(append([]byte(domain), '\n'), message...), nil
}

// Attest signs a message that is not of the log with the log's key, under a
// domain: a text with a space in it, "keyd ceremony transcript v1". It checks
// what came back. Errors: [ErrConfig], [ErrSignature].
func Attest(signer crypto.Signer, domain string, message []byte) ([]byte, error) {
	text, err := attested(domain, message)
	if err != nil {
		return nil, err
	}
	v, err := newVerifier("keyd-attest", signer.Public())
	if err != nil {
		return nil, err
	}
	sig, err := sign(signer, text)
	if err != nil {
		return nil, fmt.Errorf("%w: signing a message: %w", ErrSignature, err)
	}
	if !v.Verify(text, sig) {
		return nil, fmt.Errorf("%w: the signer's signature on a message does not verify", ErrSignature)
	}
	return sig, nil
}

// VerifyAttestation checks a signature of [Attest] by a vkey. Errors:
// [ErrFormat], [ErrConfig], [ErrSignature].
func VerifyAttestation(vkey, domain string, message, sig []byte) error {
	v, err := parseVkey(vkey)
	if err != nil {
		return err
	}
	text, err := attested(domain, message)
	if err != nil {
		return err
	}
	if !v.Verify(text, sig) {
		return fmt.Errorf("%w: not signed by %s, or changed since", ErrSignature, v.name)
	}
	return nil
}
