package main

import (
	"fmt"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
)

// newSwitch makes the switch core of the configuration.
func (d *daemon) newSwitch() (*isoswitch.Switch, error) {
	cfg, err := d.switchConfig()
	if err != nil {
		return nil, err
	}
	sw, err := isoswitch.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("starting the switch: %w", err)
	}
	d.node.desk.Serves(sw)
	return sw, nil
}

// switchConfig is what the switch core is made of.
func (d *daemon) switchConfig() (isoswitch.Config, error) {
	terminals, err := d.certificates("switch", d.cfg.Switch.tls())
	if err != nil {
		return isoswitch.Config{}, err
	}
	hosts, err := d.upstreams()
	if err != nil {
		return isoswitch.Config{}, err
	}
	speaks, err := d.admitted("switch.profile", d.cfg.Switch.Profile)
	if err != nil {
		return isoswitch.Config{}, err
	}
	further, err := d.furtherListeners(terminals)
	if err != nil {
		return isoswitch.Config{}, err
	}
	set := d.cfg.switchSettings()
	return isoswitch.Config{
		Custody: d.node.custody.WithoutMaker(),
		Journal: d.node.db,
		Dialect: iso8583.ASCII87Link(),
		Profile: speaks,
		TLS:     terminals.Server(),
		Peers:   terminals,

		Listeners: further,

		Log:       d.log,
		Clock:     time.Now,
		Observe:   d.metrics.event,
		Room:      d.saleRoom(),
		Acquirer:  d.cfg.Switch.AcquirerID,
		Upstreams: hosts,
		Routes:    set.Routes,

		Limits: set.Limits, Timers: set.Timers, Retry: set.Retry, Lockout: set.Lockout,
	}, nil
}

// switchSettings are the limits and timers of the switch.
func (c *config) switchSettings() isoswitch.Settings {
	s := &c.Switch
	return isoswitch.Settings{
		Routes: c.routesOf(),
		Limits: isoswitch.Limits{
			MaxAmount: s.MaxAmount, Currencies: s.Currencies, PartialTypes: s.PartialTypes,
			KSNStep: uint32(s.KSNStep), Connections: s.Connections, SignIn: s.SignIn.std(), SignInRate: s.SignInRate,
			Velocity: s.velocity(), Quarantine: s.quarantine(), Completion: s.Completion, Door: c.doorOf(),
			Unchecked: isoswitch.VelocityAction(s.Unchecked),
		},
		Timers: isoswitch.Timers{
			Upstream: s.TUpstream.std(), Switch: s.TSwitch.std(), Terminal: s.TTerminal.std(),
			Hold: s.THold.std(), Stray: s.TStray.std(), LookBack: s.LookBack.std(), MaxAge: s.MaxAge.std(),
			ClockSkew: s.ClockSkew.std(),
		},
		Retry: isoswitch.Retry{First: s.SAFFirstDelay.std(), Ceiling: s.SAFCeiling.std(), Tries: s.SAFTries, TTL: s.SAFTTL.std(),
			Breaker: s.SAFBreaker, Share: s.SAFShare},
		Lockout: isoswitch.Lockout{Failures: s.LockoutFailure, Window: s.LockoutWindow.std(), Records: s.RefusedRecords},
	}
}
