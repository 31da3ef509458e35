package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// walkWindow is how much of a segment is in memory at once. The largest frame fits
// many times.
const walkWindow = 1 << 20

// walkWAL visits the frames of the write-ahead log in order until visit returns
// false; a payload is valid until it returns. It reads beside a running writer: it
// takes what is whole and does not judge the rest.
func walkWAL(fsys fileSystem, visit func(f *frame) bool) error {
	segs, err := listSegments(fsys)
	if err != nil {
		return err
	}
	w := walker{fsys: fsys, visit: visit}
	for _, n := range segs {
		more, err := w.segment(segmentName(n))
		if errors.Is(err, fs.ErrNotExist) {
			continue // covered and removed meanwhile
		}
		if err != nil {
			return fmt.Errorf("reading segment %d: %w", n, err)
		}
		if !more {
			return nil
		}
	}
	return nil
}

// walker reads segments through one window.
type walker struct {
	fsys  fileSystem
	visit func(f *frame) bool
	buf   []byte
}

// segment visits the frames of a segment. It reports whether to go on: not when
// visit had enough, and not behind a segment that is not used yet.
func (w *walker) segment(name string) (more bool, err error) {
	f, err := w.fsys.Open(name, os.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return false, err
	}
	if size > maxSegmentSize {
		return false, fmt.Errorf("%w: %s has %d bytes, more than %d", ErrFormat, name, size, maxSegmentSize)
	}
	head := make([]byte, min(size, headerSize))
	if _, err := f.ReadAt(head, 0); err != nil && err != io.EOF {
		return false, err
	}
	if _, ok := parseSegmentHeader(head); !ok {
		return false, nil
	}
	return w.frames(f, size)
}

// frames visits the frames behind a segment's header, up to the first bytes that
// are none. It reports whether visit wants more.
func (w *walker) frames(f file, size int64) (more bool, err error) {
	if w.buf == nil {
		w.buf = make([]byte, walkWindow)
	}
	for at := int64(headerSize); at < size; {
		n, err := f.ReadAt(w.buf[:min(walkWindow, size-at)], at)
		if err != nil && err != io.EOF {
			return false, err
		}
		used, more, err := w.window(w.buf[:n])
		if err != nil || !more {
			return false, err
		}
		if used == 0 {
			break
		}
		at += int64(used)
	}
	return true, nil
}

// window visits the whole frames at the start of b. It returns how long they are
// and whether visit wants more.
func (w *walker) window(b []byte) (used int, more bool, err error) {
	for {
		f, size, ok, err := parseFrame(b[used:])
		if err != nil {
			return used, false, err
		}
		if !ok {
			return used, true, nil
		}
		if !w.visit(&f) {
			return used, false, nil
		}
		used += size
	}
}
