package isoswitch

// Settings are what a Switch that serves can be given anew; the members are
// those of [Config].
type Settings struct {
	Limits  Limits
	Timers  Timers
	Retry   Retry
	Lockout Lockout
	Routes  []Route
}

// settings are Settings that were checked, and the policy that follows from
// them. They never change: others take their place.
type settings struct {
	Settings
	policy policy
	door   *door
	routes *routes
}

// newSettings are settings for these upstreams.
func newSettings(acquirer string, s Settings, upstreams ...string) *settings {
	checked, _ := s.Limits.Door.open() // withDefaults has done so before
	ways, _ := newRoutes(s.Routes, upstreams)
	return &settings{s, policy{
		acquirer: acquirer,
		partials: s.Limits.PartialTypes,
		lookBack: s.Timers.LookBack,
		maxAge:   s.Timers.MaxAge,
		skew:     s.Timers.ClockSkew,
		over:     s.Limits.Velocity.Action,
		unbind:   s.Limits.Unchecked,

		completion: s.Limits.Completion,
	}, checked, ways}
}

// rules are the settings of now. A message keeps those with which it came, so
// that its timers stay in order.
func (s *Switch) rules() *settings { return s.set.Load() }

func (s *Switch) lockoutRules() Lockout { return s.rules().Lockout }

// Renew gives the switch new settings, all or none: messages that come
// afterwards have them, and the loops from their next turn on. What was counted
// stays counted. How many connections and requests there may be at a time is
// settled at the start and stays as it is. It returns [ErrConfig], and then
// nothing has changed.
func (s *Switch) Renew(to Settings) error {
	was := s.rules()
	to.Limits.Connections, to.Limits.Outstanding, to.Limits.PerTerminal = was.Limits.Connections, was.Limits.Outstanding, was.Limits.PerTerminal
	to.Retry.InFlight = was.Retry.InFlight
	to, err := to.withDefaults()
	if err == nil {
		err = CheckRoutes(to.Routes, s.upstreams())
	}
	if err != nil {
		return err
	}
	s.set.Store(newSettings(was.policy.acquirer, to, s.upstreams()...))
	return nil
}

// withDefaults returns the settings with their defaults, or why they are refused.
func (s Settings) withDefaults() (_ Settings, err error) {
	if s.Limits, err = s.Limits.withDefaults(); err != nil {
		return s, err
	}
	if s.Timers, err = s.Timers.withDefaults(); err != nil {
		return s, err
	}
	if s.Retry, err = s.Retry.withDefaults(); err != nil {
		return s, err
	}
	s.Lockout, err = s.Lockout.withDefaults()
	return s, err
}
