package isoswitch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/profile"
)

// Terminals with a master key have working keys under it, which they ask for when
// they sign in (U-12, U-42 to U-51). Their messages have no KSN: what is new is
// told from what is old by STAN and look-up key, and a new sign-in makes all that
// was recorded before worthless.

// unlockAfter is how long failures of a terminal with a master key keep it locked
// at least: its sign-in, which ends that, has no MAC (A-11.T2).
const unlockAfter = time.Minute

// how is how the MACs of terminals with a master key are made in the profile.
func (p speech) how() profile.MAC { return p.MAC[profile.Master] }

// masterMAC is the request for a MAC of such a terminal.
func (r *request) masterMAC(message, mac []byte) custody.TerminalMAC {
	return custody.TerminalMAC{
		TID: r.terminal.TID, Key: r.terminal.MACKey, Algorithm: custody.TerminalAlgorithm(r.speech.how().Algorithm),
		Padding: r.speech.padding(MasterKey), Message: message, Bytes: r.speech.how().Bytes, MAC: mac,
	}
}

// authenticateMaster is stages 4 and 5 for a terminal with a master key. One that
// has no key it could still use gets the code of a wrong MAC, upon which it signs
// in (U-49); that counts as no failure.
func (s *Switch) authenticateMaster(ctx context.Context, r *request, mac [8]byte) *verdict {
	verified, err := r.act.VerifyTerminalMAC(ctx, r.masterMAC(r.msg.MACInput(), mac[:r.speech.how().Bytes]))
	switch {
	case err == nil:
		r.macKey, r.checked.Verdict = verified.Key.ID, audit.VerdictOK
		s.signIns.used(r.terminal.TID)
		v := s.offLink(r)
		if v == nil && s.renewed.proved(r.terminal.TID, r.macKey) {
			s.cleared(r)
		}
		return v
	case errors.Is(err, custody.ErrSignIn):
		r.checked.Verdict = audit.VerdictNoKey
		v := r.refusal("D-04")
		v.reason, v.alert = custody.ReasonOf(err), 0
		return v
	}
	return s.unverified(r, err)
}

// sealMaster gives an answer the MAC of the terminal's present key.
func (s *Switch) sealMaster(ctx context.Context, r *request, open iso8583.Unsealed) ([]byte, error) {
	made, err := r.act.SealTerminal(ctx, r.masterMAC(open.MACInput(), nil))
	if err != nil {
		return nil, fmt.Errorf("sealing the answer: %w", err)
	}
	var mac [8]byte
	copy(mac[:], made.MAC)
	return open.Seal(mac), nil
}

// masterPIN is the incoming side of a PIN of such a terminal: format 0 under its
// PIN key. DE 53, where there is one, must say that the PAN is in the block, and
// of which length the key is (U-36).
func (r *request) masterPIN() (custody.PINSide, error) {
	if control := r.msg.Text(53); control != "" && !strings.HasPrefix(control, "20") && !strings.HasPrefix(control, "26") {
		return custody.PINSide{}, fmt.Errorf("%w: DE 53 names another form of PIN block", errPINRefused)
	}
	return custody.PINSide{
		Key: custody.Ref{ID: r.terminal.PINKey}, Terminal: r.terminal.TID, Format: custody.ISO0, PAN: r.pan,
	}, nil
}

// keysWanted is the network code of a sign-in, field 60.3, by which a terminal
// asks for working keys; empty for another message.
func keysWanted(r *request) string {
	if r.terminal.Scheme != MasterKey || r.msg.MTI() != iso8583.NetworkRequest {
		return ""
	}
	if code := field60(r.msg); code == "001" || code == "003" || code == "004" {
		return code
	}
	return ""
}

// networkCode is what an 0800 or 0820 asks for: DE 70, or the network code in
// DE 60 where the dialect has none.
func networkCode(m *iso8583.Message) string {
	if m.Has(70) {
		return m.Text(70)
	}
	return field60(m)
}

// field60 is the network code in DE 60, which begins with the type and the batch
// (U-37).
func field60(m *iso8583.Message) string {
	if text := m.Text(60); len(text) >= 11 {
		return text[8:11]
	}
	return ""
}

// delivers reports whether a terminal that can ask for working keys in the profile
// can be given them.
func delivers(p *profile.Profile) bool {
	if _, master := p.MAC[profile.Master]; !master {
		return true
	}
	for _, m := range p.Dialect.Spec().Messages {
		asks := slices.Contains(m.Types, iso8583.NetworkRequest) && (slices.Contains(m.Must, 60) || slices.Contains(m.May, 60))
		if asks && !slices.Contains(m.AnswerMust, 62) && !slices.Contains(m.AnswerMay, 62) {
			return false
		}
	}
	return true
}

// signIn gives a terminal its working keys. They are durable, and so are the
// records of them, before the answer leaves; whatever comes under the keys of
// before is refused from then on.
func (s *Switch) signIn(ctx context.Context, r *request, form string) {
	limits := r.rules.Limits
	if !s.signIns.share(r.peer.cert, r.at, limits.SignInRate) || !s.signIns.take(r.terminal.TID, r.at, limits.SignIn) {
		s.refuse(ctx, r, audit.SigninRefuse, verdict{code: codeTerminal, reason: audit.ReasonVelocity})
		return
	}
	got, err := s.custody.SignIn(ctx, r.peer.caller, r.corr, custody.SignIn{
		TID: r.terminal.TID, Form: form,
		Algorithm: custody.TerminalAlgorithm(r.speech.how().Algorithm), MACBytes: r.speech.MAKSize,
	})
	ruled, a := verdict{code: codeApproved}, answer{code: codeApproved}
	if err != nil {
		s.signIns.giveBack(r.terminal.TID)
		s.log.Warn("a terminal was given no keys", "corr", r.corr, "tid", r.terminal.TID, "form", form, "error", err)
		ruled = verdict{code: codeCannot, reason: custody.ReasonOf(err)}
		if errors.Is(err, custody.ErrRequest) || errors.Is(err, custody.ErrConflict) {
			ruled = verdict{code: codeNoFunction, reason: audit.ReasonProfileDenied}
		}
		s.refuse(ctx, r, audit.SigninRefuse, ruled)
		return
	}
	a.keys = fmt.Sprintf("%X", got.Field)
	r.peer.lockout.unlock(r.terminal.TID, unlockAfter)
	s.signedIn(r, got.Keys)
	r.act.Note(r.note(audit.SigninAccept, ruled))
	if err := s.reply(ctx, r, ruled, a); err != nil {
		s.log.Warn("working keys were not delivered; the terminal signs in again", "corr", r.corr, "error", err)
	}
}

// handOver puts working keys into an 0810, and the host's time beside them where
// the dialect has a place for it: the terminal sets its clock by it (U-48).
func (r *request) handOver(b *iso8583.Builder, field string) {
	b.Set(62, field)
	hhmmss, mmdd := r.at.Format("150405"), r.at.Format("0102")
	for de, text := range map[int]string{12: hhmmss, 13: mmdd} {
		if r.speech.Dialect.HasField(r.msg.MTI().Response(), de, iso8583.SideTerminal) {
			b.Set(de, text)
		}
	}
}

// unlock is clear for a sign-in without a MAC: of a terminal whose failures began
// long enough ago.
func (l *lockout) unlock(tid string, after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f, ok := l.count[tid]; ok && l.clock().Sub(f.since) >= after {
		delete(l.count, tid)
	}
}
