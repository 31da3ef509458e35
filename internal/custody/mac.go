package custody

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/mac"
)

// GenerateMAC computes a MAC. It returns [ErrDenied], [ErrNoKey],
// [ErrKeyState], [ErrKeyUse], [ErrRequest], [ErrCustody] or [ErrUnavailable].
func (a *Act) GenerateMAC(ctx context.Context, q GenerateMAC) (GeneratedMAC, error) {
	r := audit.Record{Action: audit.MACGenerate, MAC: audit.MAC{
		Alg: expectedMAC(q.Algorithm, q.Expected, q.DUKPT), Len: q.Length, Verdict: audit.VerdictOK,
	}}
	var made GeneratedMAC
	err := a.operate(ctx, OpGenerateMAC, &r, func() error {
		full, used, err := a.compute(ctx, OpGenerateMAC, &r, macJob{
			key: q.Key, dukpt: q.DUKPT, algorithm: q.Algorithm, padding: q.Padding, message: q.Message,
		})
		if err != nil {
			r.MAC.Verdict = audit.VerdictError
			return err
		}
		length := q.Length
		if length == 0 {
			length = defaultLength(q.Algorithm, len(full))
		}
		r.MAC.Len = length
		if q.Algorithm == MACUnionPay && length != len(full) {
			r.MAC.Verdict = audit.VerdictLength
			return errShortened
		}
		cut, err := mac.Truncate(full, length)
		if err != nil {
			r.MAC.Verdict = audit.VerdictLength
			return fmt.Errorf("%w: a MAC of this algorithm has at most %d bytes", ErrRequest, len(full))
		}
		made = GeneratedMAC{MAC: cut, Key: used.info, Custody: used.custody}
		return nil
	})
	if err != nil {
		return GeneratedMAC{}, err
	}
	return made, nil
}

// VerifyMAC verifies a MAC over the message as it was received. It returns
// [ErrMAC] for a MAC that does not match, and the errors of [Act.GenerateMAC].
// A wrong MAC is recorded as an outcome.
func (a *Act) VerifyMAC(ctx context.Context, q VerifyMAC) (VerifiedMAC, error) {
	r := audit.Record{Action: audit.MACVerify, MAC: audit.MAC{
		Alg: expectedMAC(q.Algorithm, q.Expected, q.DUKPT), Len: len(q.MAC), Verdict: audit.VerdictError,
	}}
	var good VerifiedMAC
	err := a.operate(ctx, OpVerifyMAC, &r, func() error {
		full, used, err := a.compute(ctx, OpVerifyMAC, &r, macJob{
			key: q.Key, dukpt: q.DUKPT, algorithm: q.Algorithm, padding: q.Padding, message: q.Message,
		})
		if err != nil {
			if errors.Is(err, ErrNoKey) {
				r.MAC.Verdict = audit.VerdictNoKey
			}
			return err
		}
		length, err := expectedLength(q, used.record, len(full))
		if err != nil {
			r.MAC.Verdict = audit.VerdictLength
			return err
		}
		if err := mac.Verify(full, q.MAC, length); err != nil {
			a.giveBack(used)
			if used, err = a.olderMAC(ctx, &r, q, used.record); err != nil {
				r.MAC.Verdict = audit.VerdictBad
				return err
			}
		}
		if err := a.spend(ctx, used.record, q.DUKPT, KSNMAC); err != nil {
			return err
		}
		r.MAC.Verdict = audit.VerdictOK
		good = VerifiedMAC{Key: used.info, Custody: used.custody}
		return nil
	})
	if err != nil {
		return VerifiedMAC{}, err
	}
	return good, nil
}

// olderMAC looks whether the MAC is that of an older version of the named alias,
// which the record then names. It returns [ErrMAC] where it is of none.
func (a *Act) olderMAC(ctx context.Context, r *audit.Record, q VerifyMAC, newest KeyRecord) (usedKey, error) {
	wrong := fmt.Errorf("%w under the named key", ErrMAC)
	if q.Key.Alias == "" || q.DUKPT != nil {
		return usedKey{}, wrong
	}
	job := macJob{algorithm: q.Algorithm, padding: q.Padding, message: q.Message}
	for k, m := range a.c.older(ctx, newest) {
		full, used, err := a.computeWith(ctx, OpVerifyMAC, r, k, m, job)
		if err != nil {
			return usedKey{}, err
		}
		if length, err := expectedLength(q, k, len(full)); err == nil && mac.Verify(full, q.MAC, length) == nil {
			r.Keys = []audit.Key{keyEntry(macRole(job), k)}
			return used, nil
		}
	}
	return usedKey{}, wrong
}

// macJob is what generation and verification have in common.
type macJob struct {
	key       Ref
	dukpt     *DUKPT
	algorithm MACAlgorithm
	padding   Padding
	message   []byte
	// whole leaves the MAC as it was computed, where the algorithm has a form of
	// its own for the wire.
	whole bool
}

// usedKey says which key did it.
type usedKey struct {
	record  KeyRecord
	info    KeyInfo
	custody audit.Custody
	meter   *meter // that counted the use; nil: none did
}

// compute returns the whole MAC of the message. The record is filled in as far
// as it comes.
func (a *Act) compute(ctx context.Context, op Operation, r *audit.Record, job macJob) ([]byte, usedKey, error) {
	k, err := a.c.book.permit(ctx, a.caller.Client, op, job.key)
	if err != nil {
		return nil, usedKey{}, err
	}
	r.Keys = []audit.Key{keyEntry(macRole(job), k)}
	r.MAC.Alg = macName(job.algorithm, k, job.dukpt)
	if job.dukpt != nil {
		r.KSN = ksnText(job.dukpt.KSN)
	}
	way := taking
	if op == OpGenerateMAC {
		way = making
	}
	m, err := a.c.ready(ctx, k, way)
	if err != nil {
		return nil, usedKey{}, err
	}
	if op == OpVerifyMAC {
		if err := a.unspent(ctx, k, job.dukpt, KSNMAC); err != nil {
			return nil, usedKey{}, err
		}
	}
	return a.computeWith(ctx, op, r, k, m, job)
}

// computeWith is compute for a key that was found ready. It counts the use, but
// where m is nil.
func (a *Act) computeWith(ctx context.Context, op Operation, r *audit.Record, k KeyRecord, m *meter, job macJob) ([]byte, usedKey, error) {
	padding, err := paddingOf(job, k)
	if err != nil {
		return nil, usedKey{}, err
	}
	w, err := a.macKey(ctx, op, k, job)
	if err != nil {
		return nil, usedKey{}, err
	}
	defer w.release()
	if m != nil {
		if err := a.c.count(ctx, k, m); err != nil {
			return nil, usedKey{}, err
		}
	}
	r.Custody = w.custody
	full, err := w.mac(job.algorithm, job.message, padding)
	if err == nil && job.algorithm == MACUnionPay && !job.whole {
		full = fmt.Appendf(nil, "%X", full[:4])
	}
	if err != nil {
		return nil, usedKey{}, err
	}
	return full, usedKey{record: k, info: KeyInfo{ID: k.Block.ID, Check: k.Block.Check}, custody: w.custody, meter: m}, nil
}

// macKey checks that the key is for this MAC and gives it.
func (a *Act) macKey(ctx context.Context, op Operation, k KeyRecord, job macJob) (*working, error) {
	if len(job.message) == 0 {
		return nil, fmt.Errorf("%w: the message is empty", ErrRequest)
	}
	if job.dukpt != nil {
		return a.derivedMAC(ctx, k, job)
	}
	check := standardMAC
	if job.algorithm == MACUnionPay {
		check = unionPayMAC
	}
	if err := check(k, job.algorithm); err != nil {
		return nil, err
	}
	mode, may := k.Block.Attributes.Mode, keys.ModeMake
	if op == OpVerifyMAC {
		may = keys.ModeVerify
	}
	if mode != may && mode != keys.ModeMAC && mode != keys.ModeAny {
		return nil, fmt.Errorf("%w: mode of use", ErrKeyUse)
	}
	return a.c.static(ctx, k)
}

// standardMAC checks that the key is for an algorithm that a usage stands for.
func standardMAC(k KeyRecord, algorithm MACAlgorithm) error {
	a := k.Block.Attributes
	var want keys.Usage
	switch algorithm {
	case MACAlg1:
		want = keys.UsageMACAlg1
	case MACAlg3:
		want = keys.UsageMACAlg3
	case MACCMAC:
		want = keys.UsageCMAC
	case MACHMAC:
		want = keys.UsageHMAC
	}
	switch {
	case want == "" || a.Usage != want:
		return fmt.Errorf("%w: usage %s is not for this algorithm", ErrKeyUse, a.Usage)
	case k.Block.Policy[TagMACAlgorithm] != "":
		return fmt.Errorf("%w: its policy names another MAC algorithm", ErrKeyUse)
	}
	return nil
}

// unionPayMAC checks that the key is for UnionPay's MAC, which no usage stands
// for: its policy must say so. Section 10.4 of the API.
func unionPayMAC(k KeyRecord, _ MACAlgorithm) error {
	if err := unionPayKey(k.Block.Attributes); err != nil {
		return err
	}
	if k.Block.Policy[TagMACAlgorithm] != algorithmUnionPay {
		return fmt.Errorf("%w: its policy %s does not name this algorithm", ErrKeyUse, TagMACAlgorithm)
	}
	return nil
}

// unionPayKey checks usage and length of such a key.
func unionPayKey(a keys.Attributes) error {
	switch {
	case a.Usage != keys.UsageMACISO16609 && a.Usage != keys.UsageMACAlg1:
		return fmt.Errorf("%w: usage %s is not for this algorithm", ErrKeyUse, a.Usage)
	case a.Algorithm != keys.TDES2:
		return fmt.Errorf("%w: the algorithm has double-length keys", ErrKeyUse)
	}
	return nil
}

func (a *Act) derivedMAC(ctx context.Context, k KeyRecord, job macJob) (*working, error) {
	use, err := macUse(job.dukpt.Variant)
	if err != nil {
		return nil, err
	}
	if job.algorithm == MACHMAC || job.algorithm == MACUnionPay {
		return nil, fmt.Errorf("%w: the algorithm has no DUKPT keys", ErrRequest)
	}
	if k.Block.Attributes.Algorithm.IsAES() && job.algorithm != MACCMAC {
		return nil, fmt.Errorf("%w: algorithms 1 and 3 need a TDES BDK", ErrKeyUse)
	}
	return a.c.derived(ctx, k, job.dukpt, use, &a.transaction)
}

func macUse(v Variant) (dukpt.Use, error) {
	switch v {
	case Request:
		return dukpt.MACRequest, nil
	case Response:
		return dukpt.MACResponse, nil
	case Bidirectional:
		return dukpt.MACBoth, nil
	}
	return 0, fmt.Errorf("%w: no variant of the MAC key is named", ErrRequest)
}

// mac computes the whole MAC where the key is.
func (w *working) mac(algorithm MACAlgorithm, message []byte, padding mac.Padding) ([]byte, error) {
	full, err := w.macOf(algorithm, message, padding)
	switch {
	case err == nil:
		return full, nil
	case errors.Is(err, mac.ErrPadding):
		return nil, fmt.Errorf("%w: the message is not whole blocks and the padding is none", ErrRequest)
	case errors.Is(err, mac.ErrCipher):
		return nil, fmt.Errorf("%w: the algorithm does not work with this key", ErrKeyUse)
	}
	return nil, tokenError("computing the MAC", err)
}

func (w *working) macOf(algorithm MACAlgorithm, message []byte, padding mac.Padding) ([]byte, error) {
	switch algorithm {
	case MACAlg1:
		return mac.Algorithm1(w.full, message, padding)
	case MACAlg3:
		if w.left == nil {
			return nil, fmt.Errorf("%w: no object for the left half", mac.ErrCipher)
		}
		return mac.Algorithm3(w.left, w.full, message, padding)
	case MACCMAC:
		if w.token != nil {
			return w.token.CMAC(message)
		}
		return mac.CMAC(w.full, message)
	case MACHMAC:
		if k, ok := w.token.(keys.HMACKey); ok {
			return k.HMAC(message)
		}
	case MACUnionPay:
		return mac.UnionPayWhole(w.full, message)
	}
	return nil, fmt.Errorf("%w: unknown algorithm", mac.ErrCipher)
}

// paddingOf takes the caller's padding, or the policy of the key.
func paddingOf(job macJob, k KeyRecord) (mac.Padding, error) {
	switch job.padding {
	case Padding1:
		return mac.Padding1, nil
	case Padding2:
		return mac.Padding2, nil
	}
	switch tag := k.Block.Policy[TagMACPadding]; tag {
	case "", "none":
		return mac.NoPadding, nil
	case "1":
		return mac.Padding1, nil
	case "2":
		return mac.Padding2, nil
	}
	return 0, fmt.Errorf("%w: the key's policy has an unknown padding", ErrKeyUse)
}

// defaultLength is the API's: 4 bytes for algorithms 1 and 3, else the whole MAC.
func defaultLength(algorithm MACAlgorithm, whole int) int {
	if algorithm == MACAlg1 || algorithm == MACAlg3 {
		return 4
	}
	return whole
}

// expectedLength is the number of bytes that the received MAC must have. It
// comes from the caller or the key's policy, never from the MAC alone, and the
// policy's least binds the caller too.
func expectedLength(q VerifyMAC, k KeyRecord, whole int) (int, error) {
	least := 4
	if tag := k.Block.Policy[TagMACMinBytes]; tag != "" {
		n, err := strconv.Atoi(tag)
		if err != nil {
			return 0, fmt.Errorf("%w: the key's policy has an unreadable MAC length", ErrKeyUse)
		}
		least = n
	}
	if q.Length != 0 && len(q.MAC) != q.Length {
		return 0, fmt.Errorf("%w: the MAC has not the length named", ErrRequest)
	}
	if q.Algorithm == MACUnionPay && len(q.MAC) != whole {
		return 0, errShortened
	}
	if len(q.MAC) < least || len(q.MAC) > whole {
		return 0, fmt.Errorf("%w: a MAC under this key has %d to %d bytes", ErrRequest, least, whole)
	}
	return len(q.MAC), nil
}

// errShortened refuses another length of UnionPay's MAC: it is eight characters,
// and linear before the encryption, so that half of it would be too little.
var errShortened = fmt.Errorf("%w: a MAC of this algorithm has 8 bytes", ErrRequest)

func macRole(job macJob) audit.KeyRole {
	if job.dukpt != nil {
		return audit.KeyRoleBDK
	}
	return audit.KeyRoleMAC
}

// macName is the log's name of the algorithm.
func macName(algorithm MACAlgorithm, k KeyRecord, d *DUKPT) audit.MACAlg {
	kind := k.Block.Attributes.Algorithm
	if d != nil && d.Derive != 0 {
		kind = d.Derive
	}
	switch algorithm {
	case MACAlg1:
		return audit.MACAlg1
	case MACAlg3:
		return audit.MACAlg3
	case MACCMAC:
		if kind.IsTDES() {
			return audit.MACCMACTDES
		}
		return audit.MACCMACAES
	case MACHMAC:
		return HMACName(kind)
	case MACUnionPay:
		return audit.MACCUPECB
	}
	return 0
}

// HMACName is the log's name of the HMAC with the hash of an HMAC key.
func HMACName(kind keys.Algorithm) audit.MACAlg {
	switch kind {
	case keys.HMACSHA224:
		return audit.MACHMAC224
	case keys.HMACSHA256:
		return audit.MACHMAC256
	case keys.HMACSHA384:
		return audit.MACHMAC384
	}
	return audit.MACHMAC512
}

// expectedMAC is the algorithm that a record names while the key is not known:
// a request may end before it is found, and its record has the expected algorithm
// all the same. What the caller says goes first; the KSN's length tells TDES from
// AES; else the usual cipher and hash stand for the key's.
func expectedMAC(algorithm MACAlgorithm, said audit.MACAlg, d *DUKPT) audit.MACAlg {
	unknown := KeyRecord{Block: &keys.Block{}}
	switch {
	case said != 0:
		return said
	case algorithm == MACCMAC && d != nil && d.Derive != 0:
		return macName(algorithm, unknown, d)
	case algorithm == MACCMAC && d != nil && len(d.KSN) == len(dukpt.TDESKSN{}):
		return audit.MACCMACTDES
	case algorithm == MACCMAC:
		return audit.MACCMACAES
	case algorithm == MACHMAC:
		return audit.MACHMAC256
	}
	return macName(algorithm, unknown, nil)
}
