package logindex

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"

	"keyd.dev/keyd/audit"
)

// What is read while what came before it is looked at: files of the index, and
// bundles of the log. More than the processors can do is of no use, and what a
// search that ends early has read ahead is in vain.
const (
	lookAhead = 3
	readAhead = 4
)

// share is what a search reads of a bundle.
type share struct {
	bundle uint64
	all    bool    // each record
	places []uint8 // else these, in order
}

// shares are what may fit of all that the checkpoint covers, newest first.
func (f *finder) shares() iter.Seq2[share, error] {
	return func(yield func(share, error) bool) {
		whole := f.snap.Size() / bundleSize
		if whole*bundleSize < f.snap.Size() && !yield(share{bundle: whole, all: true}, nil) {
			return
		}
		for all, err := range ordered(f.parts(), lookAhead, f.part) {
			if err != nil {
				yield(share{}, err)
				return
			}
			for _, s := range all {
				if !yield(s, nil) {
					return
				}
			}
		}
	}
}

// parts are the blocks of the snapshot, newest first.
func (f *finder) parts() iter.Seq2[part, error] {
	return func(yield func(part, error) bool) {
		for _, p := range slices.Backward(parts(f.snap)) {
			if !yield(p, nil) {
				return
			}
		}
	}
}

// part returns what to read of one block, newest first, by its file for what that
// covers.
func (f *finder) part(p part) ([]share, error) {
	if err := f.ctx.Err(); err != nil {
		return nil, err
	}
	base := uint64(p.block) * blockBundles
	b, places, err := f.inFile(p)
	switch {
	case err != nil && ofLog(err):
		return nil, err
	case err != nil:
		return whole(nil, base+uint64(p.first), base+uint64(p.end)), nil
	}
	all := whole(nil, base+uint64(b.end), base+uint64(p.end))
	for _, place := range slices.Backward(places) {
		n := base + uint64(b.first) + uint64(place/bundleSize)
		if last := len(all) - 1; last < 0 || all[last].all || all[last].bundle != n {
			all = append(all, share{bundle: n})
		}
		s := &all[len(all)-1]
		s.places = append(s.places, uint8(place%bundleSize))
	}
	return whole(all, base+uint64(p.first), base+uint64(max(b.first, p.first))), nil
}

// whole appends bundles of which each record is to be read, the newest first, so
// that none is passed over because it was altered.
func whole(all []share, from, to uint64) []share {
	for n := to; n > from; n-- {
		all = append(all, share{bundle: n - 1, all: true})
	}
	return all
}

// inFile returns the file of a block and the places that it gives. Errors:
// [fs.ErrNotExist], [ErrFormat], [ErrStale]; those of the log.
func (f *finder) inFile(p part) (*block, []uint16, error) {
	for {
		b, err := f.index.take(f.snap, p)
		if err != nil {
			return nil, nil, err
		}
		places, err := f.candidates(b)
		if !errors.Is(err, fs.ErrClosed) {
			return b, places, err
		}
		// Another search, or an update, has closed the file meanwhile.
	}
}

// read returns what fits of a share, newest first, each record proved.
func (f *finder) read(s share) ([]Hit, error) {
	if err := f.ctx.Err(); err != nil {
		return nil, err
	}
	first := s.bundle * bundleSize
	if min(first+bundleSize, f.snap.Size()) <= f.snap.MinIndex() {
		return nil, nil // of a month that was pruned whole
	}
	records, err := f.snap.Bundle(s.bundle)
	if err != nil {
		return nil, err
	}
	if s.all {
		for i := range records {
			s.places = append(s.places, uint8(len(records)-1-i))
		}
	}
	var hits []Hit
	for _, place := range s.places {
		seq := first + uint64(place)
		if seq < f.snap.MinIndex() {
			break
		}
		raw := records[place]
		if err := f.snap.Check(seq, raw); err != nil {
			return nil, err
		}
		at, ok, err := f.fits(raw, func() audit.Hash { return audit.LeafHash(raw) })
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", f.snap.Log(), seq, err)
		}
		if ok {
			hits = append(hits, Hit{Log: f.snap.Log(), Seq: seq, Time: at, Raw: raw, Covered: true})
		}
	}
	return hits, nil
}
