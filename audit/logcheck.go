package audit

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"runtime"
	"strings"
)

const (
	// maxQuiet is the longest time between two records of one process: a
	// heartbeat is due after a minute.
	maxQuiet       = 2 * 60 * 1_000_000 // µs
	maxRunFindings = 20                 // of one log before it is given up
)

// logCheck is the verification of one log.
type logCheck struct {
	v     *verification
	log   *manifestLog
	cp    Checkpoint
	next  *Checkpoint // about to be signed
	tree  *tree
	roots map[uint64][]anchorFact
	sizes []uint64 // of roots, in order
	found int

	unsigned bool // there is no checkpoint yet

	intents map[string]intentFact // open intents, by id
	boot    string
	mono    int64

	// Of the records that only the write-ahead log has.
	durable uint64
	tail    *tree
	saved   runState
	level   []Hash
	tile    uint64
}

// intentFact is an intent without outcome so far.
type intentFact struct {
	seq    uint64
	action Action
	boot   string
}

// runState is what a look at the write-ahead log starts from.
type runState struct {
	boot    string
	mono    int64
	intents map[string]intentFact
}

func newLogCheck(v *verification, l *manifestLog, cp Checkpoint) *logCheck {
	return &logCheck{v: v, log: l, cp: cp, intents: map[string]intentFact{}, tree: newTree(v.fsys, l.shard, cp.Origin)}
}

func (c *logCheck) fail(rule, where, format string, args ...any) {
	c.found++
	c.v.fail(rule, where, format, args...)
}

func (c *logCheck) at(seq uint64) string { return fmt.Sprintf("%s:%d", c.log.Log, seq) }

// bundleResult is a bundle as a worker read and checked it.
type bundleResult struct {
	leaves []Hash
	facts  []*facts
	errs   []error // of each record; nil when it is good
	err    error   // of the bundle
}

// run checks the tree under the checkpoint, from entries to root.
func (c *logCheck) run() {
	c.roots = c.v.earlier(c.log)
	c.sizes = sortedSizes(c.roots)
	first := bundlesOf(c.log.MinIndex)
	if c.log.MinIndex > 0 && !c.startPruned() {
		return
	}
	count := (c.cp.Size + tileWidth - 1) / tileWidth
	done := make(chan struct{})
	defer close(done)
	results := c.readBundles(first, count, done)
	for n := first; n < count && c.found < maxRunFindings; n++ {
		r := <-<-results
		if r.err != nil {
			c.fail("L-141", c.log.Dir+"/"+tilePath(bundleLevel, n, widthAt(c.cp.Size, bundleLevel, n)), "%v", r.err)
			c.found = maxRunFindings // without its leaves there is no tree
			break
		}
		c.bundle(n, &r)
	}
	if c.found >= maxRunFindings {
		return
	}
	c.checkRoots()
	if c.tree.root() != c.cp.Root {
		c.fail("L-141", c.log.Dir+"/checkpoint", "the entries do not have its root")
	}
	c.tree.partials()
	c.compareTiles()
	c.checkFiles()
}

// readBundles starts workers that read and check bundles until done is closed,
// and returns their results in order.
func (c *logCheck) readBundles(first, count uint64, done <-chan struct{}) <-chan chan bundleResult {
	workers := runtime.GOMAXPROCS(0)
	results := make(chan chan bundleResult, 4*workers)
	limit := make(chan struct{}, workers)
	src := &tiles{c.v.fsys, c.log.Dir, c.cp.Size}
	go func() {
		for n := first; n < count; n++ {
			out := make(chan bundleResult, 1)
			select {
			case results <- out:
			case <-done:
				return
			}
			limit <- struct{}{}
			go func() {
				out <- readBundle(src, n)
				<-limit
			}()
		}
	}()
	return results
}

// readBundle reads a bundle in the one file that belongs to the tree.
func readBundle(src *tiles, n uint64) (r bundleResult) {
	entries, err := src.entries(n)
	if err != nil {
		r.err = err
		return r
	}
	r.leaves = make([]Hash, len(entries))
	r.facts = make([]*facts, len(entries))
	r.errs = make([]error, len(entries))
	for i, e := range entries {
		r.leaves[i] = leafHash(e)
		r.facts[i], r.errs[i] = parseRecord(e)
	}
	return r
}

// bundle adds a bundle's leaves to the tree and looks at its records in order.
func (c *logCheck) bundle(n uint64, r *bundleResult) {
	for i, leaf := range r.leaves {
		seq := n*tileWidth + uint64(i)
		if seq < c.tree.size {
			continue // it was there before the log grew
		}
		c.checkRoots()
		c.tree.addLeaf(leaf)
		if r.errs[i] != nil {
			c.fail("L-70", c.at(seq), "%v", r.errs[i])
			continue
		}
		if seq >= c.log.MinIndex {
			c.record(seq, r.facts[i])
		}
	}
	c.compareTiles()
}

// checkRoots compares the tree with the roots that others gave for its present
// size.
func (c *logCheck) checkRoots() {
	for len(c.sizes) > 0 && c.sizes[0] == c.tree.size {
		root := c.tree.root()
		for _, a := range c.roots[c.sizes[0]] {
			if a.tree.root != base64.StdEncoding.EncodeToString(root[:]) {
				c.fail("L-59", a.where, "gives another root for size %d of %s", a.tree.size, c.log.Log)
			}
		}
		c.sizes = c.sizes[1:]
	}
}

// compareTiles compares the tiles that the tree now has with the files.
func (c *logCheck) compareTiles() {
	for _, p := range c.tree.pending {
		data, err := readFile(c.v.fsys, p.name, maxTileFile)
		if errors.Is(err, fs.ErrNotExist) && strings.Contains(p.name, ".p/") {
			// The full tile may have taken its place since.
			full := p.name[:strings.LastIndex(p.name, ".p/")]
			if data, err = readFile(c.v.fsys, full, maxTileFile); err == nil && len(data) > len(p.data) {
				data = data[:len(p.data)]
			}
		}
		switch {
		case err != nil:
			c.fail("L-141", p.name, "%v", err)
		case !bytes.Equal(data, p.data):
			c.fail("L-141", p.name, "tile differs from what the entries give")
		}
	}
	c.tree.pending, c.tree.full = nil, nil
}

// record checks what a record says of its place and of others.
func (c *logCheck) record(seq uint64, f *facts) {
	where := c.at(seq)
	if f.seq != seq {
		c.fail("L-141", where, "record says seq %d", f.seq)
	}
	if f.log != c.log.Log {
		c.fail("L-141", where, "record says log %s", f.log)
	}
	if c.v.manifest.Format != 0 && f.node != c.v.manifest.Node {
		c.fail("L-141", where, "record says node %s", f.node)
	}
	if (f.action == LogOpen) != (seq == 0) {
		c.fail("L-56", where, "log.open is the first record of a log and no other")
	}
	if f.boot == c.boot && f.mono-c.mono > maxQuiet && seq > 0 {
		c.fail("L-141", where, "no heartbeat for %d s", (f.mono-c.mono)/1_000_000)
	}
	c.boot, c.mono = f.boot, f.mono
	c.references(seq, f)
	if c.log.shard == 0 {
		c.sec(where, f)
	}
}

// references ties outcomes to intents.
func (c *logCheck) references(seq uint64, f *facts) {
	if f.intent {
		c.intents[f.id] = intentFact{seq, f.action, f.boot}
		return
	}
	if f.ref == "" {
		return
	}
	if f.action == LogDangling {
		c.v.dangling[f.ref] = true
		return
	}
	if !f.action.HasIntent() {
		return
	}
	in, ok := c.intents[f.ref]
	switch {
	case !ok && c.log.MinIndex > 0:
	case !ok:
		c.fail("L-11", c.at(seq), "outcome of an intent that is not open: %s", f.ref)
	case in.action != f.action:
		c.fail("L-11", c.at(seq), "outcome of %v closes an intent of %v", f.action, in.action)
	}
	delete(c.intents, f.ref)
}

// sec keeps what a record of sec says of the other logs.
func (c *logCheck) sec(where string, f *facts) {
	v := c.v
	v.lastBoot, v.closed = f.boot, f.action == LogClose
	switch f.action {
	case LogCheckpoint, LogRotate:
		for _, t := range f.trees {
			switch {
			case t.root == "":
				c.fail("L-59", where, "no root for %s", t.log)
			case v.tailing:
				v.lateAnchor(anchorFact{where, t})
			default:
				v.anchors = append(v.anchors, anchorFact{where, t})
			}
		}
	case LogKeyRotate:
		v.keyChange(f)
	case LogRecover:
		v.drops = append(v.drops, f.wal)
	case LogPrune:
		// The intent explains it, too: a crash may have come before the outcome.
		v.pruned = append(v.pruned, f.trees...)
		c.ranges(where, f)
	case LogArchive:
		c.ranges(where, f)
	}
}

// ranges keeps the roots that a record gives of what was archived or pruned.
func (c *logCheck) ranges(where string, f *facts) {
	for _, t := range f.trees {
		if t.root != "" && !c.v.tailing {
			c.v.anchors = append(c.v.anchors, anchorFact{where, t})
		}
	}
}

// frame takes a record of this log from the write-ahead log: it must be the
// tree's, or continue it.
func (c *logCheck) frame(f *frame) error {
	if f.seq < c.cp.Size {
		n := f.seq / tileWidth
		if c.level == nil || c.tile != n {
			src := tiles{c.v.fsys, c.log.Dir, c.cp.Size}
			hs, err := src.hashes(0, n)
			if err != nil {
				return nil // reported when the tree was checked
			}
			c.level, c.tile = hs, n
		}
		if c.level[f.seq%tileWidth] != leafHash(f.payload) {
			return corrupt("L-47", "%s differs between the write-ahead log and the tiles", c.at(f.seq))
		}
		return nil
	}
	if f.seq != c.durable {
		return corrupt("L-61(i)", "%s follows %s in the write-ahead log", c.at(f.seq), c.at(c.durable-1))
	}
	c.durable++
	facts, err := parseRecord(f.payload)
	if err != nil {
		return fmt.Errorf("%s: %w", c.at(f.seq), err)
	}
	if c.tail != nil {
		c.tail.addLeaf(leafHash(f.payload))
		c.tail.pending, c.tail.full = nil, nil
		if c.next != nil && c.tail.size == c.next.Size && c.tail.root() != c.next.Root {
			return corrupt("L-61(f)", "%s gives another root for size %d", nextName(c.log.shard), c.next.Size)
		}
	}
	found := c.found
	if c.record(f.seq, facts); c.found > found {
		return corrupt("L-141", "%s: see above", c.at(f.seq))
	}
	return nil
}

// resetTail goes back to the checkpoint before a look at the write-ahead log.
func (c *logCheck) resetTail() {
	if c.saved.intents == nil {
		c.saved = runState{c.boot, c.mono, c.intents}
	}
	c.boot, c.mono, c.intents = c.saved.boot, c.saved.mono, maps.Clone(c.saved.intents)
	c.durable = c.cp.Size
	c.level = nil
	c.tail = nil
	if c.found == 0 {
		c.tail = c.tree.clone()
	}
}

// finish checks what only the whole log can tell.
func (c *logCheck) finish() {
	if c.found > 0 {
		return
	}
	for id, in := range c.intents {
		if !c.v.dangling[id] && in.boot != c.v.lastBoot && len(c.v.o.Logs) == 0 {
			c.fail("L-63", c.at(in.seq), "intent of %v has neither outcome nor log.dangling", in.action)
		}
	}
	if len(c.sizes) > 0 {
		for _, a := range c.roots[c.sizes[0]] {
			c.fail("L-59", a.where, "names size %d of %s, whose checkpoint has size %d", a.tree.size, c.log.Log, c.cp.Size)
		}
	}
	if c.unsigned {
		c.checkUnsigned()
	}
	if c.next != nil && c.v.scanned != nil && c.v.scanned.oldest > 0 && c.next.Size > max(c.durable, c.cp.Size) {
		c.fail("L-61(f)", nextName(c.log.shard), "size %d, but there are %d records", c.next.Size, c.durable)
	}
}

// checkUnsigned accepts a log without a checkpoint only while it is new: its key
// is left as PEM once the first checkpoint is there, and not before.
func (c *logCheck) checkUnsigned() {
	file := c.log.Dir + "/checkpoint"
	_, shown := readFile(c.v.fsys, c.log.Dir+"/pub.pem", maxKeyFile)
	if _, err := readFile(c.v.fsys, file, 1<<16); err == nil {
		return // the first one was published meanwhile
	}
	if shown == nil {
		c.fail("L-61(c)", file, "there was one, and it is missing")
	} else if c.durable == 0 {
		c.fail("L-61(c)", file, "the log has neither a checkpoint nor records")
	}
}

// startPruned begins the tree behind a pruned range, whose hashes are taken from
// the tiles that stay. Only a range that sec records as pruned may be missing.
func (c *logCheck) startPruned() bool {
	size, known := c.log.MinIndex, false
	for _, t := range c.v.pruned {
		known = known || t.log == c.log.Log && t.size >= size
	}
	if !known || size%tileWidth != 0 && size != c.cp.Size {
		c.fail("L-174", manifestName, "min_index %d of %s, which no log.prune explains", c.log.MinIndex, c.log.Log)
		return false
	}
	t, err := loadTreeHashes(c.v.fsys, c.log.shard, c.cp.Origin, size, c.cp.Size)
	if err != nil {
		c.fail("L-174", c.log.Dir, "tiles of the pruned range: %v", err)
		return false
	}
	c.tree = t
	for len(c.sizes) > 0 && c.sizes[0] < size {
		for _, a := range c.roots[c.sizes[0]] {
			if a.where == earlierCheckpoint {
				c.v.undecided(Finding{"L-174", a.where, fmt.Sprintf("size %d of %s lies in the range that was pruned", a.tree.size, c.log.Log)})
			}
		}
		c.sizes = c.sizes[1:]
	}
	return true
}
