package audit

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"
	"syscall"
)

// VerifyOptions narrows a verification. The zero value checks everything.
type VerifyOptions struct {
	// Logs are the logs to check, by name; none means all. What logs say of
	// each other, and the write-ahead log, is checked only with all of them.
	Logs []string
	// Since are earlier sizes and roots, which the caller trusts, that must be
	// prefixes of the logs they name.
	Since []Earlier
}

// Earlier is a size and root that somebody kept.
type Earlier struct {
	Log    string
	Size   uint64
	Root   Hash
	Origin string // that the log must have; "" is not compared
}

// Report is the result of a verification.
type Report struct {
	Logs     []LogReport
	Findings []Finding // checks that failed; at most 1000 are kept
	Failed   int       // their number
	// Undecided are checks that could not be made, since a file cannot be read
	// or a range is pruned; at most 1000 are kept.
	Undecided []Finding
	// KeyChanges are the changes of the checkpoint key that sec records: the first
	// for each key, and each loss.
	KeyChanges []KeyChange
}

// LogReport is what was proved of one log.
type LogReport struct {
	Log, Origin string
	Size        uint64 // covered by the checkpoint
	Durable     uint64 // with the records that only the write-ahead log has
	Root        Hash
}

// Finding is one check that failed, or could not be made.
type Finding struct {
	Rule   string // L-nn
	Where  string // file, or <log>:<seq>
	Detail string
}

// String returns "FAIL <rule> <where>: <detail>".
func (f Finding) String() string { return "FAIL " + f.Rule + " " + f.Where + ": " + f.Detail }

// OK reports whether every check passed and there was something to check.
func (r Report) OK() bool { return r.Failed == 0 && len(r.Undecided) == 0 && len(r.Logs) > 0 }

const maxFindings = 1000

// Verify checks a log's directory, or a copy of it, strictly: signatures under
// the given vkeys, every entry, tile and root, the form and order of the
// records, what they say of each other, and the write-ahead log. A vkey of one
// log of a node speaks for all logs of that node.
//
// What it found wrong is in the report; the error is for a directory that is
// no log, or a vkey that is none: [ErrNotFound], [ErrFormat], [ErrCorrupt].
func Verify(dir string, vkeys []string, o VerifyOptions) (Report, error) {
	return verify(osFS(dir), dir, vkeys, o)
}

func verify(fsys fileSystem, dir string, vkeys []string, o VerifyOptions) (Report, error) {
	keys, err := parseKeyring(vkeys)
	if err != nil {
		return Report{}, fmt.Errorf("verifying %s: %w", dir, err)
	}
	m, err := (&Reader{fsys}).manifest()
	if err != nil {
		return Report{}, fmt.Errorf("verifying %s: %w", dir, err)
	}
	v := &verification{fsys: fsys, keys: keys, manifest: m, o: o, logs: map[Shard]*logCheck{}, dangling: map[string]bool{}, exported: map[string]bool{}}
	v.run()
	return v.report, nil
}

// verification is one run over a directory.
type verification struct {
	fsys     fileSystem
	keys     keyring
	manifest *manifest
	o        VerifyOptions
	report   Report
	logs     map[Shard]*logCheck
	dangling map[string]bool // intents that a log.dangling of sec names
	anchors  []anchorFact    // roots that sec recorded
	pruned   []treeFact      // ranges that sec records as pruned
	drops    [][3]int64      // torn tails that sec recorded
	exported map[string]bool // files of a copy that its export.json lists
	lastBoot string          // of the newest record of sec
	closed   bool            // the newest record of sec is log.close
	scanned  *walScan
	tailing  bool // the records are those that only the write-ahead log has
}

// anchorFact is a root that a record of sec gives for a size of a log.
type anchorFact struct {
	where string
	tree  treeFact
}

func (v *verification) fail(rule, where, format string, args ...any) {
	f := Finding{rule, where, fmt.Sprintf(format, args...)}
	if slices.ContainsFunc(args, unreadable) {
		v.undecided(f)
		return
	}
	v.report.Failed++
	if len(v.report.Findings) < maxFindings {
		v.report.Findings = append(v.report.Findings, f)
	}
}

func (v *verification) undecided(f Finding) {
	if len(v.report.Undecided) < maxFindings {
		v.report.Undecided = append(v.report.Undecided, f)
	}
}

// unreadable reports whether an argument of a finding is an error of reading,
// which says nothing about what is in the file.
func unreadable(arg any) bool {
	err, ok := arg.(error)
	return ok && (errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EIO))
}

func (v *verification) wanted(name string) bool {
	return len(v.o.Logs) == 0 || slices.Contains(v.o.Logs, name)
}

// run checks sec first, because it says what the other logs must be.
func (v *verification) run() {
	for _, name := range v.o.Logs {
		if s, err := parseShard(name); err != nil || v.manifest.find(s) == nil {
			v.fail("L-61(a)", name, "no such log")
		}
	}
	if v.manifest.Format != 0 {
		if err := v.manifest.checkDirs(v.fsys); err != nil && !v.nowListed(func(m *manifest) bool { return m.checkDirs(v.fsys) == nil }) {
			v.fail("L-61(a)", manifestName, "%v", err)
		}
	}
	for i := range v.manifest.Logs {
		l := &v.manifest.Logs[i]
		if l.shard == 0 || v.wanted(l.Log) {
			v.open(l)
		}
	}
	v.checkEarlier()
	whole := len(v.o.Logs) == 0
	for i := range v.manifest.Logs {
		if c := v.logs[v.manifest.Logs[i].shard]; c != nil {
			c.run()
		}
	}
	if whole {
		v.checkWAL()
	}
	if whole && v.manifest.Format != 0 {
		v.checkRoot()
	}
	for i := range v.manifest.Logs {
		if c := v.logs[v.manifest.Logs[i].shard]; c != nil {
			c.finish()
			if v.wanted(c.log.Log) {
				v.report.Logs = append(v.report.Logs, LogReport{c.log.Log, c.cp.Origin, c.cp.Size, max(c.cp.Size, c.durable), c.cp.Root})
			}
		}
	}
}

// open verifies a log's checkpoint and the note of what was about to be signed.
func (v *verification) open(l *manifestLog) {
	file := l.Dir + "/checkpoint"
	msg, err := readFile(v.fsys, file, 1<<16)
	if errors.Is(err, fs.ErrNotExist) && v.manifest.Format != 0 {
		c := newLogCheck(v, l, Checkpoint{Origin: l.Origin, Root: emptyRoot})
		c.unsigned = true
		v.logs[l.shard] = c
		if _, err := readFile(v.fsys, nextName(l.shard), 4096); err == nil {
			v.checkNext(l, c.cp)
		}
		return
	}
	if err != nil {
		v.fail("L-61(c)", file, "%v", err)
		return
	}
	cp, ok := v.signed(l, file, msg)
	if !ok {
		return
	}
	v.logs[l.shard] = newLogCheck(v, l, cp)
	v.checkNext(l, cp)
}

// signed returns what a checkpoint of a log says, if it is one under the keys.
func (v *verification) signed(l *manifestLog, file string, msg []byte) (cp Checkpoint, ok bool) {
	cp, err := v.keys.open(msg)
	if errors.Is(err, ErrSignature) {
		v.fail("L-61(c)", file, "%v; %s", err, v.unknownKey(msg))
		return cp, false
	}
	if err != nil {
		v.fail("L-61(c)", file, "%v", err)
		return cp, false
	}
	if v.manifest.Format != 0 && cp.Origin != l.Origin {
		v.fail("L-61(c)", file, "origin %s instead of %s", cp.Origin, l.Origin)
		return cp, false
	}
	if cp.Origin[lastSlash(cp.Origin):] != "/"+l.Log {
		v.fail("L-61(c)", file, "origin %s in the place of %s", cp.Origin, l.Log)
		return cp, false
	}
	for _, line := range bytes.Split(msg[bytes.Index(msg, []byte("\n\n"))+2:], []byte("\n")) {
		if len(line) > 0 && !canonicalSignature(line) {
			v.fail("L-50", file, "signature line is not in canonical form")
		}
	}
	return cp, true
}

// nowListed reports whether the manifest as it is now, which is of the same log
// as the one that was read first, satisfies ok: a node that writes may have begun
// a month since.
func (v *verification) nowListed(ok func(*manifest) bool) bool {
	m, err := readManifest(v.fsys)
	return err == nil && m.WALID == v.manifest.WALID && len(m.Logs) > len(v.manifest.Logs) && ok(m)
}

func lastSlash(s string) int {
	for i := len(s) - 1; i > 0; i-- {
		if s[i] == '/' {
			return i
		}
	}
	return 0
}

// canonicalSignature reports whether the base64 of a signature line is the only
// spelling of its bytes.
func canonicalSignature(line []byte) bool {
	b64 := line[bytes.LastIndexByte(line, ' ')+1:]
	sig, err := base64.StdEncoding.Strict().DecodeString(string(b64))
	return err == nil && base64.StdEncoding.EncodeToString(sig) == string(b64)
}

func (v *verification) checkNext(l *manifestLog, cp Checkpoint) {
	file := nextName(l.shard)
	text, err := readFile(v.fsys, file, 4096)
	if errors.Is(err, fs.ErrNotExist) && v.manifest.Format == 0 {
		return // an exported copy has no state
	}
	if err != nil {
		v.fail("L-61(f)", file, "%v", err)
		return
	}
	next, err := parseBody(string(text))
	switch {
	case err != nil:
		v.fail("L-61(f)", file, "%v", err)
	case next.Origin != cp.Origin:
		v.fail("L-61(f)", file, "origin %s instead of %s", next.Origin, cp.Origin)
	case next.Size < cp.Size || next.Size == cp.Size && next.Root != cp.Root:
		v.fail("L-61(f)", file, "size %d with another root, or behind the checkpoint of size %d", next.Size, cp.Size)
	default:
		v.logs[l.shard].next = &next
	}
}

// checkWAL scans the write-ahead log, if it is there, and compares it with the
// trees. A node may be writing: what fails in a place that moves is looked at
// again, from the newest checkpoints on.
func (v *verification) checkWAL() {
	var last string
	v.tailing = true
	for {
		for _, c := range v.logs {
			c.resetTail()
		}
		scan, err := scanWAL(v.fsys, v.frame)
		if err == nil {
			v.scanned = scan
			break
		}
		if grew := v.catchUp(); err.Error() == last && !grew {
			v.fail("L-28", "wal", "%v", err)
			return
		}
		last = err.Error()
	}
	s := v.scanned
	if s.oldest == 0 {
		if v.manifest.Format != 0 {
			v.fail("L-28", "wal", "there is no write-ahead log")
		}
		return
	}
	if s.last == 0 {
		v.fail("L-61(e)", "wal", "no segment holds a record")
		return
	}
	if fmt.Sprintf("%x", s.walID) != v.manifest.WALID {
		v.fail("L-28", "wal", "the segments belong to another log")
	}
	for shard, next := range s.next {
		c := v.logs[shard]
		if c != nil && next < c.cp.Size {
			v.fail("L-61(e)", "wal", "%s ends at %d, its checkpoint has size %d", shard.logName(), next, c.cp.Size)
		}
	}
	v.checkTails()
}

// frame takes a record of the write-ahead log.
func (v *verification) frame(seg uint64, off int64, f *frame) error {
	c := v.logs[f.shard]
	if c == nil {
		if l := v.manifest.find(f.shard); l != nil || f.shard > v.manifest.Logs[len(v.manifest.Logs)-1].shard {
			return nil // its checkpoint failed, or the month has none yet
		}
		return corrupt("L-61(i)", "segment %d, offset %d: record of %s, which is not listed", seg, off, f.shard.logName())
	}
	return c.frame(f)
}

// checkTails compares what stands behind the valid parts of segments with what
// sec says was dropped. After an orderly stop nothing may stand there.
func (v *verification) checkTails() {
	s := v.scanned
	for _, t := range s.tails {
		known := slices.ContainsFunc(v.drops, func(d [3]int64) bool { return d[2] == int64(t.seg) && d[1] == t.end && d[0] >= t.dropped })
		if !known {
			v.fail("L-30", segmentName(t.seg), "%d bytes behind the last frame, at offset %d, that no log.recover names", t.dropped, t.end)
		}
	}
	if v.closed && (s.torn || s.foul != 0) {
		where := s.last
		if !s.torn {
			where = s.foul
		}
		v.fail("L-30", segmentName(where), "bytes behind the last frame of a log that was closed in order")
	}
}

// lateAnchor checks a root that a record gives which no checkpoint covers yet.
func (v *verification) lateAnchor(a anchorFact) {
	shard, err := parseShard(a.tree.log)
	c := v.logs[shard]
	if err != nil || c == nil || a.tree.size > c.cp.Size || a.tree.size < c.log.MinIndex {
		return // of a log that failed, or newer than the checkpoint that was read
	}
	src := tiles{v.fsys, c.log.Dir, a.tree.size}
	root, err := src.root()
	if err != nil || a.tree.root != base64.StdEncoding.EncodeToString(root[:]) {
		v.fail("L-59", a.where, "gives another root for size %d of %s", a.tree.size, a.tree.log)
	}
}

// checkEarlier makes sure that each earlier size will be compared.
func (v *verification) checkEarlier() {
	for _, e := range v.o.Since {
		s, err := parseShard(e.Log)
		switch c := v.logs[s]; {
		case err != nil || v.manifest.find(s) == nil:
			v.fail("L-61(a)", earlierCheckpoint, "there is no log %s any more", e.Log)
		case !v.wanted(e.Log):
			v.undecided(Finding{"L-141", earlierCheckpoint, "is of " + e.Log + ", which is not to be checked"})
		case c != nil && e.Origin != "" && e.Origin != c.cp.Origin:
			v.fail("L-61(c)", earlierCheckpoint, "is of %s, the log here is %s", e.Origin, c.cp.Origin)
		}
	}
}

// earlierCheckpoint is where a size and root come from that the caller kept.
const earlierCheckpoint = "earlier checkpoint"

// earlier returns the roots that must be prefixes of a log, by size.
func (v *verification) earlier(l *manifestLog) map[uint64][]anchorFact {
	m := map[uint64][]anchorFact{}
	for _, e := range v.o.Since {
		if e.Log == l.Log {
			root := base64.StdEncoding.EncodeToString(e.Root[:])
			m[e.Size] = append(m[e.Size], anchorFact{earlierCheckpoint, treeFact{log: e.Log, size: e.Size, root: root}})
		}
	}
	for _, a := range v.anchors {
		if a.tree.log == l.Log {
			m[a.tree.size] = append(m[a.tree.size], a)
		}
	}
	return m
}

// sortedSizes returns the keys of m in order.
func sortedSizes(m map[uint64][]anchorFact) []uint64 {
	sizes := make([]uint64, 0, len(m))
	for s := range m {
		sizes = append(sizes, s)
	}
	sort.Slice(sizes, func(i, j int) bool { return sizes[i] < sizes[j] })
	return sizes
}
