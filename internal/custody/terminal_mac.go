package custody

import (
	"context"
	"errors"
	"fmt"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/mac"
)

// TerminalAlgorithm is a MAC algorithm of terminals with a master key, by the
// name that profiles have for it (U-53).
type TerminalAlgorithm string

// The algorithms. They pad with zero bytes to whole blocks unless told otherwise.
const (
	CUPECB     TerminalAlgorithm = "cup_ecb"      // linear before the encryption: legacy (U-56)
	X99        TerminalAlgorithm = "x9_9"         // ISO 9797-1 algorithm 1, single DES
	CBCMAC3DES TerminalAlgorithm = "cbc_mac_3des" // the same with two-key TDES
	X919       TerminalAlgorithm = "x9_19"        // ISO 9797-1 algorithm 3
	CMAC       TerminalAlgorithm = "cmac"         // NIST SP 800-38B, with the cipher of the key
)

// known returns the algorithm as the rest of custody names it, or 0.
func (t TerminalAlgorithm) known() MACAlgorithm {
	switch t {
	case CUPECB:
		return MACUnionPay
	case X99, CBCMAC3DES:
		return MACAlg1
	case X919:
		return MACAlg3
	case CMAC:
		return MACCMAC
	}
	return 0
}

// name is the log's name of the algorithm where there is no key to tell more.
func (t TerminalAlgorithm) name() audit.MACAlg {
	switch t {
	case CUPECB:
		return audit.MACCUPECB
	case X919:
		return audit.MACAlg3
	case CMAC:
		return audit.MACCMACTDES
	}
	return audit.MACAlg1
}

// ErrSignIn: the terminal has no working keys that it could still use, and must
// sign in. Where its key is too old or was used too often, the error is an
// [ErrKeyState] too.
var ErrSignIn = errors.New("custody: the terminal must sign in")

// TerminalMAC is a message of a terminal with a master key, or to one, and the
// key of its MAC.
type TerminalMAC struct {
	TID       string
	Key       keys.ID // its present MAC key, as the registry has it; empty where there is none
	Algorithm TerminalAlgorithm
	Padding   Padding // Padding2 for padding 2 of ISO 9797-1
	Message   []byte  // from the first byte of the MTI to the last before the MAC field (U-52)
	Bytes     int     // of the MAC that the form in the profile carries: 8, or 4
	MAC       []byte  // to be verified: as many
}

// VerifyTerminalMAC verifies the MAC of a terminal's message over the bytes as
// they were received, all of it and in constant time (U-55). The key must be one
// that was made for this terminal: its block says so (M-13). It counts a message
// of the key (M-14).
//
// It returns [ErrMAC], [ErrSignIn] for a terminal that has no key, or one that
// is too old or was used too often, and otherwise the errors of
// [Act.GenerateMAC].
func (a *Act) VerifyTerminalMAC(ctx context.Context, q TerminalMAC) (VerifiedMAC, error) {
	r := audit.Record{Action: audit.MACVerify, MAC: audit.MAC{Alg: q.Algorithm.name(), Len: len(q.MAC), Verdict: audit.VerdictError}}
	var good VerifiedMAC
	err := a.operate(ctx, OpVerifyMAC, &r, func() error {
		full, used, err := a.terminalMAC(ctx, OpVerifyMAC, &r, q)
		if err != nil {
			if errors.Is(err, ErrNoKey) || q.Key == "" {
				r.MAC.Verdict = audit.VerdictNoKey
			}
			return err
		}
		if err := mac.Verify(full, q.MAC, q.Bytes); err != nil {
			a.giveBack(used)
			r.MAC.Verdict = audit.VerdictBad
			if len(q.MAC) != q.Bytes {
				r.MAC.Verdict = audit.VerdictLength
			}
			return fmt.Errorf("%w under the terminal's key", ErrMAC)
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

// SealTerminal makes the MAC of a message to a terminal, q.Bytes of it. It counts no
// message and asks for no age: the key has just verified the request that the
// message answers. It returns [ErrSignIn] for a terminal that has no key, and
// otherwise the errors of [Act.GenerateMAC].
func (a *Act) SealTerminal(ctx context.Context, q TerminalMAC) (GeneratedMAC, error) {
	r := audit.Record{Action: audit.MACGenerate, MAC: audit.MAC{Alg: q.Algorithm.name(), Len: q.Bytes, Verdict: audit.VerdictOK}}
	var made GeneratedMAC
	err := a.operate(ctx, OpGenerateMAC, &r, func() error {
		full, used, err := a.terminalMAC(ctx, OpGenerateMAC, &r, q)
		if err != nil {
			r.MAC.Verdict = audit.VerdictError
			return err
		}
		made = GeneratedMAC{MAC: full[:q.Bytes:q.Bytes], Key: used.info, Custody: used.custody}
		return nil
	})
	if err != nil {
		return GeneratedMAC{}, err
	}
	return made, nil
}

// terminalMAC returns the whole MAC of the message, at least 8 bytes. The record
// is filled in as far as it comes.
func (a *Act) terminalMAC(ctx context.Context, op Operation, r *audit.Record, q TerminalMAC) ([]byte, usedKey, error) {
	job := macJob{key: Ref{ID: q.Key}, algorithm: q.Algorithm.known(), padding: Padding1, message: q.Message, whole: true}
	if q.Padding == Padding2 {
		job.padding = Padding2
	}
	switch {
	case job.algorithm == 0:
		return nil, usedKey{}, fmt.Errorf("%w: no MAC algorithm of terminals is called %q", ErrRequest, string(q.Algorithm))
	case q.Bytes != 8 && q.Bytes != 4:
		return nil, usedKey{}, fmt.Errorf("%w: a MAC of a terminal has 8 bytes, or 4", ErrRequest)
	case q.Key == "":
		return nil, usedKey{}, fmt.Errorf("%w: it has no working keys", ErrSignIn)
	}
	k, err := a.c.book.permit(ctx, a.caller.Client, op, job.key)
	if err != nil {
		return nil, usedKey{}, err
	}
	r.Keys = []audit.Key{keyEntry(audit.KeyRoleMAC, k)}
	r.MAC.Alg = macName(job.algorithm, k, nil)
	if err := ofTerminal(k, q.TID); err != nil {
		return nil, usedKey{}, err
	}
	if op == OpGenerateMAC {
		if err := inUse(k); err != nil {
			return nil, usedKey{}, err
		}
		return a.computeWith(ctx, op, r, k, nil, job)
	}
	m, err := a.c.ready(ctx, k, taking)
	if err != nil {
		return nil, usedKey{}, signIn(err)
	}
	full, used, err := a.computeWith(ctx, op, r, k, m, job)
	return full, used, signIn(err)
}

// ofTerminal refuses a key that was made for another terminal, or for none
// (M-13). One that was made before blocks named their terminal is replaced by
// the next sign-in.
func ofTerminal(k KeyRecord, tid string) error {
	switch owner, bound := k.Block.Policy[keptTerminal]; {
	case !bound:
		return fmt.Errorf("%w: its keys do not say whose they are", ErrSignIn)
	case owner != tid:
		return fmt.Errorf("%w: it was made for another terminal", ErrKeyUse)
	}
	return nil
}

// signIn marks what a sign-in would mend.
func signIn(err error) error {
	if errors.Is(err, ErrKeyState) {
		return fmt.Errorf("%w: %w", ErrSignIn, err)
	}
	return err
}
