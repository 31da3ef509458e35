package store

import (
	"strconv"
	"sync"
)

// waters are the highest values that this process has committed: KSN marks,
// counters, and the numbers of the journal's rows. They only rise, so that a
// lower one that is read was put back; its MAC, made when it was right, cannot
// tell.
type waters struct {
	mu   sync.Mutex
	high map[[8]byte]int64
}

// mostWaters bounds the memory that many devices can take, at about 10 MB. Of
// those beyond it an older mark is not noticed while the daemon runs.
const mostWaters = 1 << 17

// highWater is a value that was written.
type highWater struct {
	id    [8]byte
	value int64
}

func (w *waters) rise(all []highWater) {
	if len(all) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.high == nil {
		w.high = make(map[[8]byte]int64)
	}
	for _, h := range all {
		known, is := w.high[h.id]
		if is && known < h.value || !is && len(w.high) < mostWaters {
			w.high[h.id] = h.value
		}
	}
}

// of returns the highest value, 0 for none.
func (w *waters) of(id [8]byte) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.high[id]
}

// rose notes a value that is written, to be remembered once it is committed.
func (t *tx) rose(table *sealed, name string, value int64) {
	t.tide = append(t.tide, highWater{sealID(table, name), value})
}

// notBelow returns a [TamperedRow] for a value that was read and is lower than
// one that was committed. Snapshots may be older than what was; those who write
// see the last commit.
func (t *tx) notBelow(table *sealed, name string, value int64) error {
	if !t.writes || t.db.waters.of(sealID(table, name)) <= value {
		return nil
	}
	return &TamperedRow{Table: table.name, Name: name, why: rolledBack + " (" + strconv.FormatInt(value, 10) + ")"}
}
