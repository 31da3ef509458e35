package isoswitch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/keys"
)

// keyChange is the code of DE 70 of an 0800 in which a host sends a new zone key.
const keyChange = "161"

// The kinds of zone keys, the first two digits of DE 53.
const (
	zonePIN = "01"
	zoneMAC = "02"
)

// keyOffer is what a host sends: in DE 53 which key and the number of the change,
// 14 digits that grow; in DE 48 the check value, six hexadecimal digits, and the
// TR-31 key block.
type keyOffer struct {
	kind   string
	number uint64
	check  keys.KCV
	block  string
}

// The refusals of a key change that are the switch's own.
var (
	errKeyOffer   = errors.New("isoswitch: DE 48 or 53 is not that of a key change")
	errNoExchange = errors.New("isoswitch: the upstream has no key_exchange_key, so its zone keys cannot be changed by the host")
)

func parseKeyOffer(m *iso8583.Message) (keyOffer, error) {
	which, what := m.Text(53), m.Text(48)
	const digits = 2 * len(keys.KCV{})
	if len(which) != 16 || len(what) <= digits {
		return keyOffer{}, errKeyOffer
	}
	o := keyOffer{kind: which[:2], block: what[digits:]}
	if o.kind != zonePIN && o.kind != zoneMAC {
		return keyOffer{}, fmt.Errorf("%w: DE 53 begins with neither %s nor %s", errKeyOffer, zonePIN, zoneMAC)
	}
	var err error
	if o.number, err = strconv.ParseUint(which[2:], 10, 64); err != nil || o.number == 0 {
		return keyOffer{}, fmt.Errorf("%w: no number of the change", errKeyOffer)
	}
	if o.check, err = keys.ParseKCV(what[:digits]); err != nil {
		return keyOffer{}, fmt.Errorf("%w: %w", errKeyOffer, err)
	}
	return o, nil
}

// respond makes the answer to an authentic 0800 from upstream.
func (l *link) respond(ctx context.Context, act *custody.Act, conn net.Conn, m *iso8583.Message, rec *audit.Record) ([]byte, error) {
	rec.Action, rec.Outcome, rec.Reason, rec.ISO.DE39 = audit.SigninAccept, audit.OutcomeOK, 0, codeApproved
	answer := m.Answer(codeApproved)
	if err := l.obey(ctx, conn, m, answer); err != nil {
		code := keyRefusal(err)
		answer = m.Answer(code)
		rec.Action, rec.Outcome, rec.Reason = audit.SigninRefuse, audit.OutcomeRefused, keyReason(err)
		rec.ISO.DE39, rec.ISO.Alert = code, audit.AlertSecurity
		l.s.log.Warn("upstream: an 0800 of the host was refused", "upstream", l.h.cfg.Name, "link", l.cfg.Name, "function", m.Text(70), "code", code, "error", err)
	}
	sealed, err := l.h.seal(ctx, act, answer)
	if err != nil {
		rec.Action, rec.Outcome, rec.Reason = audit.SigninRefuse, audit.OutcomeError, distrust(err)
	}
	return sealed, err
}

// obey does what an authentic 0800 asks for, and adds to the answer what that says.
func (l *link) obey(ctx context.Context, conn net.Conn, m *iso8583.Message, answer *iso8583.Builder) error {
	switch m.Text(70) {
	case signOn, echo:
		return nil
	case signOff:
		return l.s.signedOffBy(m)
	case keyChange:
		check, err := l.changeKey(ctx, conn, m)
		if err == nil {
			answer.Set(48, check.String())
		}
		return err
	}
	return errNoSuchFunction
}

// changeKey takes a new zone key that the host sends. It is durable when changeKey
// returns, and the answer is made with it: so the host sees that keyd has it. A
// refusal changes nothing.
func (l *link) changeKey(ctx context.Context, conn net.Conn, m *iso8583.Message) (keys.KCV, error) {
	h := l.h
	if h.cfg.ExchangeKey == (custody.Ref{}) {
		return keys.KCV{}, errNoExchange
	}
	offer, err := parseKeyOffer(m)
	if err != nil {
		return keys.KCV{}, err
	}
	z := h.zone.Load()
	key := z.pin
	if offer.kind == zoneMAC {
		key = z.mac
	}
	if err := h.ownKey(ctx, key); err != nil {
		return keys.KCV{}, err
	}
	done, err := h.s.custody.ChangeZoneKey(ctx, l.caller(conn), "upstream."+m.Text(11), custody.ChangeZoneKey{
		Key: key, KEK: h.cfg.ExchangeKey, Block: offer.block, Check: offer.check, Number: offer.number,
		Overlap: h.s.rules().Timers.Stray,
	})
	if err != nil {
		return keys.KCV{}, err
	}
	h.s.log.Info("upstream: a zone key was changed", "upstream", h.cfg.Name, "key", key.String(), "version", done.New.Block.Version,
		"kcv", done.New.Block.Check.String(), "change", offer.number, "again", done.Again)
	return done.New.Block.Check, nil
}

// keyRefusal is DE 39 of an 0800 that was not obeyed.
func keyRefusal(err error) string {
	switch {
	case errors.Is(err, errNoExchange), errors.Is(err, errShared), errors.Is(err, errNoSuchFunction):
		return codeNoFunction
	case errors.Is(err, custody.ErrRepeated), errors.Is(err, errSignedOffBefore):
		return codeDuplicate
	case errors.Is(err, custody.ErrUnavailable), errors.Is(err, custody.ErrQuota), errors.Is(err, custody.ErrConflict):
		return codeCannot
	case errors.Is(err, errKeyOffer), errors.Is(err, errStale), errors.Is(err, custody.ErrRequest):
		return codeFormat
	}
	return codeSecurity
}

// keyReason is why, in the record of the 0800.
func keyReason(err error) audit.Reason {
	switch {
	case errors.Is(err, errNoExchange), errors.Is(err, errShared), errors.Is(err, errNoSuchFunction):
		return audit.ReasonProfileDenied
	case errors.Is(err, errSignedOffBefore):
		return audit.ReasonDuplicate
	case errors.Is(err, errKeyOffer), errors.Is(err, errStale):
		return audit.ReasonFormatError
	}
	return custody.ReasonOf(err)
}

// checkExchangeKey refuses to serve with a key-exchange key that is not there, or
// that could open no key block.
func (h *host) checkExchangeKey(ctx context.Context) error {
	ref := h.cfg.ExchangeKey
	if ref == (custody.Ref{}) {
		return nil
	}
	k, err := h.s.custody.Key(ctx, custody.SystemCaller("keyd", custody.RoleOperator), "start", ref)
	if err != nil {
		return fmt.Errorf("finding the key-exchange key %s of upstream %s: %w", ref, h.cfg.Name, err)
	}
	a := k.Block.Attributes
	wraps := (a.Usage == keys.UsageKEK || a.Usage == keys.UsageKBPK) && (a.Mode == keys.ModeBoth || a.Mode == keys.ModeAny || a.Mode == keys.ModeDecrypt)
	if k.State != custody.CreateComplete || !k.Enabled || !wraps || k.Block.TokenOnly() {
		return fmt.Errorf("%w: the key-exchange key %s of upstream %s must be in use, of usage K0 or K1 and able to decipher, and its policy must let a carried key pass the process; it has %s, mode %c, enabled %v, %s",
			ErrConfig, ref, h.cfg.Name, a.Usage, a.Mode, k.Enabled, k.State)
	}
	return nil
}
