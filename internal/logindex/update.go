package logindex

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
)

// Update says what to build.
type Update struct {
	// Slack is how many bundles of 256 records may stay without index at the end
	// of a log that grows; 0 covers every whole bundle.
	Slack int
	// Again builds also what is there and fits.
	Again bool
	// Workers build at a time, at least one.
	Workers int
	// Pace, unless nil, is called after each bundle of 256 records, to leave the
	// processor to others. An error of it ends the update.
	Pace func() error
}

// Built is what an update did.
type Built struct {
	Files   int
	Records int
	Bytes   int64
}

// Update builds the files of a log that are missing, damaged, of other tiles or
// too short, and removes those of pruned records. It reads the log and writes
// nothing else; when it stops half-way, what is done stays.
func (x *Index) Update(ctx context.Context, snap *audit.Snapshot, u Update) (Built, error) {
	if err := x.sweep(snap); err != nil {
		return Built{}, err
	}
	var due []part
	for _, p := range parts(snap) {
		needed, err := x.due(snap, p, u)
		if err != nil {
			return Built{}, err
		}
		if needed {
			due = append(due, p)
		}
	}
	return x.build(ctx, snap, due, u)
}

// due reports whether the file of a part must be built.
func (x *Index) due(snap *audit.Snapshot, p part, u Update) (bool, error) {
	if u.Again {
		return true, nil
	}
	b, err := x.take(snap, p)
	switch {
	case err != nil && ofLog(err):
		return false, err
	case errors.Is(err, fs.ErrNotExist):
		return p.end-p.first > u.Slack || p.end == blockBundles, nil
	case err != nil:
		return true, nil
	}
	return b.first != p.first || b.end < p.end && (p.end == blockBundles || p.end-b.end > u.Slack), nil
}

// build makes files, several at a time.
func (x *Index) build(ctx context.Context, snap *audit.Snapshot, due []part, u Update) (Built, error) {
	work := make(chan part, len(due))
	for _, p := range due {
		work <- p
	}
	close(work)
	var (
		mu    sync.Mutex
		built Built
		errs  []error
		group sync.WaitGroup
	)
	for range min(max(1, u.Workers), len(due)) {
		group.Go(func() {
			w := builder{pace: u.Pace}
			for p := range work {
				data, err := w.build(snap, p.block, p.first, p.end)
				if err == nil {
					err = x.write(snap.Log(), p.block, data)
				}
				if err == nil {
					err = ctx.Err()
				}
				mu.Lock()
				if err != nil {
					errs = append(errs, fmt.Errorf("indexing block %d of %s: %w", p.block, snap.Log(), err))
				} else {
					built.Files++
					built.Records += (p.end - p.first) * bundleSize
					built.Bytes += int64(len(data))
				}
				stop := len(errs) > 0
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	group.Wait()
	return built, errors.Join(errs...)
}

// strayAge is when a temporary file is one that a crash left behind.
const strayAge = time.Hour

// sweep removes files of blocks that were pruned, and what crashes left.
func (x *Index) sweep(snap *audit.Snapshot) error {
	names, err := os.ReadDir(filepath.Join(x.dir, snap.Log()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	kept := snap.MinIndex() / blockSize
	for _, entry := range names {
		n, ok := parseName(entry.Name())
		info, err := entry.Info()
		switch {
		case ok && uint64(n) < kept:
			err = x.forget(fileName{snap.Log(), n})
		case err == nil && !ok && strings.HasSuffix(entry.Name(), ".tmp") && time.Since(info.ModTime()) > strayAge:
		default:
			continue
		}
		if err = errors.Join(err, os.Remove(filepath.Join(x.dir, snap.Log(), entry.Name()))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// State is what a check found of one file.
type State struct {
	File    string // below the index's folder
	Records int    // that it covers
	Bytes   int64
	Err     error // nil when the file is what the log gives, byte for byte
}

// Check makes the file of each part again, in memory, and compares: so nothing
// was left out. A part without a file is no fault. Errors: [ErrFormat] and
// [ErrStale] in a State; those of the log end it.
func (x *Index) Check(ctx context.Context, snap *audit.Snapshot) ([]State, error) {
	var (
		w      builder
		states []State
	)
	for _, p := range parts(snap) {
		if err := ctx.Err(); err != nil {
			return states, err
		}
		b, err := x.take(snap, p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil && ofLog(err) {
			return states, err
		}
		s := State{File: snap.Log() + "/" + filepath.Base(x.path(snap.Log(), p.block)), Err: err}
		if err == nil {
			s.Records, s.Bytes = b.records(), b.length
			s.Err, err = x.compare(&w, snap, b, p)
			if err != nil {
				return states, err
			}
		}
		states = append(states, s)
	}
	return states, nil
}

// compare builds what a file covers again.
func (x *Index) compare(w *builder, snap *audit.Snapshot, b *block, p part) (found, failed error) {
	if b.first != p.first {
		return fmt.Errorf("%w: it begins at bundle %d, not %d", ErrStale, b.first, p.first), nil
	}
	want, err := w.build(snap, p.block, b.first, b.end)
	if err != nil {
		return nil, err
	}
	have := make([]byte, b.length)
	if _, err := b.file.ReadAt(have, 0); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err), nil
	}
	if !bytes.Equal(have, want) {
		return fmt.Errorf("%w: the log gives another file", ErrFormat), nil
	}
	return nil, nil
}
