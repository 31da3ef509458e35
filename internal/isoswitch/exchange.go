package isoswitch

import (
	"sync"
	"time"

	"keyd.dev/keyd/internal/iso8583"
)

// match is what an answer from upstream must have in common with its request:
// STAN, DE 7, class of the MTI and TID. STAN alone comes round too soon.
type match struct {
	stan, sent string
	class      byte
	tid        string
}

func matchOf(m *iso8583.Message) match {
	return match{stan: m.Text(11), sent: m.Text(7), class: m.MTI().Class(), tid: m.Text(41)}
}

// exchange is a request upstream that has no answer yet.
type exchange struct {
	match match
	reply chan *iso8583.Message // buffered: the link never waits for a reader
	lost  chan struct{}         // closed when the link broke by which it leaves; only over sets it anew
	via   *link                 // the link by which it leaves
	late  func(*iso8583.Message)
	until time.Time // of a late one: when it is forgotten
}

// exchanges are the open ones of a host. It is safe for concurrent use.
type exchanges struct {
	clock func() time.Time

	mu   sync.Mutex
	open map[match]*exchange
	late map[match]*exchange
	old  []*exchange // of late, those forgotten first at the front
}

func newExchanges(clock func() time.Time) *exchanges {
	return &exchanges{clock: clock, open: map[match]*exchange{}, late: map[match]*exchange{}}
}

// start opens an exchange. A second one under the same match takes the place of
// the first, as the repeats of a reversal do.
func (x *exchanges) start(m match) *exchange {
	e := &exchange{match: m, reply: make(chan *iso8583.Message, 1), lost: make(chan struct{})}
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.late, m)
	x.open[m] = e
	return e
}

// over notes the link by which a request leaves. Another that was tried before it
// took nothing; that it broke meanwhile says nothing of this request. Who waits at
// lost calls over first, so that no one waits at the one that is replaced.
func (x *exchanges) over(e *exchange, l *link) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.via = l
	select {
	case <-e.lost:
		e.lost = make(chan struct{})
	default:
	}
}

// link returns it, or nil.
func (x *exchanges) link(e *exchange) *link {
	x.mu.Lock()
	defer x.mu.Unlock()
	return e.via
}

// end closes an exchange that is done with.
func (x *exchanges) end(e *exchange) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.open[e.match] == e {
		delete(x.open, e.match)
	}
}

// expire closes an exchange to which an answer, or one more, may still come:
// until then it is given to late.
func (x *exchanges) expire(e *exchange, until time.Time, late func(*iso8583.Message)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if now, ok := x.open[e.match]; ok && now != e {
		return
	}
	delete(x.open, e.match)
	e.late, e.until = late, until
	x.late[e.match] = e
	x.old = append(x.old, e)
	x.forget()
}

// forget drops the late ones whose time is over.
func (x *exchanges) forget() {
	now := x.clock()
	for len(x.old) > 0 && x.old[0].until.Before(now) {
		if e := x.old[0]; x.late[e.match] == e {
			delete(x.late, e.match)
		}
		x.old = x.old[1:]
	}
}

// deliver gives an answer to whom it belongs. It returns the late handler where
// the answer came too late, and false when nobody asked for it.
func (x *exchanges) deliver(m *iso8583.Message) (late func(*iso8583.Message), expected bool) {
	key := matchOf(m)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.forget()
	if e, ok := x.open[key]; ok {
		delete(x.open, key)
		e.reply <- m
		return nil, true
	}
	if e, ok := x.late[key]; ok {
		delete(x.late, key)
		return e.late, true
	}
	return nil, false
}

// drop tells the open exchanges of a link that it broke. Answers to them may come
// on the next connection, or on another link: the callers keep them as late ones.
func (x *exchanges) drop(l *link) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range x.open {
		if e.via != l {
			continue
		}
		select {
		case <-e.lost:
		default:
			close(e.lost)
		}
	}
}
