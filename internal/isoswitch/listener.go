package isoswitch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path"
	"slices"
	"sync"
	"time"

	"keyd.dev/keyd/internal/profile"
)

// Listener is an end that terminals connect to, with what is spoken there. Rules,
// counters, look-up keys and the link upstream are those of the switch, so that
// an original has one life whatever it came by.
type Listener struct {
	// Profile is what the terminals speak and are answered; needed.
	Profile *profile.Profile
	// Terminals are TIDs, * and ? as wild cards, that use this profile and no
	// other. None: those that no other listener names, and whose key scheme the
	// profile has.
	Terminals []string
	TLS       *tls.Config // must demand and verify client certificates; nil: that of the Config
	Peers     Peers       // nil: that of the Config
}

// open checks the listeners. It returns [ErrConfig] for one that is not safe, and
// for one that no terminal could use.
func (c Config) open() ([]Listener, error) {
	all := append([]Listener{{Profile: c.Profile, TLS: c.TLS, Peers: c.Peers}}, c.Listeners...)
	for i := range all {
		l := &all[i]
		if l.TLS == nil {
			l.TLS = c.TLS
		}
		if l.Peers == nil {
			l.Peers = c.Peers
		}
		if l.Profile == nil {
			return nil, fmt.Errorf("%w: a listener needs a profile", ErrConfig)
		}
		if err := l.safe(); err != nil {
			return nil, err
		}
		for _, pattern := range l.Terminals {
			if _, err := path.Match(pattern, "T"); err != nil || pattern == "" {
				return nil, fmt.Errorf("%w: %q is no pattern of a TID", ErrConfig, pattern)
			}
		}
	}
	return all, Distinct(all...)
}

// safe refuses a listener whose peers would not be known, or could not be served.
func (l Listener) safe() error {
	if err := Serves(l.Profile); err != nil {
		return err
	}
	if l.TLS.ClientAuth != tls.RequireAndVerifyClientCert {
		return fmt.Errorf("%w: the listener must demand and verify client certificates", ErrConfig)
	}
	if l.TLS.MinVersion < tls.VersionTLS12 {
		return fmt.Errorf("%w: the listener must demand TLS 1.2 or later", ErrConfig)
	}
	return nil
}

// Distinct returns [ErrConfig] for two profiles of one name, and for a listener
// that no terminal could use: an earlier one without names of terminals has all
// of its key schemes.
func Distinct(all ...Listener) error {
	for i, l := range all {
		taken := map[profile.Scheme]bool{}
		for _, before := range all[:i] {
			if before.Profile.Name == l.Profile.Name && string(before.Profile.Text) != string(l.Profile.Text) {
				return fmt.Errorf("%w: two profiles are called %s", ErrConfig, l.Profile.Name)
			}
			if before.Profile.Name == l.Profile.Name || len(before.Terminals) > 0 {
				continue
			}
			for _, scheme := range before.Profile.Schemes() {
				taken[scheme] = true
			}
		}
		free := slices.ContainsFunc(l.Profile.Schemes(), func(s profile.Scheme) bool { return !taken[s] })
		if len(l.Terminals) == 0 && !free {
			return fmt.Errorf("%w: no terminal could use the listener of profile %s, for an earlier one has its key schemes: name its terminals", ErrConfig, l.Profile.Name)
		}
	}
	return nil
}

// home is the profile that a terminal speaks, one whatever listeners there are: the
// same bytes could mean something else in another, and no counter would show it.
// Empty: none that is spoken here.
func (s *Switch) home(t Terminal) string {
	for _, named := range []bool{true, false} {
		for _, l := range s.listeners {
			if has(l.Profile, t.Scheme) && len(l.Terminals) > 0 == named && matches(l.Terminals, t.TID) {
				return l.Profile.Name
			}
		}
	}
	return ""
}

// listens reports whether a terminal may use a listener that speaks so.
func (s *Switch) listens(p speech, t Terminal) bool { return s.home(t) == p.Name }

// speechOf is what the terminal of a journalled transaction is answered in. For
// one of a profile that is spoken no more it is that of the first listener.
func (s *Switch) speechOf(t *Txn) speech {
	for _, l := range s.listeners {
		if l.Profile.Name == t.Profile {
			return speech{l.Profile}
		}
	}
	return speech{s.listeners[0].Profile}
}

// accept lets connections in by all listeners until ctx ends or one of them fails,
// and returns when all are gone.
func (s *Switch) accept(ctx context.Context, ends []net.Listener) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var loops, connections sync.WaitGroup
	slots := make(chan struct{}, s.rules().Limits.Connections)
	failed := make([]error, len(ends))
	for i, end := range ends {
		loops.Go(func() {
			defer stop()
			failed[i] = s.acceptAt(ctx, &s.listeners[i], end, slots, &connections)
		})
	}
	loops.Wait()
	return errors.Join(errors.Join(failed...), s.drain(&connections))
}

// acceptAt lets connections in by one listener. Those whose handshake is done wait
// for a slot.
func (s *Switch) acceptAt(ctx context.Context, at *Listener, end net.Listener, slots chan struct{}, connections *sync.WaitGroup) error {
	stop := context.AfterFunc(ctx, func() { _ = end.Close() })
	defer stop()
	var under handshakes
	for {
		raw, err := end.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = raw.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("isoswitch: the listener was closed: %w", err)
		}
		if err != nil {
			s.log.Warn("terminal link: cannot accept", "error", err) // out of descriptors, say
			sleep(ctx, 50*time.Millisecond)
			continue
		}
		id := fmt.Sprintf("c-%d", s.accepted.Add(1))
		one := under.begin(raw, mostHandshakes(cap(slots))) // here: who came first is the oldest
		connections.Go(func() {
			end := func() { under.end(one) }
			defer end()
			conn := s.shake(ctx, at, raw, id, end)
			if conn == nil {
				return
			}
			select {
			case slots <- struct{}{}:
			case <-one.ended:
				return
			case <-ctx.Done():
				_ = raw.Close()
				return
			}
			end()
			defer func() { <-slots }()
			s.connection(ctx, at, conn, id)
		})
	}
}

func (s *Switch) connection(ctx context.Context, at *Listener, conn *tls.Conn, id string) {
	p := s.welcome(ctx, at, conn, id)
	if p == nil {
		return
	}
	s.count(1)
	defer s.count(-1)
	p.serve(ctx, s.life)
}
