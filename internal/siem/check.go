package siem

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"keyd.dev/keyd/audit"
)

// Received is what a receiver has of one log.
type Received struct {
	Log     string `json:"log"`
	Origin  string `json:"origin,omitempty"` // of its checkpoints
	First   uint64 `json:"first"`            // the first seq that is there
	Next    uint64 `json:"next"`             // one above the last
	Missing uint64 `json:"missing"`          // of those between
	Gaps    []Gap  `json:"gaps,omitempty"`   // the first of these gaps
	Again   uint64 `json:"again"`            // records that came more than once
	Altered uint64 `json:"altered"`          // records that came with several contents

	Checkpoints int    `json:"checkpoints"` // that came, those that came again not counted
	Proved      uint64 `json:"proved"`      // records up to the newest checkpoint whose root was recomputed
	Wrong       int    `json:"wrong"`       // checkpoints with another root, or a signature that does not verify
}

// Gap is a run of seqs that did not arrive.
type Gap struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// Whole reports whether the receiver has every record from 0 up to the newest
// checkpoint, and what it has is what was signed.
func (r *Received) Whole() bool {
	return r.Damage() == 0 && r.First == 0 && r.Checkpoints > 0 && r.Proved > 0
}

// Damage counts what is missing, altered or wrong.
func (r *Received) Damage() uint64 { return r.Missing + r.Altered + uint64(r.Wrong) }

const (
	mostGaps = 16
	mostLine = 1 << 20
)

// Check reads what a receiver keeps, a message a line, whatever it has put before
// the record, and looks for what did not arrive (L-163): gaps in seq, and roots
// that are not those of the checkpoints. With vkeys the checkpoints' signatures
// are checked too. Torn counts lines that are neither; a file that was being
// written at a crash may have some, and what they held comes again.
// The error is that of r, or of the vkeys.
func Check(r io.Reader, vkeys []string) (logs []Received, torn int, err error) {
	all := make(map[string]*arrived)
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		line, rerr := longLine(lines)
		if rerr != nil && !errors.Is(rerr, io.EOF) {
			return nil, 0, fmt.Errorf("reading what arrived: %w", rerr)
		}
		if len(line) > 0 && !take(all, line) {
			torn++
		}
		if rerr != nil {
			break
		}
	}
	for _, log := range slices.Sorted(maps.Keys(all)) {
		got, err := all[log].judge(log, vkeys)
		if err != nil {
			return nil, 0, err
		}
		logs = append(logs, got)
	}
	return logs, torn, nil
}

// longLine returns the next line without its end, cut at mostLine.
func longLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line) < mostLine {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return bytes.TrimRight(line, "\r\n"), err
		}
	}
}

// arrived is what came of one log.
type arrived struct {
	leaves  map[uint64][32]byte
	again   uint64
	altered map[uint64]bool
	notes   map[string]bool
}

// take adds a line; false is for one that is neither record nor checkpoint.
func take(all map[string]*arrived, line []byte) bool {
	begin := bytes.IndexByte(line, '{')
	if begin < 0 {
		return false
	}
	body := line[begin:]
	if bytes.HasPrefix(body, []byte(`{"checkpoint":`)) {
		var c checkpointBody
		if json.Unmarshal(body, &c) != nil || c.Log == "" {
			return false
		}
		if _, _, _, err := parseNote([]byte(c.Checkpoint)); err != nil {
			return false
		}
		logOf(all, c.Log).notes[c.Checkpoint] = true
		return true
	}
	h, err := ParseHead(body)
	if err != nil {
		return false
	}
	a, leaf := logOf(all, h.Log), leafHash(body)
	switch old, known := a.leaves[h.Seq]; {
	case !known:
		a.leaves[h.Seq] = leaf
	case old != leaf:
		a.altered[h.Seq] = true
	default:
		a.again++
	}
	return true
}

func logOf(all map[string]*arrived, log string) *arrived {
	a := all[log]
	if a == nil {
		a = &arrived{leaves: make(map[uint64][32]byte), altered: make(map[uint64]bool), notes: make(map[string]bool)}
		all[log] = a
	}
	return a
}

// judge compares what came with the checkpoints.
func (a *arrived) judge(log string, vkeys []string) (Received, error) {
	r := Received{Log: log, Again: a.again, Altered: uint64(len(a.altered)), Checkpoints: len(a.notes)}
	seqs := slices.Sorted(maps.Keys(a.leaves))
	for i, seq := range seqs {
		if i > 0 && seq > r.Next {
			r.gap(r.Next, seq-1)
		}
		if i == 0 {
			r.First = seq
		}
		r.Next = seq + 1
	}
	type claim struct {
		origin string
		size   uint64
		root   [32]byte
	}
	var claims []claim
	for note := range a.notes {
		origin, size, root, err := parseNote([]byte(note))
		if err != nil {
			return r, err
		}
		r.Origin = origin
		if len(vkeys) > 0 {
			if _, err := audit.CheckCheckpoint([]byte(note), vkeys); errors.Is(err, audit.ErrSignature) {
				r.Wrong++
				continue
			} else if err != nil {
				return r, fmt.Errorf("checking a checkpoint of %s: %w", log, err)
			}
		}
		claims = append(claims, claim{origin, size, root})
	}
	slices.SortFunc(claims, func(a, b claim) int { return int(min(max(int64(a.size)-int64(b.size), -1), 1)) })
	if n := len(claims); n > 0 && claims[n-1].size > r.Next {
		r.gap(r.Next, claims[n-1].size-1) // signed, and not here
		r.Next = claims[n-1].size
	}
	var t treeHash
	for _, c := range claims {
		for t.size < c.size {
			leaf, ok := a.leaves[t.size]
			if !ok {
				return r, nil // nothing behind a gap can be proved
			}
			t.add(leaf)
		}
		if t.size != c.size || t.root() != c.root || c.origin != r.Origin {
			r.Wrong++
			continue
		}
		r.Proved = c.size
	}
	return r, nil
}

func (r *Received) gap(first, last uint64) {
	r.Missing += last - first + 1
	if len(r.Gaps) < mostGaps {
		r.Gaps = append(r.Gaps, Gap{first, last})
	}
}

// treeHash is a growing tree of RFC 6962, section 2.1, as L-142 says it.
type treeHash struct {
	size  uint64
	stack [][32]byte
}

func leafHash(record []byte) [32]byte {
	return sha256.Sum256(append([]byte{0}, record...))
}

func nodeHash(left, right [32]byte) [32]byte {
	return sha256.Sum256(slices.Concat([]byte{1}, left[:], right[:]))
}

func (t *treeHash) add(leaf [32]byte) {
	t.size++
	for c := t.size; c%2 == 0; c /= 2 {
		leaf = nodeHash(t.stack[len(t.stack)-1], leaf)
		t.stack = t.stack[:len(t.stack)-1]
	}
	t.stack = append(t.stack, leaf)
}

func (t *treeHash) root() [32]byte {
	if len(t.stack) == 0 {
		return sha256.Sum256(nil)
	}
	top := t.stack[len(t.stack)-1]
	for i := len(t.stack) - 2; i >= 0; i-- {
		top = nodeHash(t.stack[i], top)
	}
	return top
}
