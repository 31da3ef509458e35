package isoswitch

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"keyd.dev/keyd/internal/iso8583"
)

// The reasons for which an 0800 of a host with a good MAC is not believed.
var (
	// errReflected: keyd made it. Both directions have one zone MAC key, so its
	// answer would be the proof that the peer has the key, and it has not.
	errReflected = errors.New("isoswitch: an 0800 that keyd sent came back")
	// errStale: it may have been recorded.
	errStale = errors.New("isoswitch: a sign-off whose DE 7 is not the time of now")
	// errSignedOffBefore: it was recorded.
	errSignedOffBefore = errors.New("isoswitch: a sign-off that was taken before")
	errNoSuchFunction  = errors.New("isoswitch: DE 70 is none that a host may ask for")
)

// signOffSkew is how far the clock of a host that signs off may be from keyd's.
const signOffSkew = 5 * time.Minute

// seenMessages has messages for a time. It is safe for concurrent use.
type seenMessages struct {
	clock func() time.Time

	mu   sync.Mutex
	seen map[match]time.Time // until when
}

func newSeenMessages(clock func() time.Time) *seenMessages {
	return &seenMessages{clock: clock, seen: make(map[match]time.Time)}
}

// note keeps a message for so long. It reports false for one that it has.
func (r *seenMessages) note(m match, keep time.Duration) bool {
	now := r.clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.seen, func(_ match, until time.Time) bool { return until.Before(now) })
	if _, known := r.seen[m]; known {
		return false
	}
	r.seen[m] = now.Add(keep)
	return true
}

func (r *seenMessages) has(m match) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	until, known := r.seen[m]
	return known && !until.Before(r.clock())
}

// managed notes an 0800 of keyd's own, for as long as an answer to it may be
// looked at. No two links have the same, whichever host they go to.
func (s *Switch) managed(m match) {
	timers := s.rules().Timers
	s.own.note(m, timers.Upstream+timers.Stray)
}

// signedOffBy takes a sign-off of a host once, and only in its time: a recorded
// one would take the link out whenever somebody likes.
func (s *Switch) signedOffBy(m *iso8583.Message) error {
	sent, ok := timeOf(m.Text(7), s.now())
	if off := s.now().Sub(sent).Abs(); !ok || off > signOffSkew {
		return fmt.Errorf("%w: more than %v away; is the host's clock right, and its DE 7 in UTC?", errStale, signOffSkew)
	}
	if !s.signOffs.note(matchOf(m), 2*signOffSkew) {
		return errSignedOffBefore
	}
	return nil
}
