package audit

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// lineKeys returns the key ids of a checkpoint's lines that carry a name, in
// their order, unverified.
func lineKeys(msg []byte, name string) []uint32 {
	_, lines, _ := bytes.Cut(msg, []byte("\n\n"))
	var ids []uint32
	for line := range bytes.Lines(lines) {
		b64, ok := bytes.CutPrefix(bytes.TrimSuffix(line, []byte("\n")), []byte("— "+name+" "))
		sig, err := base64.StdEncoding.DecodeString(string(b64))
		if ok && err == nil && len(sig) > 4 {
			ids = append(ids, binary.BigEndian.Uint32(sig))
		}
	}
	return ids
}

// leads reports whether the first line of a checkpoint's own log is of one of
// these keys. The newest key signs first: where an overlap has two lines, that of
// the key before does not stand for a newer one, which may be lost.
func leads(msg []byte, origin string, known []note.Verifier) bool {
	ids := lineKeys(msg, origin)
	return len(ids) > 0 && slices.ContainsFunc(known, func(v note.Verifier) bool { return v.KeyHash() == ids[0] })
}

// CheckNewest is [CheckCheckpoint] for whoever must know that one of the vkeys is
// of the key that signs, and not of one before it within an overlap.
func CheckNewest(msg []byte, vkeys []string) (Checkpoint, error) {
	keys, err := parseKeyring(vkeys)
	if err != nil {
		return Checkpoint{}, err
	}
	c, err := keys.open(msg)
	if err == nil && !leads(msg, c.Origin, keys.forOrigin(c.Origin)) {
		return Checkpoint{}, fmt.Errorf("%w: the first line of the checkpoint of %s is of a newer key", ErrSignature, c.Origin)
	}
	return c, err
}

// openUnder opens a checkpoint of an origin under public keys, of which one must
// be the newest that signed it.
func openUnder(msg []byte, origin string, keys []crypto.PublicKey) (Checkpoint, error) {
	known, err := verifiers(origin, keys)
	if err != nil {
		return Checkpoint{}, err
	}
	c, err := openCheckpoint(msg, known...)
	if err == nil && !leads(msg, origin, known) {
		return c, fmt.Errorf("%w: L-57: the first line is of a newer key, which is not here", ErrSignature)
	}
	return c, err
}

// verifyOld opens a checkpoint that may be older than a change of keys: that of a
// month that is over, or one that an anchor keeps. Besides the configured keys
// those count that sec, which verified under them, names as lost.
func (r *recovery) verifyOld(msg []byte, origin string) (Checkpoint, error) {
	c, err := openUnder(msg, origin, append(r.signing(), r.log.o.Retired...))
	if !errors.Is(err, ErrSignature) {
		return c, err
	}
	named, bad := r.named()
	if bad != nil {
		return c, bad
	}
	if c, err := openUnder(msg, origin, named); err == nil {
		return c, nil
	}
	if c, err := openUnder(msg, origin, r.log.o.Accept); err == nil {
		r.lost = true
		return c, nil
	}
	return c, err
}

// signing returns the public keys of those who sign.
func (r *recovery) signing() []crypto.PublicKey {
	var keys []crypto.PublicKey
	for _, s := range r.log.signers {
		keys = append(keys, s.Public())
	}
	return keys
}

// named returns the keys that sec names as lost, as far as its checkpoint proves
// them: two persons ordered that (L-57).
func (r *recovery) named() ([]crypto.PublicKey, error) {
	sec := r.shards[0]
	if r.keys != nil || sec == nil || !sec.shown {
		return r.keys, nil
	}
	keys := []crypto.PublicKey{}
	src := tiles{r.log.fsys, Shard(0).dir(), sec.cp.Size}
	var bad error
	err := r.backward(0, func(seq uint64, record []byte) bool {
		if seq >= sec.cp.Size || !hasAction(record, LogKeyRotate) || stringMember(record, "reason") != ReasonKeyLost.String() {
			return true
		}
		var f *facts
		if f, bad = parseRecord(record); bad == nil {
			bad = src.prove(seq, record, sec.cp.Root)
		}
		if bad != nil {
			bad = corrupt("L-57", "sec:%d: %w", seq, bad)
			return false
		}
		for _, vkey := range f.vkeys {
			if k, err := parseVkey(vkey); err == nil {
				keys = append(keys, k.pub)
			}
		}
		return true
	})
	if err = errors.Join(err, bad); err == nil {
		r.keys = keys
	}
	return keys, err
}

// prove checks that a record stands in a tree with a root. The error is [ErrCorrupt].
func (t *tiles) prove(seq uint64, record []byte, root Hash) error {
	path, err := tlog.ProveRecord(int64(t.size), int64(seq), t)
	if err != nil {
		return fmt.Errorf("proving it: %w", err)
	}
	if err := tlog.CheckRecord(path, int64(t.size), tlog.Hash(root), int64(seq), tlog.RecordHash(record)); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// checkAccepted refuses a key that was accepted as lost, and that no checkpoint
// needs: whoever consented to that meant another one (L-57).
func (r *recovery) checkAccepted() error {
	if len(r.log.o.Accept) > 0 && !r.lost {
		return fmt.Errorf("%w: L-57: no checkpoint needs the key that was lost", ErrConfig)
	}
	return nil
}

// unsignedAnew are the logs that go on, where their checkpoints are of a lost key:
// each gets one of the new key, also of the same size.
func (r *recovery) unsignedAnew() map[Shard]bool {
	if !r.lost {
		return nil
	}
	anew := map[Shard]bool{}
	for shard, st := range r.shards {
		if st.tree != nil && st.shown {
			anew[shard] = true
		}
	}
	return anew
}

// mostKeyLines bounds the keys that are left beside a log.
const mostKeyLines = 16

// renewKeys puts the key that signs before those that are left beside the logs
// that go on. They prove nothing, so that one that cannot be written is missed by
// nobody who verifies.
func (r *recovery) renewKeys() {
	for shard, st := range r.shards {
		if st.tree == nil || !st.shown {
			continue
		}
		if v, err := newVerifier(r.log.origin(shard), r.log.signers[0].Public()); err == nil {
			_ = leaveNewer(r.log.fsys, shard.dir(), v)
		}
	}
}

// leaveNewer writes a key before the others of a log, unless it is there.
func leaveNewer(fsys fileSystem, dir string, newest *verifier) error {
	text, err := readFile(fsys, dir+"/vkey", maxKeyFile)
	if err != nil {
		return err
	}
	lines, pems := newest.String()+"\n", []byte(nil)
	if pems, err = newest.pem(); err != nil {
		return err
	}
	n := 1
	for line := range bytes.Lines(text) {
		v, err := parseVkey(string(bytes.TrimSuffix(line, []byte("\n"))))
		if err != nil {
			return err
		}
		if v.String() == newest.String() {
			return nil
		}
		pem, err := v.pem()
		if err != nil {
			return err
		}
		if n++; n <= mostKeyLines {
			lines, pems = lines+v.String()+"\n", append(pems, pem...)
		}
	}
	if err := writeDurable(fsys, dir+"/vkey", []byte(lines)); err != nil {
		return err
	}
	return writeDurable(fsys, dir+"/pub.pem", pems)
}
