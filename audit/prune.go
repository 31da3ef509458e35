package audit

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Pruning is a range of records at the beginning of a closed shard: First to
// Size-1. Root is that of the tree of Size, so that a copy of the range stays
// provable when the range is gone.
type Pruning struct {
	Log, Origin string
	First, Size uint64
	Root        Hash
	All         uint64 // final size of the shard
	Final       Hash   // and its root
}

// Tree returns the range as a record names it.
func (p Pruning) Tree() Tree {
	return Tree{Log: p.Log, Origin: p.Origin, Size: int64(p.Size), Root: &p.Root, First: new(int64(p.First))}
}

// Prunable says what pruning a closed shard below a seq would remove; below 0
// means all of it. The end of a range is the shard's, or a multiple of 256: the
// records of a bundle go together, and below is rounded down.
//
// Errors: [ErrShardOpen] for sec and the current month, [ErrPruned] when nothing
// is left there to remove, [ErrNotFound], [ErrFormat], [ErrCorrupt].
func (l *Log) Prunable(log string, below uint64) (Pruning, error) {
	p, err := prunable(l.fsys, log, below)
	if err != nil {
		return p, fmt.Errorf("pruning %s: %w", log, err)
	}
	return p, nil
}

func prunable(fsys fileSystem, log string, below uint64) (Pruning, error) {
	m, err := readManifest(fsys)
	if err != nil {
		return Pruning{}, err
	}
	shard, err := parseShard(log)
	if err != nil {
		return Pruning{}, err
	}
	l := m.find(shard)
	switch {
	case l == nil:
		return Pruning{}, fmt.Errorf("%w: log %s", ErrNotFound, log)
	case l.State != stateClosed:
		return Pruning{}, fmt.Errorf("%w: %s", ErrShardOpen, log)
	}
	msg, err := readFile(fsys, l.Dir+"/checkpoint", 1<<16)
	if err != nil {
		return Pruning{}, fmt.Errorf("reading the checkpoint of %s: %w", log, missing(err))
	}
	cp, err := unverifiedCheckpoint(msg)
	if err != nil {
		return Pruning{}, fmt.Errorf("%s/checkpoint: %w", l.Dir, err)
	}
	switch {
	case below == 0 || below == cp.Size:
		below = cp.Size
	case below > cp.Size:
		return Pruning{}, fmt.Errorf("%w: %s has %d records", ErrNotFound, log, cp.Size)
	default:
		below -= below % tileWidth
	}
	if below <= l.MinIndex {
		return Pruning{}, fmt.Errorf("%w: %s begins at %d, and records go in steps of %d", ErrPruned, log, l.MinIndex, tileWidth)
	}
	src := &tiles{fsys: fsys, dir: l.Dir, size: cp.Size}
	if whole, err := src.root(); err != nil || whole != cp.Root {
		return Pruning{}, errors.Join(corrupt("L-61(d)", "the tiles of %s do not have the root of its checkpoint", log), err)
	}
	root, err := tlog.TreeHash(int64(below), src)
	if err != nil {
		return Pruning{}, fmt.Errorf("root of %s at size %d: %w", log, below, missing(err))
	}
	return Pruning{Log: log, Origin: cp.Origin, First: l.MinIndex, Size: below, Root: Hash(root), All: cp.Size, Final: cp.Root}, nil
}

// Prune removes a range that [Log.Prunable] named (L-173). The caller has made
// an intent of log.prune durable that names it. A checkpoint covers that intent
// before the manifest says that the range is gone, and only then files go; so
// whatever a crash leaves verifies, and the next Open removes what is left.
// Errors: those of Prunable, [ErrSignature] when no checkpoint could be made,
// [ErrClosed], and ctx's.
func (l *Log) Prune(ctx context.Context, p Pruning) error {
	done := make(chan error, 1)
	select {
	case l.tiles.asks <- func() { done <- l.tiles.prune(p) }:
	case <-l.tiles.stop:
		return fmt.Errorf("pruning %s: %w", p.Log, ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("pruning %s: %w", p.Log, ctx.Err())
	}
	if err := <-done; err != nil {
		return fmt.Errorf("pruning %s: %w", p.Log, err)
	}
	shard, err := parseShard(p.Log)
	if err != nil {
		return err
	}
	return removeBelow(l.fsys, shard.dir(), p.Size)
}

// prune raises the first index of a shard.
func (g *integrator) prune(p Pruning) error {
	now, err := prunable(g.fsys, p.Log, p.Size)
	if err != nil {
		return err
	}
	if now != p {
		return fmt.Errorf("%w: the range is no longer the one that was approved", ErrPruned)
	}
	if err := g.publish(); err != nil {
		return fmt.Errorf("covering the intent: %w", err)
	}
	shard, err := parseShard(p.Log)
	if err != nil {
		return err
	}
	l := g.manifest.find(shard)
	l.MinIndex = p.Size
	if err := g.manifest.write(g.fsys); err != nil {
		// The file may say either by now; nothing was removed, so both are true.
		l.MinIndex, g.unlisted = p.First, true
		return err
	}
	return nil
}

// below reports whether a tile holds nothing that is needed for records at or
// above a seq: the level above it has the roots of its hashes.
func below(level int, n uint64, width int, seq uint64) bool {
	if level == bundleLevel {
		return n*tileWidth+uint64(width) <= seq
	}
	bits := (level + 1) * tileHeight
	return bits < 63 && n+1 <= seq>>bits
}

// removeBelow removes the tiles and bundles of a shard that hold nothing at or
// above a seq.
func removeBelow(fsys fileSystem, dir string, seq uint64) error {
	_, err := removeTiles(fsys, dir, "tile", seq)
	if err != nil {
		return fmt.Errorf("removing what was pruned: %w", err)
	}
	return nil
}

// removeTiles does so in one folder. It reports whether the folder is empty now.
func removeTiles(fsys fileSystem, dir, path string, seq uint64) (empty bool, err error) {
	names, err := fsys.ReadDir(dir + "/" + path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	left := len(names)
	for _, name := range names {
		full := path + "/" + name
		gone := false
		if folder, ok := strings.CutSuffix(full, "/"); ok {
			full = folder
			gone, err = removeTiles(fsys, dir, folder, seq)
		} else if level, n, width, bad := parseTilePath(full); bad == nil {
			gone = below(level, n, width, seq)
		}
		if err != nil {
			return false, err
		}
		if !gone {
			continue
		}
		if err := fsys.Remove(dir + "/" + full); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		left--
	}
	return left == 0 && path != "tile", nil
}

// sweep removes what a pruning left that was cut off. What cannot be removed
// stays: nothing reads it, and the next start tries again.
func (r *recovery) sweep() {
	for i := range r.manifest.Logs {
		if l := &r.manifest.Logs[i]; l.MinIndex > 0 {
			_ = removeBelow(r.log.fsys, l.Dir, l.MinIndex)
		}
	}
}

// Archived is what the log says of an archive of a shard.
type Archived struct {
	Seq    uint64 // in sec, of the record
	Size   uint64
	Root   Hash
	SHA256 Hash // of the archive's manifest
}

// Archived returns the newest archive of a shard that sec records as made and
// verified. Errors: [ErrNotFound] when there is none, [ErrFormat].
func (r *Reader) Archived(log string) (Archived, error) {
	var found *Archived
	for e, err := range r.Records("sec", 0) {
		if err != nil {
			return Archived{}, err
		}
		if !hasAction(e.Raw, LogArchive) || stringMember(e.Raw, "outcome") != OutcomeOK.String() {
			continue
		}
		a, of, err := parseArchived(e.Raw)
		if err != nil {
			return Archived{}, fmt.Errorf("sec:%d: %w", e.Seq, err)
		}
		if of == log {
			a.Seq = e.Seq
			found = a
		}
	}
	if found == nil {
		return Archived{}, fmt.Errorf("%w: archive of %s", ErrNotFound, log)
	}
	return *found, nil
}

// parseArchived reads a record of an archive. The error is [ErrFormat].
func parseArchived(record []byte) (*Archived, string, error) {
	anchor, err := parseAnchor(record)
	if err != nil {
		return nil, "", err
	}
	var r struct{ Change struct{ After string } }
	if err := json.Unmarshal(record, &r); err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrFormat, err)
	}
	sum, err := hex.DecodeString(r.Change.After)
	if err != nil || len(sum) != hashSize {
		return nil, "", fmt.Errorf("%w: record names no SHA-256 of the archive", ErrFormat)
	}
	return &Archived{Size: anchor.size, Root: anchor.root, SHA256: Hash(sum)}, anchor.shard.logName(), nil
}
