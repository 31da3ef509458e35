package hsm

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/keys"
)

// mostLogKeys bounds how often the key pair of the audit log is changed.
const mostLogKeys = 100

// logLabel is that of the audit log's n-th key pair, from 1.
func (t *Token) logLabel(n int) string {
	if n == 1 {
		return t.label(labelLog)
	}
	return fmt.Sprintf("%s-%d", t.label(labelLog), n)
}

// LogLabel is the label of the audit log's first key pair.
func (t *Token) LogLabel() string { return t.logLabel(1) }

// logNumber reads such a label; 0 for every other.
func (t *Token) logNumber(label string) int {
	rest, ok := strings.CutPrefix(label, t.label(labelLog))
	if ok && rest == "" {
		return 1
	}
	digits, cut := strings.CutPrefix(rest, "-")
	n, err := strconv.Atoi(digits)
	if ok && cut && err == nil && n > 1 && n <= mostLogKeys && t.logLabel(n) == label {
		return n
	}
	return 0
}

// logHalves says which halves of the log's pairs the token holds, by number.
func (t *Token) logHalves(s *session) (private, public map[int]bool, err error) {
	private, public = make(map[int]bool), make(map[int]bool)
	for class, held := range map[uint]map[int]bool{pkcs11.CKO_PRIVATE_KEY: private, pkcs11.CKO_PUBLIC_KEY: public} {
		found, err := s.find([]*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)})
		if err != nil {
			return nil, nil, err
		}
		for _, h := range found {
			got, err := s.mod.GetAttributeValue(s.handle, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil)})
			if err != nil {
				return nil, nil, s.failure("C_GetAttributeValue", err)
			}
			if n := t.logNumber(string(got[0].Value)); n > 0 {
				held[n] = true
			}
		}
	}
	return private, public, nil
}

// newestLog is the number of the newest pair of which the token holds anything.
func (t *Token) newestLog(s *session) (int, error) {
	private, public, err := t.logHalves(s)
	newest := 0
	for n := range private {
		newest = max(newest, n)
	}
	for n := range public {
		newest = max(newest, n)
	}
	return newest, err
}

// findLogHalves is logHalves in the keeper's session.
func (t *Token) findLogHalves() (private, public map[int]bool, err error) {
	c := t.newCall("find the log's keys", t.cfg.Deadline)
	defer t.free(c)
	err = t.try(c, func(e *epoch) error {
		var a, b map[int]bool // of this attempt: one that was given up may still write
		err := e.perform(c, e.keeping, func(s *session) (err error) {
			a, b, err = t.logHalves(s)
			return err
		})
		if err == nil {
			private, public = a, b
		}
		return err
	})
	return private, public, err
}

// LogSigners returns the key pairs of the audit log's checkpoints, the newest
// first: the one that signs, then those of before, as far as the token still
// holds them. They are as [Token.Signer] says. Where a half of the newest pair is
// gone, the error is [keys.ErrNoKey], and the pairs of before come beside it.
// Other errors are those of [Token.System].
func (t *Token) LogSigners() ([]crypto.Signer, error) {
	all, _, err := t.logPairs()
	return all, err
}

// logPairs is LogSigners, with the number of the newest pair of which anything
// is there.
func (t *Token) logPairs() (all []crypto.Signer, newest int, err error) {
	private, public, err := t.findLogHalves()
	if err != nil {
		return nil, 0, err
	}
	for n := 1; n <= mostLogKeys; n++ {
		if private[n] || public[n] {
			newest = n
		}
		if !private[n] || !public[n] {
			continue
		}
		s, err := t.signerOf(t.logLabel(n))
		if err != nil {
			return nil, 0, err
		}
		all = append(all, s)
	}
	slices.Reverse(all)
	switch {
	case newest == 0:
		return nil, 0, fmt.Errorf("hsm: %w: no object is labelled %q", keys.ErrNoKey, t.logLabel(1))
	case !private[newest]:
		return all, newest, fmt.Errorf("hsm: %w: of the pair %q only the public half is there", keys.ErrNoKey, t.logLabel(newest))
	case !public[newest]:
		return all, newest, fmt.Errorf("hsm: %w: of the pair %q only the private half is there", keys.ErrNoKey, t.logLabel(newest))
	}
	return all, newest, nil
}

// RotateLog makes the next key pair for the audit log's checkpoints inside the
// token, and returns it. Those of before stay, for the overlap, and to check
// what they signed. It returns [ErrExists] when there are too many, and
// [keys.ErrNoKey] where the pair before is lost: that is for [Manager.ReplaceLog].
func (m *Manager) RotateLog(ctx context.Context) (crypto.Signer, error) {
	m.t.making.Lock()
	defer m.t.making.Unlock()
	_, newest, err := m.t.logPairs()
	if err != nil {
		return nil, err
	}
	return m.makeLogPair(ctx, newest+1)
}

// ReplaceLog is RotateLog for a newest pair that is lost, in part or whole. What
// is left of it stays, and nothing of it is used again.
func (m *Manager) ReplaceLog(ctx context.Context) (crypto.Signer, error) {
	m.t.making.Lock()
	defer m.t.making.Unlock()
	_, newest, err := m.t.logPairs()
	if err != nil && !errors.Is(err, keys.ErrNoKey) {
		return nil, err
	}
	return m.makeLogPair(ctx, newest+1)
}

// makeLogPair makes the log's n-th key pair.
func (m *Manager) makeLogPair(ctx context.Context, n int) (crypto.Signer, error) {
	if n > mostLogKeys {
		return nil, fmt.Errorf("%w: the token holds %d key pairs of the log", ErrExists, n-1)
	}
	label := m.t.logLabel(n)
	err := m.t.manage(ctx, "make key "+label, pkcs11.CKF_RW_SESSION, func(_ *epoch, s *session) error {
		return m.t.makeLogKeyAs(s, label)
	})
	if err != nil {
		return nil, err
	}
	return m.t.signerOf(label)
}
