package audit

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxQueued  = 32 << 20 // bytes of durable batches that wait in memory
	maxPending = 64 << 20 // bytes of tiles that could not be written
	partialAge = 60 * time.Second
)

// walPos is a place between two frames.
type walPos struct {
	seg uint64
	off int64
}

// integrator turns durable frames into tiles and checkpoints. It may lag and
// never holds up the writer: what does not fit its queue it reads from the
// write-ahead log.
type integrator struct {
	fsys     fileSystem
	site     string
	node     string
	signers  []crypto.Signer
	interval time.Duration
	clock    func() time.Time                      // monotonic
	rotated  func(c Checkpoint, shard Shard) error // records the end of a month
	report   func(error)                           // each attempt's error, or nil
	offer    func(log string, checkpoint []byte)   // to whoever carries checkpoints elsewhere
	opened   time.Time
	progress progress

	mu        sync.Mutex
	queue     []*batch
	queued    int
	lost      bool      // frames after the queue's are only in the WAL
	end       walPos    // of what is durable
	endAt     time.Time // when end came to be durable
	published map[Shard]Checkpoint
	unsigned  time.Time // since when durable records wait for a checkpoint; zero when none does

	wake  chan struct{}
	asks  chan func() // run between two looks at the log
	stop  chan struct{}
	group sync.WaitGroup

	// Owned by the goroutine.
	manifest *manifest
	unlisted bool // the manifest in memory is not on disk
	trees    map[Shard]*tree
	cursor   walPos
	segments []segmentUse
	doubt    bool // a sync of tiles failed: see startAnew
	stale    []staleDirs
	anew     map[Shard]bool // checkpoints to sign again, for their key was lost
	final    error          // of the last attempt before the stop
}

// segmentUse says which records a segment holds.
type segmentUse struct {
	seg  uint64
	next map[Shard]uint64
}

// staleDirs are partial tiles that may go at a time.
type staleDirs struct {
	at   time.Time
	dirs []string
}

// enqueue takes over a durable batch. The writer calls it in order.
func (g *integrator) enqueue(b *batch) {
	g.progress.durable.Add(uint64(len(b.frames)))
	g.mu.Lock()
	g.end, g.endAt = walPos{b.seg, b.end()}, b.since
	if g.unsigned.IsZero() {
		g.unsigned = b.since
	}
	keep := !g.lost && g.queued+len(b.buf) <= maxQueued
	if keep {
		g.queue = append(g.queue, b)
		g.queued += len(b.buf)
	} else {
		g.lost = true
	}
	g.mu.Unlock()
	if !keep {
		b.free()
	}
	signal(g.wake)
}

// run integrates what comes, and publishes once in an interval, until stop.
func (g *integrator) run() {
	tick := time.NewTicker(g.interval)
	defer tick.Stop()
	for {
		select {
		case <-g.wake:
			if err := g.integrate(); err != nil {
				g.report(err)
			}
		case <-tick.C:
			err := g.publish()
			if err == nil {
				err = g.closeShards()
			}
			g.report(err)
		case ask := <-g.asks:
			ask()
		case <-g.stop:
			g.final = g.publish()
			return
		}
	}
}

// integrate applies all durable frames that are not applied yet.
func (g *integrator) integrate() error {
	for {
		g.mu.Lock()
		queue, lost, end := g.queue, g.lost, g.end
		g.queue, g.queued = nil, 0
		g.mu.Unlock()
		if len(queue) == 0 && !lost {
			return g.flush()
		}
		for _, b := range queue {
			for _, p := range b.frames {
				g.apply(b.seg, p.shard, p.seq, b.buf[p.at:p.at+p.n])
			}
			g.cursor = walPos{b.seg, b.end()}
			b.free()
		}
		if lost {
			if err := g.catchUp(end); err != nil {
				return err
			}
		}
		if err := g.flush(); err != nil && g.backlog() > maxPending {
			g.mu.Lock()
			g.lost = true
			g.mu.Unlock()
			return err
		}
	}
}

// catchUp reads frames from the write-ahead log up to end.
func (g *integrator) catchUp(end walPos) error {
	if g.backlog() > maxPending {
		if err := g.flush(); err != nil {
			return err
		}
	}
	for g.cursor != end {
		data, err := readFile(g.fsys, segmentName(g.cursor.seg), maxSegmentSize)
		if err != nil {
			return fmt.Errorf("reading segment %d: %w", g.cursor.seg, err)
		}
		limit := int64(len(data))
		if g.cursor.seg == end.seg {
			limit = end.off
		}
		for g.cursor.off < limit {
			f, size, ok, err := parseFrame(data[g.cursor.off:limit])
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			g.apply(g.cursor.seg, f.shard, f.seq, f.payload)
			g.cursor.off += int64(size)
		}
		if g.cursor.seg < end.seg {
			g.cursor = walPos{g.cursor.seg + 1, headerSize}
		} else if g.cursor != end {
			return corrupt("L-28", "segment %d: no valid frame at offset %d, which was durable", g.cursor.seg, g.cursor.off)
		}
	}
	g.mu.Lock()
	g.lost = g.end != g.cursor
	g.mu.Unlock()
	return nil
}

// apply adds a record to its tree.
func (g *integrator) apply(seg uint64, shard Shard, seq uint64, record []byte) {
	t := g.trees[shard]
	if t == nil && !g.closed(shard) {
		t = newTree(g.fsys, shard, origin(g.site, g.node, shard))
		g.trees[shard] = t
		if g.manifest.find(shard) == nil {
			g.manifest.list(shard)
			g.unlisted = true
		}
	}
	if t != nil && seq == t.size { // else it is there: startAnew reads again
		t.add(record)
		g.progress.merged.Add(1)
	}
	n := len(g.segments)
	if n == 0 || g.segments[n-1].seg != seg {
		g.segments = append(g.segments, segmentUse{seg, map[Shard]uint64{}})
		n++
	}
	g.segments[n-1].next[shard] = seq + 1
}

// closed reports whether a month has ended and is under its last checkpoint.
func (g *integrator) closed(shard Shard) bool {
	l := g.manifest.find(shard)
	return l != nil && l.State == stateClosed
}

// backlog returns the bytes of tiles that wait to be written.
func (g *integrator) backlog() int {
	n := 0
	for _, t := range g.trees {
		for _, p := range t.pending {
			n += len(p.data)
		}
	}
	return n
}

// flush lists new logs in the manifest and writes full tiles.
func (g *integrator) flush() error {
	if g.unlisted {
		if err := g.manifest.write(g.fsys); err != nil {
			return err
		}
		g.unlisted = false
	}
	for _, t := range g.trees {
		if err := t.flush(); err != nil {
			return err
		}
	}
	return nil
}

// publish integrates what is durable and publishes a checkpoint of each log
// that grew, in the order that survives a crash at any point (L-53).
func (g *integrator) publish() error {
	g.mu.Lock()
	upTo, at := g.end, g.endAt
	g.mu.Unlock()
	if g.doubt {
		if err := g.startAnew(); err != nil {
			return err
		}
	}
	if err := g.integrate(); err != nil {
		return err
	}
	var grown []*tree
	var cps []Checkpoint
	for _, t := range g.trees {
		if old, ok := g.lastPublished(t.shard); t.size > old.Size || !ok && t.size > 0 || g.anew[t.shard] {
			t.partials()
			grown = append(grown, t)
			cps = append(cps, t.checkpoint())
		}
	}
	if len(grown) > 0 {
		if err := g.commit(grown, cps); err != nil {
			return err
		}
		g.covered(g.progress.merged.Load())
	}
	g.settle(upTo, at)
	g.removeStale()
	return g.removeSegments()
}

func (g *integrator) lastPublished(shard Shard) (Checkpoint, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c, ok := g.published[shard]
	return c, ok
}

func (g *integrator) commit(grown []*tree, cps []Checkpoint) error {
	if err := g.flush(); err != nil {
		return err
	}
	var written []string
	for _, t := range grown {
		written = append(written, t.written...)
	}
	if err := g.fsys.SyncFS(written); err != nil {
		g.doubt = true
		return fmt.Errorf("syncing tiles: %w", err)
	}
	for i, t := range grown {
		if err := writeDurable(g.fsys, nextName(t.shard), []byte(cps[i].body())); err != nil {
			return fmt.Errorf("noting the checkpoint of %s: %w", t.origin, err)
		}
	}
	for i, t := range grown {
		msg, err := signCheckpoint(cps[i], g.signers...)
		if err != nil {
			return err
		}
		if err := g.show(t, msg); err != nil {
			return err
		}
		g.mu.Lock()
		g.published[t.shard] = cps[i]
		g.mu.Unlock()
		g.offer(t.shard.logName(), msg)
		g.stale = append(g.stale, staleDirs{g.clock().Add(partialAge), t.full})
		t.full, t.written, t.covered = nil, nil, t.size
		delete(g.anew, t.shard)
	}
	return nil
}

// show makes a checkpoint the current one. With the first comes the key, for
// convenience: its vkey before, and its PEM after, so that a PEM says that there
// was a checkpoint.
func (g *integrator) show(t *tree, msg []byte) error {
	_, shown := g.lastPublished(t.shard)
	if !shown {
		if err := g.leaveKey(t); err != nil {
			return fmt.Errorf("leaving the key of %s: %w", t.origin, err)
		}
	}
	if err := writeDurable(g.fsys, t.dir+"/checkpoint", msg); err != nil {
		return fmt.Errorf("publishing the checkpoint of %s: %w", t.origin, err)
	}
	if !shown {
		if err := leavePEM(g.fsys, t.dir); err != nil {
			return fmt.Errorf("leaving the key of %s: %w", t.origin, err)
		}
	}
	return nil
}

func (g *integrator) leaveKey(t *tree) error {
	v, err := newVerifier(t.origin, g.signers[0].Public())
	if err != nil {
		return err
	}
	return writeDurable(g.fsys, t.dir+"/vkey", []byte(v.String()+"\n"))
}

// leavePEM writes the key of the file vkey as pub.pem, unless that is there.
func leavePEM(fsys fileSystem, dir string) error {
	_, err := readFile(fsys, dir+"/pub.pem", maxKeyFile)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text, err := readFile(fsys, dir+"/vkey", maxKeyFile)
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	v, err := parseVkey(first)
	if err != nil {
		return err
	}
	pem, err := v.pem()
	if err != nil {
		return err
	}
	return writeDurable(fsys, dir+"/pub.pem", pem)
}

// settle notes that everything durable at a time is covered.
func (g *integrator) settle(upTo walPos, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.end == upTo {
		g.unsigned = time.Time{}
		return
	}
	if g.unsigned.Before(at) {
		g.unsigned = at
	}
}

// closeShards ends the months that another one followed.
func (g *integrator) closeShards() error {
	for i := 1; i+1 < len(g.manifest.Logs); i++ {
		l := &g.manifest.Logs[i]
		if l.State == stateClosed {
			continue
		}
		c, ok := g.lastPublished(l.shard)
		if t := g.trees[l.shard]; !ok || t != nil && t.size != c.Size {
			continue
		}
		if err := g.rotated(c, l.shard); err != nil {
			return err
		}
		l.State = stateClosed
		g.unlisted = true
		delete(g.trees, l.shard)
	}
	return g.flush()
}

// removeStale deletes partial tiles that full ones replaced a minute ago.
func (g *integrator) removeStale() {
	now := g.clock()
	for len(g.stale) > 0 && !now.Before(g.stale[0].at) {
		for _, dir := range g.stale[0].dirs {
			removeTree(g.fsys, dir)
		}
		g.stale = g.stale[1:]
	}
}

// removeTree deletes a directory of files. What cannot be deleted stays: it is
// only a copy of what the full tile holds.
func removeTree(fsys fileSystem, dir string) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return
	}
	for _, name := range names {
		if fsys.Remove(dir+"/"+name) != nil {
			return
		}
	}
	_ = fsys.Remove(dir)
}

// removeSegments deletes segments whose records are all under published
// checkpoints and that two newer ones with data follow (L-33). Each removal is
// durable before the next one, so that no gap can appear.
func (g *integrator) removeSegments() error {
	for len(g.segments) > 2 {
		s := g.segments[0]
		for shard, next := range s.next {
			if c, ok := g.lastPublished(shard); !ok || c.Size < next {
				return nil
			}
		}
		if err := g.fsys.Remove(segmentName(s.seg)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing segment %d: %w", s.seg, err)
		}
		if err := g.fsys.SyncDir("wal"); err != nil {
			return fmt.Errorf("removing segment %d: %w", s.seg, err)
		}
		g.segments = slices.Delete(g.segments, 0, 1)
	}
	return nil
}

func nextName(shard Shard) string { return "state/" + shard.logName() + ".next" }
