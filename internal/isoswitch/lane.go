package isoswitch

import "sync"

// lanes keep the order of the requests of each TID on a connection: a request
// begins its turn when the one before has ended its own. Different TIDs never
// wait for each other. W-17.
type lanes struct {
	most int // requests of one TID at a time

	mu    sync.Mutex
	byTID map[string]*lane
}

type lane struct {
	tail chan struct{} // closed when the last request so far has ended its turn
	n    int           // requests that are not done
}

func newLanes(most int) *lanes { return &lanes{most: most, byTID: map[string]*lane{}} }

// turn is a request's place in its lane.
type turn struct {
	lanes *lanes
	tid   string
	prior <-chan struct{} // nil for the first
	over  chan struct{}
	once  sync.Once
}

// take gives the next place in the lane of the TID. It is false when too many
// requests of this TID are not done yet.
func (l *lanes) take(tid string) (*turn, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.byTID[tid]
	if !ok {
		at = &lane{}
		l.byTID[tid] = at
	}
	if at.n >= l.most {
		return nil, false
	}
	t := &turn{lanes: l, tid: tid, prior: at.tail, over: make(chan struct{})}
	at.tail = t.over
	at.n++
	return t, true
}

// wait blocks until it is this request's turn.
func (t *turn) wait() {
	if t.prior != nil {
		<-t.prior
	}
}

// come reports whether it is this request's turn already.
func (t *turn) come() bool {
	if t.prior == nil {
		return true
	}
	select {
	case <-t.prior:
		return true
	default:
		return false
	}
}

// end lets the next request of the lane begin. The request may go on with what
// needs no order: waiting for upstream, answering.
func (t *turn) end() { t.once.Do(func() { close(t.over) }) }

// done says that the request is over.
func (t *turn) done() {
	t.end()
	t.lanes.mu.Lock()
	defer t.lanes.mu.Unlock()
	at := t.lanes.byTID[t.tid]
	if at.n--; at.n == 0 {
		delete(t.lanes.byTID, t.tid)
	}
}
