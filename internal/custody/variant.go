package custody

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/tr31"
)

// openDerived opens a block of version B or D with keys that are derived in the
// token.
func (c *Custody) openDerived(ctx context.Context, block *tr31.Block, kek KeyRecord) (secret.Bytes, error) {
	loaded, err := c.load(ctx, kek)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer loaded.Release()
	value, err := block.Open(loaded.Key, kek.Block.Attributes.Algorithm, tr31.Policy{})
	if err != nil {
		return secret.Bytes{}, blockError(err)
	}
	return value, nil
}

// openVariant opens a block of version A or C, whose keys are the key-encryption
// key XORed with a letter in each byte. X9.143, section 7.1.
func (c *Custody) openVariant(ctx context.Context, block *tr31.Block, kek KeyRecord) (value secret.Bytes, err error) {
	a := kek.Block.Attributes.Algorithm
	variant := func(letter byte, can keys.Ability) (keys.Derived, error) {
		k, err := c.exchange.Token.Under(ctx, kek.Block, bytes.Repeat([]byte{letter}, a.KeyBytes()), can)
		if err != nil {
			return nil, tokenError("using the wrapping key", err)
		}
		return k, nil
	}
	enc, err := variant('E', keys.CanDecrypt)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer enc.Close()
	auth, err := variant('M', keys.CanEncrypt)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer auth.Close()
	value, err = block.OpenVariant(enc, auth, a, tr31.Policy{ReadA: true, ReadC: true})
	if err != nil {
		return secret.Bytes{}, blockError(err)
	}
	return value, nil
}

// zoneMaster finds the zone master key of a bare cryptogram: a TDES key of usage
// K0 that the configuration names for this.
func (c *Custody) zoneMaster(ctx context.Context, caller Caller, corr string, op Operation, ref Ref, side keys.Mode, list []string) (KeyRecord, error) {
	if err := c.exchanging(); err != nil {
		return KeyRecord{}, err
	}
	zmk, err := c.wrappingKey(ctx, caller, op, ref, side)
	if err != nil {
		return zmk, c.refuse(ctx, caller, corr, op, err)
	}
	a := zmk.Block.Attributes
	switch {
	case a.Usage != keys.UsageKEK:
		return zmk, fmt.Errorf("%w: a key block protection key carries key blocks only", ErrKeyUse)
	case !a.Algorithm.IsTDES():
		return zmk, fmt.Errorf("%w: a zone master key of this form is TDES", ErrKeyUse)
	case !listed(list, zmk):
		return zmk, fmt.Errorf("%w: the configuration permits no bare cryptograms under this key", ErrKeyUse)
	}
	return zmk, nil
}

// schemeFits checks scheme, key and zone master key against each other.
func schemeFits(s keys.Scheme, a keys.Algorithm, zmk KeyRecord) error {
	if s.Algorithm() == 0 || s.Algorithm() != a {
		return fmt.Errorf("%w: the key scheme is not one of this key algorithm", ErrRequest)
	}
	if err := tr31.CheckStrength(a, zmk.Block.Attributes.Algorithm); err != nil {
		return blockError(err)
	}
	return nil
}

// underZMK enciphers or deciphers the parts of a key, each under its variant of
// the zone master key.
func (c *Custody) underZMK(ctx context.Context, zmk KeyRecord, s keys.Scheme, in []byte, can keys.Ability) (secret.Bytes, error) {
	if len(in) != s.Algorithm().KeyBytes() {
		return secret.Bytes{}, fmt.Errorf("%w: length of the cryptogram", ErrKeyBlock)
	}
	out := secret.New(len(in))
	for i, variant := range s.Variants() {
		if err := c.part(ctx, zmk, s.Mask(variant, zmk.Block.Attributes.Algorithm.KeyBytes()), in[8*i:8*i+8], out.Reveal()[8*i:8*i+8], can); err != nil {
			out.Clear()
			return secret.Bytes{}, err
		}
	}
	return out, nil
}

func (c *Custody) part(ctx context.Context, zmk KeyRecord, mask, in, out []byte, can keys.Ability) error {
	k, err := c.exchange.Token.Under(ctx, zmk.Block, mask, can)
	if err != nil {
		return tokenError("using the zone master key", err)
	}
	crypt := k.Decrypt
	if can == keys.CanEncrypt {
		crypt = k.Encrypt
	}
	done, err := crypt(nil, in)
	if err = errors.Join(err, k.Close()); err != nil {
		secret.Clear(done)
		return tokenError("using the zone master key", err)
	}
	copy(out, done)
	secret.Clear(done)
	return nil
}

// ExportCryptogram asks for a stored TDES key under a zone master key, in the
// form of old hosts.
type ExportCryptogram struct {
	Key, ZMK Ref
	Scheme   keys.Scheme
}

// ExportedCryptogram is such a key on its way out.
type ExportedCryptogram struct {
	ZMK        keys.ID
	Cryptogram string   // with the scheme's letter
	Check      keys.KCV // over zeros
	Custody    audit.Custody
}

// ExportCryptogram lets a key out bound to nothing: whoever gets it may use it
// for anything. So it always needs a second person where anything does, and the
// configuration must name the zone master key for it. Errors are those of
// [Custody.ExportKey].
func (c *Custody) ExportCryptogram(ctx context.Context, caller Caller, corr string, q ExportCryptogram) (ExportedCryptogram, error) {
	zmk, err := c.zoneMaster(ctx, caller, corr, OpExportKey, q.ZMK, keys.ModeEncrypt, c.lists.Load().cryptogramsOut)
	if err != nil {
		return ExportedCryptogram{}, err
	}
	k, err := c.leaving(ctx, caller, q.Key, false)
	if err != nil {
		return ExportedCryptogram{}, c.refuse(ctx, caller, corr, OpExportKey, err)
	}
	if zmk.Block.ID == k.Block.ID {
		return ExportedCryptogram{}, fmt.Errorf("%w: a key does not carry itself", ErrKeyUse)
	}
	if err := schemeFits(q.Scheme, k.Block.Attributes.Algorithm, zmk); err != nil {
		return ExportedCryptogram{}, err
	}
	object := fmt.Sprintf("%s as a cryptogram of scheme %c under %s", keyName(k), q.Scheme, keyName(zmk))
	approvals, err := c.approved(ctx, caller, corr, OpExportKey, object)
	if err != nil {
		return ExportedCryptogram{}, err
	}
	answer := ExportedCryptogram{ZMK: zmk.Block.ID, Custody: audit.CustodyProcess}
	err = c.intended(ctx, c.exportRecord(caller, corr, k, zmk, approvals), func(r *audit.Record) error {
		if err := c.use(ctx, zmk, making); err != nil {
			return err
		}
		value, err := c.exchange.Token.Export(ctx, k.Block)
		if err != nil {
			return tokenError("exporting a key", err)
		}
		defer value.Clear()
		if answer.Check, err = keys.CheckClear(k.Block.Attributes.Algorithm, keys.CheckByZeros, value.Reveal()); err != nil {
			return fmt.Errorf("%w: %w", ErrTampered, err)
		}
		cryptogram, err := c.underZMK(ctx, zmk, q.Scheme, value.Reveal(), keys.CanEncrypt)
		if err != nil {
			return err
		}
		answer.Cryptogram = q.Scheme.FormatCryptogram(cryptogram.Reveal())
		r.Custody = audit.CustodyProcess
		return nil
	})
	if err != nil {
		return ExportedCryptogram{}, err
	}
	return answer, nil
}
