package audit

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// The queue of records that are reserved and not durable yet.
const (
	queueSize    = 8192
	queueForSec  = 512 // of them kept for sec
	maxPerTicket = 64
)

// Log is the open log of a node. It is safe for concurrent use.
type Log struct {
	o       Options
	fsys    fileSystem
	lock    io.Closer
	name    string // of the node in origins
	signers []crypto.Signer
	wal     *wal
	tiles   *integrator
	started time.Time
	who     atomic.Pointer[identity]
	quality atomic.Pointer[timeQuality]

	// The next places; guarded by wal.mu.
	secNext uint64
	opsNext uint64
	ops     Shard // current month; 0 before the first record

	slots slots
	state state
	watch watch

	anchors *anchoring

	close sync.Once
	ended error // what Close returned
}

// timeQuality is a sample of the clock's quality.
type timeQuality struct {
	sync  bool
	errUS int64
}

// slots counts the records that are reserved.
type slots struct {
	mu      sync.Mutex
	used    int
	closing bool
	idle    chan struct{} // closed when closing and nothing is used
}

// state says why the node must refuse.
type state struct {
	mu       sync.Mutex
	poisoned error
	disk     error // critical space
	unsigned error // the tail is too old
}

// Reserve takes room for n records of one log, at most 64, before the work they
// describe begins, so that a full or failed log refuses before the HSM acts.
// The ticket must be given back by [Ticket.Release]. It never waits. Errors:
// [ErrQueueFull], [ErrDiskCritical], [ErrUnsigned], [ErrUnavailable],
// [ErrClosed], [ErrRecord], and ctx's.
func (l *Log) Reserve(ctx context.Context, id LogID, n int) (*Ticket, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("reserving room in %v: %w", id, err)
	}
	if n < 1 || n > maxPerTicket || id != Sec && id != Ops {
		return nil, fmt.Errorf("%w: %d records of log %v reserved; need 1 to %d of sec or ops", ErrRecord, n, id, maxPerTicket)
	}
	if err := l.state.refusal(id); err != nil {
		return nil, err
	}
	limit := queueSize
	if id == Ops {
		limit -= queueForSec
	}
	s := &l.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return nil, ErrClosed
	case s.used+n > limit:
		return nil, fmt.Errorf("%w: %d of %d records wait", ErrQueueFull, s.used, limit)
	}
	s.used += n
	return &Ticket{log: l, id: id, left: n}, nil
}

// refusal returns why records of a log cannot be taken now.
func (s *state) refusal(id LogID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.poisoned != nil:
		return s.poisoned
	case s.unsigned != nil && id == Ops:
		return s.unsigned
	case s.disk != nil && id == Ops:
		return s.disk
	}
	return nil
}

func (s *slots) release(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= n
	if s.closing && s.used == 0 && n > 0 {
		close(s.idle)
	}
}

// Ready returns nil, or why the node must refuse operations: [ErrUnavailable],
// [ErrUnsigned], [ErrDiskCritical] or [ErrClosed].
func (l *Log) Ready() error {
	l.slots.mu.Lock()
	closing := l.slots.closing
	l.slots.mu.Unlock()
	if closing {
		return ErrClosed
	}
	return l.state.refusal(Ops)
}

// Ticket is room for some records of one log. It is for one goroutine at a time.
type Ticket struct {
	log  *Log
	id   LogID
	left int
}

// Append writes records and returns their places when all of them are durable.
// They come one after another in the log and share one flush.
// Upon an error nothing that the records describe may be answered as done; the
// records may nevertheless be found after a restart. Errors: [ErrRecord],
// [ErrDiskCritical], [ErrUnavailable], [ErrClosed].
func (t *Ticket) Append(r ...Record) ([]Pos, error) {
	if t.left == 0 {
		return nil, fmt.Errorf("%w: the ticket is used up or released", ErrClosed)
	}
	if len(r) == 0 || len(r) > t.left {
		return nil, fmt.Errorf("%w: %d records for a ticket with room for %d", ErrRecord, len(r), t.left)
	}
	for i := range r {
		if err := checkRecord(&r[i], t.id); err != nil {
			return nil, err
		}
	}
	pos, err := t.log.append(t.id, r)
	t.left -= len(r)
	t.log.slots.release(len(r))
	return pos, err
}

// Release gives back what is left of the ticket. It may be called at any time,
// more than once, also after Append.
func (t *Ticket) Release() {
	t.log.slots.release(t.left)
	t.left = 0
}

// append encodes records, gives them their places and waits until they are
// durable.
func (l *Log) append(id LogID, rs []Record) ([]Pos, error) {
	var few [4]*draft
	ds := few[:0]
	for i := range rs {
		ds = append(ds, l.describe(&rs[i], id))
	}
	pos := make([]Pos, 0, len(ds))
	b, pos, err := l.place(id, ds, pos)
	for i, d := range ds {
		if d.alarming() {
			l.watch.scrubbed(d.id, d.scrubs)
		}
		d.free()
		ds[i] = nil
	}
	if err != nil {
		return nil, err
	}
	<-b.done
	if b.err != nil {
		return nil, b.err
	}
	return pos, nil
}

// describe encodes a record with the moment that it has, or the present one.
func (l *Log) describe(r *Record, id LogID) *draft {
	m := r.at
	if m == nil {
		m = new(moment)
		*m = l.now()
	}
	if r.ID.IsZero() {
		r.ID = newUUID(m.wall)
	}
	shard := Shard(0)
	if id == Ops {
		shard = shardOf(m.wall)
	}
	return encode(r, m, shard)
}

// place gives drafts their seqs, in one piece of the write-ahead log, and
// returns the batch that carries them.
func (l *Log) place(id LogID, ds []*draft, pos []Pos) (*batch, []Pos, error) {
	total := int64(0)
	month := Shard(0)
	for _, d := range ds {
		total += d.room()
		if id == Ops {
			month = max(month, shardOf(d.wall))
		}
	}
	w := l.wal
	w.mu.Lock()
	defer w.mu.Unlock()
	if month > l.ops {
		total += 2 * maxRecord // the end of the old month and the start of the new
	}
	if err := w.place(total, id); err != nil {
		return nil, nil, err
	}
	if month > l.ops {
		l.turn(month)
	}
	shard, next := Shard(0), &l.secNext
	if id == Ops {
		shard, next = l.ops, &l.opsNext
	}
	for _, d := range ds {
		shard.append(d.pre[:d.logAt])
		w.add(shard, *next, d)
		pos = append(pos, Pos{Shard: shard, Seq: *next, ID: d.id})
		*next++
	}
	signal(w.wake)
	return w.filling(), pos, nil
}

// turn ends the current month of ops, if there is one, and begins the next.
// wal.mu is held and there is room.
func (l *Log) turn(month Shard) {
	old := Tree{Log: month.logName(), Origin: l.origin(month)}
	if l.ops != 0 {
		old = Tree{Log: l.ops.logName(), Origin: l.origin(l.ops), Size: int64(l.opsNext) + 1}
		l.addOwn(l.ops, l.opsNext, Record{Action: LogClose, Trees: []Tree{old}})
	}
	l.ops, l.opsNext = month, 1
	l.addOwn(month, 0, Record{Action: LogOpen, Trees: []Tree{old}, Vkeys: l.vkeys(month)})
}

// addOwn places a record that the log itself writes. wal.mu is held.
func (l *Log) addOwn(shard Shard, seq uint64, r Record) {
	r.Actor, r.Outcome = System(), OutcomeOK
	m := l.now()
	r.ID = newUUID(m.wall)
	d := encode(&r, &m, shard)
	l.wal.add(shard, seq, d)
	d.free()
}

func (l *Log) origin(shard Shard) string { return origin(l.o.Site, l.name, shard) }

// vkeys returns the node's vkeys for a log.
func (l *Log) vkeys(shard Shard) []string {
	var keys []string
	for _, s := range l.signers {
		if v, err := newVerifier(l.origin(shard), s.Public()); err == nil {
			keys = append(keys, v.String())
		}
	}
	return keys
}

// Vkey returns the node's vkey for a log's origin: "sec" or "ops-yyyy-mm". The
// error is [ErrFormat].
func (l *Log) Vkey(log string) (string, error) {
	shard, err := parseShard(log)
	if err != nil {
		return "", err
	}
	return l.vkeys(shard)[0], nil
}

// now reads the clocks once.
func (l *Log) now() moment {
	m := moment{who: l.who.Load()}
	if l.o.Clock == nil {
		m.wall = time.Now()
		m.mono = m.wall.Sub(l.started).Microseconds()
	} else {
		m.wall = l.o.Clock()
		m.mono = time.Since(l.started).Microseconds()
	}
	q := l.quality.Load()
	m.sync, m.errUS = q.sync, q.errUS
	return m
}

// own makes a record of the log itself durable.
func (l *Log) own(id LogID, rs ...Record) error {
	for i := range rs {
		rs[i].Actor = System()
		if rs[i].Outcome == 0 {
			rs[i].Outcome = OutcomeOK
		}
	}
	_, err := l.append(id, rs)
	return err
}

// SetCfg sets the SHA-256 of the active configuration for later records.
func (l *Log) SetCfg(cfg Hash) {
	who := *l.who.Load()
	who.cfg = [8]byte(cfg[:8])
	l.who.Store(&who)
}

// Statement returns the bytes that custodian and witness sign in a ceremony:
// the record without seq and without the signatures. It gives the record its
// id and time, so that the record appended later has the same bytes. The
// error is [ErrRecord].
func (l *Log) Statement(r *Record) ([]byte, error) {
	if err := checkRecord(r, Sec); err != nil {
		return nil, err
	}
	if r.at == nil {
		m := l.now()
		r.at = &m
	}
	if r.ID.IsZero() {
		r.ID = newUUID(r.at.wall)
	}
	return statement(r, r.at), nil
}

// Close stops the log in order: it refuses new reservations, waits for the
// tickets that are out, records the stop, publishes final checkpoints and lets
// the directory go. When ctx ends first, what is durable stays durable and the
// next Open recovers. Errors: ctx's, and those of the last records and
// checkpoints.
func (l *Log) Close(ctx context.Context) error {
	l.close.Do(func() { l.ended = l.shut(ctx) })
	return l.ended
}

func (l *Log) shut(ctx context.Context) error {
	s := &l.slots
	s.mu.Lock()
	s.closing = true
	if s.used == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	var errs []error
	select {
	case <-s.idle:
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("waiting for tickets: %w", ctx.Err()))
	}
	l.watch.end()
	l.anchors.end()
	if len(errs) == 0 {
		errs = append(errs, l.recordStop())
	}
	errs = append(errs, l.wal.close())
	close(l.tiles.stop)
	stopped := make(chan struct{})
	go func() {
		l.tiles.group.Wait()
		close(stopped)
	}()
	select {
	case <-stopped:
		l.anchors.finish(ctx)
		errs = append(errs, l.tiles.final, l.lock.Close())
	case <-ctx.Done():
		// The signer hangs: the lock stays with the process, which is about to end.
		errs = append(errs, fmt.Errorf("publishing final checkpoints: %w", ctx.Err()))
	}
	return errors.Join(errs...)
}

// recordStop writes the last records: of ops first, because the last record of
// sec tells an orderly stop.
func (l *Log) recordStop() error {
	l.wal.mu.Lock()
	ops, next := l.ops, l.opsNext
	l.wal.mu.Unlock()
	if ops != 0 {
		tree := Tree{Log: ops.logName(), Origin: l.origin(ops), Size: int64(next) + 1}
		if err := l.own(Ops, Record{Action: LogClose, Trees: []Tree{tree}}); err != nil {
			return fmt.Errorf("recording the stop: %w", err)
		}
	}
	l.wal.mu.Lock()
	next = l.secNext
	l.wal.mu.Unlock()
	tree := Tree{Log: "sec", Origin: l.origin(0), Size: int64(next) + 2}
	if err := l.own(Sec, Record{Action: SysStop}, Record{Action: LogClose, Trees: []Tree{tree}}); err != nil {
		return fmt.Errorf("recording the stop: %w", err)
	}
	return nil
}
