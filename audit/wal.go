package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"
)

const (
	maxBatch   = 4 << 20
	spareCount = 2 // ahead of the active segment, besides the reserve
	zeroChunk  = 1 << 20
)

// wal is the write-ahead log: a queue of batches, of which the last one fills,
// a goroutine that writes one batch at a time, and one that makes segments.
type wal struct {
	fsys    fileSystem
	size    int64 // of a segment
	id      [16]byte
	durable func(*batch) // called by the writer, in order; must not block
	failed  func(error)  // called once, when the writer gives up
	mark    func()       // leaves a note of the failure on disk; may take its time
	spare   func(error)  // called when a segment could not be made, and with nil when it could again
	retry   func() <-chan time.Time
	synced  func(took time.Duration, records int) // told of each flush; may be nil

	mu       sync.Mutex
	room     *sync.Cond // spares or err changed
	batches  []*batch   // never empty; the last one fills
	seg      uint64     // where the next frame goes
	off      int64
	spares   []uint64 // segments made and not opened, in order
	spareErr error    // why the next one could not be made
	err      error    // set when the log is poisoned or closed

	wake  chan struct{} // to the writer
	need  chan struct{} // to the maker of segments
	stop  chan struct{}
	group sync.WaitGroup

	// Owned by the writer.
	active    file
	activeSeg uint64
	prevLen   int64  // valid length of the segment that was written last
	prevCRC   uint32 // CRC of its last frame
}

// batch is what one write and one flush make durable.
type batch struct {
	num    uint64
	seg    uint64
	off    int64
	opens  bool // the segment begins with it; buf has room for the header
	buf    []byte
	frames []placed
	since  time.Time // when it became durable
	done   chan struct{}
	err    error // set before done is closed
}

// placed is a frame in a batch.
type placed struct {
	shard Shard
	seq   uint64
	at, n int // the payload's offset in the batch and its length
}

var batches = sync.Pool{New: func() any { return &batch{buf: make([]byte, 0, 1<<18)} }}

func newBatch(num, seg uint64, off int64) *batch {
	b := batches.Get().(*batch)
	*b = batch{num: num, seg: seg, off: off, buf: b.buf[:0], frames: b.frames[:0], done: make(chan struct{})}
	if off == 0 {
		b.opens = true
		b.buf = b.buf[:headerSize]
		clear(b.buf)
	}
	return b
}

// free gives the batch's buffers back. The waiters keep done and err.
func (b *batch) free() {
	if cap(b.buf) <= maxBatch {
		batches.Put(&batch{buf: b.buf, frames: b.frames})
	}
}

// end returns the offset behind the batch.
func (b *batch) end() int64 { return b.off + int64(len(b.buf)) }

func segmentName(n uint64) string { return fmt.Sprintf("wal/wal-%016d", n) }

// parseSegmentName returns the number of a segment's file name in wal/.
func parseSegmentName(name string) (uint64, bool) {
	if len(name) != len("wal-")+16 || name[:4] != "wal-" || !all(name[4:], classDigit, 16, 16) {
		return 0, false
	}
	n, err := strconv.ParseUint(name[4:], 10, 64)
	return n, err == nil && n > 0
}

// run starts the goroutines; the position and the spares are set.
func (w *wal) run() {
	w.room = sync.NewCond(&w.mu)
	w.wake = make(chan struct{}, 1)
	w.need = make(chan struct{}, 1)
	w.stop = make(chan struct{})
	w.group.Go(w.write)
	w.group.Go(w.makeSpares)
	w.need <- struct{}{}
}

// place finds room for total bytes of frames in one piece, opening the next
// segment when the current one is full. It waits for a segment that is being
// made. mu is held.
func (w *wal) place(total int64, id LogID) error {
	for {
		if w.err != nil {
			return w.err
		}
		b := w.batches[len(w.batches)-1]
		if w.off+total <= w.size {
			if len(b.frames) > 0 && int64(len(b.buf))+total > w.batchLimit() {
				w.batches = append(w.batches, newBatch(b.num+1, w.seg, w.off))
			}
			return nil
		}
		n := len(w.spares)
		switch {
		case n > 1, n == 1 && id == Sec && w.spareErr != nil:
			w.openNext(b)
			return nil
		case w.spareErr != nil && id == Ops && n > 0:
			return fmt.Errorf("%w: no room for another segment: %w", ErrDiskCritical, w.spareErr)
		case w.spareErr != nil:
			return fmt.Errorf("%w: no room for another segment: %w", ErrUnavailable, w.spareErr)
		}
		w.room.Wait()
	}
}

func (w *wal) batchLimit() int64 { return min(maxBatch, w.size/4) }

// openNext makes the filling batch the first of the next segment.
func (w *wal) openNext(b *batch) {
	w.seg, w.off = w.spares[0], headerSize
	w.spares = w.spares[1:]
	next := newBatch(b.num+1, w.seg, 0)
	if len(b.frames) == 0 {
		next.num = b.num
		b.free()
		w.batches = w.batches[:len(w.batches)-1]
	}
	w.batches = append(w.batches, next)
	signal(w.need)
}

// add puts a record into the filling batch; place found the room. mu is held.
func (w *wal) add(shard Shard, seq uint64, d *draft) {
	b := w.batches[len(w.batches)-1]
	var num [20]byte
	digits := strconv.AppendUint(num[:0], seq, 10)
	start := len(b.buf)
	b.buf = appendFrame(b.buf, shard, seq, d.pre, digits, d.suf)
	n := len(d.pre) + len(digits) + len(d.suf)
	b.frames = append(b.frames, placed{shard, seq, start + frameHeader, n})
	w.off += int64(frameSize(n))
}

// room returns the most that a draft takes in a segment.
func (d *draft) room() int64 { return int64(frameSize(len(d.pre) + 20 + len(d.suf))) }

// filling returns the batch that add put records into. mu is held.
func (w *wal) filling() *batch { return w.batches[len(w.batches)-1] }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take returns the oldest batch with frames, closed for filling, or nil.
func (w *wal) take() *batch {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.batches[0]
	if len(b.frames) == 0 || w.err != nil {
		return nil
	}
	if len(w.batches) == 1 {
		w.batches = append(w.batches, newBatch(b.num+1, w.seg, w.off))
	}
	w.batches = w.batches[1:]
	return b
}

// turns is how often the writer lets others run before it closes a batch. Who is
// about to append shares the flush then; without a timer, so that a lone record
// waits for nobody (L-20).
const turns = 4

// write is the writer: one batch at a time, one write and one flush for each.
func (w *wal) write() {
	for {
		for range turns {
			runtime.Gosched()
		}
		b := w.take()
		if b == nil {
			select {
			case <-w.wake:
				continue
			case <-w.stop:
			}
			if b = w.take(); b == nil {
				return
			}
		}
		if err := w.flush(b); err != nil {
			w.poison(b, fmt.Errorf("%w: write-ahead log: %w", ErrUnavailable, err))
			return
		}
		b.since = time.Now()
		done := b.done
		w.durable(b) // may hand the buffers on; b is not touched after it
		close(done)
	}
}

// flush seals, writes and syncs a batch.
func (w *wal) flush(b *batch) error {
	if w.activeSeg != b.seg {
		if err := w.activate(b.seg); err != nil {
			return err
		}
	}
	at := b.off
	crc := w.prevCRC
	if b.opens {
		h := segmentHeader{number: b.seg, firstBatch: b.num, walID: w.id, prevLen: uint64(w.prevLen), prevCRC: w.prevCRC}
		h.put(b.buf)
		at = 0
	}
	for i, p := range b.frames {
		crc, _ = seal(b.buf[p.at-frameHeader:], b.num, i == len(b.frames)-1)
	}
	if _, err := w.active.WriteAt(b.buf, at); err != nil {
		return fmt.Errorf("writing segment %d: %w", b.seg, err)
	}
	start := time.Now()
	if err := w.active.Datasync(); err != nil {
		return fmt.Errorf("syncing segment %d: %w", b.seg, err)
	}
	if w.synced != nil {
		w.synced(time.Since(start), len(b.frames))
	}
	w.prevLen, w.prevCRC = b.end(), crc
	return nil
}

func (w *wal) activate(seg uint64) error {
	if w.active != nil {
		if err := w.active.Close(); err != nil {
			return fmt.Errorf("closing segment %d: %w", w.activeSeg, err)
		}
	}
	f, err := w.fsys.Open(segmentName(seg), os.O_RDWR)
	if err != nil {
		return fmt.Errorf("opening segment %d: %w", seg, err)
	}
	w.active, w.activeSeg = f, seg
	return nil
}

// poison ends the log: a failed sync may have marked dirty pages clean, so that
// no later sync means anything.
func (w *wal) poison(first *batch, err error) {
	w.mu.Lock()
	w.err = err
	failed := append([]*batch{first}, w.batches...)
	w.batches = w.batches[len(w.batches)-1:]
	w.mu.Unlock()
	w.failed(err) // first: whoever is woken must find a log that refuses
	w.room.Broadcast()
	for _, b := range failed {
		b.err = err
		close(b.done)
	}
	w.mark()
}

// close ends the goroutines after what was appended is durable.
func (w *wal) close() error {
	w.mu.Lock()
	if w.err == nil {
		// The writer still drains; appenders are refused before they come here.
		defer func() {
			w.mu.Lock()
			if w.err == nil {
				w.err = ErrClosed
			}
			w.mu.Unlock()
			w.room.Broadcast()
		}()
	}
	w.mu.Unlock()
	close(w.stop)
	w.group.Wait()
	if w.active != nil {
		return w.active.Close()
	}
	return nil
}

// makeSpares keeps two segments and the reserve ahead of the active one.
func (w *wal) makeSpares() {
	for {
		w.mu.Lock()
		n := len(w.spares)
		next := w.seg + 1
		if n > 0 {
			next = w.spares[n-1] + 1
		}
		poisoned := w.err != nil
		w.mu.Unlock()
		if poisoned {
			return
		}
		if n > spareCount {
			select {
			case <-w.need:
			case <-w.stop:
				return
			}
			continue
		}
		err := makeSegment(w.fsys, next, w.size, w.stop)
		if errors.Is(err, ErrClosed) {
			return
		}
		w.mu.Lock()
		was := w.spareErr
		w.spareErr = err
		if err == nil {
			w.spares = append(w.spares, next)
		}
		w.mu.Unlock()
		w.room.Broadcast()
		if (err == nil) != (was == nil) {
			w.spare(err)
		}
		if err != nil {
			select {
			case <-w.retry():
			case <-w.stop:
				return
			}
		}
	}
}

// makeSegment makes a segment of zero bytes, durable and under its name.
func makeSegment(fsys fileSystem, n uint64, size int64, stop <-chan struct{}) error {
	name := segmentName(n)
	err := fillZero(fsys, name+".tmp", size, stop)
	if err != nil {
		_ = fsys.Remove(name + ".tmp") // leave no half-made file behind on a full disk
		return fmt.Errorf("making segment %d: %w", n, err)
	}
	if err := fsys.Rename(name+".tmp", name); err != nil {
		return fmt.Errorf("making segment %d: %w", n, err)
	}
	if err := fsys.SyncDir("wal"); err != nil {
		return fmt.Errorf("making segment %d: %w", n, err)
	}
	return nil
}

func fillZero(fsys fileSystem, name string, size int64, stop <-chan struct{}) error {
	f, err := fsys.Open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	defer f.Close()
	zero := make([]byte, min(zeroChunk, size))
	for at := int64(0); at < size; at += int64(len(zero)) {
		select {
		case <-stop:
			return ErrClosed
		default:
		}
		if _, err := f.WriteAt(zero, at); err != nil {
			return err
		}
	}
	return f.Sync()
}

// isZero reports whether b holds only zero bytes.
func isZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
