package audit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

const (
	poisonMarker = "state/poisoned"
	poisonText   = "the write-ahead log failed\n"
)

// integrator makes the integrator that goes on where recovery ended.
func (r *recovery) integrator() *integrator {
	l := r.log
	g := &integrator{
		fsys: l.fsys, site: l.o.Site, node: l.name, signers: l.signers, interval: l.o.CheckpointInterval,
		clock: time.Now, rotated: l.recordRotate, report: l.watch.report, offer: l.offer,
		published: map[Shard]Checkpoint{}, wake: make(chan struct{}, 1), asks: make(chan func()), stop: make(chan struct{}),
		manifest: r.manifest, trees: map[Shard]*tree{}, segments: r.segments,
		cursor: walPos{r.scan.last, r.scan.end}, opened: l.started,
	}
	g.anew = r.unsignedAnew()
	if r.scan.last == 0 {
		g.cursor = walPos{1, headerSize}
	}
	g.end = g.cursor
	for shard, st := range r.shards {
		if st.shown {
			g.published[shard] = st.cp
		}
		if st.tree != nil {
			g.trees[shard] = st.tree
			if st.tree.size > st.cp.Size {
				g.unsigned = time.Now()
			}
		}
	}
	return g
}

// writer makes the write-ahead log that goes on where recovery ended.
func (r *recovery) writer() *wal {
	l, s := r.log, r.scan
	w := &wal{
		fsys: l.fsys, size: s.size, durable: l.tiles.enqueue, failed: l.poison, mark: l.markPoison, spare: l.spareAlarm, synced: l.o.Synced,
		retry:  func() <-chan time.Time { return time.After(time.Second) },
		spares: s.spares, seg: s.last, off: s.end, prevLen: s.end, prevCRC: s.crc,
	}
	_, _ = hex.Decode(w.id[:], []byte(r.manifest.WALID)) // checked when the manifest was read
	start := w.off
	switch {
	case s.last == 0:
		w.seg, w.off, w.spares = 1, headerSize, nil
		if len(s.spares) > 1 {
			w.spares = s.spares[1:]
		}
		start = 0
	case s.torn:
		w.off = s.size // its bytes stay as evidence; the next batch opens the next segment
		start = w.off
	}
	w.batches = []*batch{newBatch(s.batch+1, w.seg, start)}
	return w
}

// record writes the first records of this start (L-63).
func (r *recovery) record() error {
	l := r.log
	var rs []Record
	if r.size(0) == 0 {
		rs = append(rs, l.begun()...)
	}
	rs = append(rs, Record{Action: SysStart})
	if s := r.scan; s.dropped > 0 || s.torn {
		w := &WALPos{Segment: int64(s.last), Offset: s.end, Dropped: s.dropped}
		rs = append(rs, Record{Action: LogRecover, WAL: w})
	}
	marker, err := l.fsys.Open(poisonMarker, 0)
	poisoned := err == nil
	if poisoned {
		marker.Close()
		rs = append(rs, Record{Action: LogPoisoned, Alarm: Alarm{"log_poisoned", LevelCritical}})
	}
	if r.lost {
		rs = append(rs, Record{Action: LogKeyRotate, Reason: ReasonKeyLost, Vkeys: l.acceptedVkeys()})
	} else if l.o.Previous != nil {
		rs = append(rs, Record{Action: LogKeyRotate, Vkeys: l.vkeys(0)})
	}
	dangling, err := r.dangling()
	if err != nil {
		return err
	}
	for _, id := range dangling {
		a := Alarm{"intent_without_outcome", LevelCritical}
		rs = append(rs, Record{Action: LogDangling, Ref: id, Outcome: OutcomeUnknown, Reason: ReasonCrash, Alarm: a})
		l.o.Alarm(a, fmt.Errorf("what was begun by %v has no outcome", id))
	}
	for _, a := range l.o.Anchors {
		if err := r.anchorsAway[a.Anchor.Name()]; err != nil {
			l.o.Alarm(anchorAlarm(), fmt.Errorf("anchor %s: %w", a.Anchor.Name(), err))
			rs = append(rs, awayRecord(a.Anchor.Name(), err))
		}
	}
	for len(rs) > 0 {
		n := min(len(rs), maxPerTicket)
		if err := l.own(Sec, rs[:n]...); err != nil {
			return fmt.Errorf("recording the start: %w", err)
		}
		rs = rs[n:]
	}
	if poisoned {
		if err := l.fsys.Remove(poisonMarker); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the marker of a failed log: %w", err)
		}
	}
	return nil
}

// acceptedVkeys returns the new vkey of sec and those of the lost keys.
func (l *Log) acceptedVkeys() []string {
	keys := l.vkeys(0)
	for _, pub := range l.o.Accept {
		if v, err := newVerifier(l.origin(0), pub); err == nil {
			keys = append(keys, v.String())
		}
	}
	return keys
}

// dangling returns the intents of the previous process that have no outcome,
// the oldest first in each log.
func (r *recovery) dangling() ([]UUID, error) {
	if r.fresh || r.lastSec == nil {
		return nil, nil
	}
	boot := stringMember(r.lastSec, "boot")
	var open []UUID
	for i := range r.manifest.Logs {
		shard := r.manifest.Logs[i].shard
		if r.size(shard) == 0 {
			continue
		}
		closed := map[string]bool{}
		var found []UUID
		var bad error
		err := r.backward(shard, func(seq uint64, record []byte) bool {
			if stringMember(record, "boot") != boot {
				return false
			}
			if ref := stringMember(record, "ref"); ref != "" {
				closed[ref] = true
			}
			if stringMember(record, "phase") != "intent" || closed[stringMember(record, "id")] {
				return true
			}
			id, err := ParseUUID(stringMember(record, "id"))
			if err != nil {
				bad = corrupt("L-63", "%s:%d: %w", shard.logName(), seq, err)
				return false
			}
			found = append(found, id)
			return true
		})
		if err = errors.Join(err, bad); err != nil {
			return nil, err
		}
		for i := len(found) - 1; i >= 0; i-- {
			open = append(open, found[i])
		}
	}
	return open, nil
}

// offer passes a published checkpoint on (L-53 step 8).
func (l *Log) offer(log string, msg []byte) {
	l.o.Published(log, msg)
	l.anchors.offer(log, msg)
}

// poison is told once that the write-ahead log failed.
func (l *Log) poison(err error) {
	l.state.mu.Lock()
	l.state.poisoned = err
	l.state.mu.Unlock()
	l.o.Alarm(Alarm{"log_unavailable", LevelCritical}, err)
}

// markPoison leaves a note for the next start, best effort: the disk may be what
// failed.
func (l *Log) markPoison() {
	_ = writeDurable(l.fsys, poisonMarker, []byte(poisonText))
}

// spareAlarm is told that a segment could not be made, or could again.
func (l *Log) spareAlarm(err error) {
	if err != nil {
		l.o.Alarm(Alarm{"wal_no_spare", LevelCritical}, err)
	}
}

// recordRotate records the final size and root of a month.
func (l *Log) recordRotate(c Checkpoint, shard Shard) error {
	return l.own(Sec,
		Record{Action: LogRotate, Trees: []Tree{treeOf(c, shard)}},
		Record{Action: LogCheckpoint, Trees: []Tree{treeOf(c, shard)}})
}
