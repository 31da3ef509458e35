package audit

import (
	"errors"
	"fmt"
	"strings"
	"sync"
)

// Snapshot is a log as one checkpoint covers it. What it gives out has been
// compared with the root of that checkpoint, tile by tile; whether the
// checkpoint is signed is for [Snapshot.Signed]. It is safe for concurrent use.
type Snapshot struct {
	log    string
	min    uint64
	closed bool
	msg    []byte
	point  Checkpoint
	tiles  *tiles
	edges  [][]Hash // of each level, the hashes of its rightmost tile that is not full

	mu      sync.Mutex
	trusted map[tileName][]Hash
}

type tileName struct {
	level int
	n     uint64
}

// mostTrusted bounds the tiles that are kept in memory, of 8 KiB each.
const mostTrusted = 1024

// Snapshot takes a log at its current checkpoint and recomputes the root. A log
// without a checkpoint gives a snapshot of size 0. Errors: [ErrNotFound],
// [ErrFormat], [ErrCorrupt].
func (r *Reader) Snapshot(log string) (*Snapshot, error) {
	_, l, err := r.open(log)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{log: log, min: l.MinIndex, closed: l.State == stateClosed, trusted: make(map[tileName][]Hash)}
	s.msg, err = r.Checkpoint(log)
	if errors.Is(err, ErrNotFound) {
		s.tiles = &tiles{fsys: r.fsys, dir: l.Dir}
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the checkpoint of %s: %w", log, err)
	}
	if s.point, err = unverifiedCheckpoint(s.msg); err != nil {
		return nil, fmt.Errorf("%s/checkpoint: %w", l.Dir, err)
	}
	// A copy without a manifest does not say of which node it is.
	if known := l.Origin != "" && l.Origin != origin("", "", l.shard); !strings.HasSuffix(s.point.Origin, "/"+log) || known && s.point.Origin != l.Origin {
		return nil, corrupt("L-41", "%s/checkpoint is of the log %q", l.Dir, s.point.Origin)
	}
	s.tiles = &tiles{fsys: r.fsys, dir: l.Dir, size: s.point.Size}
	t, err := loadTreeHashes(r.fsys, l.shard, s.point.Origin, s.point.Size, s.point.Size)
	if err != nil {
		return nil, missing(err)
	}
	if t.root() != s.point.Root {
		return nil, corrupt("L-141", "%s: the tiles give another root than the checkpoint of size %d", log, s.point.Size)
	}
	s.edges = t.edges
	return s, nil
}

// Log returns the log's name.
func (s *Snapshot) Log() string { return s.log }

// Size returns how many records the checkpoint covers.
func (s *Snapshot) Size() uint64 { return s.point.Size }

// MinIndex returns the first seq that was not pruned.
func (s *Snapshot) MinIndex() uint64 { return s.min }

// Closed reports whether the log will never grow again.
func (s *Snapshot) Closed() bool { return s.closed }

// Signed checks the checkpoint's signature under one of the vkeys. Errors:
// [ErrSignature], [ErrFormat]; [ErrUncovered] when there is no checkpoint.
func (s *Snapshot) Signed(vkeys []string) error {
	if s.msg == nil {
		return fmt.Errorf("%w: %s has no checkpoint", ErrUncovered, s.log)
	}
	keys, err := parseKeyring(vkeys)
	if err != nil {
		return err
	}
	c, err := keys.open(s.msg)
	if err == nil && c != s.point {
		err = fmt.Errorf("%w: the checkpoint of %s reads in two ways", ErrFormat, s.log)
	}
	return err
}

// Hashes returns the hashes of a tile, level 0 being those of the records, as
// many as the checkpoint's tree has. Errors: [ErrNotFound], [ErrCorrupt], [ErrFormat].
func (s *Snapshot) Hashes(level int, n uint64) ([]Hash, error) {
	switch width := widthAt(s.point.Size, level, n); width {
	case 0:
		return nil, fmt.Errorf("%w: tile %d of level %d of %s", ErrNotFound, n, level, s.log)
	case tileWidth:
	default:
		return s.edges[level], nil
	}
	name := tileName{level, n}
	s.mu.Lock()
	hs := s.trusted[name]
	s.mu.Unlock()
	if hs != nil {
		return hs, nil
	}
	above, err := s.Hashes(level+1, n/tileWidth)
	if err != nil {
		return nil, err
	}
	if hs, err = s.tiles.hashes(level, n); err != nil {
		return nil, missing(err)
	}
	if subtree(hs) != above[n%tileWidth] {
		return nil, corrupt("L-141", "%s/%s does not belong to the tree of the checkpoint", s.tiles.dir, tilePath(level, n, 0))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.trusted) >= mostTrusted {
		clear(s.trusted)
	}
	s.trusted[name] = hs
	return hs, nil
}

// Bundle returns the records from seq n*256 on, at most 256, as they are stored;
// [Snapshot.Check] proves them. Errors: [ErrPruned], [ErrNotFound],
// [ErrCorrupt], [ErrFormat].
func (s *Snapshot) Bundle(n uint64) ([][]byte, error) {
	switch {
	case widthAt(s.point.Size, bundleLevel, n) == 0:
		return nil, fmt.Errorf("%w: %s:%d", ErrNotFound, s.log, n*tileWidth)
	case min((n+1)*tileWidth, s.point.Size) <= s.min:
		return nil, fmt.Errorf("%w: %s:%d", ErrPruned, s.log, n*tileWidth)
	}
	entries, err := s.tiles.entries(n)
	return entries, missing(err)
}

// Check proves that a record stands at seq in the tree of the checkpoint.
// Errors: [ErrUncovered], [ErrCorrupt], [ErrFormat].
func (s *Snapshot) Check(seq uint64, raw []byte) error {
	if seq >= s.point.Size {
		return fmt.Errorf("%w: %s:%d; the checkpoint has size %d", ErrUncovered, s.log, seq, s.point.Size)
	}
	hs, err := s.Hashes(0, seq/tileWidth)
	if err != nil {
		return err
	}
	if leafHash(raw) != hs[seq%tileWidth] {
		return corrupt("L-141", "%s:%d is not the record that was logged", s.log, seq)
	}
	return nil
}

// LeafHash returns the hash of a record as a leaf of the tree (L-44).
func LeafHash(record []byte) Hash { return leafHash(record) }

// Tails returns the durable records that no checkpoint of the snapshots covers,
// by log, with one reading of the write-ahead log. Errors: as [Reader.Records].
func (r *Reader) Tails(snaps []*Snapshot) (map[string][]Entry, error) {
	next := make(map[Shard]uint64)
	names := make(map[Shard]string)
	gap := make(map[Shard]bool)
	tails := make(map[string][]Entry)
	for _, s := range snaps {
		shard, err := parseShard(s.log)
		if err != nil {
			return nil, err
		}
		if !s.closed {
			next[shard], names[shard] = s.point.Size, s.log
		}
	}
	err := walkWAL(r.fsys, func(f *frame) bool {
		name, seq := names[f.shard], next[f.shard]
		switch {
		case name == "" || f.seq < seq || gap[f.shard]:
		case f.seq > seq:
			gap[f.shard] = true // what is missing is in tiles by now
		default:
			tails[name] = append(tails[name], Entry{Log: name, Seq: seq, Raw: append([]byte(nil), f.payload...)})
			next[f.shard]++
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	for shard, name := range names {
		if !gap[shard] {
			size, err := r.coveredNow(name)
			if err != nil {
				return nil, err
			}
			if size <= next[shard] {
				continue
			}
		}
		for e, err := range r.Records(name, next[shard]) {
			if err != nil {
				return nil, err
			}
			e.Covered = false // not by the snapshot's checkpoint
			tails[name] = append(tails[name], e)
		}
	}
	return tails, nil
}
