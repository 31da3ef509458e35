package custody

import (
	"context"
	"errors"
	"fmt"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/internal/blockmode"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/tr31"
)

// DataMode is a mode of operation of NIST SP 800-38A.
type DataMode = blockmode.Mode

// The modes that DUKPT keys have; data under stored keys has all of
// [ParseDataMode].
const (
	DataECB = blockmode.ECB
	DataCBC = blockmode.CBC
)

// ParseDataMode reads the API's word for a mode. It returns [ErrRequest].
func ParseDataMode(word []byte) (DataMode, error) {
	m, err := blockmode.Parse(word)
	if err != nil {
		return 0, fmt.Errorf("%w: no such mode", ErrRequest)
	}
	return m, nil
}

// DataSide is a key for data and how it is used: a data key, or what DUKPT and
// Wrapped say the named key leads to; one of these at most.
type DataSide struct {
	Key     Ref
	DUKPT   *DUKPT      // the named key is a BDK; Variant chooses the data key
	Wrapped *WrappedKey // the named key is a key-encryption key
	Mode    DataMode
	IV      []byte // one block; nil for zeros, and for ECB
}

// EncryptData asks for data to be enciphered, whole blocks of the key's cipher.
type EncryptData struct {
	DataSide
	Plain []byte
}

// DecryptData asks for data to be deciphered, whole blocks of the key's cipher.
type DecryptData struct {
	DataSide
	Ciphered []byte
}

// ReEncryptData asks for data under one key to be put under another.
type ReEncryptData struct {
	In, Out  DataSide
	Ciphered []byte
}

// CryptedData is the data, enciphered or in the clear.
type CryptedData struct {
	Data    []byte
	Key     KeyInfo // of the outgoing side, where there are two
	Custody audit.Custody
}

// EncryptData enciphers data under a data key. Whatever the mode of use, a key
// of another usage is refused. It returns [ErrDenied], [ErrNoKey],
// [ErrKeyState], [ErrKeyUse], [ErrRequest], [ErrKeyBlock], [ErrCustody] or
// [ErrUnavailable].
func (a *Act) EncryptData(ctx context.Context, q EncryptData) (CryptedData, error) {
	r := audit.Record{Action: audit.DataEncrypt}
	var made CryptedData
	err := a.operate(ctx, OpEncryptData, &r, func() error {
		k, err := a.dataKey(ctx, &r, OpEncryptData, q.DataSide, making, audit.KeyRoleData)
		if err != nil {
			return err
		}
		if made, err = a.crypt(ctx, k, q.Plain); err != nil {
			return err
		}
		r.Custody = made.Custody
		return nil
	})
	if err != nil {
		return CryptedData{}, err
	}
	return made, nil
}

// DecryptData deciphers data under a data key. Under an alias the newest
// version of the key is tried alone: nothing tells whether a plain text is the
// right one. What comes out is the caller's to clear. Errors are those of
// [Act.EncryptData], and [ErrKSN].
func (a *Act) DecryptData(ctx context.Context, q DecryptData) (CryptedData, error) {
	r := audit.Record{Action: audit.DataDecrypt}
	var made CryptedData
	err := a.operate(ctx, OpDecryptData, &r, func() error {
		k, err := a.dataKey(ctx, &r, OpDecryptData, q.DataSide, taking, audit.KeyRoleData)
		if err != nil {
			return err
		}
		if err := a.unspent(ctx, k.record, q.DUKPT, KSNData); err != nil {
			return err
		}
		if made, err = a.crypt(ctx, k, q.Ciphered); err != nil {
			return err
		}
		r.Custody = made.Custody
		return a.spend(ctx, k.record, q.DUKPT, KSNData)
	})
	if err != nil {
		secret.Clear(made.Data)
		return CryptedData{}, err
	}
	return made, nil
}

// ReEncryptData takes data from under one key to under another. The plain text
// is in this process between the two, so the class is process, and a key that
// demands token custody is refused. Errors are those of [Act.DecryptData].
func (a *Act) ReEncryptData(ctx context.Context, q ReEncryptData) (CryptedData, error) {
	r := audit.Record{Action: audit.DataReencrypt}
	var made CryptedData
	err := a.operate(ctx, OpReEncryptData, &r, func() (err error) {
		made, err = a.reencrypt(ctx, &r, q)
		return err
	})
	if err != nil {
		return CryptedData{}, err
	}
	return made, nil
}

func (a *Act) reencrypt(ctx context.Context, r *audit.Record, q ReEncryptData) (CryptedData, error) {
	in, err := a.dataKey(ctx, r, OpReEncryptData, q.In, taking, audit.KeyRoleIn)
	if err != nil {
		return CryptedData{}, err
	}
	out, err := a.dataKey(ctx, r, OpReEncryptData, q.Out, making, audit.KeyRoleOut)
	if err != nil {
		return CryptedData{}, outgoing{err}
	}
	if tokenOnly(in.record) || tokenOnly(out.record) {
		return CryptedData{}, fmt.Errorf("%w: the plain text is in the process between the two keys", ErrCustody)
	}
	if err := out.fits(len(q.Ciphered)); err != nil {
		return CryptedData{}, err
	}
	if err := a.unspent(ctx, in.record, q.In.DUKPT, KSNData); err != nil {
		return CryptedData{}, err
	}
	r.Custody = audit.CustodyProcess
	plain, err := a.crypt(ctx, in, q.Ciphered)
	if err != nil {
		return CryptedData{}, err
	}
	defer secret.Clear(plain.Data)
	made, err := a.crypt(ctx, out, plain.Data)
	if err != nil {
		return CryptedData{}, outgoing{err}
	}
	if err := a.spend(ctx, in.record, q.In.DUKPT, KSNData); err != nil {
		return CryptedData{}, err
	}
	made.Custody = audit.CustodyProcess
	return made, nil
}

// dataKey is a key of one side, found and permitted.
type dataKey struct {
	side   DataSide
	way    direction
	record KeyRecord // of the key named
	meter  *meter
	block  *tr31.Block    // that the key comes in; nil for a stored one
	kind   keys.Algorithm // of the working key; of a key in a block only its cipher
}

// dataKey finds the key of one side and checks that it may be used so. The
// record names it as far as it is known.
func (a *Act) dataKey(ctx context.Context, r *audit.Record, op Operation, side DataSide, way direction, role audit.KeyRole) (dataKey, error) {
	k, err := a.c.book.permit(ctx, a.caller.Client, op, side.Key)
	if err != nil {
		return dataKey{}, err
	}
	d := dataKey{side: side, way: way, record: k, kind: k.Block.Attributes.Algorithm}
	switch {
	case side.DUKPT != nil:
		role = audit.KeyRoleBDK
		if r.KSN == "" {
			r.KSN = ksnText(side.DUKPT.KSN)
		}
	case side.Wrapped != nil:
		role = audit.KeyRoleKEK
	}
	r.Keys = append(r.Keys, keyEntry(role, k))
	if d.meter, err = a.c.ready(ctx, k, d.toKey()); err != nil {
		return dataKey{}, err
	}
	if err := d.suits(); err != nil {
		return dataKey{}, err
	}
	if d.block != nil {
		r.Keys[len(r.Keys)-1].Header = side.Wrapped.Block[:headerText]
	}
	return d, nil
}

// toKey is the direction in which the named key itself is used: one that brings
// another key takes it in, whatever that is for.
func (d *dataKey) toKey() direction {
	if d.side.Wrapped != nil {
		return taking
	}
	return d.way
}

// suits checks usage and mode of the named key, and finds the working one's cipher.
func (d *dataKey) suits() (err error) {
	at := d.record.Block.Attributes
	switch {
	case d.side.DUKPT != nil:
		if err := derives(d.record); err != nil {
			return err
		}
		if d.side.DUKPT.Derive != 0 {
			d.kind = d.side.DUKPT.Derive
		}
		return nil
	case d.side.Wrapped != nil:
		if d.block, err = carries(d.record, d.side.Wrapped, keys.UsageData, d.way); err != nil {
			return err
		}
		d.kind = keys.TDES2
		if d.block.Algorithm == keys.AES128.TR31() {
			d.kind = keys.AES128
		}
		return nil
	case at.Usage != keys.UsageData:
		return fmt.Errorf("%w: usage %s is not for data", ErrKeyUse, at.Usage)
	case !d.way.admitted(at.Mode):
		return fmt.Errorf("%w: mode of use", ErrKeyUse)
	case at.Mode == keys.ModeDecrypt && d.side.Mode.Forward():
		return fmt.Errorf("%w: mode of use: %s deciphers with the cipher's encryption, which this key may not do", ErrKeyUse, d.side.Mode)
	}
	return nil
}

// admitted reports whether a mode of use lets a key encipher or decipher.
func (way direction) admitted(m keys.Mode) bool {
	need := keys.ModeDecrypt
	if way == making {
		need = keys.ModeEncrypt
	}
	return m == need || m == keys.ModeBoth || m == keys.ModeAny
}

// fits refuses data and vectors that the cipher cannot take, before a key is used.
func (d *dataKey) fits(length int) error {
	size := d.kind.BlockSize()
	switch {
	case size == 0:
		return fmt.Errorf("%w: %s is no block cipher", ErrKeyUse, d.kind)
	case length == 0 || length%size != 0:
		return fmt.Errorf("%w: the data is not whole blocks of %d bytes", ErrRequest, size)
	case d.side.IV != nil && d.side.Mode == DataECB:
		return fmt.Errorf("%w: InitializationVector: ECB has none", ErrRequest)
	case d.side.IV != nil && len(d.side.IV) != size:
		return fmt.Errorf("%w: InitializationVector: it has %d bytes, one block of this key has %d", ErrRequest, len(d.side.IV), size)
	}
	return nil
}

// crypt enciphers or deciphers with the key, and counts the use.
func (a *Act) crypt(ctx context.Context, d dataKey, data []byte) (CryptedData, error) {
	if err := d.fits(len(data)); err != nil {
		return CryptedData{}, err
	}
	w, info, err := a.c.dataWorking(ctx, d)
	if err != nil {
		return CryptedData{}, err
	}
	defer w.release()
	if err := a.c.count(ctx, d.record, d.meter); err != nil {
		return CryptedData{}, err
	}
	work := blockmode.Decrypt
	if d.way == making {
		work = blockmode.Encrypt
	}
	out, err := work(w.full, d.side.Mode, d.side.IV, data)
	switch {
	case err == nil:
		return CryptedData{Data: out, Key: info, Custody: w.custody}, nil
	case errors.Is(err, blockmode.ErrMode):
		return CryptedData{}, fmt.Errorf("%w: Mode: %s has no form on blocks of %d bytes", ErrRequest, d.side.Mode, w.full.BlockSize())
	case errors.Is(err, blockmode.ErrData):
		return CryptedData{}, fmt.Errorf("%w: Mode: %s takes at most %d bytes at a time", ErrRequest, d.side.Mode, blockmode.MostCFB1)
	case errors.Is(err, blockmode.ErrVector):
		return CryptedData{}, fmt.Errorf("%w: InitializationVector: it does not fit this key", ErrRequest)
	}
	return CryptedData{}, tokenError("working on the data", err)
}

// dataWorking gives the cipher of a side and what the answer says of its key.
func (c *Custody) dataWorking(ctx context.Context, d dataKey) (*working, KeyInfo, error) {
	info := KeyInfo{ID: d.record.Block.ID, Check: d.record.Block.Check}
	switch {
	case d.block != nil:
		w, check, err := c.unwrapped(ctx, d.record, d.block, d.side.Wrapped.CheckBy)
		info.Check = check
		return w, info, err
	case d.side.DUKPT != nil:
		w, err := c.dataDerived(ctx, d)
		return w, info, err
	}
	w, err := c.static(ctx, d.record)
	return w, info, err
}

// dataDerived is the data key of a DUKPT terminal's transaction, in the token
// where the policy of an AES BDK demands that.
func (c *Custody) dataDerived(ctx context.Context, d dataKey) (*working, error) {
	use, err := dataUse(d.side.DUKPT.Variant, d.record.Block.Attributes.Algorithm)
	if err != nil {
		return nil, err
	}
	if !tokenOnly(d.record) || d.record.Block.Attributes.Algorithm.IsTDES() {
		return c.derived(ctx, d.record, d.side.DUKPT, use, nil)
	}
	can := keys.CanDecrypt
	if d.way == making {
		can = keys.CanEncrypt
	}
	return c.derivedInToken(ctx, d.record, d.side.DUKPT, use, can)
}

// dataUse is the data key of a variant. X9.24-1 has one for each direction and
// none for both.
func dataUse(v Variant, bdk keys.Algorithm) (dukpt.Use, error) {
	switch {
	case v == Request:
		return dukpt.DataRequest, nil
	case v == Response:
		return dukpt.DataResponse, nil
	case v == Bidirectional && bdk.IsAES():
		return dukpt.DataBoth, nil
	case v == Bidirectional:
		return 0, fmt.Errorf("%w: DukptKeyVariant: TDES DUKPT has a data key for requests and one for responses, and none for both", ErrRequest)
	}
	return 0, fmt.Errorf("%w: no variant of the data key is named", ErrRequest)
}

// outgoing is an error about the outgoing side of an operation with two.
type outgoing struct{ error }

func (o outgoing) Unwrap() error { return o.error }

// Outgoing reports whether an error of an operation with two keys is about the
// outgoing one. Custody looks at the incoming one first.
func Outgoing(err error) bool {
	var o outgoing
	return errors.As(err, &o)
}
