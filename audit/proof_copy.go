package audit

import (
	"fmt"
	"iter"
)

// TileFile is a tile or a bundle of records as a file of a tlog-tiles prefix.
type TileFile struct {
	Path string // below the log's folder
	Data []byte
}

// Note returns the signed checkpoint as it is published; nil when there is none.
func (s *Snapshot) Note() []byte { return s.msg }

// Checkpoint returns what the checkpoint says, without looking at its signature.
func (s *Snapshot) Checkpoint() Checkpoint { return s.point }

// Tiles yields every bundle and tile of the checkpoint's tree, as narrow as that
// tree has them, each compared with its root. After an error it ends. Errors:
// [ErrPruned], [ErrCorrupt], [ErrFormat].
func (s *Snapshot) Tiles() iter.Seq2[TileFile, error] {
	return func(yield func(TileFile, error) bool) {
		for level := bundleLevel; tilesAt(s.point.Size, level) > 0; level++ {
			for n := uint64(0); widthAt(s.point.Size, level, n) > 0; n++ {
				data, err := s.tile(level, n)
				if err != nil {
					yield(TileFile{}, err)
					return
				}
				if !yield(TileFile{tilePath(level, n, widthAt(s.point.Size, level, n)), data}, nil) {
					return
				}
			}
		}
	}
}

func (s *Snapshot) tile(level int, n uint64) (data []byte, err error) {
	if level == bundleLevel {
		records, err := s.proved(n)
		for _, raw := range records {
			data = appendEntry(data, raw)
		}
		return data, err
	}
	hashes, err := s.Hashes(level, n)
	for _, h := range hashes {
		data = append(data, h[:]...)
	}
	return data, err
}

// proved returns a bundle whose records have been compared with the tree.
func (s *Snapshot) proved(n uint64) ([][]byte, error) {
	records, err := s.Bundle(n)
	if err != nil {
		return nil, err
	}
	for i, raw := range records {
		if err := s.Check(n*tileWidth+uint64(i), raw); err != nil {
			return nil, err
		}
	}
	return records, nil
}

// Records yields the records with a seq from first to last, both included, each
// compared with the tree of the checkpoint. After an error it ends. Errors:
// [ErrUncovered], [ErrPruned], [ErrCorrupt], [ErrFormat].
func (s *Snapshot) Records(first, last uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if last >= s.point.Size {
			yield(Entry{}, fmt.Errorf("%w: %s:%d; the checkpoint has size %d", ErrUncovered, s.log, last, s.point.Size))
			return
		}
		for seq := first; seq <= last; {
			records, err := s.proved(seq / tileWidth)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, raw := range records[seq%tileWidth:] {
				if seq > last {
					return
				}
				if !yield(Entry{Log: s.log, Seq: seq, Raw: raw, Covered: true}, nil) {
					return
				}
				seq++
			}
		}
	}
}
