package api

import (
	"errors"

	"keyd.dev/keyd/internal/custody"
)

// inPathKey is the member that stands in the path of EncryptData and DecryptData.
const inPathKey = "KeyIdentifier"

// Limits of texts and vectors in characters (section 12).
const (
	mostPlain, mostCipher = 4096, 4224
	leastData             = 2
	shortVector           = 16
	longVector            = 32

	modeText      = "must be ECB, CBC, CFB, CFB1, CFB8, CFB64, CFB128 or OFB"
	dukptModeText = "must be ECB or CBC"
	vectorText    = "must be 16 or 32 hexadecimal characters"
)

// encryptData is EncryptData (section 12).
func (c *call) encryptData() error {
	q := custody.EncryptData{DataSide: c.dataSide(inPathKey, "EncryptionAttributes", "WrappedKey", true)}
	_, q.Plain = c.form.hexRange(0, "PlainText", required, leastData, mostPlain)
	return c.data("CipherText", func(act *custody.Act) (custody.CryptedData, error) { return act.EncryptData(c.ctx, q) })
}

// decryptData is DecryptData (section 12).
func (c *call) decryptData() error {
	q := custody.DecryptData{DataSide: c.dataSide(inPathKey, "DecryptionAttributes", "WrappedKey", true)}
	_, q.Ciphered = c.form.hexRange(0, "CipherText", required, leastData, mostCipher)
	return c.data("PlainText", func(act *custody.Act) (custody.CryptedData, error) { return act.DecryptData(c.ctx, q) })
}

// reEncryptData is ReEncryptData (section 12). The answer names the outgoing key.
func (c *call) reEncryptData() error {
	q := custody.ReEncryptData{
		In:  c.dataSide(incoming().key, "IncomingEncryptionAttributes", incoming().wrapped, false),
		Out: c.dataSide(outgoing().key, "OutgoingEncryptionAttributes", outgoing().wrapped, false),
	}
	_, q.Ciphered = c.form.hexRange(0, "CipherText", required, leastData, mostCipher)
	return c.data("CipherText", func(act *custody.Act) (custody.CryptedData, error) { return act.ReEncryptData(c.ctx, q) })
}

// data does a data operation under its record and writes the answer, in which
// the data is the named member.
func (c *call) data(member string, do func(*custody.Act) (custody.CryptedData, error)) error {
	if err := c.check(); err != nil {
		return err
	}
	act, err := c.begin()
	if err != nil {
		return err
	}
	defer act.Close()
	made, err := do(act)
	defer clear(made.Data)
	if err := c.commit(act); err != nil {
		return err
	}
	if err != nil {
		c.blameData(err)
		return err
	}
	c.custodyIs = made.Custody
	c.out = append(c.out, `{"`...)
	c.out = append(c.out, member...)
	c.out = append(c.out, `":"`...)
	c.out = appendHex(c.out, made.Data)
	c.out = append(c.out, `",`...)
	c.out = c.appendKeyInfo(c.out, made.Key)
	c.out = append(c.out, '}')
	return nil
}

// blameData names the key that a data operation was refused for.
func (c *call) blameData(err error) {
	about := errors.Is(err, custody.ErrNoKey) || errors.Is(err, custody.ErrKeyState) ||
		errors.Is(err, custody.ErrKeyUse) || errors.Is(err, custody.ErrCustody)
	switch {
	case !about:
	case custody.Outgoing(err):
		c.named(outgoing().key)
	case c.op.name == string(custody.OpReEncryptData):
		c.named(incoming().key)
	default:
		c.named(inPathKey)
	}
}

// dataSide reads the key of one side, which stands in the path unless it is
// the outgoing one, and how it is used. single is whether the operation has one
// side, whose union has two more members that keyd does not serve.
func (c *call) dataSide(key, attributes, wrapped string, single bool) custody.DataSide {
	side := custody.DataSide{}
	if key == outgoing().key {
		side.Key = c.keyRef(key)
	} else {
		side.Key = c.keyRefInPath(key)
	}
	var refused []string
	if single {
		refused = []string{"Asymmetric", "Emv"}
	}
	which, at := c.form.union(c.form.object(0, attributes, required), []string{"Symmetric", "Dukpt"}, refused)
	side.Wrapped = c.wrappedKey(wrapped, "")
	switch {
	case which < 0:
		return side
	case c.form.doc.nodes[at].kind != kindObject:
		c.form.failAt(at, "must be an object")
		return side
	case which == 0:
		side.Mode = c.dataMode(at)
		c.form.unserved(at, "PaddingType")
	default:
		c.dukptData(at, &side)
		if side.Wrapped != nil {
			c.form.fail(wrapped, "cannot be together with Dukpt")
		}
	}
	_, side.IV = c.form.hex(at, "InitializationVector", optional, vectorText, shortVector, longVector)
	return side
}

// dataMode reads an EncryptionMode.
func (c *call) dataMode(object int32) custody.DataMode {
	at, text := c.form.string(object, "Mode", required)
	if at < 0 {
		return 0
	}
	mode, err := custody.ParseDataMode(text)
	if err != nil {
		c.form.failAt(at, modeText)
		return 0
	}
	return mode
}

// dukptData reads DukptEncryptionAttributes. A variant that is not named is that
// of what a terminal sends, a mode that is not named is CBC.
func (c *call) dukptData(object int32, side *custody.DataSide) {
	_, ksn := c.form.hex(object, "KeySerialNumber", required, ksnText, 20, 24)
	d := &custody.DUKPT{KSN: ksn, Variant: c.variant(object, optional), Derive: c.derivationType(object, "DukptKeyDerivationType")}
	if d.Variant == 0 {
		d.Variant = custody.Request
	}
	side.DUKPT, side.Mode = d, custody.DataCBC
	at, text := c.form.string(object, "Mode", optional)
	switch {
	case at < 0 || string(text) == "CBC":
	case string(text) == "ECB":
		side.Mode = custody.DataECB
	default:
		c.form.failAt(at, dukptModeText)
	}
}
