package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
)

// Reader reads a log's directory, or a copy of it, without a lock and without
// the daemon. It is safe for concurrent use. It checks form, not signatures:
// see [Verify] and [CheckProof].
type Reader struct {
	fsys fileSystem
}

// Entry is a durable record.
type Entry struct {
	Log     string // sec or ops-yyyy-mm
	Seq     uint64
	Raw     []byte // the record's bytes, exactly as hashed: JSON without a newline
	Covered bool   // whether the current checkpoint covers it
}

// OpenReader opens a directory for reading. Errors: [ErrNotFound], [ErrCorrupt].
func OpenReader(dir string) (*Reader, error) {
	r := &Reader{osFS(dir)}
	if _, err := r.manifest(); err != nil {
		return nil, fmt.Errorf("reading the audit log in %s: %w", dir, err)
	}
	return r, nil
}

// manifest reads the manifest; an exported copy may have none, then the
// directories speak for themselves.
func (r *Reader) manifest() (*manifest, error) {
	m, err := readManifest(r.fsys)
	if !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	dirs, err := logDirs(r.fsys)
	if err != nil {
		return nil, err
	}
	m = &manifest{}
	for _, dir := range dirs {
		name := dir
		if month, ok := cutPrefix(dir, "ops/"); ok {
			name = "ops-" + month
		}
		if shard, err := parseShard(name); err == nil {
			m.list(shard)
			l := &m.Logs[len(m.Logs)-1]
			l.Origin = "" // nobody says whose it is but its checkpoint
			l.MinIndex = copiedFrom(r.fsys, name)
		}
	}
	if len(m.Logs) == 0 {
		return nil, fmt.Errorf("%w: no log in this directory", ErrNotFound)
	}
	return m, nil
}

// Logs returns the names of the logs: sec, then the months of ops in order.
func (r *Reader) Logs() ([]string, error) {
	m, err := r.manifest()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range m.Logs {
		names = append(names, l.Log)
	}
	return names, nil
}

// open returns a log's tiles as the current checkpoint covers them.
func (r *Reader) open(log string) (*tiles, *manifestLog, error) {
	shard, err := parseShard(log)
	if err != nil {
		return nil, nil, err
	}
	m, err := r.manifest()
	if err != nil {
		return nil, nil, err
	}
	l := m.find(shard)
	if l == nil {
		return nil, nil, fmt.Errorf("%w: log %s", ErrNotFound, log)
	}
	t := &tiles{fsys: r.fsys, dir: l.Dir}
	msg, err := readFile(r.fsys, l.Dir+"/checkpoint", 1<<16)
	if errors.Is(err, fs.ErrNotExist) {
		return t, l, nil // nothing is covered yet
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the checkpoint of %s: %w", log, err)
	}
	c, err := unverifiedCheckpoint(msg)
	if err != nil {
		return nil, nil, fmt.Errorf("%s/checkpoint: %w", l.Dir, err)
	}
	t.size = c.Size
	return t, l, nil
}

// Checkpoint returns a log's current signed checkpoint. The error is [ErrNotFound].
func (r *Reader) Checkpoint(log string) ([]byte, error) {
	shard, err := parseShard(log)
	if err != nil {
		return nil, err
	}
	msg, err := readFile(r.fsys, shard.dir()+"/checkpoint", 1<<16)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: checkpoint of %s", ErrNotFound, log)
	}
	return msg, err
}

// Size returns how many records a checkpoint covers and how many are durable.
// Errors: [ErrNotFound], [ErrFormat].
func (r *Reader) Size(log string) (covered, durable uint64, err error) {
	t, l, err := r.open(log)
	if err != nil {
		return 0, 0, err
	}
	covered, durable = t.size, t.size
	err = walkWAL(r.fsys, func(f *frame) bool {
		if f.shard == l.shard {
			durable = max(durable, f.seq+1)
		}
		return true
	})
	if err != nil {
		return covered, durable, err
	}
	now, err := r.coveredNow(log)
	return max(covered, now), max(durable, now), err
}

// coveredNow returns how many records of a log the checkpoint covers by now. Who
// read the write-ahead log to its end asks it afterwards: a segment goes when a
// checkpoint covers what it holds, so what was not there to be read is below this.
func (r *Reader) coveredNow(log string) (uint64, error) {
	t, _, err := r.open(log)
	if err != nil {
		return 0, err
	}
	return t.size, nil
}

// Get returns a record's bytes. Errors: [ErrNotFound], [ErrPruned], [ErrFormat].
func (r *Reader) Get(log string, seq uint64) ([]byte, error) {
	for e, err := range r.Records(log, seq) {
		if err != nil {
			return nil, err
		}
		if e.Seq == seq {
			return e.Raw, nil
		}
		break
	}
	return nil, fmt.Errorf("%w: %s:%d", ErrNotFound, log, seq)
}

// Records yields the durable records of a log from a seq on, in order, also
// those that are only in the write-ahead log. After an error it ends. Errors:
// [ErrNotFound], [ErrPruned], [ErrFormat].
func (r *Reader) Records(log string, from uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		next, stuck := from, 0
		for {
			t, l, err := r.open(log)
			if err == nil && next < l.MinIndex {
				err = fmt.Errorf("%w: %s:%d", ErrPruned, log, next)
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if next < t.size {
				if !r.covered(t, log, &next, yield) {
					return
				}
				continue // more may be covered by now
			}
			tail, gap, err := r.tail(l.shard, next)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, raw := range tail {
				if !yield(Entry{Log: log, Seq: next, Raw: raw}, nil) {
					return
				}
				next, stuck = next+1, 0
			}
			if !gap {
				size, err := r.coveredNow(log)
				if err != nil {
					yield(Entry{}, err)
					return
				}
				if size <= next {
					return
				}
				continue // segments went between the look at the checkpoint and theirs
			}
			if stuck++; stuck > 3 { // else what was missing is in tiles by now
				yield(Entry{}, fmt.Errorf("%w: %s:%d is neither in the tiles nor in the write-ahead log", ErrCorrupt, log, next))
				return
			}
		}
	}
}

// covered yields the records from next on that the tiles hold. It reports
// whether to go on.
func (r *Reader) covered(t *tiles, log string, next *uint64, yield func(Entry, error) bool) bool {
	for *next < t.size {
		entries, err := t.entries(*next / tileWidth)
		if err != nil {
			yield(Entry{}, fmt.Errorf("%s:%d: %w", log, *next, err))
			return false
		}
		for _, raw := range entries[*next%tileWidth:] {
			if !yield(Entry{Log: log, Seq: *next, Raw: raw, Covered: true}, nil) {
				return false
			}
			*next++
		}
	}
	return true
}

// tail returns the records from a seq on that the write-ahead log holds. A gap
// says that it holds later ones which do not follow them.
func (r *Reader) tail(shard Shard, from uint64) (tail [][]byte, gap bool, err error) {
	next := from
	err = walkWAL(r.fsys, func(f *frame) bool {
		if f.shard != shard || f.seq < next {
			return true
		}
		if f.seq > next {
			gap = true
			return false
		}
		tail = append(tail, append([]byte(nil), f.payload...))
		next++
		return true
	})
	return tail, gap, err
}
