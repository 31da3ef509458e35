package siem

import (
	"sync"
	"time"
)

// Status is how a sink is doing.
type Status struct {
	Name    string        `json:"name"`
	Up      bool          `json:"up"`              // a session stands
	Since   time.Time     `json:"since,omitzero"`  // nothing works since; zero while it does
	Cause   string        `json:"cause,omitempty"` // why it does not
	Lag     time.Duration `json:"lag_ns"`          // age of the oldest published record that is not delivered
	Records uint64        `json:"lag_records"`     // published records that are not delivered

	Sent     uint64 `json:"sent"`     // records, those that were sent again counted again
	Sessions uint64 `json:"sessions"` // connections, or openings of the file
	Failures uint64 `json:"failures"` // sessions that failed or did not begin

	// Next is the first record of each log that is not delivered, and Kept the
	// first that would be sent after a break.
	Next map[string]uint64 `json:"next"`
	Kept map[string]uint64 `json:"kept"`
}

// state is what the goroutines of an exporter and its readers share.
type state struct {
	mu       sync.Mutex
	up       bool
	since    time.Time // nothing works since; zero while it does
	cause    error
	proved   bool   // it has worked since
	corr     string // of the trouble that is recorded
	taken    cursor // the other end's system has what is before
	kept     cursor
	lag      time.Duration
	behind   uint64
	sent     uint64
	sessions uint64
	failures uint64
}

func (s *state) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up = true
	s.sessions++
}

func (s *state) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up = false
}

// fail notes why nothing works, and since when; the first moment counts.
func (s *state) fail(err error, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cause, s.proved = err, false
	if s.since.IsZero() {
		s.since = since
	}
}

// failed counts a session that came to nothing.
func (s *state) failed(err error, since time.Time) {
	s.fail(err, since)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures++
}

// well notes that it works.
func (s *state) well() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since, s.cause, s.proved = time.Time{}, nil, true
}

// works reports whether the last that was heard is that it works.
func (s *state) works() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proved
}

// at moves what is delivered forward: what is sent again was delivered before.
func (s *state) at(at cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken == nil {
		s.taken = cursor{}
	}
	for log, p := range at {
		if old, known := s.taken[log]; !known || old.Origin != p.Origin || old.Next < p.Next {
			s.taken[log] = p
		}
	}
}

// keep notes the cursor.
func (s *state) keep(at cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = at.clone()
}

// place puts what is delivered to where somebody has set the cursor.
func (s *state) place(at cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken, s.kept = at.clone(), at.clone()
}

// count counts records that were handed over.
func (s *state) count(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent += n
}

// delivered returns what the other end's system has.
func (s *state) delivered() cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken.clone()
}

func (s *state) lags(lag time.Duration, behind uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag, s.behind = lag, behind
}

// troubled keeps the corr of a trouble that began; "" when it ended.
func (s *state) troubled(corr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corr = corr
}

// trouble returns what troubled keeps.
func (s *state) trouble() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.corr
}

// failing returns since when nothing works, and why.
func (s *state) failing() (since time.Time, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since, s.cause
}

// Status says how the sink is doing; its lag is that of the last second.
func (e *Exporter) Status() Status {
	s := &e.state
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{
		Name: e.cfg.Name, Up: s.up, Since: s.since, Lag: s.lag, Records: s.behind,
		Sent: s.sent, Sessions: s.sessions, Failures: s.failures,
		Next: make(map[string]uint64), Kept: make(map[string]uint64),
	}
	if s.cause != nil {
		st.Cause = s.cause.Error()
	}
	for log, p := range s.taken {
		st.Next[log] = p.Next
	}
	for log, p := range s.kept {
		st.Kept[log] = p.Next
	}
	return st
}

// Name is the sink's name.
func (e *Exporter) Name() string { return e.cfg.Name }
