package isoswitch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// memory is a Journal in memory, with the rules that a database must have and
// commits that can be made to fail.
type memory struct {
	mu        sync.Mutex
	held      memoryTx
	terminals map[string]Terminal
	failNext  error // of the next Update
}

type memoryTx struct {
	readOnly bool
	counters map[Device]uint32
	accepted map[Device]map[uint32]Hash
	txns     map[OID]Txn
	revs     map[RID]Reversal
	reserved map[string]uint64
}

func newMemory() *memory {
	return &memory{
		terminals: map[string]Terminal{},
		held: memoryTx{
			counters: map[Device]uint32{}, accepted: map[Device]map[uint32]Hash{},
			txns: map[OID]Txn{}, revs: map[RID]Reversal{}, reserved: map[string]uint64{},
		},
	}
}

var errReadOnly = errors.New("memory: read only")

func (m *memory) Terminal(_ context.Context, tid string) (Terminal, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.terminals[tid]
	if !ok {
		return t, ErrNoTerminal
	}
	return t, nil
}

func (m *memory) Update(_ context.Context, fn func(Tx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	work := m.held.clone()
	if err := fn(&work); err != nil {
		return err
	}
	if err := m.failNext; err != nil {
		m.failNext = nil
		return err
	}
	m.held = work
	return nil
}

func (m *memory) View(_ context.Context, fn func(Tx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	work := m.held.clone()
	work.readOnly = true
	return fn(&work)
}

func (t memoryTx) clone() memoryTx {
	c := memoryTx{
		counters: maps.Clone(t.counters), accepted: map[Device]map[uint32]Hash{},
		txns: maps.Clone(t.txns), revs: maps.Clone(t.revs), reserved: maps.Clone(t.reserved),
	}
	for d, all := range t.accepted {
		c.accepted[d] = maps.Clone(all)
	}
	return c
}

func (t *memoryTx) LastCounter(d Device) (uint32, error) { return t.counters[d], nil }

func (t *memoryTx) AcceptedUnder(d Device, counter uint32) (Hash, error) {
	h, ok := t.accepted[d][counter]
	if !ok {
		return h, ErrNotFound
	}
	return h, nil
}

func (t *memoryTx) Accept(d Device, counter uint32, message Hash, at time.Time) error {
	if err := t.Advance(d, counter, at); err != nil {
		return err
	}
	if t.accepted[d] == nil {
		t.accepted[d] = map[uint32]Hash{}
	}
	t.accepted[d][counter] = message
	return nil
}

func (t *memoryTx) Advance(d Device, counter uint32, _ time.Time) error {
	if t.readOnly {
		return errReadOnly
	}
	if counter <= t.counters[d] {
		return ErrExists
	}
	t.counters[d] = counter
	return nil
}

func (t *memoryTx) Newest(key LookupKey, since time.Time) (*Txn, error) {
	var best *Txn
	for _, x := range t.txns {
		if x.Key == key && !x.Received.Before(since) && (best == nil || x.Received.After(best.Received)) {
			best = &x
		}
	}
	if best == nil {
		return nil, ErrNotFound
	}
	return best, nil
}

func (t *memoryTx) Txn(oid OID) (*Txn, error) {
	x, ok := t.txns[oid]
	if !ok {
		return nil, ErrNotFound
	}
	return &x, nil
}

func (t *memoryTx) Live(oid OID) (*Txn, error) {
	for _, x := range t.txns {
		if x.RefersTo == oid && !slices.Contains([]State{Declined, Reversed, ReversedUnknown, LocalVoid}, x.State) {
			return &x, nil
		}
	}
	return nil, ErrNotFound
}

func (t *memoryTx) InsertTxn(x *Txn) error {
	if _, ok := t.txns[x.OID]; ok {
		return ErrExists
	}
	if _, err := t.Live(x.RefersTo); err == nil && x.RefersTo != (OID{}) && x.State != Declined {
		return ErrExists
	}
	return t.putTxn(x)
}

func (t *memoryTx) UpdateTxn(x *Txn) error {
	if _, ok := t.txns[x.OID]; !ok {
		return ErrNotFound
	}
	return t.putTxn(x)
}

func (t *memoryTx) putTxn(x *Txn) error {
	if t.readOnly {
		return errReadOnly
	}
	if x.ReversedAmount < 0 || x.ReversedAmount > x.Amount {
		return errors.New("memory: I-2")
	}
	if was, ok := t.txns[x.OID]; ok && (!MayBecome(was.State, x.State) || was.RefersTo != x.RefersTo) {
		return fmt.Errorf("memory: R-37 %s to %s", was.State, x.State)
	}
	t.txns[x.OID] = *x
	return nil
}

func (t *memoryTx) Unfinished(after OID, limit int) ([]*Txn, error) {
	var all []*Txn
	for _, x := range t.txns {
		if x.inFlight() && string(x.OID[:]) > string(after[:]) {
			all = append(all, &x)
		}
	}
	slices.SortFunc(all, func(a, b *Txn) int { return slices.Compare(a.OID[:], b.OID[:]) })
	return all[:min(limit, len(all))], nil
}

func (t *memoryTx) Foreign(q ForeignQuery) (bool, error) {
	for _, x := range t.txns {
		fits := q.RRN != "" && x.RRN == q.RRN || q.Approval != "" && x.Approval == q.Approval ||
			q.PANToken != "" && x.Card.Token == q.PANToken && x.Amount == q.Amount
		if x.TID != q.TID && fits && !x.Received.Before(q.Since) {
			return true, nil
		}
	}
	return false, nil
}

func (t *memoryTx) Reversal(rid RID) (*Reversal, error) {
	r, ok := t.revs[rid]
	if !ok {
		return nil, ErrNotFound
	}
	return &r, nil
}

func (t *memoryTx) InsertReversal(r *Reversal) error {
	if t.readOnly {
		return errReadOnly
	}
	for _, other := range t.revs {
		if other.RID == r.RID || other.OID == r.OID && other.Full && r.Full {
			return ErrExists
		}
	}
	t.revs[r.RID] = *r
	return nil
}

func (t *memoryTx) UpdateReversal(r *Reversal) error {
	if t.readOnly {
		return errReadOnly
	}
	if _, ok := t.revs[r.RID]; !ok {
		return ErrNotFound
	}
	t.revs[r.RID] = *r
	return nil
}

func (t *memoryTx) open() []*Reversal {
	var all []*Reversal
	for _, r := range t.revs {
		if r.State == Queued || r.State == Sent {
			all = append(all, &r)
		}
	}
	slices.SortFunc(all, func(a, b *Reversal) int { return a.Next.Compare(b.Next) })
	return all
}

func (t *memoryTx) Due(upstream string, at time.Time, limit int, except []string) ([]*Reversal, error) {
	all := slices.DeleteFunc(t.open(), func(r *Reversal) bool {
		return r.Link != upstream || r.Next.After(at) || slices.Contains(except, r.TID)
	})
	return all[:min(limit, len(all))], nil
}

func (t *memoryTx) OpenBefore(oid OID, built time.Time) (bool, error) {
	return slices.ContainsFunc(t.open(), func(r *Reversal) bool { return r.OID == oid && r.Built.Before(built) }), nil
}

func (t *memoryTx) Strays([]string) ([]Stray, error) { return nil, nil }
func (t *memoryTx) NextDue(upstream string) (time.Time, error) {
	all := slices.DeleteFunc(t.open(), func(r *Reversal) bool { return r.Link != upstream })
	if len(all) == 0 {
		return time.Time{}, ErrNotFound
	}
	return all[0].Next, nil
}

func (t *memoryTx) Reserved(name string) (uint64, error) { return t.reserved[name], nil }

func (t *memoryTx) Reserve(name string, n uint64) (uint64, error) {
	if t.readOnly {
		return 0, errReadOnly
	}
	first := t.reserved[name]
	t.reserved[name] += n
	return first, nil
}
