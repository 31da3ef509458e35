package custody

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/pin"
)

// TranslatePIN takes a PIN block from under one key to under another, where
// the PIN is clear in this process for the time of one operation: the result
// says so by its custody class. Where the policy of a key forbids that, the
// block is moved within the token, unseen and unchecked, or refused: see
// [Translator].
//
// It returns [ErrPINBlock] for everything that deciphering revealed,
// [ErrTooMany] after too many of those, neither of which an unseen block can
// bring about, and [ErrDenied], [ErrNoKey], [ErrKeyState], [ErrKeyUse],
// [ErrRequest], [ErrCustody] or [ErrUnavailable].
func (a *Act) TranslatePIN(ctx context.Context, q TranslatePIN) (TranslatedPIN, error) {
	r := audit.Record{
		Action: audit.PINTranslate,
		PIN:    audit.PIN{FormatIn: pinFormat(q.In.Format), FormatOut: pinFormat(q.Out.Format)},
	}
	var out TranslatedPIN
	err := a.operate(ctx, OpTranslatePIN, &r, func() (err error) {
		out, err = a.translate(ctx, &r, q)
		return err
	})
	if err != nil {
		return TranslatedPIN{}, err
	}
	return out, nil
}

func (a *Act) translate(ctx context.Context, r *audit.Record, q TranslatePIN) (TranslatedPIN, error) {
	in, inMeter, err := a.pinKey(ctx, r, q.In, audit.KeyRoleIn)
	if err != nil {
		return TranslatedPIN{}, err
	}
	out, outMeter, err := a.pinKey(ctx, r, q.Out, audit.KeyRoleOut)
	if err != nil {
		return TranslatedPIN{}, outgoing{err}
	}
	if r.PAN, err = a.PAN(pinPAN(q)); err != nil {
		return TranslatedPIN{}, err
	}
	from, to, err := pinSides(q, in, out)
	if err != nil {
		return TranslatedPIN{}, err
	}
	r.PIN.FormatIn = pinFormatName(from.Format)
	if err := a.unspent(ctx, in, q.In.DUKPT, KSNPIN); err != nil {
		return TranslatedPIN{}, err
	}
	if err := a.c.count(ctx, in, inMeter); err != nil {
		return TranslatedPIN{}, err
	}
	if err := a.c.count(ctx, out, outMeter); err != nil {
		return TranslatedPIN{}, err
	}
	var block []byte
	info := KeyInfo{ID: out.Block.ID, Check: out.Block.Check}
	if tokenOnly(in) || tokenOnly(out) {
		block, err = a.c.translateUnseen(ctx, q, in, out, &from, &to)
		if !errors.Is(err, ErrCustody) { // else nothing was done
			r.Custody = audit.CustodyToken
		}
	} else {
		r.Custody = audit.CustodyProcess
		block, err = a.translateSeen(ctx, r, q, in, out, &from, &to, &info)
	}
	if err != nil {
		return TranslatedPIN{}, err
	}
	if err := a.spend(ctx, in, q.In.DUKPT, KSNPIN); err != nil {
		return TranslatedPIN{}, err
	}
	return TranslatedPIN{Block: block, Key: info, Custody: r.Custody}, nil
}

// translateSeen checks the block in this process, and counts what is refused.
// It sets the check value of an outgoing key that came with the request.
func (a *Act) translateSeen(ctx context.Context, r *audit.Record, q TranslatePIN, in, out KeyRecord, from, to *pin.Side, info *KeyInfo) ([]byte, error) {
	if err := a.c.refused.allow(a.caller.Name, in.Block.ID); err != nil {
		return nil, err
	}
	block, err := a.translateBlock(ctx, q, in, out, from, to, info)
	if errors.Is(err, ErrPINBlock) {
		block, err = a.translateOlder(ctx, r, q, in, out, to, info)
	}
	if errors.Is(err, ErrPINBlock) && a.c.refused.count(a.caller.Name, in.Block.ID) {
		a.alarm(r, in)
	}
	return block, err
}

// translateOlder tries the block under older versions of the incoming alias; the
// record names the one that was it. Only formats whose blocks show whether they
// were deciphered by the right key are tried: a block of format 1 is random but
// for three of its digits, one in hundreds of which would be taken for good.
func (a *Act) translateOlder(ctx context.Context, r *audit.Record, q TranslatePIN, newest, out KeyRecord, to *pin.Side, info *KeyInfo) ([]byte, error) {
	if q.In.Key.Alias == "" || q.In.DUKPT != nil || q.In.Wrapped != nil || q.In.Format == ISO1 {
		return nil, ErrPINBlock
	}
	for k, m := range a.c.older(ctx, newest) {
		from, _, err := pinSides(q, k, out)
		if err != nil || tokenOnly(k) {
			continue
		}
		if err := a.c.count(ctx, k, m); err != nil {
			return nil, err
		}
		block, err := a.translateBlock(ctx, q, k, out, &from, to, info)
		if errors.Is(err, ErrPINBlock) {
			continue
		}
		if err == nil {
			r.Keys[0] = keyEntry(audit.KeyRoleIn, k)
		}
		return block, err
	}
	return nil, ErrPINBlock
}

// pinKey finds the key of one side and checks that it may be used so. The meter
// counts the use.
func (a *Act) pinKey(ctx context.Context, r *audit.Record, side PINSide, role audit.KeyRole) (KeyRecord, *meter, error) {
	k, err := a.c.book.permit(ctx, a.caller.Client, OpTranslatePIN, side.Key)
	if err != nil {
		return KeyRecord{}, nil, err
	}
	way := taking
	if role == audit.KeyRoleOut {
		way = making
	}
	if side.DUKPT != nil {
		if r.KSN == "" {
			r.KSN = ksnText(side.DUKPT.KSN)
		}
		r.Keys = append(r.Keys, keyEntry(audit.KeyRoleBDK, k))
		m, err := a.c.ready(ctx, k, way)
		return k, m, err
	}
	if side.Wrapped != nil {
		m, err := a.wrappedPINKey(ctx, r, side, k, way)
		return k, m, err
	}
	r.Keys = append(r.Keys, keyEntry(role, k))
	if side.Terminal != "" {
		if err := ofTerminal(k, side.Terminal); err != nil {
			return KeyRecord{}, nil, err
		}
	}
	m, err := a.c.ready(ctx, k, way)
	if err != nil {
		return KeyRecord{}, nil, err
	}
	at := k.Block.Attributes
	if at.Usage != keys.UsagePIN {
		return KeyRecord{}, nil, fmt.Errorf("%w: usage %s is not for PINs", ErrKeyUse, at.Usage)
	}
	need := keys.ModeDecrypt
	if role == audit.KeyRoleOut {
		need = keys.ModeEncrypt
	}
	if at.Mode != need && at.Mode != keys.ModeBoth && at.Mode != keys.ModeAny {
		return KeyRecord{}, nil, fmt.Errorf("%w: mode of use", ErrKeyUse)
	}
	return k, m, nil
}

// pinWorking gives the cipher of one side. It sets the check value of a key
// that came with the request.
func (a *Act) pinWorking(ctx context.Context, side PINSide, k KeyRecord, check *keys.KCV) (w *working, err error) {
	switch {
	case side.Wrapped != nil:
		w, *check, err = a.c.wrappedPIN(ctx, side, k)
		return w, err
	case side.DUKPT != nil:
		return a.c.derived(ctx, k, side.DUKPT, dukpt.PIN, &a.transaction)
	}
	return a.c.static(ctx, k)
}

func (a *Act) translateBlock(ctx context.Context, q TranslatePIN, in, out KeyRecord, from, to *pin.Side, info *KeyInfo) ([]byte, error) {
	var unused keys.KCV // the answer is about the outgoing key
	source, err := a.pinWorking(ctx, q.In, in, &unused)
	if err != nil {
		return nil, err
	}
	defer source.release()
	target, err := a.pinWorking(ctx, q.Out, out, &info.Check)
	if err != nil {
		return nil, outgoing{err}
	}
	defer target.release()
	block, err := pin.Translate(source.full, from, q.Block, target.full, to, rand.Reader)
	if err != nil {
		return nil, pinError(err)
	}
	return block, nil
}

// pinError maps what package pin says to custody's reasons.
func pinError(err error) error {
	switch {
	case errors.Is(err, pin.ErrBlock):
		return ErrPINBlock
	case errors.Is(err, pin.ErrCipher):
		return errCipher
	case errors.Is(err, pin.ErrLength), errors.Is(err, pin.ErrTranslation), errors.Is(err, pin.ErrPAN), errors.Is(err, pin.ErrFormat):
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return tokenError("translating the PIN block", err)
}

var errCipher = fmt.Errorf("%w: formats 0, 1 and 3 need a TDES key, format 4 an AES key", ErrKeyUse)

// pinSides are the two sides as package pin wants them.
func pinSides(q TranslatePIN, in, out KeyRecord) (from, to pin.Side, err error) {
	if from, err = pinSide(q.In, in); err != nil {
		return from, to, fmt.Errorf("%w: incoming side: %w", ErrRequest, err)
	}
	if to, err = pinSide(q.Out, out); err != nil {
		return from, to, fmt.Errorf("%w: outgoing side: %w", ErrRequest, err)
	}
	if from, err = legacySide(q.In, in, from); err != nil {
		return from, to, err
	}
	if out.Block.Policy[TagPINFormat] != "" {
		return from, to, fmt.Errorf("%w: nothing is written in a legacy PIN block format", ErrKeyUse)
	}
	if err = pin.CheckTranslation(&from, &to); err != nil {
		return from, to, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return from, to, nil
}

func pinSide(side PINSide, k KeyRecord) (pin.Side, error) {
	s := pin.Side{Format: pin.Format(side.Format)}
	if k.Block.Policy[TagISO4PAN] == "rightmost12" {
		s.Rule = pin.Rightmost12
	}
	if side.Format == ISO1 {
		return s, nil
	}
	pan, err := pin.ParsePAN(string(side.PAN))
	s.PAN = pan
	return s, err
}

// legacySide is the incoming side of a key whose blocks are of a format of
// before ISO 9564. The caller names format 1, for no legacy format has a PAN in
// it; the key's policy says which format it is.
func legacySide(side PINSide, k KeyRecord, s pin.Side) (pin.Side, error) {
	name := k.Block.Policy[TagPINFormat]
	if name == "" {
		return s, nil
	}
	if side.Format != ISO1 {
		return s, fmt.Errorf("%w: the key's PIN blocks are of format %s, to be named as format 1", ErrKeyUse, name)
	}
	f, err := pin.ParseLegacy(name)
	if err != nil {
		return s, fmt.Errorf("%w: %w", ErrKeyUse, err)
	}
	return pin.Side{Format: f, Legacy: true}, nil
}

// pinPAN is the PAN that the record shows.
func pinPAN(q TranslatePIN) PAN {
	if q.In.PAN != "" {
		return q.In.PAN
	}
	return q.Out.PAN
}

func pinFormat(f PINFormat) audit.PINFormat { return pinFormatName(pin.Format(f)) }

// pinFormatName is the log's name of a format.
func pinFormatName(f pin.Format) audit.PINFormat {
	switch f {
	case pin.Format0:
		return audit.PINISO0
	case pin.Format1:
		return audit.PINISO1
	case pin.Format3:
		return audit.PINISO3
	case pin.Format4:
		return audit.PINISO4
	case pin.ECI2:
		return audit.PINECI2
	case pin.ECI3:
		return audit.PINECI3
	case pin.VISA2:
		return audit.PINVISA2
	case pin.VISA3:
		return audit.PINVISA3
	}
	return 0
}

// alarm records that a key takes no more PIN blocks of a client.
func (a *Act) alarm(r *audit.Record, k KeyRecord) {
	a.denied = append(a.denied, audit.Record{
		Action:  audit.KeyLimit,
		Outcome: audit.OutcomeRefused,
		Reason:  audit.ReasonPINBlock,
		Actor:   actorSec(a.caller),
		Src:     audit.Source{Addr: a.caller.Addr, Conn: a.caller.Conn},
		Corr:    a.corr,
		Keys:    []audit.Key{keyEntrySec(audit.KeyRoleIn, k.Block, keyName(k))},
		KSN:     r.KSN,
		Alarm:   audit.Alarm{Code: "pin_blocks_refused", Level: audit.LevelCritical},
	})
	a.c.alarmed(a.denied[len(a.denied)-1].Alarm, k.Block.ID, nil)
}
