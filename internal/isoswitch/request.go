package isoswitch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/keys"
)

// request is a message of a terminal on its way through the switch.
type request struct {
	peer *peer
	turn *turn
	msg  *iso8583.Message
	raw  Hash // of the whole message as received
	at   time.Time
	corr string
	act  *custody.Act

	rules  *settings      // as they were when it came
	speech speech         // of the listener that it came by
	scope  *custody.Scope // of its link: the terminals that may come by it

	terminal Terminal
	known    bool   // the registry has the TID
	serial   serial // of DE 62
	keyed    bool   // the serial is one of the terminal's scheme: an answer can carry a MAC
	macKey   keys.ID
	again    bool      // these very bytes were accepted before
	checked  audit.MAC // what was expected of the MAC and what was found
	pan      custody.PAN
	rrn      string // DE 37 of the answer, once one was given out
	host     *host  // to which a sale goes
	about    *Txn   // what a void, completion or refund refers to, or nil

	summarized bool // refused as a reversal, and not yet counted; see summary.go
}

// advice reports whether the message tells of something done already.
func (r *request) advice() bool { return r.msg.MTI().IsAdvice() }

// authenticate is stages 2 to 5 of section 5: register, MAC present, key, MAC.
// Nothing of it looks at the journal. It returns the refusal, or nil.
func (s *Switch) authenticate(ctx context.Context, r *request) *verdict {
	if v := s.register(ctx, r); v != nil {
		return v
	}
	mac, err := r.msg.MAC()
	if err != nil {
		r.checked.Verdict = absence(err)
		return r.refusal("D-03")
	}
	if r.terminal.Scheme == MasterKey {
		return s.authenticateMaster(ctx, r, mac)
	}
	if !r.keyed {
		v := ruling("D-06", r.advice())
		v.reason = audit.ReasonFormatError // W-18: KSN absent or malformed
		return &v
	}
	if r.serial.device != r.terminal.Device { // M-20
		v := ruling("D-06", r.advice())
		v.reason = audit.ReasonKSNDevice
		return &v
	}
	verified, err := s.verifyTerminalMAC(ctx, r, mac)
	if err == nil {
		r.macKey, r.checked.Verdict = verified.Key.ID, audit.VerdictOK
		return s.offLink(r)
	}
	return s.unverified(r, err)
}

// unverified is the refusal of a message whose MAC is wrong, or cannot be known.
func (s *Switch) unverified(r *request, err error) *verdict {
	if errors.Is(err, custody.ErrMAC) {
		r.checked.Verdict = audit.VerdictBad
		return r.refusal("D-04")
	}
	s.log.Error("a terminal's MAC cannot be verified", "corr", r.corr, "error", err)
	r.checked.Verdict = audit.VerdictError
	v := r.refusal("D-05")
	if errors.Is(err, custody.ErrNoKey) {
		v.reason, r.checked.Verdict = audit.ReasonKeyUnknown, audit.VerdictNoKey
	}
	return v
}

func (r *request) refusal(row string) *verdict {
	v := ruling(row, r.advice())
	return &v
}

// register is stage 2: TID and MID, and whether the TID is locked here. It
// takes DE 62 apart, so that also a refusal can carry a MAC.
func (s *Switch) register(ctx context.Context, r *request) *verdict {
	tid := r.msg.Text(41)
	terminal, err := s.cfg.Journal.Terminal(ctx, tid)
	switch {
	case errors.Is(err, ErrNoTerminal):
		return r.refusal("D-02")
	case err != nil:
		s.log.Error("the registry cannot be read", "corr", r.corr, "error", err)
		v := r.refusal("D-05")
		v.reason = audit.ReasonInternal
		return v
	}
	r.terminal, r.known = terminal, true
	r.checked = audit.MAC{Alg: r.speech.macName(terminal.Scheme), Len: terminal.MACBytes, Verdict: audit.VerdictError}
	signOn := r.msg.MTI() == iso8583.NetworkRequest
	if !signOn && r.peer.lockout.locked(tid) {
		r.checked.Verdict = audit.VerdictNoKey
		return lockedOut()
	}
	served := s.listens(r.speech, terminal)
	if text, err := r.msg.KSN(); err == nil && served {
		r.serial, r.keyed = parseKSN(terminal.Scheme, text)
	}
	if served && terminal.Scheme == MasterKey {
		r.keyed = terminal.MACKey != "" && r.msg.MTI().Class() != '8' // U-87
		r.checked.Len = r.speech.how().Bytes
	}
	switch {
	case terminal.Disabled:
		v := r.refusal("D-02")
		v.reason = audit.ReasonTerminalLink
		return v
	case !served: // its dialect is not spoken here
		v := r.refusal("D-02")
		v.reason = audit.ReasonProfileDenied
		return v
	case r.msg.Text(42) != terminal.MID:
		v := r.refusal("D-02")
		v.code = codeMerchant
		return v
	}
	return nil
}

// absence names what is wrong with a MAC that cannot be compared.
func absence(err error) audit.MACVerdict {
	if errors.Is(err, iso8583.ErrMACAbsent) {
		return audit.VerdictAbsent
	}
	return audit.VerdictLength
}

// verifyTerminalMAC verifies over the bytes as received (M-01), by the request
// key. It returns custody.ErrMAC for a MAC that is wrong.
func (s *Switch) verifyTerminalMAC(ctx context.Context, r *request, mac [8]byte) (custody.VerifiedMAC, error) {
	n := r.speech.macBytes(r.terminal)
	how := r.speech.dukptMAC(r.terminal.Scheme)
	q := custody.VerifyMAC{
		Key:       custody.Ref{Alias: r.terminal.BDK},
		DUKPT:     &custody.DUKPT{KSN: r.serial.bytes, Variant: how.request},
		Algorithm: how.algorithm,
		Padding:   how.padding,
		Message:   r.msg.MACInput(),
		MAC:       mac[:n],
		Length:    n,
	}
	verified, err := r.act.VerifyMAC(ctx, q)
	if err != nil {
		return custody.VerifiedMAC{}, err
	}
	for _, filler := range mac[n:] { // W-04; the filler is no secret
		if filler != 0 {
			return custody.VerifiedMAC{}, fmt.Errorf("%w: the bytes after a MAC of %d bytes are not zero", custody.ErrMAC, n)
		}
	}
	return verified, nil
}

// sealAnswer gives an answer its MAC, by the response key of the request's own
// KSN (W-07).
func (s *Switch) sealAnswer(ctx context.Context, r *request, b *iso8583.Builder) ([]byte, error) {
	open, err := b.Pack()
	if err != nil {
		return nil, fmt.Errorf("building the answer: %w", err)
	}
	if r.terminal.Scheme == MasterKey {
		return s.sealMaster(ctx, r, open)
	}
	how := r.speech.dukptMAC(r.terminal.Scheme)
	q := custody.GenerateMAC{
		Key:       custody.Ref{Alias: r.terminal.BDK},
		DUKPT:     &custody.DUKPT{KSN: r.serial.bytes, Variant: how.answer},
		Algorithm: how.algorithm,
		Padding:   how.padding,
		Message:   open.MACInput(),
		Length:    r.speech.macBytes(r.terminal),
	}
	made, err := r.act.GenerateMAC(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("sealing the answer: %w", err)
	}
	var mac [8]byte
	copy(mac[:], made.MAC)
	return open.Seal(mac), nil
}

// admit is stage 6, in the journal: the counter must be fresh, or the message a
// byte-equal repeat. A fresh counter becomes the last accepted one in the same
// commit as the effect of the message (M-21). It returns the refusal, or nil.
func (s *Switch) admit(tx Tx, r *request) (*verdict, error) {
	isFresh, refused, err := s.judgeSerial(tx, r, nil)
	if isFresh {
		err = s.spend(tx, r, nil)
	}
	return refused, err
}

// judgeSerial is what admit finds, before anything is written. kept is the newest
// record with the look-up key of a message that becomes one, or nil.
func (s *Switch) judgeSerial(tx Tx, r *request, kept *Txn) (isFresh bool, refused *verdict, err error) {
	if r.terminal.Scheme == MasterKey { // its messages have no counter
		return false, nil, nil
	}
	last, err := tx.LastCounter(r.serial.device)
	if err != nil {
		return false, nil, fmt.Errorf("reading the KSN counter: %w", err)
	}
	same := false
	if r.serial.counter <= last {
		before, err := tx.AcceptedUnder(r.serial.device, r.serial.counter)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return false, nil, fmt.Errorf("reading what was accepted under the KSN: %w", err)
		}
		same = err == nil && before == r.raw || kept != nil && kept.Raw == r.raw
	}
	switch judgeCounter(last, r.serial.counter, r.rules.Limits.KSNStep, same) {
	case fresh:
		return true, nil, nil
	case repeated:
		r.again = true
		return false, nil, nil
	case tooFar:
		v := r.refusal("D-06")
		v.reason = audit.ReasonKSNGap
		return false, v, nil
	}
	return false, r.refusal("D-06"), nil
}

// spend makes a fresh counter the last accepted one. What repeats of the message
// are known by is its record t, where it has become one.
func (s *Switch) spend(tx Tx, r *request, t *Txn) error {
	var err error
	if t != nil {
		err = tx.Advance(r.serial.device, r.serial.counter, r.at)
	} else {
		err = tx.Accept(r.serial.device, r.serial.counter, r.raw, r.at)
	}
	if err != nil {
		return fmt.Errorf("advancing the KSN counter: %w", err)
	}
	return nil
}

// card describes the PAN for records and the journal. Where that cannot be done
// the message is refused (L-103).
func (s *Switch) card(ctx context.Context, r *request) (custody.Card, *verdict) {
	r.pan = custody.PAN(panOf(r.msg))
	if len(r.pan) < 12 {
		return custody.Card{}, &verdict{code: codePAN, reason: audit.ReasonFormatError}
	}
	card, err := r.act.Protect(ctx, r.pan, r.msg.Text(14))
	if err == nil {
		return card, nil
	}
	s.log.Error("card data cannot be protected", "corr", r.corr, "error", err)
	v := r.refusal("D-05")
	return custody.Card{}, v
}

func hashOf(b []byte) Hash { return sha256.Sum256(b) }
