package isoswitch

import "sync"

// live is a sale in flight: what the running process knows of it beyond the
// journal. The journal says FORWARDED from the start; whether it has left is
// known here.
type live struct {
	oid    OID
	refers bool          // to another transaction, so that its approval may have to be undone at once
	done   chan struct{} // closed once the outcome is in the journal

	mu        sync.Mutex
	left      bool // handed to the link, wholly or in part
	recalled  bool // must never be handed to the link (D-20)
	takers    int  // requests that wait for the answer: the sale and its repeats
	delivered bool // one of them has got it

	// Set before done is closed, and not changed afterwards.
	txn     *Txn
	outcome settlement
	failed  bool // the journal did not take the outcome
}

// depart claims the right to hand the sale to the link. It is false when a
// reversal recalled the sale; then nothing may be sent, ever.
func (l *live) depart() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = l.left || !l.recalled
	return l.left
}

// gone reports whether the sale was handed to the link.
func (l *live) gone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left
}

// recall claims that the sale shall never leave. It is false when it has.
func (l *live) recall() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recalled = l.recalled || !l.left
	return !l.left
}

// join adds a request that waits for the answer.
func (l *live) join() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.takers++
}

// took says that a waiting request is over, and whether its peer has got the
// answer. It reports whether all are over and none has.
func (l *live) took(delivered bool) (nobody bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.takers--
	l.delivered = l.delivered || delivered
	return l.takers == 0 && !l.delivered
}

// abandoned reports whether nobody waits and nobody has got the answer.
func (l *live) abandoned() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.takers == 0 && !l.delivered
}

// flights are the sales in flight. It is safe for concurrent use, also on the
// journal's writer, for nothing in it waits.
type flights struct {
	mu    sync.Mutex
	byOID map[OID]*live
}

// start adds a sale, with itself as the first taker.
func (f *flights) start(t *Txn) *live {
	l := &live{oid: t.OID, refers: t.RefersTo != (OID{}), done: make(chan struct{}), takers: 1}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.byOID[t.OID] = l
	return l
}

// find returns the sale in flight, or nil.
func (f *flights) find(oid OID) *live {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byOID[oid]
}

func (f *flights) end(l *live) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byOID[l.oid] == l {
		delete(f.byOID, l.oid)
	}
}

func (f *flights) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.byOID)
}
