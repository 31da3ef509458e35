package isoswitch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
)

// Switch is the switch core: listeners for terminals, one link upstream, one
// queue of reversals. It is safe for concurrent use.
type Switch struct {
	cfg     Config
	custody *custody.Custody
	dialect *iso8583.Dialect // of the link upstream
	batches batches          // that terminals are in
	signIns pace             // of terminals
	log     *slog.Logger
	set     atomic.Pointer[settings] // see [Switch.Renew]
	observe func(Event)

	crew      *crew
	listeners []Listener   // the first is that of Config.Profile
	accepted  atomic.Int64 // connections so far

	own, signOffs *seenMessages // 0800s that keyd sent; sign-offs of hosts that were taken

	hosts   []*host // those configured first
	byName  map[string]*host
	numbers *numbers
	flights *flights
	floods  *floods
	locks   locks  // of all connections
	rates   *rates // accepted reversals
	tombs   *rates // reversals without an original

	suspects *rates // accepted reversals, by TID; see quarantine.go
	renewed  renewal

	reversals refusedReversals // see summary.go

	life       context.Context // ends when the work in flight must end
	kill       context.CancelFunc
	background sync.WaitGroup // work that no connection waits for

	mu      sync.Mutex
	peers   int
	serving bool
}

// New checks the configuration and returns a Switch that serves nothing yet. It
// returns [ErrConfig] for one that is not safe, timers out of order or a zone
// key that is not named among it.
func New(cfg Config) (*Switch, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	listeners, err := cfg.open()
	if err != nil {
		return nil, err
	}
	s := &Switch{
		cfg:     cfg,
		custody: cfg.Custody,
		dialect: cfg.Dialect,
		log:     cfg.Log,
		observe: cfg.Observe,
		numbers: &numbers{journal: cfg.Journal, before: counters(cfg.Upstreams), clock: cfg.Clock},
		flights: &flights{byOID: map[OID]*live{}},
		byName:  map[string]*host{},

		own:      newSeenMessages(cfg.Clock),
		signOffs: newSeenMessages(cfg.Clock),

		crew:      newCrew(),
		listeners: listeners,
	}
	s.set.Store(newSettings(cfg.Acquirer, Settings{cfg.Limits, cfg.Timers, cfg.Retry, cfg.Lockout, cfg.Routes}, upstreamNames(cfg.Upstreams)...))
	s.floods = newFloods(s.lockoutRules, cfg.Clock)
	s.rates = newRates(cfg.Clock)
	s.suspects = newRates(cfg.Clock)
	s.tombs = newRates(cfg.Clock)
	for _, u := range cfg.Upstreams {
		h := newHost(s, u)
		s.hosts, s.byName[u.Name] = append(s.hosts, h), h
	}
	s.life, s.kill = context.WithCancel(context.Background())
	return s, nil
}

// Serve settles what was in flight when the process last ended, keeps the link
// upstream, and lets terminals in until ctx ends: by the listener, which is that
// of Config.Profile, and by further ones, those of Config.Listeners in their
// order. Then it takes no more messages, finishes what is in work for at most
// Timers.Drain, and returns nil. It closes the listeners. A Switch serves once.
func (s *Switch) Serve(ctx context.Context, listener net.Listener, further ...net.Listener) error {
	ends := append([]net.Listener{listener}, further...)
	defer func() {
		for _, end := range ends {
			_ = end.Close()
		}
	}()
	defer s.kill()
	if len(ends) != len(s.listeners) {
		return fmt.Errorf("isoswitch: %d listeners are configured and %d given", len(s.listeners), len(ends))
	}
	if !s.begin() {
		return errors.New("isoswitch: the switch has served before")
	}
	for _, h := range s.hosts {
		if err := h.checkKeys(ctx); err != nil {
			return err
		}
		if err := h.checkExchangeKey(ctx); err != nil {
			return err
		}
		if err := h.ownKeys(ctx); err != nil {
			return err
		}
	}
	if err := s.checkQueues(ctx); err != nil {
		return err
	}
	if err := s.recover(ctx); err != nil {
		return err
	}
	links, stopLinks := context.WithCancel(s.life)
	defer stopLinks()
	queues, stopQueues := context.WithCancel(links)
	defer stopQueues()
	var loops sync.WaitGroup
	for _, h := range s.hosts {
		loops.Go(func() { h.keepLinks(links) })
		loops.Go(func() { h.forwardAll(queues) })
	}
	loops.Go(func() { s.summaries(queues) })
	defer s.recordSummaries(ctx) // at last, when no message is in work any more

	err := s.accept(ctx, ends)
	stopQueues()
	s.signOff(links)
	stopLinks()
	loops.Wait()
	s.kill()
	s.background.Wait()
	return err
}

func (s *Switch) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.serving
	s.serving = true
	return first
}

// drain waits for the connections; what is not finished in time is cut off.
func (s *Switch) drain(connections *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() {
		connections.Wait()
		close(done)
	}()
	timer := time.NewTimer(s.rules().Timers.Drain)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		s.kill()
	}
	<-done
	return nil
}

func (s *Switch) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peers += n
}
