package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/keys"
)

// lostLogKey is the work of `audit rotate-key --lost`: the log goes on under a new
// key in the place of one that the token does not have any more (L-57).
type lostLogKey struct {
	cfg    *configFile
	token  *hsm.Token
	reader *audit.Reader
	origin string // of sec
	lost   crypto.PublicKey
	held   []crypto.Signer
	gone   bool // the token lacks the newest pair, or a half of it
	cut    bool // it was done before, but not recorded who ordered that
}

// errNotLost: the key that is said to be lost is not.
var errNotLost = errors.New("that key is not lost")

// replace goes on under a new key, while no daemon runs: it does not start
// without the one that was lost.
func (c *auditRotateCmd) replace(p *program, cfg *configFile) error {
	l := lostLogKey{cfg: cfg}
	var err error
	if l.reader, err = openLog(cfg.Audit.Dir); err != nil {
		return err
	}
	if l.origin, err = secOrigin(l.reader); err != nil {
		return err
	}
	if l.lost, err = lostKeyOf(c.Lost, l.origin); err != nil {
		return err
	}
	if l.token, err = openToken(p.ctx, cfg, cfg.logger(p.stderr), newMetrics()); err != nil {
		return err
	}
	return errors.Join(l.run(p, c.Person), l.token.Close())
}

func (l *lostLogKey) run(p *program, person []string) error {
	if err := l.check(); err != nil {
		return err
	}
	persons, err := twoAdministrators(l.cfg, person)
	if err != nil {
		return fmt.Errorf("%w: %w", errAccess, err)
	}
	signer, err := l.signer(p.ctx)
	if err != nil {
		return fmt.Errorf("making a key for the audit log: %w", err)
	}
	vkey, old, err := l.vkeys(signer.Public())
	if err != nil {
		return err
	}
	if err := l.goOn(p.ctx, signer, persons); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s\n\nthe new key of the log. Two persons compare it and hand it to who verifies: there is no overlap, and nothing that is signed from now on verifies under the key that was lost.\nIt stays the key of what it signed: months that are over, archives, proofs and checkpoints that were kept.\n%s\n", vkey, old)
	return err
}

// check refuses a loss that is none.
func (l *lostLogKey) check() error {
	var err error
	l.held, err = l.token.LogSigners()
	if l.gone = errors.Is(err, keys.ErrNoKey); err != nil && !l.gone {
		return fmt.Errorf("finding the key of the audit log: %w", err)
	}
	for _, s := range l.held {
		if samePublic(s.Public(), l.lost) {
			return advise(fmt.Errorf("%w: %w: the token holds it", errCheckFailed, errNotLost), "`keyd audit rotate-key` without --lost changes a key that signs")
		}
	}
	goesOn, over, err := l.signed()
	if goesOn || err != nil {
		return err
	}
	if l.cut, err = l.cutOff(); l.cut || err != nil {
		return err
	}
	known, err := l.knownLost()
	if over && !known || err != nil {
		return err
	}
	return advise(fmt.Errorf("%w: %w: no checkpoint in %s was signed by it last", errCheckFailed, errNotLost, l.cfg.Audit.Dir),
		"the key must come from those who made it; `keyd audit verify --dir %s --vkey FILE` says whose key a checkpoint lacks", l.cfg.Audit.Dir)
}

// signed reports whether the lost key is the newest that signed a log that goes
// on, or a month that is over.
func (l *lostLogKey) signed() (goesOn, over bool, err error) {
	names, err := l.reader.Logs()
	if err != nil {
		return false, false, err
	}
	for _, name := range names {
		signed, err := l.signedBy(name, l.lost)
		if err != nil {
			return false, false, err
		}
		_, err = l.reader.Closed(name)
		switch {
		case err != nil && !errors.Is(err, audit.ErrShardOpen):
			return false, false, err
		case signed && err == nil:
			over = true
		case signed:
			goesOn = true
		}
	}
	return goesOn, over, nil
}

// knownLost reports whether the log names the key as lost already.
func (l *lostLogKey) knownLost() (bool, error) {
	_, old, err := l.vkeys(l.lost)
	if err != nil {
		return false, err
	}
	for change, err := range l.reader.KeyChanges() {
		if err != nil {
			return false, fmt.Errorf("looking for changes of the log's key: %w", err)
		}
		if change.Lost && slices.Contains(change.Vkeys[1:], old) {
			return true, nil
		}
	}
	return false, nil
}

// cutOff reports whether the log goes on under the token's key already, in the
// place of the lost one, and nothing says who ordered that.
func (l *lostLogKey) cutOff() (bool, error) {
	if l.gone {
		return false, nil
	}
	vkey, old, err := l.vkeys(l.held[0].Public())
	if err != nil {
		return false, err
	}
	change, err := l.reader.KeySince(vkey)
	if errors.Is(err, audit.ErrNotFound) || err == nil && (!change.Lost || !slices.Contains(change.Vkeys, old)) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for changes of the log's key: %w", err)
	}
	for e, err := range l.reader.Records(audit.Sec.String(), change.Seq) {
		if err != nil {
			return false, fmt.Errorf("looking for who ordered the change of the log's key: %w", err)
		}
		var rec struct {
			Action string
			Change struct{ Object string }
		}
		if err := json.Unmarshal(e.Raw, &rec); err != nil {
			return false, fmt.Errorf("sec:%d: %w", e.Seq, err)
		}
		if rec.Action == audit.AdminExecute.String() && rec.Change.Object == l.object() {
			return false, nil
		}
	}
	return true, nil
}

// object names the change in records.
func (l *lostLogKey) object() string { return "rotate-key/" + l.origin }

// vkeys are those of a key and of the lost one.
func (l *lostLogKey) vkeys(pub crypto.PublicKey) (vkey, lost string, err error) {
	vkey, err = audit.Vkey(l.origin, pub)
	if err != nil {
		return "", "", err
	}
	lost, err = audit.Vkey(l.origin, l.lost)
	return vkey, lost, err
}

// signedBy reports whether a key is the newest that signed a log's checkpoint.
func (l *lostLogKey) signedBy(name string, pub crypto.PublicKey) (bool, error) {
	vkey, err := audit.Vkey(l.origin, pub)
	if err != nil {
		return false, err
	}
	text, err := l.reader.Checkpoint(name)
	if errors.Is(err, audit.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the checkpoint of %s: %w", name, err)
	}
	_, err = audit.CheckNewest(text, []string{vkey})
	if errors.Is(err, audit.ErrSignature) {
		return false, nil
	}
	return err == nil, err
}

// signer is the pair that the log goes on under: a new one, unless the newest of
// the token signs already, or was never used, as in a token that was just made.
func (l *lostLogKey) signer(ctx context.Context) (crypto.Signer, error) {
	if !l.gone {
		newest := l.held[0]
		signs, err := l.signedBy(audit.Sec.String(), newest.Public())
		if err != nil {
			return nil, err
		}
		used, err := l.named(newest.Public())
		if err != nil {
			return nil, err
		}
		if signs || !used {
			return newest, nil
		}
	}
	made, err := hsm.NewManager(l.token).ReplaceLog(ctx)
	if err == nil {
		l.held = append([]crypto.Signer{made}, l.held...)
	}
	return made, err
}

// named reports whether the log names a key as one that it had.
func (l *lostLogKey) named(pub crypto.PublicKey) (bool, error) {
	vkey, err := audit.Vkey(l.origin, pub)
	if err != nil {
		return false, err
	}
	for change, err := range l.reader.KeyChanges() {
		if err != nil {
			return false, fmt.Errorf("looking for changes of the log's key: %w", err)
		}
		if slices.Contains(change.Vkeys, vkey) {
			return true, nil
		}
	}
	return false, nil
}

// goOn opens the log under the new key, which records the loss, and records who
// ordered that and who consented. At its end the new key has signed.
func (l *lostLogKey) goOn(ctx context.Context, signer crypto.Signer, persons []forkPerson) error {
	a := &l.cfg.Audit
	anchors, err := l.cfg.anchors()
	if err != nil {
		return err
	}
	o := audit.Options{
		Anchors: anchors, Accept: []crypto.PublicKey{l.lost},
		Site: a.Site, Node: a.Node, Build: thisBuild().name(), Cfg: l.cfg.hash,
		SegmentSize: int64(a.SegmentMB) << 20, TimeSource: a.TimeSource,
	}
	for _, s := range l.held {
		if !samePublic(s.Public(), signer.Public()) {
			o.Retired = append(o.Retired, s.Public())
		}
	}
	if l.cut {
		o.Accept = nil
	}
	log, err := audit.Open(a.Dir, signer, o)
	if errors.Is(err, audit.ErrLocked) {
		return advise(fmt.Errorf("opening the audit log: %w", err), "stop the process that uses %s first", a.Dir)
	}
	if errors.Is(err, audit.ErrRollback) || errors.Is(err, audit.ErrAnchor) {
		return adviseAnchor(l.cfg, err)
	}
	if err != nil {
		return fmt.Errorf("opening the audit log under the new key: %w", err)
	}
	vkey, old, err := l.vkeys(signer.Public())
	if err == nil {
		err = recordConsent(ctx, log, persons, audit.ReasonKeyLost, &audit.Change{
			Kind: audit.ChangeLog, Object: l.object(), Before: sha256.Sum256([]byte(old)), After: sha256.Sum256([]byte(vkey)),
		})
	}
	return errors.Join(err, log.Close(context.WithoutCancel(ctx)))
}

// lostKeyOf reads a public key as a vkey of the node that has an origin, or as PEM.
func lostKeyOf(file, origin string) (crypto.PublicKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the key that was lost: %w", err)
	}
	if block, rest := pem.Decode(text); block != nil {
		pub, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil || block.Type != "PUBLIC KEY" || len(strings.TrimSpace(string(rest))) > 0 {
			return nil, usageError("%s is not the PEM of one public key", file)
		}
		return pub, nil
	}
	lines := strings.Fields(string(text))
	if len(lines) != 1 {
		return nil, usageError("%s holds %d keys; --lost names a file with the one that was lost", file, len(lines))
	}
	of, err := audit.OriginOf(lines[0])
	if err != nil {
		return nil, usageError("%s: %v", file, err)
	}
	if of[:strings.LastIndexByte(of, '/')+1] != origin[:strings.LastIndexByte(origin, '/')+1] {
		return nil, usageError("%s is a key of %s, and the log is %s", file, of, origin)
	}
	return publicKey(lines[0])
}

// samePublic reports whether two keys are one.
func samePublic(a, b crypto.PublicKey) bool {
	switch a := a.(type) {
	case ed25519.PublicKey:
		return a.Equal(b)
	case *ecdsa.PublicKey:
		return a.Equal(b)
	}
	return false
}

// adviseLostKey says what is to be done where the log's key may be lost.
func adviseLostKey(cfg *configFile, err error) error {
	return advise(err, "restore the key pair in the token, if there is a way. Where it is lost for good, two administrators go on under a new one: "+
		"`keyd audit rotate-key --config %s --lost FILE`, with the verification key of the lost pair in FILE (docs/OPERATIONS.md, \"A lost checkpoint key\")", cfg.path)
}
