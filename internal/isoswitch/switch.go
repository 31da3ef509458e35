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
	"keyd.dev/keyd/internal/profile"
	"keyd.dev/keyd/keys"
)

// Switch is the switch core: one listener for terminals, one link upstream, one
// queue of reversals. It is safe for concurrent use.
type Switch struct {
	cfg     Config
	custody *custody.Custody
	dialect *iso8583.Dialect // of the link upstream
	profile *profile.Profile // of the terminals
	batches batches          // they are in
	log     *slog.Logger
	set     atomic.Pointer[settings] // see [Switch.Renew]
	observe func(Event)

	link    *link
	breaker *breaker
	claims  *claims
	numbers *numbers
	flights *flights
	floods  *floods
	rates   *rates // accepted reversals
	tombs   *rates // reversals without an original

	life       context.Context // ends when the work in flight must end
	kill       context.CancelFunc
	background sync.WaitGroup // work that no connection waits for
	woken      chan struct{}

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
	s := &Switch{
		cfg:     cfg,
		custody: cfg.Custody,
		dialect: cfg.Dialect,
		profile: cfg.Profile,
		log:     cfg.Log,
		observe: cfg.Observe,
		numbers: &numbers{journal: cfg.Journal, name: "stan/" + cfg.Upstream.Name, clock: cfg.Clock},
		flights: &flights{byOID: map[OID]*live{}},
		woken:   make(chan struct{}, 1),
		claims:  newClaims(),
	}
	s.set.Store(newSettings(cfg.Acquirer, Settings{cfg.Limits, cfg.Timers, cfg.Retry, cfg.Lockout}))
	s.floods = newFloods(s.lockoutRules, cfg.Clock)
	s.rates = newRates(cfg.Clock)
	s.tombs = newRates(cfg.Clock)
	s.link = newLink(s, cfg.Upstream)
	s.breaker = newBreaker(func() Retry { return s.rules().Retry }, cfg.Clock)
	s.life, s.kill = context.WithCancel(context.Background())
	return s, nil
}

// Serve settles what was in flight when the process last ended, keeps the link
// upstream, and lets terminals in by the listener until ctx ends. Then it takes
// no more messages, finishes what is in work for at most Timers.Drain, and
// returns nil. It closes the listener. A Switch serves once.
func (s *Switch) Serve(ctx context.Context, listener net.Listener) error {
	defer func() { _ = listener.Close() }()
	defer s.kill()
	if !s.begin() {
		return errors.New("isoswitch: the switch has served before")
	}
	if err := s.checkKeys(ctx); err != nil {
		return err
	}
	if err := s.recover(ctx); err != nil {
		return err
	}
	links, stopLinks := context.WithCancel(s.life)
	defer stopLinks()
	var loops sync.WaitGroup
	loops.Go(func() { s.link.run(links) })
	loops.Go(func() { s.forwardAll(links) })

	err := s.accept(ctx, listener)
	stopLinks()
	loops.Wait()
	s.kill()
	s.background.Wait()
	return err
}

// checkKeys refuses to serve with zone keys that are not there, or are for
// something else: each sale would fail, and the first customer would find out.
func (s *Switch) checkKeys(ctx context.Context) error {
	for _, need := range []struct {
		name  string
		ref   custody.Ref
		usage keys.Usage
	}{
		{"zone MAC key", s.cfg.Upstream.MACKey, keys.UsageMACAlg3},
		{"zone PIN key", s.cfg.Upstream.PINKey, keys.UsagePIN},
	} {
		k, err := s.custody.Key(ctx, custody.SystemCaller("keyd", custody.RoleOperator), "start", need.ref)
		if err != nil {
			return fmt.Errorf("finding the %s %s of link %s: %w", need.name, need.ref, s.cfg.Upstream.Name, err)
		}
		if k.State != custody.CreateComplete || !k.Enabled || k.Block.Attributes.Usage != need.usage {
			return fmt.Errorf("%w: the %s %s of link %s must be in use and have usage %s; it has %s, enabled %v, %s",
				ErrConfig, need.name, need.ref, s.cfg.Upstream.Name, need.usage, k.Block.Attributes.Usage, k.Enabled, k.State)
		}
		if need.usage == keys.UsagePIN && k.Block.TokenOnly() {
			return fmt.Errorf("%w: the policy of the %s %s of link %s forbids a clear PIN in the process, and DUKPT terminals' PINs cannot be moved otherwise",
				ErrConfig, need.name, need.ref, s.cfg.Upstream.Name)
		}
	}
	return nil
}

func (s *Switch) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.serving
	s.serving = true
	return first
}

// accept lets connections in until ctx ends, and returns when all are gone.
func (s *Switch) accept(ctx context.Context, listener net.Listener) error {
	var connections sync.WaitGroup
	slots := make(chan struct{}, s.rules().Limits.Connections)
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	var failed error
	for n := 1; ; n++ {
		slots <- struct{}{}
		raw, err := listener.Accept()
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				failed = fmt.Errorf("isoswitch: the listener was closed: %w", err)
				break
			}
			s.log.Warn("terminal link: cannot accept", "error", err) // out of descriptors, say
			sleep(ctx, 50*time.Millisecond)
			<-slots
			continue
		}
		id := fmt.Sprintf("c-%d", n)
		connections.Go(func() {
			defer func() { <-slots }()
			s.connection(ctx, raw, id)
		})
	}
	return errors.Join(failed, s.drain(&connections))
}

func (s *Switch) connection(ctx context.Context, raw net.Conn, id string) {
	p := s.welcome(ctx, raw, id)
	if p == nil {
		return
	}
	s.count(1)
	defer s.count(-1)
	p.serve(ctx, s.life)
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

// Status returns the state of the switch.
func (s *Switch) Status() Status {
	s.mu.Lock()
	peers := s.peers
	s.mu.Unlock()
	return Status{
		LinkUp:      s.link.isUp(),
		SignedOn:    s.link.signedOn.Load(),
		Connections: peers,
		InFlight:    s.flights.count(),
		Resting:     s.breaker.isOpen(),
	}
}
