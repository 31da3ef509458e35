package custody

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/tr31"
)

// ExportKey asks for a stored key, or the initial key of a terminal, as a TR-31
// key block.
type ExportKey struct {
	Key     Ref
	KEK     Ref
	Headers BlockHeaders
	KSN     []byte           // of a terminal's initial key, counter zero; nil for the key itself
	CheckBy keys.CheckMethod // of the check value in the answer; 0: as stored, or the default
}

// BlockHeaders are what the header of an exported block is to say in place of
// the key's own attributes; zero members leave them. They may only restrict.
type BlockHeaders struct {
	Mode          keys.Mode
	Exportability keys.Exportability
	Version       string          // two characters
	Optional      []tr31.Optional // beside those that came with the key
}

// ExportedKey is a key block on its way out.
type ExportedKey struct {
	KEK     keys.ID
	Block   string
	Check   keys.KCV // of the carried key
	CheckBy keys.CheckMethod
	Custody audit.Custody
}

// ExportKey lets a key out under a key-encryption key that is as strong: version
// B under TDES, D under AES. An initial key may be exported of a base derivation
// key that may not itself leave. It returns [ErrDenied], [ErrNoKey],
// [ErrKeyState], [ErrKeyUse], [ErrCustody], [ErrRequest], [ErrApproval] or
// [ErrUnavailable]. Sections 8.4 and 8.5 of the API.
func (c *Custody) ExportKey(ctx context.Context, caller Caller, corr string, q ExportKey) (ExportedKey, error) {
	if err := c.exchanging(); err != nil {
		return ExportedKey{}, err
	}
	k, err := c.leaving(ctx, caller, q.Key, q.KSN != nil)
	if err != nil {
		return ExportedKey{}, c.refuse(ctx, caller, corr, OpExportKey, err)
	}
	kek, err := c.wrappingKey(ctx, caller, OpExportKey, q.KEK, keys.ModeEncrypt)
	if err != nil {
		return ExportedKey{}, c.refuse(ctx, caller, corr, OpExportKey, err)
	}
	if kek.Block.ID == k.Block.ID {
		return ExportedKey{}, fmt.Errorf("%w: a key does not carry itself", ErrKeyUse)
	}
	out, err := newDeparture(k, kek, q)
	if err != nil {
		return ExportedKey{}, err
	}
	object := fmt.Sprintf("%s under %s", keyName(k), keyName(kek))
	if q.KSN != nil {
		object = "initial key " + out.ksn + " of " + object
	}
	approvals, err := c.approved(ctx, caller, corr, OpExportKey, object, k.Block.Attributes.Usage)
	if err != nil {
		return ExportedKey{}, err
	}
	r := c.exportRecord(caller, corr, k, kek, approvals)
	r.KSN = out.ksn
	answer := ExportedKey{KEK: kek.Block.ID, CheckBy: out.checkBy, Custody: audit.CustodyProcess}
	err = c.intended(ctx, r, func(r *audit.Record) error {
		if err := c.use(ctx, kek, making); err != nil {
			return err
		}
		value, err := out.value(ctx, c)
		if err != nil {
			return err
		}
		defer value.Clear()
		if answer.Check, err = keys.CheckClear(out.algorithm, out.checkBy, value.Reveal()); err != nil {
			return fmt.Errorf("%w: no check value of this kind", ErrRequest)
		}
		if answer.Block, err = c.sealBlock(ctx, kek, out.header, value); err != nil {
			return err
		}
		r.Custody, r.Keys[0].Header = audit.CustodyProcess, answer.Block[:16]
		return nil
	})
	if err != nil {
		return ExportedKey{}, err
	}
	return answer, nil
}

// leaving finds the key that is to leave, or whose initial keys are.
func (c *Custody) leaving(ctx context.Context, caller Caller, ref Ref, initial bool) (KeyRecord, error) {
	k, err := c.book.permit(ctx, caller.Client, OpExportKey, ref)
	if err != nil {
		return k, err
	}
	if _, err := c.ready(ctx, k, making); err != nil {
		return k, err
	}
	if tokenOnly(k) {
		return k, fmt.Errorf("%w: the key would be in the process", ErrCustody)
	}
	if initial {
		return k, derives(k)
	}
	if k.Block.Attributes.Exportability == keys.NonExportable {
		return k, fmt.Errorf("%w: the key is not exportable", ErrKeyUse)
	}
	return k, nil
}

func (c *Custody) exportRecord(caller Caller, corr string, k, kek KeyRecord, approvals []audit.Approval) audit.Record {
	r := c.changeRecord(caller, corr, audit.KeyExport, audit.ChangeKey, keyName(k))
	r.Approvals = approvals
	r.Keys = []audit.Key{
		keyEntrySec(audit.KeyRoleKEK, kek.Block, keyName(kek)),
		keyEntrySec(audit.KeyRoleTarget, k.Block, keyName(k)),
	}
	return r
}

func (c *Custody) sealBlock(ctx context.Context, kek KeyRecord, h tr31.Header, value secret.Bytes) (string, error) {
	loaded, err := c.load(ctx, kek)
	if err != nil {
		return "", err
	}
	defer loaded.Release()
	text, err := tr31.Seal(loaded.Key, kek.Block.Attributes.Algorithm, h, value, randomReader{c})
	switch {
	case errors.Is(err, ErrUnavailable):
		return "", err
	case err != nil:
		return "", blockError(err)
	}
	return text, nil
}

// departure is a key on its way out, as far as the request and the stored
// attributes tell.
type departure struct {
	header    tr31.Header
	algorithm keys.Algorithm
	checkBy   keys.CheckMethod
	ksn       string // of an initial key
	value     func(context.Context, *Custody) (secret.Bytes, error)
}

func newDeparture(k, kek KeyRecord, q ExportKey) (departure, error) {
	a := k.Block.Attributes
	out := departure{algorithm: a.Algorithm, checkBy: q.CheckBy}
	if out.checkBy == 0 {
		out.checkBy = k.Block.CheckBy
		if q.KSN != nil {
			out.checkBy = a.Algorithm.CheckMethod()
		}
	}
	if !a.Algorithm.CheckableBy(out.checkBy) {
		return out, fmt.Errorf("%w: the check value is not one for this key algorithm", ErrRequest)
	}
	if err := tr31.CheckStrength(a.Algorithm, kek.Block.Attributes.Algorithm); err != nil {
		return out, blockError(err)
	}
	if q.KSN != nil {
		return out, out.initial(k, kek, q)
	}
	version, blocks, err := kept(k.Block)
	if err != nil {
		return out, err
	}
	out.header = tr31.NewHeader(a, kek.Block.Attributes.Algorithm)
	out.header.KeyVersion = version
	out.header.Optional = append(out.header.Optional, blocks...)
	out.value = func(ctx context.Context, c *Custody) (secret.Bytes, error) {
		value, err := c.exchange.Token.Export(ctx, k.Block)
		if err != nil {
			return value, tokenError("exporting a key", err)
		}
		return value, nil
	}
	return out, restrict(&out.header, q.Headers)
}

// initial makes the departure that of a terminal's initial key. Section 11.3 of
// the API; X9.143, optional blocks KS and IK.
func (d *departure) initial(k, kek KeyRecord, q ExportKey) error {
	a := keys.Attributes{Usage: keys.UsageInitialKey, Algorithm: d.algorithm, Mode: keys.ModeDerive, Exportability: keys.NonExportable}
	if q.Headers.Exportability != 0 {
		a.Exportability = q.Headers.Exportability // of a new key: nothing is widened
	}
	d.header = tr31.NewHeader(a, kek.Block.Attributes.Algorithm)
	switch {
	case d.algorithm == keys.TDES2:
		ksn, err := dukpt.TDESKSNFromBytes(q.KSN)
		if err != nil || ksn.Counter() != 0 {
			return fmt.Errorf("%w: a TDES initial key has a key serial number of 20 digits whose counter bits are zero", ErrRequest)
		}
		d.ksn = ksn.String()
		d.header.Optional = []tr31.Optional{{ID: "KS", Data: d.ksn}}
		d.value = func(ctx context.Context, c *Custody) (secret.Bytes, error) { return c.initialTDES(ctx, k, ksn) }
	case d.algorithm.IsAES():
		ksn, err := dukpt.AESKSNFromBytes(q.KSN)
		if err != nil || ksn.Counter() != 0 {
			return fmt.Errorf("%w: an AES initial key has a key serial number of 24 digits of which the last 8 are zero", ErrRequest)
		}
		d.ksn = ksn.String()
		d.header.Optional = []tr31.Optional{{ID: "IK", Data: d.ksn[:16]}}
		d.value = func(ctx context.Context, c *Custody) (secret.Bytes, error) { return c.initialAES(ctx, k, ksn) }
	default:
		return fmt.Errorf("%w: DUKPT has no form for %s", ErrKeyUse, d.algorithm)
	}
	return restrict(&d.header, q.Headers)
}

// initialTDES makes the initial key by two encryptions in the token.
func (c *Custody) initialTDES(ctx context.Context, k KeyRecord, ksn dukpt.TDESKSN) (secret.Bytes, error) {
	loaded, err := c.load(ctx, k)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer loaded.Release()
	if loaded.Companion == nil {
		return secret.Bytes{}, fmt.Errorf("%w: the BDK has no companion object", ErrKeyUse)
	}
	ik, err := initialKey(loaded, dukpt.InitialKeyData(ksn))
	if err != nil {
		return secret.Bytes{}, err
	}
	defer secret.Clear(ik[:])
	value := secret.New(len(ik))
	copy(value.Reveal(), ik[:])
	return value, nil
}

// initialAES makes the initial key by encryption in the token: X9.24-3, 6.3.
func (c *Custody) initialAES(ctx context.Context, k KeyRecord, ksn dukpt.AESKSN) (secret.Bytes, error) {
	step := dukpt.InitialKeyStep(ksn.InitialKeyID(), keyType(k.Block.Attributes.Algorithm))
	value, err := c.exchange.Token.InitialKey(ctx, k.Block, step.Data())
	if err != nil {
		return value, tokenError("deriving the initial key", err)
	}
	return value, nil
}

const mostOptional = 112 // characters of the optional blocks that a caller may add

// restrict applies what a caller wants the header to say. It returns
// [ErrRequest] for anything that would permit more than the key does.
func restrict(h *tr31.Header, want BlockHeaders) error {
	if want.Mode != 0 {
		if !within(h.Usage, want.Mode, h.Mode) {
			return fmt.Errorf("%w: KeyBlockHeaders.KeyModesOfUse must be a part of the key's own", ErrRequest)
		}
		h.Mode = want.Mode
	}
	if want.Exportability != 0 {
		order := string([]keys.Exportability{keys.NonExportable, keys.Sensitive, keys.Exportable})
		if strings.IndexByte(order, byte(want.Exportability)) > strings.IndexByte(order, byte(h.Exportability)) {
			return fmt.Errorf("%w: KeyBlockHeaders.KeyExportability must not be wider than the key's own", ErrRequest)
		}
		h.Exportability = want.Exportability
	}
	if want.Version != "" && want.Version != h.KeyVersion {
		if h.KeyVersion != "00" {
			return fmt.Errorf("%w: KeyBlockHeaders.KeyVersion must be the one that the key came with", ErrRequest)
		}
		if strings.HasPrefix(want.Version, "c") {
			return fmt.Errorf("%w: KeyBlockHeaders.KeyVersion would make the key a component", ErrRequest)
		}
		h.KeyVersion = want.Version
	}
	return addOptional(h, want.Optional)
}

func addOptional(h *tr31.Header, blocks []tr31.Optional) error {
	total := 0
	for _, o := range blocks {
		total += len(tr31.FormatOptional([]tr31.Optional{o}))
		has, found := h.Find(o.ID)
		switch {
		case o.ID == tr31.HashBlock && !found, o.ID == "PB", o.ID == "KP":
			return fmt.Errorf("%w: KeyBlockHeaders.OptionalBlocks names a block that keyd itself writes", ErrRequest)
		case found && has != o.Data:
			return fmt.Errorf("%w: KeyBlockHeaders.OptionalBlocks changes a block of the key", ErrRequest)
		case !found:
			h.Optional = append(h.Optional, o)
		}
	}
	if total > mostOptional {
		return fmt.Errorf("%w: KeyBlockHeaders.OptionalBlocks are together more than 112 characters", ErrRequest)
	}
	return nil
}

// within reports whether mode permits no more than of, for a key of the usage.
func within(u keys.Usage, mode, of keys.Mode) bool {
	parts := map[keys.Mode][]keys.Mode{
		keys.ModeBoth: {keys.ModeEncrypt, keys.ModeDecrypt},
		keys.ModeMAC:  {keys.ModeMake, keys.ModeVerify},
	}
	if mode == of || slices.Contains(parts[of], mode) {
		return true
	}
	if of != keys.ModeAny {
		return false
	}
	return slices.ContainsFunc(keys.Algorithms(), func(a keys.Algorithm) bool {
		return keys.Attributes{Usage: u, Algorithm: a, Mode: mode, Exportability: keys.Exportable}.Validate() == nil
	})
}
