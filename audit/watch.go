package audit

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// The times of the watch.
const (
	watchInterval     = time.Second
	heartbeatInterval = 60 * time.Second
	crossInterval     = time.Minute // between log.checkpoint records
	signAlarmAfter    = 10 * time.Second
	clockStep         = 500 * time.Millisecond
)

// watch looks after the log once a second: heartbeats, cross-anchors, the age
// of the unsigned tail, disk space and the clock.
type watch struct {
	log   *Log
	stop  chan struct{}
	once  sync.Once
	group sync.WaitGroup

	mu        sync.Mutex
	scrub     UUID // a record with a replaced value that no log.scrub names yet
	scrubWhat []scrub
	failing   time.Time // since when checkpoints fail; zero when they do not
	cause     error
	alarmed   bool // that failure was alarmed and recorded

	// Owned by the goroutine.
	seen     [3]uint64    // of each log, the next seq at the last look
	quiet    [3]time.Time // since when nothing was added
	crossed  time.Time
	crossAt  Checkpoint
	wall     time.Time
	mono     time.Time
	diskWarn bool
	told     bool // a missed append was alarmed
}

func (w *watch) run() {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := w.look(); err != nil && !w.told {
				w.told = true
				w.log.o.Alarm(Alarm{"log_unavailable", LevelCritical}, err)
			}
		case <-w.stop:
			return
		}
	}
}

func (w *watch) end() {
	w.once.Do(func() { close(w.stop) })
	w.group.Wait()
}

// look does what is due. The error is that of records that could not be written.
func (w *watch) look() error {
	return errors.Join(w.checkClock(), w.checkDisk(), w.checkUnsigned(), w.noteScrub(), w.crossAnchor(), w.heartbeat())
}

// scrubbed notes that a record had a value replaced.
func (w *watch) scrubbed(id UUID, what []scrub) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.scrub.IsZero() {
		w.scrub = id
		w.scrubWhat = append(w.scrubWhat[:0], what...)
	}
}

// noteScrub records that values were replaced: one record a second names the
// first of them, each record lists its own.
func (w *watch) noteScrub() error {
	w.mu.Lock()
	id := w.scrub
	w.scrub = UUID{}
	what := ""
	for _, s := range w.scrubWhat {
		what += " " + s.field + " (" + s.why.String() + ")"
	}
	w.mu.Unlock()
	if id.IsZero() {
		return nil
	}
	a := Alarm{"scrub", LevelWarn}
	w.log.o.Alarm(a, fmt.Errorf("record %v had values replaced:%s", id, what))
	return w.log.own(Sec, Record{Action: LogScrub, Corr: id.String(), Alarm: a})
}

// report takes the outcome of each attempt to publish.
func (w *watch) report(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		w.failing, w.cause = time.Time{}, nil
	case w.failing.IsZero():
		w.failing, w.cause = time.Now(), err
	default:
		w.cause = err
	}
}

// checkUnsigned alarms when checkpoints fail for ten seconds and refuses
// service when the unsigned tail is too old.
func (w *watch) checkUnsigned() error {
	g := w.log.tiles
	g.mu.Lock()
	since := g.unsigned
	g.mu.Unlock()
	age := time.Duration(0)
	if !since.IsZero() {
		age = time.Since(since)
	}
	w.log.state.mu.Lock()
	w.log.state.unsigned = nil
	if age > w.log.o.UnsignedLimit {
		w.log.state.unsigned = fmt.Errorf("%w: nothing was signed for %v", ErrUnsigned, age.Round(time.Second))
	}
	w.log.state.mu.Unlock()

	w.mu.Lock()
	cause, alarmed := w.cause, w.alarmed
	late := age > signAlarmAfter || !w.failing.IsZero() && time.Since(w.failing) > signAlarmAfter
	w.alarmed = late
	w.mu.Unlock()
	a := Alarm{"checkpoint_failed", LevelCritical}
	switch {
	case late && !alarmed:
		if cause == nil {
			cause = errors.New("the signer does not answer")
		}
		w.log.o.Alarm(a, cause)
		reason := ReasonInternal
		if errors.Is(cause, ErrSignature) {
			reason = ReasonHSMError
		}
		return w.log.own(Sec, Record{Action: LogCheckpointFail, Outcome: OutcomeError, Reason: reason, Alarm: a})
	case !late && alarmed:
		return w.log.own(Sec, Record{Action: LogCheckpointFail, Alarm: Alarm{"checkpoint_resumed", LevelWarn}})
	}
	return nil
}

// crossAnchor records the newest checkpoint of ops in sec, once a minute when
// it grew (L-59).
func (w *watch) crossAnchor() error {
	if time.Since(w.crossed) < crossInterval {
		return nil
	}
	w.log.wal.mu.Lock()
	shard := w.log.ops
	w.log.wal.mu.Unlock()
	c, ok := w.log.tiles.lastPublished(shard)
	if shard == 0 || !ok || c == w.crossAt {
		return nil
	}
	w.crossed, w.crossAt = time.Now(), c
	return w.log.own(Sec, Record{Action: LogCheckpoint, Trees: []Tree{treeOf(c, shard)}})
}

func treeOf(c Checkpoint, shard Shard) Tree {
	return Tree{Log: shard.logName(), Origin: c.Origin, Size: int64(c.Size), Root: &c.Root}
}

// heartbeat writes a record to a log that had none for a minute.
func (w *watch) heartbeat() error {
	l := w.log
	l.wal.mu.Lock()
	next := [3]uint64{Sec: l.secNext, Ops: l.opsNext}
	ops := l.ops
	l.wal.mu.Unlock()
	now := time.Now()
	var errs []error
	for _, id := range []LogID{Sec, Ops} {
		if next[id] != w.seen[id] || w.quiet[id].IsZero() {
			w.seen[id], w.quiet[id] = next[id], now
			continue
		}
		if now.Sub(w.quiet[id]) < heartbeatInterval || id == Ops && ops == 0 {
			continue
		}
		shard := Shard(0)
		if id == Ops {
			shard = ops
		}
		tree := Tree{Log: shard.logName(), Origin: l.origin(shard), Size: int64(next[id])}
		errs = append(errs, l.own(id, Record{Action: LogHeartbeat, Trees: []Tree{tree}}))
	}
	return errors.Join(errs...)
}

// checkDisk compares free space with the watermarks (L-133).
func (w *watch) checkDisk() error {
	l := w.log
	free, total, err := l.fsys.Free()
	if err != nil || total <= 0 {
		return nil // a disk that does not say is found by the writer
	}
	d := l.o.Disk
	pct := int(free * 100 / total)
	warn := pct < d.WarnPercent || free < d.WarnBytes
	l.state.mu.Lock()
	was := l.state.disk != nil
	critical := pct < d.CriticalPercent || free < d.CriticalBytes
	if was && pct < d.ClearPercent {
		critical = true
	}
	l.state.disk = nil
	if critical {
		l.state.disk = fmt.Errorf("%w: %d%% free", ErrDiskCritical, pct)
	}
	l.state.mu.Unlock()
	warned := w.diskWarn
	w.diskWarn = warn
	if critical == was && warn == warned {
		return nil
	}
	r := Record{Action: LogDisk, Disk: &Disk{FreeMB: free >> 20, FreePercent: int64(pct)}, Alarm: Alarm{"disk_recovered", LevelWarn}}
	switch {
	case critical:
		r.Alarm = Alarm{"disk_critical", LevelCritical}
	case warn:
		r.Alarm = Alarm{"disk_low", LevelWarn}
	}
	l.o.Alarm(r.Alarm, fmt.Errorf("%d%% of the disk is free", pct))
	return l.own(Sec, r)
}

// checkClock samples the clock's quality and looks for a step of the wall clock
// against the monotonic one.
func (w *watch) checkClock() error {
	l := w.log
	old := l.quality.Load()
	sync, errUS := l.o.TimeQuality()
	l.quality.Store(&timeQuality{sync, errUS})
	wall, mono := l.now().wall.Round(0), time.Now()
	step := time.Duration(0)
	if !w.mono.IsZero() {
		step = wall.Sub(w.wall) - mono.Sub(w.mono)
	}
	w.wall, w.mono = wall, mono
	r := Record{Action: SysTime, Step: &ClockStep{step}}
	switch {
	case step.Abs() >= clockStep:
		r.Alarm = Alarm{"clock_step", LevelWarn}
	case old.sync && !sync:
		r.Alarm = Alarm{"clock_unsynchronised", LevelWarn}
	case !old.sync && sync:
		r.Alarm = Alarm{"clock_synchronised", LevelWarn}
	default:
		return nil
	}
	l.o.Alarm(r.Alarm, fmt.Errorf("the wall clock moved by %v against the monotonic clock", step))
	return l.own(Sec, r)
}
