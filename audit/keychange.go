package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"
)

// KeyChange is a log.key.rotate of sec (L-57).
type KeyChange struct {
	Seq  uint64
	At   time.Time
	Lost bool // the key before was lost: there is no overlap
	// Vkeys are the new key of sec, then those before it, which the new one
	// signs beside or whose place it takes.
	Vkeys []string
}

// KeyChanges yields the changes of the checkpoint key as sec has them, in order.
// An overlap is named again by each start within it. After an error it ends.
// Errors: [ErrNotFound], [ErrFormat].
func (r *Reader) KeyChanges() iter.Seq2[KeyChange, error] {
	return func(yield func(KeyChange, error) bool) {
		for e, err := range r.Records("sec", 0) {
			if err == nil && !hasAction(e.Raw, LogKeyRotate) {
				continue
			}
			c := KeyChange{Seq: e.Seq}
			if err == nil {
				err = c.parse(e.Raw)
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// parse reads the record of a change.
func (c *KeyChange) parse(record []byte) error {
	var rec struct {
		Reason string
		TS     time.Time
		Vkeys  []string
	}
	if err := json.Unmarshal(record, &rec); err != nil || len(rec.Vkeys) == 0 {
		return fmt.Errorf("%w: sec:%d: log.key.rotate: %w", ErrFormat, c.Seq, errors.Join(err, errNoVkey))
	}
	c.At, c.Lost, c.Vkeys = rec.TS, rec.Reason == ReasonKeyLost.String(), rec.Vkeys
	return nil
}

var errNoVkey = errors.New("names no vkey")

// KeySince returns the first change to a key: when checkpoints began to carry its
// line. Errors: [ErrNotFound] when there is none, [ErrFormat].
func (r *Reader) KeySince(vkey string) (KeyChange, error) {
	for c, err := range r.KeyChanges() {
		if err != nil || c.Vkeys[0] == vkey {
			return c, err
		}
	}
	return KeyChange{}, fmt.Errorf("%w: log.key.rotate of %s", ErrNotFound, vkey)
}

// keyChange keeps a change that a verified log names: one a key, and each loss.
func (v *verification) keyChange(f *facts) {
	at, err := time.Parse(time.RFC3339Nano, f.ts)
	if err != nil || len(f.vkeys) == 0 {
		return // reported as a record of the wrong form
	}
	c := KeyChange{Seq: f.seq, At: at, Lost: f.reason == ReasonKeyLost.String(), Vkeys: f.vkeys}
	for _, old := range v.report.KeyChanges {
		if old.Seq == c.Seq || !c.Lost && old.Vkeys[0] == c.Vkeys[0] {
			return
		}
	}
	v.report.KeyChanges = append(v.report.KeyChanges, c)
}

// unknownKey says of a checkpoint that verifies under no key of the caller who
// signed it, as far as the log itself says so, which proves nothing.
func (v *verification) unknownKey(msg []byte) string {
	cp, _ := unverifiedCheckpoint(msg) // without one there are no lines of it
	origin := cp.Origin
	ids := lineKeys(msg, origin)
	if origin == "" || len(ids) == 0 {
		return "it carries no line of this log"
	}
	for c, err := range (&Reader{v.fsys}).KeyChanges() {
		if err != nil {
			break
		}
		for i, vkey := range c.Vkeys {
			k, err := parseVkey(vkey)
			if err != nil || (&verifier{origin, k.kind, k.key, k.pub}).KeyHash() != ids[0] {
				continue
			}
			return c.advice(i == 0, ids[0])
		}
	}
	return fmt.Sprintf("its first line is of key %08x", ids[0])
}

func (c *KeyChange) advice(newer bool, id uint32) string {
	why := "changed"
	if c.Lost {
		why = "was changed because the one before was lost"
	}
	when := "until"
	if newer {
		when = "from"
	}
	return fmt.Sprintf("it is signed by key %08x, that of this log %s sec:%d, where the key %s, says the log itself; only with this key, from those who made it, is there proof",
		id, when, c.Seq, why)
}
