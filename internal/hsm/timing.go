package hsm

import "time"

// Kind is what a call into the module does, for metrics.
type Kind uint8

// The kinds of calls.
const (
	KindEncrypt Kind = iota
	KindDecrypt
	KindSign   // CMAC, HMAC, signatures
	KindObject // the keeper's: key objects made, found and destroyed
	KindOther  // random bytes, PIN blocks moved inside the token
	kinds
)

// Kinds lists the kinds of calls.
func Kinds() []Kind {
	all := make([]Kind, 0, kinds)
	for k := range kinds {
		all = append(all, k)
	}
	return all
}

// String returns the kind's name, for labels.
func (k Kind) String() string {
	return [kinds]string{"encrypt", "decrypt", "sign", "object", "other"}[k]
}

// Timing is what one call took.
type Timing struct {
	Kind   Kind
	Uses   int           // of a key, that shared the call; of other calls 1
	Wait   time.Duration // until a session was free; of the use that waited longest
	Inside time.Duration // in the module
}

// kindOf says what a call does in which queue.
func (e *epoch) kindOf(c *call, q *queue) Kind {
	switch {
	case q == e.keeping:
		return KindObject
	case c.do != nil:
		return KindOther
	}
	switch c.operation {
	case encrypting:
		return KindEncrypt
	case decrypting:
		return KindDecrypt
	}
	return KindSign
}

// timed makes a call in a session and tells the observer what it took. The end
// is the moment that the session was used last, which serve notes in any case.
func (e *epoch) timed(c *call, q *queue, w *worker) error {
	t := Timing{Kind: e.kindOf(c, q), Uses: 1 + len(c.joined)}
	t.Wait = w.began.Sub(c.asked)
	e.t.stats.waiting.Add(-int64(t.Uses))
	e.t.stats.calls.Add(1)
	e.t.stats.gathered.Add(uint64(len(c.joined)))
	e.t.stats.busy.Add(1)
	err := w.serve(c)
	e.t.stats.busy.Add(-1)
	if t.Inside = w.s.used.Sub(w.began); t.Inside >= 0 && e.t.cfg.Observe != nil {
		e.t.cfg.Observe(t)
	}
	return err
}
