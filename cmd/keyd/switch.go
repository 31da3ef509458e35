package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/profile"
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
	u := &d.cfg.Upstream[0]
	host, err := d.certificates("upstream", u.tls())
	if err != nil {
		return isoswitch.Config{}, err
	}
	serverName := u.ServerName
	if serverName == "" {
		if serverName, _, err = net.SplitHostPort(u.Addr); err != nil {
			return isoswitch.Config{}, err
		}
	}
	speaks, err := profile.Find(d.cfg.Switch.Profile)
	if err != nil {
		return isoswitch.Config{}, err
	}
	warnings, err := speaks.Admit(profile.Link{TLS: true})
	if err != nil {
		return isoswitch.Config{}, fmt.Errorf("switch.profile %s: %w", speaks.Name, err)
	}
	for _, w := range warnings {
		d.log.Warn("profile of terminals", "profile", speaks.Name, "warning", w)
	}
	set := d.cfg.switchSettings()
	return isoswitch.Config{
		Custody:  d.node.custody.WithoutMaker(),
		Journal:  d.node.db,
		Dialect:  iso8583.ASCII87(),
		Profile:  speaks,
		TLS:      terminals.Server(),
		Peers:    terminals,
		Log:      d.log,
		Clock:    time.Now,
		Observe:  d.metrics.event,
		Room:     d.saleRoom(),
		Acquirer: d.cfg.Switch.AcquirerID,
		Upstream: isoswitch.Upstream{
			Name: u.Name, Addr: u.Addr, TLS: host.Client(serverName),
			PINKey: custody.Ref{Alias: u.ZPK}, MACKey: custody.Ref{Alias: u.ZAK},
			TID: u.TID, MID: u.MID,
			Dial: func(ctx context.Context, addr string) (net.Conn, error) {
				return (&net.Dialer{Timeout: u.DialTimeout.std()}).DialContext(ctx, "tcp", addr)
			},
		},
		Limits: set.Limits, Timers: set.Timers, Retry: set.Retry, Lockout: set.Lockout,
	}, nil
}

// switchSettings are the limits and timers of the switch.
func (c *config) switchSettings() isoswitch.Settings {
	s := &c.Switch
	set := isoswitch.Settings{
		Limits: isoswitch.Limits{
			MaxAmount: s.MaxAmount, Currencies: s.Currencies, PartialTypes: s.PartialTypes,
			KSNStep: uint32(s.KSNStep), Connections: s.Connections,
			Velocity: s.velocity(), Completion: s.Completion, Door: c.doorOf(),
		},
		Timers: isoswitch.Timers{
			Upstream: s.TUpstream.std(), Switch: s.TSwitch.std(), Terminal: s.TTerminal.std(),
			Hold: s.THold.std(), Stray: s.TStray.std(), LookBack: s.LookBack.std(), MaxAge: s.MaxAge.std(),
			ClockSkew: s.ClockSkew.std(),
		},
		Retry: isoswitch.Retry{First: s.SAFFirstDelay.std(), Ceiling: s.SAFCeiling.std(), Tries: s.SAFTries, TTL: s.SAFTTL.std(),
			Breaker: s.SAFBreaker, Share: s.SAFShare},
		Lockout: isoswitch.Lockout{Failures: s.LockoutFailure, Window: s.LockoutWindow.std()},
	}
	if len(c.Upstream) == 1 {
		set.Timers.Echo = c.Upstream[0].Echo.std()
	}
	return set
}
