package api

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// The limits where a configuration says nothing.
const (
	DefaultInWork            = 64
	DefaultWait              = time.Second
	DefaultConcurrent        = 512
	DefaultConnections       = 4096
	DefaultClientConnections = 2048
	DefaultHandshakes        = 1024
)

// mostControl is how many requests of the control plane are at work at a time.
// One of them may take seconds in the token, so that one client gets half.
const mostControl = 16

// strangers is the name under which all certificates without a client are counted.
const strangers = "unknown"

// Limits bound what clients take of a daemon. Zero members are the defaults.
type Limits struct {
	Default ClientLimits            // of clients that Clients does not name
	Clients map[string]ClientLimits // by name; a zero member is that of Default

	InWork      int           // requests of the data plane at work at a time
	Wait        time.Duration // longest wait of a request for its turn
	Connections int           // open at a time, of all clients
	Handshakes  int           // under way at a time
}

// ClientLimits bound one client. Zero members are the defaults.
type ClientLimits struct {
	PerSecond   int // requests; 0 is no limit
	Burst       int // requests at once after a silence; 0 is those of a second
	Concurrent  int // requests without an answer
	Connections int // open at a time
}

// resolved puts the defaults in and refuses what cannot be.
func (l Limits) resolved() (*Limits, error) {
	for name, n := range map[string]int{"requests in work": l.InWork, "connections": l.Connections, "handshakes": l.Handshakes} {
		if n < 0 {
			return nil, fmt.Errorf("api: limit of %d %s: want a positive number, or 0 for the default", n, name)
		}
	}
	if l.Wait < 0 {
		return nil, fmt.Errorf("api: wait of %v: want a time that passes, or 0 for the default", l.Wait)
	}
	or(&l.InWork, DefaultInWork)
	or(&l.Connections, DefaultConnections)
	or(&l.Handshakes, DefaultHandshakes)
	if l.Wait == 0 {
		l.Wait = DefaultWait
	}
	or(&l.Default.Concurrent, DefaultConcurrent)
	or(&l.Default.Connections, DefaultClientConnections)
	if err := l.Default.check(); err != nil {
		return nil, err
	}
	clients := make(map[string]ClientLimits, len(l.Clients))
	for name, c := range l.Clients {
		if err := c.check(); err != nil {
			return nil, fmt.Errorf("client %q: %w", name, err)
		}
		if c.PerSecond == 0 {
			c.PerSecond = l.Default.PerSecond
			or(&c.Burst, l.Default.Burst)
		}
		or(&c.Concurrent, l.Default.Concurrent)
		or(&c.Connections, l.Default.Connections)
		clients[name] = c.filled()
	}
	l.Default, l.Clients = l.Default.filled(), clients
	return &l, nil
}

// filled puts in the burst, which follows from the rate.
func (c ClientLimits) filled() ClientLimits {
	or(&c.Burst, c.PerSecond)
	return c
}

var errLimit = errors.New("api: a limit is negative or too large")

func (c ClientLimits) check() error {
	for _, n := range []int{c.PerSecond, c.Burst, c.Concurrent, c.Connections} {
		if n < 0 || n > math.MaxInt32 {
			return errLimit
		}
	}
	return nil
}

// of returns the limits of a client.
func (l *Limits) of(client string) ClientLimits {
	if c, ok := l.Clients[client]; ok {
		return c
	}
	return l.Default
}

func or(v *int, d int) {
	if *v == 0 {
		*v = d
	}
}

// cause is why a request or a connection was turned away for its number.
type cause uint8

const (
	tooFast        cause = iota // more requests in a second than the client may make
	tooMany                     // more requests without an answer
	tooLong                     // no turn within the wait
	tooManyOpen                 // connections of the client
	tooManyInAll                // connections of all clients
	tooManyGreeted              // handshakes under way
	causes
)

// String is the cause in metrics.
func (c cause) String() string {
	return [causes]string{"rate", "concurrent", "wait", "client_connections", "connections", "handshakes"}[c]
}

// share is what one client has of the daemon, and what it was refused of it.
type share struct {
	name    string
	limits  atomic.Pointer[ClientLimits]
	rate    bucket       // of requests
	waiting atomic.Int64 // requests without an answer
	open    atomic.Int64 // connections
	told    bucket       // of refusals that are answered at once
	paused  atomic.Int64 // refusals that are answered later
	refused [causes]atomic.Uint64
	logged  atomic.Int64 // Unix minute in which the daemon's log heard of it

	data, control queue // under the mutexes of the gates
}

// bucket is a rate that is kept: the moment, in Unix nanoseconds, at which it
// will be full again (GCRA).
type bucket struct{ full atomic.Int64 }

// take takes one out of the bucket, or reports false.
func (b *bucket) take(now int64, perSecond, burst int) bool {
	each := int64(time.Second) / int64(perSecond)
	for {
		full := b.full.Load()
		next := max(full, now) + each
		if next-now > each*int64(burst) {
			return false
		}
		if b.full.CompareAndSwap(full, next) {
			return true
		}
	}
}

// enter counts a request in, or says why not. Who entered must leave.
func (s *share) enter(clock func() time.Time) (why cause, ok bool) {
	l := s.limits.Load()
	if s.waiting.Add(1) > int64(l.Concurrent) {
		s.waiting.Add(-1)
		return tooMany, false
	}
	if l.PerSecond > 0 && !s.rate.take(clock().UnixNano(), l.PerSecond, l.Burst) {
		s.waiting.Add(-1)
		return tooFast, false
	}
	return 0, true
}

func (s *share) leave() { s.waiting.Add(-1) }

// tell reports whether the daemon's log is to hear of the client, once a minute.
func (s *share) tell(now time.Time) bool {
	minute := now.Unix() / 60
	return s.logged.Swap(minute) != minute
}

// connect counts a connection in, or reports false.
func (s *share) connect() bool {
	if s.open.Add(1) > int64(s.limits.Load().Connections) {
		s.open.Add(-1)
		return false
	}
	return true
}

// shares are those of all clients. Finding one takes no lock.
type shares struct {
	mu     sync.Mutex // held by who changes
	limits atomic.Pointer[Limits]
	all    atomic.Pointer[map[string]*share] // never changed in place
}

func newShares(l *Limits) *shares {
	s := new(shares)
	s.limits.Store(l)
	s.all.Store(&map[string]*share{})
	return s
}

// of returns the share of a client, which is a name of the table.
func (s *shares) of(client string) *share {
	if one := (*s.all.Load())[client]; one != nil {
		return one
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := (*s.all.Load())[client]; one != nil {
		return one
	}
	one := &share{name: client}
	limits := s.limits.Load().of(client)
	one.limits.Store(&limits)
	all := maps.Clone(*s.all.Load())
	all[client] = one
	s.all.Store(&all)
	return one
}

// set exchanges the limits. Who is in stays in.
func (s *shares) set(l *Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits.Store(l)
	for name, one := range *s.all.Load() {
		limits := l.of(name)
		one.limits.Store(&limits)
	}
}

// SetLimits exchanges the limits while requests are in work. It changes nothing
// when it returns an error. What is beyond a new limit is not ended; nothing
// more comes in.
func (h *Handler) SetLimits(l Limits) error {
	all, err := l.resolved()
	if err != nil {
		return err
	}
	h.shares.set(all)
	h.gates[dataPlane].resize(all.InWork)
	return nil
}

// ClientUse is what one client has of the daemon at a moment.
type ClientUse struct {
	Client      string // of the configuration, or "unknown"
	Requests    int    // without an answer
	Connections int
	Throttled   map[string]uint64 // since the start, by cause
}

// Use tells what the clients that were seen since the start use.
func (h *Handler) Use() []ClientUse {
	var all []ClientUse
	for name, s := range *h.shares.all.Load() {
		use := ClientUse{
			Client: name, Requests: int(s.waiting.Load()), Connections: int(s.open.Load()),
			Throttled: make(map[string]uint64, causes),
		}
		for c := range causes {
			use.Throttled[c.String()] = s.refused[c].Load()
		}
		all = append(all, use)
	}
	return all
}

// Waiting tells how many requests wait for their turn.
func (h *Handler) Waiting() int { return h.gates[dataPlane].waits() + h.gates[controlPlane].waits() }

// InWork tells how many requests have no answer yet.
func (h *Handler) InWork() int {
	n := 0
	for _, s := range *h.shares.all.Load() {
		n += int(s.waiting.Load())
	}
	return n
}
