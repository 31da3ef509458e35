package audit

import (
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/mod/sumdb/note"
)

// shardState is what is known of one log while the directory is recovered.
type shardState struct {
	cp    Checkpoint // published; size 0 when there is none
	shown bool       // there is a published checkpoint
	next  Checkpoint // about to be signed when the process ended
	noted bool       // there is such a note
	tree  *tree      // nil for a closed log
	size  uint64     // of a closed log
	level []Hash     // the level-0 tile that was compared last
	tile  uint64
}

// recovery checks a directory and finds where to go on (section 6).
type recovery struct {
	log      *Log
	manifest *manifest
	shards   map[Shard]*shardState
	scan     *walScan
	segments []segmentUse
	lastSec  []byte             // newest record of sec
	fresh    bool               // no record was ever written
	lost     bool               // a checkpoint verifies only under an accepted key
	keys     []crypto.PublicKey // that sec names as lost; nil until asked for

	anchorsAway map[string]error // anchors that did not answer, and why
}

func (r *recovery) run() error {
	for i := range r.manifest.Logs {
		if err := r.load(&r.manifest.Logs[i]); err != nil {
			return err
		}
	}
	if err := r.checkAccepted(); err != nil {
		return err
	}
	scan, err := scanWAL(r.log.fsys, r.replay)
	if err != nil {
		return err
	}
	r.scan = scan
	if err := r.checkScan(); err != nil {
		return err
	}
	if err := r.checkSizes(); err != nil {
		return err
	}
	if err := r.finishTiles(); err != nil {
		return err
	}
	if r.size(0) > 0 && r.lastSec == nil {
		if r.lastSec, err = r.last(0); err != nil {
			return err
		}
	}
	if err := r.checkCrossAnchor(); err != nil {
		return err
	}
	if err := r.checkAnchors(); err != nil {
		return err
	}
	if err := r.mend(); err != nil {
		return err
	}
	r.renewKeys()
	return nil
}

// load reads a log's checkpoint and continues its tree from there.
func (r *recovery) load(l *manifestLog) error {
	fsys := r.log.fsys
	st := &shardState{}
	r.shards[l.shard] = st
	msg, err := readFile(fsys, l.Dir+"/checkpoint", 1<<16)
	switch {
	case err == nil:
		open := r.verify
		if l.State == stateClosed {
			open = r.verifyOld
		}
		if st.cp, err = open(msg, l.Origin); err != nil {
			return fmt.Errorf("L-61(c): %s/checkpoint: %w", l.Dir, err)
		}
		st.shown = true
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("reading the checkpoint of %s: %w", l.Log, err)
	}
	text, err := readFile(fsys, nextName(l.shard), 4096)
	switch {
	case err == nil:
		if st.next, err = parseBody(string(text)); err != nil || st.next.Origin != l.Origin {
			return corrupt("L-61(f)", "%s is not of %s: %w", nextName(l.shard), l.Origin, err)
		}
		st.noted = true
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("reading %s: %w", nextName(l.shard), err)
	}
	if st.shown && (!st.noted || st.next.Size < st.cp.Size || st.next.Size == st.cp.Size && st.next != st.cp) {
		return corrupt("L-61(f)", "%s is missing or behind the checkpoint of size %d", nextName(l.shard), st.cp.Size)
	}
	if l.State == stateClosed {
		if !st.shown {
			return corrupt("L-61(e)", "%s is closed and has no checkpoint", l.Log)
		}
		return r.checkClosed(l, st)
	}
	if st.tree, err = loadTree(fsys, l.shard, l.Origin, st.cp.Size); err != nil {
		return corrupt("L-61(d)", "%w", err)
	}
	st.tree.covered = st.cp.Size
	if root := st.tree.root(); st.shown && root != st.cp.Root {
		return corrupt("L-61(d)", "the tiles of %s do not have the root of its checkpoint of size %d", l.Log, st.cp.Size)
	}
	return nil
}

func (r *recovery) checkClosed(l *manifestLog, st *shardState) error {
	st.size = st.cp.Size
	src := tiles{r.log.fsys, l.Dir, st.cp.Size}
	root, err := src.root()
	if err != nil {
		return corrupt("L-61(d)", "tiles of %s: %w", l.Log, err)
	}
	if root != st.cp.Root {
		return corrupt("L-61(d)", "the tiles of %s do not have the root of its checkpoint of size %d", l.Log, st.cp.Size)
	}
	return nil
}

// verify opens a checkpoint under the configured keys. An accepted key counts
// before the retired ones: of two lines of an overlap one may be of a lost key.
func (r *recovery) verify(msg []byte, origin string) (Checkpoint, error) {
	keys := r.signing()
	c, err := openUnder(msg, origin, keys)
	if err == nil {
		return c, nil
	}
	if c, err := openUnder(msg, origin, r.log.o.Accept); err == nil {
		r.lost = true
		return c, nil
	}
	return openUnder(msg, origin, append(keys, r.log.o.Retired...))
}

// verifiers returns the verifiers of public keys under a name, each once.
func verifiers(origin string, keys []crypto.PublicKey) ([]note.Verifier, error) {
	var all []note.Verifier
	for _, pub := range keys {
		v, err := newVerifier(origin, pub)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return distinct(all), nil
}

// distinct drops keys that come again: to a note they would be ambiguous.
func distinct(vs []note.Verifier) []note.Verifier {
	var kept []note.Verifier
	seen := map[uint32]bool{}
	for _, v := range vs {
		if !seen[v.KeyHash()] {
			seen[v.KeyHash()] = true
			kept = append(kept, v)
		}
	}
	return kept
}

// replay takes a record of the write-ahead log: it compares one that the
// checkpoint covers and adds one that it does not.
func (r *recovery) replay(seg uint64, off int64, f *frame) error {
	st := r.shards[f.shard]
	if st == nil {
		newest := r.manifest.Logs[len(r.manifest.Logs)-1].shard
		if f.shard <= newest {
			return corrupt("L-61(i)", "segment %d, offset %d: record of %s, which is not in %s", seg, off, f.shard.logName(), manifestName)
		}
		st = &shardState{tree: newTree(r.log.fsys, f.shard, r.log.origin(f.shard))}
		r.shards[f.shard] = st
		r.manifest.list(f.shard)
		if err := r.manifest.write(r.log.fsys); err != nil {
			return err
		}
	}
	if n := len(r.segments); n == 0 || r.segments[n-1].seg != seg {
		r.segments = append(r.segments, segmentUse{seg, map[Shard]uint64{}})
	}
	r.segments[len(r.segments)-1].next[f.shard] = f.seq + 1
	if f.shard == 0 {
		r.lastSec = append(r.lastSec[:0], f.payload...)
	}
	switch {
	case f.seq < st.cp.Size:
		return r.compare(st, f)
	case st.tree == nil || f.seq != st.tree.size:
		return corrupt("L-61(i)", "%s continues with seq %d after %d", f.shard.logName(), f.seq, r.size(f.shard))
	}
	st.tree.add(f.payload)
	if st.noted && st.tree.size == st.next.Size && st.tree.root() != st.next.Root {
		return corrupt("L-61(f)", "%s has another root at size %d than was noted for signing", f.shard.logName(), st.next.Size)
	}
	if len(st.tree.pending) > 64 {
		return st.tree.flush()
	}
	return nil
}

// compare checks a record below the checkpoint against the level-0 tile.
func (r *recovery) compare(st *shardState, f *frame) error {
	if l := r.manifest.find(f.shard); l != nil && f.seq < l.MinIndex {
		return nil // its leaf hash may be gone
	}
	n := f.seq / tileWidth
	if st.level == nil || st.tile != n {
		src := tiles{r.log.fsys, f.shard.dir(), st.cp.Size}
		hs, err := src.hashes(0, n)
		if err != nil {
			return corrupt("L-47", "%s: %w", f.shard.logName(), err)
		}
		st.level, st.tile = hs, n
	}
	if st.level[f.seq%tileWidth] != leafHash(f.payload) {
		return corrupt("L-47", "%s:%d differs between the write-ahead log and the tiles", f.shard.logName(), f.seq)
	}
	return nil
}

// size returns how many records a log has.
func (r *recovery) size(shard Shard) uint64 {
	st := r.shards[shard]
	if st == nil {
		return 0
	}
	if st.tree == nil {
		return st.size
	}
	return st.tree.size
}

func (r *recovery) checkScan() error {
	s := r.scan
	if s.oldest == 0 {
		return corrupt("L-28", "the write-ahead log has no segment")
	}
	if s.last == 0 {
		for shard := range r.shards {
			if r.shards[shard].shown || r.shards[shard].noted {
				return corrupt("L-61(e)", "%s has a checkpoint, but the write-ahead log is empty", shard.logName())
			}
		}
		if s.oldest > 1 || len(r.manifest.Logs) > 1 {
			return corrupt("L-28", "the write-ahead log is empty")
		}
		r.fresh = true
		return nil
	}
	if hex.EncodeToString(s.walID[:]) != r.manifest.WALID {
		return corrupt("L-28", "the write-ahead log is not the one of %s", manifestName)
	}
	return nil
}

// checkSizes finds a log that shrank (L-61 e, f).
func (r *recovery) checkSizes() error {
	for shard, st := range r.shards {
		name := shard.logName()
		if next, ok := r.scan.next[shard]; ok && next < st.cp.Size {
			return corrupt("L-61(e)", "the write-ahead log of %s ends at %d, its checkpoint has size %d", name, next, st.cp.Size)
		}
		if st.noted && st.next.Size > r.size(shard) {
			return corrupt("L-61(f)", "%s has %d records, but size %d was noted for signing", name, r.size(shard), st.next.Size)
		}
	}
	return nil
}

// finishTiles writes the tiles of everything that was replayed.
func (r *recovery) finishTiles() error {
	for _, st := range r.shards {
		if st.tree == nil {
			continue
		}
		if err := dropPartials(r.log.fsys, st.tree.dir, st.cp.Size, st.tree.size); err != nil {
			return err
		}
		if st.tree.size > st.cp.Size {
			st.tree.partials()
		}
		if err := st.tree.flush(); err != nil {
			return err
		}
	}
	return nil
}

// last returns the newest record of a log.
func (r *recovery) last(shard Shard) ([]byte, error) {
	size := r.size(shard)
	src := tiles{r.log.fsys, shard.dir(), size}
	entries, err := src.entries((size - 1) / tileWidth)
	if err != nil {
		return nil, corrupt("L-61(e)", "newest record of %s: %w", shard.logName(), err)
	}
	return entries[len(entries)-1], nil
}

// backward gives the records of a log to visit, the newest first, until it
// returns false.
func (r *recovery) backward(shard Shard, visit func(seq uint64, record []byte) bool) error {
	size := r.size(shard)
	src := tiles{r.log.fsys, shard.dir(), size}
	first := uint64(0)
	if l := r.manifest.find(shard); l != nil {
		first = bundlesOf(l.MinIndex)
	}
	for n := bundlesOf(size); n > first; n-- {
		entries, err := src.entries(n - 1)
		if err != nil {
			return corrupt("L-61(e)", "records of %s: %w", shard.logName(), err)
		}
		for i := len(entries) - 1; i >= 0; i-- {
			if !visit((n-1)*tileWidth+uint64(i), entries[i]) {
				return nil
			}
		}
	}
	return nil
}

// checkCrossAnchor compares ops with the newest root of it that sec recorded.
func (r *recovery) checkCrossAnchor() error {
	var anchor *anchorRecord
	var bad error
	err := r.backward(0, func(seq uint64, record []byte) bool {
		if !hasAction(record, LogCheckpoint) {
			return true
		}
		if anchor, bad = parseAnchor(record); bad != nil {
			bad = corrupt("L-61(h)", "sec:%d: %w", seq, bad)
		}
		return false
	})
	if err = errors.Join(err, bad); err != nil || anchor == nil {
		return err
	}
	st := r.shards[anchor.shard]
	if st == nil || anchor.size > r.size(anchor.shard) {
		return corrupt("L-61(h)", "sec recorded size %d of %s, which has %d records", anchor.size, anchor.shard.logName(), r.size(anchor.shard))
	}
	src := tiles{r.log.fsys, anchor.shard.dir(), anchor.size}
	if l := r.manifest.find(anchor.shard); l != nil && l.MinIndex > 0 {
		return nil // its tiles are pruned; verify compares what is left
	}
	root, err := src.root()
	if err != nil {
		return corrupt("L-61(h)", "root of %s at size %d: %w", anchor.shard.logName(), anchor.size, err)
	}
	if root != anchor.root {
		return corrupt("L-61(h)", "%s has another root at size %d than sec recorded", anchor.shard.logName(), anchor.size)
	}
	return nil
}
