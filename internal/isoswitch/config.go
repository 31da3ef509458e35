package isoswitch

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"keyd.dev/keyd/internal/credentials"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/profile"
)

// ErrConfig is wrapped by every error of [New].
var ErrConfig = errors.New("isoswitch: the configuration is refused")

// Config is what a Switch is made of. Zero values of numbers and durations
// stand for the defaults given beside them.
type Config struct {
	Custody *custody.Custody
	Journal Journal
	Dialect *iso8583.Dialect // of the link upstream
	// Profile is what the terminals of the first listener speak and are answered;
	// nil: ascii87.
	Profile *profile.Profile
	TLS     *tls.Config // of the listeners; must demand and verify client certificates
	Peers   Peers       // nil: certificates are checked in the handshake alone, and for their end
	// Listeners are further ones, each with its profile.
	Listeners []Listener
	Log       *slog.Logger
	Clock     func() time.Time // wall clock; time.Now
	Observe   func(Event)      // told of each decision; must not block; may be nil
	Room      func() bool      // whether the disks have room for new sales; must not block; nil: always

	Acquirer  string     // acquirer id where a message has no DE 32; may be empty
	Upstreams []Upstream // at least one
	Routes    []Route    // which sales go to which; none: there is one upstream
	Limits    Limits
	Timers    Timers
	Retry     Retry
	Lockout   Lockout
}

// Peers tells whether the certificate of an open connection still holds;
// *credentials.TLS does. It is asked at every message and is to be quick while
// nothing has changed since seen, which is what it last returned.
type Peers interface {
	Recheck(cs *tls.ConnectionState, seen credentials.Seen) (credentials.Seen, error)
}

// Limits are what a message may ask for.
type Limits struct {
	MaxAmount    int64    // of a sale or refund, minor units; needed
	Currencies   []string // DE 49 that are accepted; needed
	PartialTypes []string // first two digits of DE 3 whose partial reversal is allowed; none
	KSNStep      uint32   // greatest step forward of a KSN counter; 10,000 (M-24)
	Velocity     Velocity
	Quarantine   Quarantine // of terminals that reverse too often
	Door         Door
	SignIn       time.Duration // least time between two sign-ins of a terminal; 0 is none
	SignInRate   int           // most sign-ins by one client certificate in a minute; 1,200
	Completion   int           // most of a pre-authorization that its completion may be, percent; 100
	Tombstones   int           // reversals without an original from one terminal in an hour that raise an alert; 100
	Connections  int           // of terminals at a time; 1,024
	Outstanding  int           // requests on one connection at a time; 1,024
	PerTerminal  int           // requests of one TID on one connection at a time; 1024

	// Unchecked is what becomes of a reversal whose MAC is linear and which has bytes
	// that nothing is compared with: Hold or Refuse; Hold.
	Unchecked VelocityAction
}

// Timers of section 6 of the reversals.
type Timers struct {
	Upstream  time.Duration // T_upstream: an answer must have come; 25 s
	Switch    time.Duration // T_switch: latest answer to the terminal; 30 s
	Terminal  time.Duration // T_terminal: the terminal reverses by itself; 60 s
	Hold      time.Duration // T_hold: a reversal of a sale in flight is answered; 20 s
	Stray     time.Duration // T_stray: late answers are recognised; 120 s
	LookBack  time.Duration // older originals are outside; 7 days
	MaxAge    time.Duration // older originals are not reversed on line; 24 h
	ClockSkew time.Duration // how far a terminal's clock may be ahead; 10 min
	Echo      time.Duration // idle time before an 0800 echo upstream; 60 s
	Write     time.Duration // a peer must take a frame within; 10 s
	Drain     time.Duration // work in flight at the end may take; T_switch
}

// Retry is the policy of store-and-forward. Reversals section 8.
type Retry struct {
	First    time.Duration // back-off after the first try; 5 s
	Factor   int           // 2
	Ceiling  time.Duration // 300 s
	Tries    int           // then the reversal has failed; 0 is no limit but TTL
	TTL      time.Duration // age at which a reversal has failed; 24 h
	Declines int           // upstream's refusals after which it has failed; 3 (D-31)
	Park     int           // build errors after which a record is parked; 3
	InFlight int           // reversals sent at a time; 64
	Share    int           // of these that one terminal may have; a quarter of them
	Breaker  int           // different reversals in a row without an answer after which the queue rests; 10; below 0 is never
}

// Lockout is the reaction to absent and wrong MACs. W-19.
type Lockout struct {
	Failures int           // of one TID on one connection; 5
	Window   time.Duration // within; 10 min
	Flood    int           // lock-outs of one certificate within Window that slow it down; 10
	Slow     time.Duration // then each frame of its connections that failed waits; 200 ms
	Records  int           // refusals of one client in a second with a record each; 50 (L-14)
}

// withDefaults returns the config with its defaults, or why it is refused.
func (c Config) withDefaults() (Config, error) {
	if c.Custody == nil || c.Journal == nil || c.Dialect == nil || c.TLS == nil || c.Log == nil {
		return c, fmt.Errorf("%w: custody, journal, dialect, TLS and log are all needed", ErrConfig)
	}
	if c.Profile == nil {
		var err error
		if c.Profile, err = profile.Builtin("ascii87"); err != nil {
			return c, fmt.Errorf("%w: %w", ErrConfig, err)
		}
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Observe == nil {
		c.Observe = func(Event) {}
	}
	if c.Room == nil {
		c.Room = func() bool { return true }
	}
	var err error
	if c.Upstreams, err = upstreamsWithDefaults(c.Upstreams, c.Timers.Echo); err != nil {
		return c, err
	}
	set, err := Settings{c.Limits, c.Timers, c.Retry, c.Lockout, c.Routes}.withDefaults()
	c.Limits, c.Timers, c.Retry, c.Lockout = set.Limits, set.Timers, set.Retry, set.Lockout
	if err != nil {
		return c, err
	}
	return c, CheckRoutes(c.Routes, upstreamNames(c.Upstreams))
}

// mostSignIn bounds how long a terminal that needs new keys may be kept waiting.
const mostSignIn = 10 * time.Minute

func (l Limits) withDefaults() (Limits, error) {
	l.KSNStep = orDefault(l.KSNStep, 10_000)
	l.Connections = orDefault(l.Connections, 1024)
	l.Outstanding = orDefault(l.Outstanding, 1024)
	l.Tombstones = orDefault(l.Tombstones, 100)
	l.PerTerminal = orDefault(l.PerTerminal, 1024)
	l.Completion = orDefault(l.Completion, 100)
	l.SignInRate = orDefault(l.SignInRate, 1200)
	if l.MaxAmount <= 0 || l.MaxAmount > 999_999_999_999 {
		return l, fmt.Errorf("%w: the greatest amount of a sale must be 1 to 999999999999 minor units", ErrConfig)
	}
	if len(l.Currencies) == 0 {
		return l, fmt.Errorf("%w: no currency is accepted", ErrConfig)
	}
	for _, kind := range l.PartialTypes {
		if kind != typeSale && kind != typeRefund {
			return l, fmt.Errorf("%w: no partial reversal of processing codes %q", ErrConfig, kind)
		}
	}
	if l.Completion < 1 || l.Completion > 200 {
		return l, fmt.Errorf("%w: a completion may be 1 to 200 percent of its pre-authorization", ErrConfig)
	}
	if l.SignIn < 0 || l.SignIn > mostSignIn {
		return l, fmt.Errorf("%w: at most %s between two sign-ins: a terminal whose answer was lost waits so long", ErrConfig, mostSignIn)
	}
	if l.Connections < 1 || l.Outstanding < 1 || l.PerTerminal < 1 || l.Tombstones < 1 || l.SignInRate < 1 {
		return l, fmt.Errorf("%w: a limit is negative", ErrConfig)
	}
	var err error
	if l.Velocity, err = l.Velocity.withDefaults(); err != nil {
		return l, err
	}
	if l.Quarantine, err = l.Quarantine.withDefaults(); err != nil {
		return l, err
	}
	l.Unchecked = orDefault(l.Unchecked, Hold)
	if err = l.Unchecked.Check(); err != nil {
		return l, err
	}
	_, err = l.Door.open()
	return l, err
}

// withDefaults refuses timers under which a terminal would reverse what the
// switch has not finished (section 6).
func (t Timers) withDefaults() (Timers, error) {
	t.Upstream = orDefault(t.Upstream, 25*time.Second)
	t.Switch = orDefault(t.Switch, 30*time.Second)
	t.Terminal = orDefault(t.Terminal, 60*time.Second)
	t.Hold = orDefault(t.Hold, 20*time.Second)
	t.Stray = orDefault(t.Stray, 120*time.Second)
	t.LookBack = orDefault(t.LookBack, 7*24*time.Hour)
	t.MaxAge = orDefault(t.MaxAge, 24*time.Hour)
	t.ClockSkew = orDefault(t.ClockSkew, 10*time.Minute)
	t.Echo = orDefault(t.Echo, time.Minute)
	t.Write = orDefault(t.Write, 10*time.Second)
	t.Drain = orDefault(t.Drain, t.Switch)
	for _, d := range []time.Duration{t.Upstream, t.Switch, t.Terminal, t.Hold, t.Stray, t.LookBack, t.MaxAge, t.ClockSkew, t.Echo, t.Write, t.Drain} {
		if d < 0 {
			return t, fmt.Errorf("%w: a timer is negative", ErrConfig)
		}
	}
	switch {
	case t.Upstream >= t.Switch || t.Switch >= t.Terminal:
		return t, fmt.Errorf("%w: T_upstream %v < T_switch %v < T_terminal %v must hold", ErrConfig, t.Upstream, t.Switch, t.Terminal)
	case t.Hold >= t.Terminal:
		return t, fmt.Errorf("%w: T_hold %v < T_terminal %v must hold", ErrConfig, t.Hold, t.Terminal)
	case t.MaxAge > t.LookBack:
		return t, fmt.Errorf("%w: max_age %v must not be above look_back %v", ErrConfig, t.MaxAge, t.LookBack)
	}
	return t, nil
}

func (r Retry) withDefaults() (Retry, error) {
	r.First = orDefault(r.First, 5*time.Second)
	r.Factor = orDefault(r.Factor, 2)
	r.Ceiling = orDefault(r.Ceiling, max(r.First, 300*time.Second))
	r.TTL = orDefault(r.TTL, 24*time.Hour)
	r.Declines = orDefault(r.Declines, 3)
	r.Park = orDefault(r.Park, 3)
	r.InFlight = orDefault(r.InFlight, 64)
	r.Share = orDefault(r.Share, max(1, r.InFlight/4))
	r.Breaker = orDefault(r.Breaker, 10)
	switch {
	case r.First < 0 || r.Ceiling < r.First || r.Factor < 1 || r.TTL < r.Ceiling:
		return r, fmt.Errorf("%w: retries need 0 < first %v ≤ ceiling %v ≤ ttl %v and a factor of 1 or more", ErrConfig, r.First, r.Ceiling, r.TTL)
	case r.Tries < 0 || r.Declines < 1 || r.Park < 1 || r.InFlight < 1 || r.Share < 1:
		return r, fmt.Errorf("%w: a number of retries is negative", ErrConfig)
	}
	return r, nil
}

func (l Lockout) withDefaults() (Lockout, error) {
	l.Failures = orDefault(l.Failures, 5)
	l.Window = orDefault(l.Window, 10*time.Minute)
	l.Flood = orDefault(l.Flood, 10)
	l.Slow = orDefault(l.Slow, 200*time.Millisecond)
	l.Records = orDefault(l.Records, 50)
	if l.Records < 1 || l.Failures < 1 || l.Window < 0 || l.Flood < 1 || l.Slow < 0 {
		return l, fmt.Errorf("%w: a number of the lock-out is negative", ErrConfig)
	}
	return l, nil
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
