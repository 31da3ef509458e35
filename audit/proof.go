package audit

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	proofMagic  = "c2sp.org/tlog-proof@v1\n"
	maxProof    = 1 << 18
	maxProofLen = 63 // hashes
)

// Prove returns a .tlog-proof (C2SP tlog-proof v1) of a record under the
// current checkpoint, which must be of the given size; size 0 takes whatever
// is current. Errors: [ErrUncovered], [ErrNotFound], [ErrPruned], [ErrFormat].
func (r *Reader) Prove(log string, seq, size uint64) ([]byte, error) {
	t, l, err := r.open(log)
	if err != nil {
		return nil, err
	}
	msg, err := r.Checkpoint(log)
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("%w: %s has no checkpoint", ErrUncovered, log)
	}
	if err != nil {
		return nil, err
	}
	c, err := unverifiedCheckpoint(msg)
	if err != nil {
		return nil, err
	}
	t.size = c.Size // the checkpoint may have moved on since
	switch {
	case size != 0 && size != c.Size:
		return nil, fmt.Errorf("%w: the current checkpoint of %s has size %d, not %d", ErrNotFound, log, c.Size, size)
	case seq < l.MinIndex:
		return nil, fmt.Errorf("%w: %s:%d", ErrPruned, log, seq)
	case seq >= c.Size:
		return nil, fmt.Errorf("%w: %s:%d; the checkpoint has size %d", ErrUncovered, log, seq, c.Size)
	}
	entries, err := t.entries(seq / tileWidth)
	if err != nil {
		return nil, missing(err)
	}
	path, err := tlog.ProveRecord(int64(c.Size), int64(seq), t)
	if err != nil {
		return nil, fmt.Errorf("proving %s:%d: %w", log, seq, missing(err))
	}
	b := []byte(proofMagic + "extra " + base64.StdEncoding.EncodeToString(entries[seq%tileWidth]) + "\nindex " + strconv.FormatUint(seq, 10) + "\n")
	for _, h := range path {
		b = append(b, h.String()+"\n"...)
	}
	b = append(b, '\n')
	return append(b, msg...), nil
}

// missing makes a file that ought to be there damage.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// Proved is what a proof proves.
type Proved struct {
	Checkpoint
	Seq uint64
	Raw []byte // the record's bytes
}

// CheckProof checks a .tlog-proof offline: the checkpoint's signature under one
// of the vkeys, of which one must be for its origin or for another log of the
// same node, and the record's place under its root. Errors: [ErrFormat],
// [ErrSignature], [ErrCorrupt].
func CheckProof(proof []byte, vkeys []string) (Proved, error) {
	p, path, msg, err := parseProof(proof)
	if err != nil {
		return Proved{}, err
	}
	keys, err := parseKeyring(vkeys)
	if err != nil {
		return Proved{}, err
	}
	c, err := keys.open(msg)
	if err != nil {
		return Proved{}, err
	}
	p.Checkpoint = c
	if p.Seq >= c.Size {
		return Proved{}, fmt.Errorf("%w: proof of %d under a checkpoint of size %d", ErrCorrupt, p.Seq, c.Size)
	}
	if err := tlog.CheckRecord(path, int64(c.Size), tlog.Hash(c.Root), int64(p.Seq), tlog.RecordHash(p.Raw)); err != nil {
		return Proved{}, fmt.Errorf("%w: proof of %s %d: %w", ErrCorrupt, c.Origin, p.Seq, err)
	}
	return p, nil
}

// parseProof splits a proof into the record, the path and the checkpoint. The
// error is [ErrFormat].
func parseProof(b []byte) (Proved, tlog.RecordProof, []byte, error) {
	bad := func(what string) (Proved, tlog.RecordProof, []byte, error) {
		return Proved{}, nil, nil, fmt.Errorf("%w: proof: %s", ErrFormat, what)
	}
	if len(b) > maxProof {
		return bad("too long")
	}
	rest, ok := bytes.CutPrefix(b, []byte(proofMagic))
	if !ok {
		return bad("first line is not c2sp.org/tlog-proof@v1")
	}
	head, msg, ok := strings.Cut(string(rest), "\n\n")
	if !ok {
		return bad("no empty line before the checkpoint")
	}
	lines := strings.Split(head, "\n")
	if len(lines) < 2 || len(lines) > 2+maxProofLen {
		return bad("wrong number of lines")
	}
	var p Proved
	extra, ok := strings.CutPrefix(lines[0], "extra ")
	raw, err := base64.StdEncoding.Strict().DecodeString(extra)
	if !ok || err != nil || len(raw) == 0 || base64.StdEncoding.EncodeToString(raw) != extra {
		return bad("second line carries no record")
	}
	p.Raw = raw
	index, ok := strings.CutPrefix(lines[1], "index ")
	p.Seq, err = strconv.ParseUint(index, 10, 53)
	if !ok || err != nil || strconv.FormatUint(p.Seq, 10) != index {
		return bad("third line carries no index")
	}
	var path tlog.RecordProof
	for _, line := range lines[2:] {
		h, err := tlog.ParseHash(line)
		if err != nil || h.String() != line {
			return bad("a line is no hash")
		}
		path = append(path, h)
	}
	return p, path, []byte(msg), nil
}

// keyring holds the public keys that a caller trusts, by node.
type keyring []*verifier

// parseKeyring reads vkeys. The error is [ErrFormat].
func parseKeyring(vkeys []string) (keyring, error) {
	var k keyring
	for _, s := range vkeys {
		v, err := parseVkey(strings.TrimSpace(s))
		if err != nil {
			return nil, err
		}
		k = append(k, v)
	}
	return k, nil
}

// forOrigin returns the verifiers of an origin. A node signs all of its logs,
// a new one each month, with one key; its vkeys differ in their names only. So
// a vkey of one log speaks for the other logs of that node.
func (k keyring) forOrigin(origin string) []note.Verifier {
	node := origin[:strings.LastIndexByte(origin, '/')+1]
	var vs []note.Verifier
	seen := map[uint32]bool{}
	for _, v := range k {
		if node == "" || v.name[:strings.LastIndexByte(v.name, '/')+1] != node {
			continue
		}
		named := &verifier{origin, v.kind, v.key, v.pub}
		if id := named.KeyHash(); !seen[id] {
			seen[id] = true
			vs = append(vs, named)
		}
	}
	return vs
}

// open verifies a checkpoint under the keys for the origin that it names.
func (k keyring) open(msg []byte) (Checkpoint, error) {
	c, err := unverifiedCheckpoint(msg)
	if err != nil {
		return c, err
	}
	vs := k.forOrigin(c.Origin)
	if len(vs) == 0 {
		return Checkpoint{}, fmt.Errorf("%w: no vkey for %s", ErrSignature, c.Origin)
	}
	return openCheckpoint(msg, vs...)
}

// CheckCheckpoint checks a signed checkpoint under vkeys as [CheckProof] does.
// Errors: [ErrFormat], [ErrSignature].
func CheckCheckpoint(msg []byte, vkeys []string) (Checkpoint, error) {
	keys, err := parseKeyring(vkeys)
	if err != nil {
		return Checkpoint{}, err
	}
	return keys.open(msg)
}
