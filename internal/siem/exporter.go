package siem

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
)

// Config is what an [Exporter] is made of. Zero values of the last group stand
// for the defaults beside them.
type Config struct {
	Name      string // in records, metrics and the cursor's file
	Reader    *audit.Reader
	Feed      *Feed
	Formatter *Formatter
	Target    Target
	Cursor    string                // path of the cursor's file; its folder exists
	Logs      func(log string) bool // which logs are exported; nil is all
	Log       *slog.Logger

	// Tell makes a record durable: log.sink, of an export that lags, failed or
	// goes on. It may take its time, and is not called after Drain.
	Tell func(ctx context.Context, r audit.Record) error
	// Alarm is told of the same, with the cause. It must not block.
	Alarm func(a audit.Alarm, cause error)

	LagLimit time.Duration // age of the oldest record not delivered that is an alarm; 1 min
	Grace    time.Duration // how long nothing works before that is a failure; 5 s
	Receipt  time.Duration // how often a session that was used is ended for a receipt; 10 min
	Ceiling  time.Duration // longest back-off; 15 s
}

// Exporter carries the log to one receiver. It is safe for concurrent use.
type Exporter struct {
	cfg    Config
	wake   <-chan struct{}
	drain  chan struct{}
	once   sync.Once
	orders chan order

	// Owned by the goroutine of Run.
	kept         cursor // need not be sent again; what the file says or will say
	saved        cursor
	savedTrouble string
	savedAt      time.Time
	sent         cursor // handed over in this session
	marks        marks
	line, out    []byte
	last         Head // of the last record
	failures     int  // sessions in a row that came to nothing
	ordered      bool // somebody has set the cursor in this session
	noReceipts   bool // the receiver does not answer the end of a session

	state state
}

// The bounds of one round.
const (
	perRound  = 4096      // records of one log, then it is another log's turn
	perWrite  = 256 << 10 // bytes that are gathered before they are written
	saveEvery = time.Second
	lookEvery = 500 * time.Millisecond
	firstWait = 250 * time.Millisecond
)

// New checks the configuration and reads the cursor. A cursor that cannot be read
// is no reason to stand still: the sink begins at the beginning, and the receiver
// gets again what it has. The error is [ErrConfig].
func New(cfg Config) (*Exporter, error) {
	if cfg.Name == "" || cfg.Reader == nil || cfg.Feed == nil || cfg.Formatter == nil || cfg.Target == nil ||
		cfg.Cursor == "" || cfg.Log == nil || cfg.Tell == nil || cfg.Alarm == nil {
		return nil, fmt.Errorf("%w: name, reader, feed, formatter, target, cursor, log, tell and alarm are all needed", ErrConfig)
	}
	if cfg.Logs == nil {
		cfg.Logs = func(string) bool { return true }
	}
	for value, usual := range map[*time.Duration]time.Duration{
		&cfg.LagLimit: time.Minute, &cfg.Grace: 5 * time.Second, &cfg.Receipt: 10 * time.Minute, &cfg.Ceiling: 15 * time.Second,
	} {
		if *value < 0 {
			return nil, fmt.Errorf("%w: a time is negative", ErrConfig)
		}
		if *value == 0 {
			*value = usual
		}
	}
	e := &Exporter{cfg: cfg, wake: cfg.Feed.wake(), drain: make(chan struct{}), orders: make(chan order)}
	at, trouble, err := loadCursor(cfg.Cursor, cfg.Name)
	if err != nil {
		cfg.Log.Warn("sink: its cursor cannot be read; it begins at the beginning", "sink", cfg.Name, "err", err)
		at = cursor{}
	}
	e.kept, e.saved, e.sent = at, at.clone(), at.clone()
	e.state.place(at)
	e.state.troubled(trouble)
	e.savedTrouble = trouble
	return e, nil
}

// Run delivers until ctx ends, or until everything is delivered after Drain.
func (e *Exporter) Run(ctx context.Context) {
	var watching sync.WaitGroup
	watch, stop := context.WithCancel(ctx)
	watching.Go(func() { e.watch(watch) })
	defer watching.Wait()
	defer stop()
	for ctx.Err() == nil {
		err := e.session(ctx)
		switch {
		case errors.Is(err, errDrained):
			return
		case errors.Is(err, errAgain), ctx.Err() != nil:
			continue
		}
		e.ordered = false
		e.failures++
		e.state.failed(err, time.Now())
		e.cfg.Log.Warn("sink: the session came to an end", "sink", e.cfg.Name, "err", err)
		if e.draining() {
			return
		}
		if err := e.save(); err != nil {
			e.cfg.Log.Warn("sink: its cursor cannot be kept", "sink", e.cfg.Name, "err", err)
		}
		e.pause(ctx, backoff(e.failures, e.cfg.Ceiling))
	}
}

// Drain says that nothing more will be published: Run delivers what there is, if
// that is possible at once, and returns.
func (e *Exporter) Drain() { e.once.Do(func() { close(e.drain) }) }

func (e *Exporter) draining() bool {
	select {
	case <-e.drain:
		return true
	default:
		return false
	}
}

// Why a session ended that did not fail.
var (
	errAgain   = errors.New("siem: the session is begun anew")
	errDrained = errors.New("siem: everything is delivered")
)

// session opens the target and delivers until something is wrong, in the order of
// each log, from the cursor on.
func (e *Exporter) session(ctx context.Context) (err error) {
	s, err := e.cfg.Target.Open(ctx)
	if err != nil {
		return err
	}
	e.sent, e.marks = e.kept.clone(), marks{}
	e.state.open()
	err = e.follow(ctx, s)
	e.state.shut()
	switch {
	case errors.Is(err, errDrained), errors.Is(err, errAgain):
		err = errors.Join(err, e.receipt(ctx, s))
	default:
		err = errors.Join(err, s.Abort())
	}
	return errors.Join(err, e.save())
}

// follow delivers until the session has to end, and returns why.
func (e *Exporter) follow(ctx context.Context, s Session) error {
	began := time.Now()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		last := e.draining()
		more, err := e.round(ctx, s)
		if err != nil {
			return err
		}
		if err := e.settle(s, began); err != nil {
			return err
		}
		now := make(chan struct{})
		switch {
		case more:
			close(now)
		case last:
			return errDrained
		case time.Since(began) > e.cfg.Receipt && !e.noReceipts && !same(e.kept, e.sent):
			return errAgain
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case o := <-e.orders:
			o.done <- e.obey(o)
			return errAgain
		case <-s.Broken():
			_, _, err := s.Settle()
			return err
		case <-now:
		case <-e.wake:
		case <-tick.C:
		case <-e.drain:
		}
	}
}

// receipt ends a session in order. When the other end says that it has read
// everything, the cursor is at the end.
func (e *Exporter) receipt(ctx context.Context, s Session) error {
	complete, err := s.Close(ctx)
	switch {
	case e.ordered: // the cursor is where it was told to be
	case complete:
		e.kept = e.sent.clone()
	default:
		e.noReceipts = true // this receiver gives none: it would only get everything twice
	}
	e.ordered = false
	return err
}

// round sends what is published of each log, up to a bound.
func (e *Exporter) round(ctx context.Context, s Session) (more bool, err error) {
	logs, err := e.cfg.Reader.Logs()
	if err != nil {
		return false, fmt.Errorf("reading the audit log: %w", err)
	}
	for _, log := range logs {
		if !e.cfg.Logs(log) {
			continue
		}
		m, err := e.deliver(ctx, s, log)
		if err != nil {
			return false, err
		}
		more = more || m
	}
	return more, e.flush(ctx, s)
}

// deliver sends the records of a log that checkpoints cover, each checkpoint
// behind the last record that it covers. It says whether there is more.
func (e *Exporter) deliver(ctx context.Context, s Session, log string) (more bool, err error) {
	now, err := e.current(log)
	if errors.Is(err, audit.ErrNotFound) {
		return false, nil // nothing is published of it yet
	}
	if err != nil {
		return false, err
	}
	p, err := e.position(log, now)
	if err != nil {
		return false, err
	}
	for left := perRound; ; {
		target, ok := e.cfg.Feed.after(log, p.Origin, p.Told)
		if !ok || target.size > now.size {
			target = now
		}
		if target.size <= p.Told && p.Next >= target.size {
			return false, nil
		}
		n, err := e.records(ctx, s, log, &p, target.size, left)
		if err != nil {
			return false, err
		}
		if left -= n; p.Next < target.size {
			return true, nil
		}
		if err := e.tell(ctx, s, log, target); err != nil {
			return false, err
		}
		p.Told = target.size
		e.sent[log] = p
	}
}

// current is the checkpoint of a log as its file has it.
func (e *Exporter) current(log string) (published, error) {
	note, err := e.cfg.Reader.Checkpoint(log)
	if err != nil {
		return published{}, err
	}
	origin, size, _, err := parseNote(note)
	if err != nil {
		return published{}, fmt.Errorf("reading the checkpoint of %s: %w", log, err)
	}
	return published{origin, size, note, time.Now()}, nil
}

// position is where the sink stands in a log: at the first record that is there,
// if it was not in this log before. A log with another origin is another log, and
// so is one that has become shorter.
func (e *Exporter) position(log string, now published) (Position, error) {
	p, known := e.sent[log]
	if known && p.Origin == now.origin && p.Next <= now.size && p.Told <= now.size {
		return p, nil
	}
	if known {
		e.cfg.Log.Warn("sink: the log is not the one that the cursor is of; it begins anew", "sink", e.cfg.Name, "log", log)
	}
	first, err := e.cfg.Reader.First(log)
	if err != nil {
		return Position{}, fmt.Errorf("looking for the first record of %s: %w", log, err)
	}
	p = Position{Origin: now.origin, Next: first}
	e.sent[log] = p
	return p, nil
}

// records sends records of a log up to one, and n at most.
func (e *Exporter) records(ctx context.Context, s Session, log string, p *Position, upTo uint64, n int) (count int, err error) {
	if p.Next >= upTo || n == 0 {
		return 0, nil
	}
	for entry, err := range e.cfg.Reader.Records(log, p.Next) {
		if err != nil {
			return count, fmt.Errorf("reading the audit log: %w", err)
		}
		var head Head
		if e.line, head, err = e.cfg.Formatter.AppendRecord(e.line[:0], entry.Raw); err != nil {
			return count, fmt.Errorf("%s:%d: %w", log, entry.Seq, err)
		}
		e.out = e.cfg.Target.Frame(e.out, e.line)
		e.last = head
		p.Next = entry.Seq + 1
		e.sent[log] = *p
		count++
		e.state.count(1)
		if len(e.out) >= perWrite {
			if err := e.flush(ctx, s); err != nil {
				return count, err
			}
		}
		if p.Next >= upTo || count == n {
			return count, nil
		}
	}
	return count, fmt.Errorf("%w: %s ends at %d, below its checkpoint at %d", audit.ErrCorrupt, log, p.Next, upTo)
}

// tell sends a checkpoint.
func (e *Exporter) tell(ctx context.Context, s Session, log string, p published) (err error) {
	e.line, err = e.cfg.Formatter.AppendCheckpoint(e.line[:0], Checkpoint{Log: log, Note: p.note, At: p.at, Node: e.last.Node, Boot: e.last.Boot})
	if err != nil {
		return fmt.Errorf("the checkpoint of %s: %w", log, err)
	}
	e.out = e.cfg.Target.Frame(e.out, e.line)
	if len(e.out) >= perWrite {
		return e.flush(ctx, s)
	}
	return nil
}

// flush hands over what is gathered, and notes where that ends.
func (e *Exporter) flush(ctx context.Context, s Session) error {
	if len(e.out) == 0 {
		return nil
	}
	began := time.Now()
	err := s.Write(ctx, e.out)
	e.out = e.out[:0]
	if err != nil {
		e.state.fail(err, began) // it stood still since then
		return err
	}
	e.marks.add(s.Sent(), e.sent)
	return e.settle(s, time.Time{})
}

// settle moves the cursor past what need not be sent again, and keeps it.
func (e *Exporter) settle(s Session, began time.Time) error {
	taken, settled, err := s.Settle()
	if err != nil {
		return err
	}
	if at, ok := e.marks.upTo(taken); ok {
		e.state.at(at)
	}
	if at, ok := e.marks.drop(settled); ok {
		e.kept = at
	}
	// A receiver that refuses our certificate says so after the handshake.
	if !began.IsZero() && taken == s.Sent() && time.Since(began) > time.Second {
		e.failures = 0
		e.state.well()
	}
	if time.Since(e.savedAt) < saveEvery {
		return nil
	}
	return e.save()
}

// save keeps the cursor.
func (e *Exporter) save() error {
	trouble := e.state.trouble()
	if same(e.saved, e.kept) && trouble == e.savedTrouble {
		return nil
	}
	if err := e.kept.save(e.cfg.Cursor, e.cfg.Name, trouble); err != nil {
		return err
	}
	e.saved, e.savedAt, e.savedTrouble = e.kept.clone(), time.Now(), trouble
	e.state.keep(e.saved)
	return nil
}
