package ceremony

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// InDaemon is the [House] of a daemon that serves: everything goes through
// custody.
type InDaemon struct {
	Custody *custody.Custody
	Signer  crypto.Signer          // the audit log's
	Vkey    func() (string, error) // of the log "sec"
	Is      About
}

// Identify returns the client of a verified certificate.
func (h *InDaemon) Identify(cert *x509.Certificate) (custody.Client, error) {
	return h.Custody.Identify(cert)
}

// Permit refuses, and records, what no role of the caller has.
func (h *InDaemon) Permit(ctx context.Context, caller custody.Caller, corr string, op custody.Operation) error {
	return h.Custody.Permit(ctx, caller, corr, op)
}

// Note makes a record of one phase durable.
func (h *InDaemon) Note(ctx context.Context, caller custody.Caller, corr string, r audit.Record) error {
	return h.Custody.Record(ctx, caller, corr, r)
}

// Step makes the intent durable, works, and makes the outcome durable.
func (h *InDaemon) Step(ctx context.Context, caller custody.Caller, corr string, r audit.Record, work func(*audit.Record) error) error {
	return h.Custody.Intended(ctx, caller, corr, r, work)
}

// Random fills p from the token's generator.
func (h *InDaemon) Random(p []byte) error { return h.Custody.Random(p) }

// Attest signs with the audit log's key.
func (h *InDaemon) Attest(domain string, message []byte) ([]byte, string, error) {
	vkey, err := h.Vkey()
	if err != nil {
		return nil, "", err
	}
	sig, err := audit.Attest(h.Signer, domain, message)
	return sig, vkey, err
}

// About says what the daemon is.
func (h *InDaemon) About() About { return h.Is }

// doer is the caller of the work: the administrator that opened the ceremony,
// with the custodians in the place of a second person.
func (q Quorum) doer() custody.Caller {
	caller := q.Opener
	caller.Quorum = q.Approvals
	return caller
}

// Ready looks for what would make the work fail.
func (h *InDaemon) Ready(ctx context.Context, opener custody.Caller, s *Script) error {
	switch s.Kind {
	case Import, Generate:
		_, err := h.Custody.Alias(ctx, opener, "", s.Key.Alias)
		if err == nil {
			return fmt.Errorf("%w: %s; a ceremony makes a new key under a new alias", custody.ErrAliasExists, s.Key.Alias)
		}
		if !errors.Is(err, custody.ErrNoAlias) {
			return err
		}
	case Export:
		return h.Custody.Exportable(ctx, opener, custody.Ref{Alias: s.Key.Alias})
	case Destroy:
		k, err := h.Custody.Key(ctx, opener, "", custody.Ref{Alias: s.Key.Alias})
		if err == nil && s.expected() != "" && s.expected() != k.Block.Check.String() {
			return fmt.Errorf("the key has check value %s, the script says %s", k.Block.Check, s.expected())
		}
		return err
	case Injection:
		for _, alias := range []string{s.Injection.BDK, s.Injection.KEK} {
			if _, err := h.Custody.Key(ctx, opener, "", custody.Ref{Alias: alias}); err != nil {
				return fmt.Errorf("%s: %w", alias, err)
			}
		}
	case LMK:
		return errors.New("this node has its local master key: a ceremony of kind lmk is for a new node, lmk-change for this one")
	}
	return nil
}

// Import stores a key that custodians have put together.
func (h *InDaemon) Import(ctx context.Context, by Quorum, k NewKey, value secret.Bytes) (Made, error) {
	stored, err := h.Custody.ImportClear(ctx, by.doer(), by.Corr, custody.ImportClear{
		Attributes: k.Attributes, CheckBy: k.CheckBy, Policy: k.Policy, Value: value, Alias: k.Alias, Origin: k.Origin,
	})
	if err != nil {
		return Made{}, err
	}
	return Made{KeyID: stored.Block.ID, Check: stored.Block.Check.String()}, nil
}

// Export lets a key out in the clear, to be split at once.
func (h *InDaemon) Export(ctx context.Context, by Quorum, alias string) (secret.Bytes, keys.Attributes, keys.CheckMethod, Made, error) {
	k, err := h.Custody.ExportClear(ctx, by.doer(), by.Corr, custody.Ref{Alias: alias})
	if err != nil {
		return secret.Bytes{}, keys.Attributes{}, 0, Made{}, err
	}
	return k.Value, k.Attributes, k.CheckBy, Made{KeyID: k.ID, Check: k.Check.String()}, nil
}

// Initial makes the initial keys of devices as key blocks.
func (h *InDaemon) Initial(ctx context.Context, by Quorum, bdk, kek string, devices []Device) (Made, error) {
	made := Made{Devices: make(map[string]string), Checks: make(map[string]string), Note: fmt.Sprintf("%d initial keys", len(devices))}
	for _, d := range devices {
		ksn, err := hex.DecodeString(d.KSN)
		if err != nil {
			return Made{}, err
		}
		out, err := h.Custody.ExportKey(ctx, by.doer(), by.Corr, custody.ExportKey{
			Key: custody.Ref{Alias: bdk}, KEK: custody.Ref{Alias: kek}, KSN: ksn,
		})
		if err != nil {
			return Made{}, fmt.Errorf("device %s: %w", d.TID, err)
		}
		made.Devices[d.KSN], made.Checks[d.KSN] = out.Block, out.Check.String()
	}
	return made, nil
}

// CheckLMK is the check value of the next generation.
func (h *InDaemon) CheckLMK(ctx context.Context, lmk secret.Bytes) (keys.KCV, error) {
	next, err := h.Custody.NextLMK(ctx)
	if err != nil {
		return keys.KCV{}, err
	}
	return h.Custody.CheckLMK(lmk, next)
}

// SetLMK puts a new local master key beside the one in use.
func (h *InDaemon) SetLMK(ctx context.Context, by Quorum, lmk secret.Bytes) (Made, error) {
	generation, err := h.Custody.AddLMK(ctx, by.doer(), by.Corr, lmk, by.Approvals)
	if err != nil {
		return Made{}, err
	}
	return Made{LMK: generation}, nil
}

// SetRoles gives a client other roles.
func (h *InDaemon) SetRoles(ctx context.Context, by Quorum, client string, roles []string) (Made, error) {
	want := make([]custody.Role, 0, len(roles))
	for _, r := range roles {
		want = append(want, custody.Role(r))
	}
	if _, err := h.Custody.SetRoles(ctx, by.doer(), by.Corr, custody.SetRoles{Client: client, Roles: want}); err != nil {
		return Made{}, err
	}
	return Made{Note: fmt.Sprintf("%s now has the roles %v", client, want)}, nil
}

// Destroy ends a key at once, and looks for it afterwards.
func (h *InDaemon) Destroy(ctx context.Context, by Quorum, alias string) (Made, error) {
	k, err := h.Custody.DestroyKey(ctx, by.doer(), by.Corr, custody.Ref{Alias: alias})
	if err != nil {
		return Made{}, err
	}
	return Made{KeyID: k.Block.ID, Check: k.Block.Check.String(), Note: "destroyed, and looked for afterwards"}, nil
}
