package api

import (
	"context"
	"errors"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// sideNames are the members of one side of a translation.
type sideNames struct{ key, format, dukpt, wrapped string }

const (
	mostPAN, leastPAN  = 19, 12
	shortBlock         = 16 // characters of an enciphered block of formats 0, 1 and 3
	longBlock          = 32 // of format 4
	ksnText            = "must be 20 or 24 hexadecimal characters"
	derivationTypeText = "must be TDES_2KEY, TDES_3KEY, AES_128, AES_192 or AES_256"
	variantText        = "must be REQUEST, RESPONSE or BIDIRECTIONAL"
)

func incoming() sideNames {
	return sideNames{"IncomingKeyIdentifier", "IncomingTranslationAttributes", "IncomingDukptAttributes", "IncomingWrappedKey"}
}

func outgoing() sideNames {
	return sideNames{"OutgoingKeyIdentifier", "OutgoingTranslationAttributes", "OutgoingDukptAttributes", "OutgoingWrappedKey"}
}

// translatePINData is TranslatePinData (section 10.2). Whether the formats and
// card numbers of the two sides go together is for custody, which records a
// refusal.
func (c *call) translatePINData() error {
	q := custody.TranslatePIN{In: c.pinSide(incoming()), Out: c.pinSide(outgoing())}
	q.Block = c.pinBlock(q.In.Format)
	c.form.unserved(0, "IncomingAs2805Attributes")
	if err := c.check(); err != nil {
		return err
	}
	act, err := c.begin()
	if err != nil {
		return err
	}
	defer act.Close()
	made, err := act.TranslatePIN(c.ctx, q)
	if err := c.commit(act); err != nil {
		return err
	}
	if err != nil {
		c.blame(q, err)
		return err
	}
	c.custodyIs = made.Custody
	c.out = append(c.out, `{"PinBlock":"`...)
	c.out = appendHex(c.out, made.Block)
	c.out = append(c.out, `",`...)
	c.out = c.appendKeyInfo(c.out, made.Key)
	c.out = append(c.out, '}')
	return nil
}

// begin opens an act. An act that cannot be recorded does not begin.
func (c *call) begin() (*custody.Act, error) {
	act, err := c.custody.Begin(c.ctx, c.caller, c.id)
	if err != nil {
		return nil, errors.Join(errUnrecorded, err)
	}
	return act, nil
}

// commit makes what was done durable, also for a client that is gone. Nothing
// is answered without a receipt.
func (c *call) commit(act *custody.Act) error {
	receipt, err := act.Commit(context.WithoutCancel(c.ctx))
	if err != nil {
		return errors.Join(errUnrecorded, err)
	}
	if !receipt.Valid() {
		return errUnrecorded
	}
	return nil
}

func (c *call) appendKeyInfo(b []byte, k custody.KeyInfo) []byte {
	b = append(b, `"KeyArn":"`...)
	b = c.names.appendARN(b, k.ID)
	b = append(b, `","KeyCheckValue":"`...)
	b = appendHex(b, k.Check[:])
	return append(b, '"')
}

func (c *call) pinSide(names sideNames) custody.PINSide {
	side := custody.PINSide{Key: c.keyRef(names.key)}
	side.Format, side.PAN = c.pinFormat(names.format)
	side.DUKPT = c.dukptAttributes(names.dukpt)
	side.Wrapped = c.wrappedKey(names.wrapped, names.dukpt)
	return side
}

// pinFormat reads the union TranslationIsoFormats.
func (c *call) pinFormat(name string) (custody.PINFormat, custody.PAN) {
	f := &c.form
	which, at := f.union(f.object(0, name, required),
		[]string{"IsoFormat0", "IsoFormat1", "IsoFormat3", "IsoFormat4"}, []string{"As2805Format0"})
	if which < 0 {
		return 0, ""
	}
	if f.doc.nodes[at].kind != kindObject {
		f.failAt(at, "must be an object")
		return 0, ""
	}
	format := [...]custody.PINFormat{custody.ISO0, custody.ISO1, custody.ISO3, custody.ISO4}[which]
	if format == custody.ISO1 {
		return format, ""
	}
	return format, custody.PAN(f.digits(at, "PrimaryAccountNumber", leastPAN, mostPAN))
}

// pinBlock reads the enciphered block, whose length goes with the format.
func (c *call) pinBlock(format custody.PINFormat) []byte {
	at, block := c.form.hex(0, "EncryptedPinBlock", required, "must be 16 or 32 hexadecimal characters", shortBlock, longBlock)
	switch {
	case at < 0 || format == 0:
	case format == custody.ISO4 && 2*len(block) != longBlock:
		c.form.failAt(at, "must be 32 hexadecimal characters for format 4")
	case format != custody.ISO4 && 2*len(block) != shortBlock:
		c.form.failAt(at, "must be 16 hexadecimal characters for formats 0, 1 and 3")
	}
	return block
}

// dukptAttributes reads DukptDerivationAttributes; nil where they are absent.
// The variant has no meaning for PIN keys.
func (c *call) dukptAttributes(name string) *custody.DUKPT {
	f := &c.form
	at := f.object(0, name, optional)
	if at < 0 {
		return nil
	}
	_, ksn := f.hex(at, "KeySerialNumber", required, ksnText, 20, 24)
	c.variant(at, optional)
	return &custody.DUKPT{KSN: ksn, Derive: c.derivationType(at, "DukptKeyDerivationType")}
}

// derivationType reads a DukptDerivationType; 0 where it is absent.
func (c *call) derivationType(object int32, name string) keys.Algorithm {
	at, text := c.form.string(object, name, optional)
	if at < 0 {
		return 0
	}
	switch string(text) {
	case "TDES_2KEY":
		return keys.TDES2
	case "TDES_3KEY":
		return keys.TDES3
	case "AES_128":
		return keys.AES128
	case "AES_192":
		return keys.AES192
	case "AES_256":
		return keys.AES256
	}
	c.form.failAt(at, derivationTypeText)
	return 0
}

func (c *call) variant(object int32, need bool) custody.Variant {
	at, text := c.form.string(object, "DukptKeyVariant", need)
	if at < 0 {
		return 0
	}
	switch string(text) {
	case "REQUEST":
		return custody.Request
	case "RESPONSE":
		return custody.Response
	case "BIDIRECTIONAL":
		return custody.Bidirectional
	}
	c.form.failAt(at, variantText)
	return 0
}

// blame finds out which of the two keys a translation was refused for, so that
// the answer can name it. Custody looks at the incoming one first.
func (c *call) blame(q custody.TranslatePIN, err error) {
	about := errors.Is(err, custody.ErrNoKey) || errors.Is(err, custody.ErrKeyState) ||
		errors.Is(err, custody.ErrKeyUse) || errors.Is(err, custody.ErrCustody)
	if !about {
		return
	}
	side := outgoing()
	if q.In.Wrapped != nil || q.Out.Wrapped != nil {
		c.blameWrapped(err)
		return
	}
	k, gone := c.custody.Key(c.ctx, c.caller, c.id, q.In.Key)
	if gone != nil || unfit(k, q.In, err) {
		side = incoming()
	}
	c.named(side.key)
}

// unfit reports whether the incoming key is one that err is about.
func unfit(k custody.KeyRecord, side custody.PINSide, err error) bool {
	a := k.Block.Attributes
	switch {
	case errors.Is(err, custody.ErrNoKey):
		return k.State == custody.DeleteComplete
	case errors.Is(err, custody.ErrKeyState):
		return !k.Enabled || k.State != custody.CreateComplete
	case errors.Is(err, custody.ErrCustody):
		return k.Block.Policy[custody.TagCustody] == "token"
	case side.DUKPT == nil:
		return a.Usage != keys.UsagePIN || a.Mode == keys.ModeEncrypt || a.Algorithm.IsAES() != (side.Format == custody.ISO4)
	}
	working := a.Algorithm
	if side.DUKPT.Derive != 0 {
		working = side.DUKPT.Derive
	}
	return a.Usage != keys.UsageBDK || a.Algorithm == keys.TDES3 || working.IsAES() != (side.Format == custody.ISO4)
}

// named keeps which member named the key that an answer is about, and how.
func (c *call) named(member string) {
	c.keyMember = member
	if c.inPath != "" && (member == inPathKey || member == incoming().key) {
		c.asked = c.inPath
		return
	}
	if at := c.form.doc.member(0, member); at >= 0 {
		c.asked = string(c.form.doc.bytes(c.form.doc.nodes[at].text))
	}
}
