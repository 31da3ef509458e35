package store

import (
	"bytes"

	"keyd.dev/keyd/internal/isoswitch"
)

// mostRemembered bounds what a session remembers of each kind.
const mostRemembered = 4096

// memory is what the writer remembers of rows that it wrote itself, so that it
// need not read them again a moment later. It is worth as much as SQLite's own
// cache of pages, and ends with it: when another connection has committed
// anything, when a job was undone, and after each job that does not go through
// the journal's methods.
type memory struct {
	version  int64 // of the database, as SQLite counts what others commit
	sales    map[isoswitch.OID]remembered
	counters map[isoswitch.Device]uint32 // the highest of a device
	last     map[*sealed]int64           // the newest row's number
}

// remembered is an original that waits for its outcome.
type remembered struct {
	txn  isoswitch.Txn
	kept keptRow
}

func (m *memory) forget() {
	clear(m.sales)
	clear(m.counters)
	clear(m.last)
}

// refresh begins a batch: what others have changed is forgotten. It wants the
// transaction open, for only then SQLite looks.
func (m *memory) refresh(s *session) error {
	var now int64
	if err := s.query("PRAGMA data_version").Scan(&now); err != nil {
		return err
	}
	if now != m.version || m.last == nil {
		m.version = now
		m.sales = make(map[isoswitch.OID]remembered)
		m.counters = make(map[isoswitch.Device]uint32)
		m.last = make(map[*sealed]int64)
	}
	return nil
}

// room lets a map grow no further than it may.
func room[K comparable, V any](m map[K]V) map[K]V {
	if len(m) >= mostRemembered {
		clear(m)
	}
	return m
}

// inserted remembers the original whose row the guard has at hand.
func (m *memory) inserted(g *guard, n *isoswitch.Txn) {
	if m.sales == nil {
		return
	}
	txn := *n
	// The bytes may lie in a message that is worked on.
	txn.Card.Sealed, txn.EMV, txn.IssuerDE55 = bytes.Clone(n.Card.Sealed), bytes.Clone(n.EMV), bytes.Clone(n.IssuerDE55)
	one := remembered{txn: txn, kept: keptRow{table: txnTable, id: n.OID, seq: g.number}}
	one.kept.from(g)
	room(m.sales)[n.OID] = one
}

// updated forgets an original: what comes after its outcome comes much later.
func (m *memory) updated(oid isoswitch.OID) { delete(m.sales, oid) }

// sale gives an original that this session wrote and nobody changed since.
func (t *tx) sale(oid isoswitch.OID) (*isoswitch.Txn, bool) {
	if t.s == nil || !t.writes {
		return nil, false
	}
	one, is := t.s.memory.sales[oid]
	if !is {
		return nil, false
	}
	if t.keptRow(txnTable, oid) == nil {
		t.kept = append(t.kept, one.kept)
	}
	txn := one.txn
	return &txn, true
}
