package vault

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// healthEvery is the time between questions for Vault's health.
const healthEvery = 15 * time.Second

// lease is a token and how long it lives. The zero value is none.
type lease struct {
	token     string
	since     time.Time
	ttl       time.Duration // 0: it does not run out
	renewable bool
}

func newLease(token string, ttl time.Duration, renewable bool) lease {
	return lease{token: token, since: time.Now(), ttl: ttl, renewable: renewable}
}

// String keeps the token out of whatever prints a lease.
func (l lease) String() string { return fmt.Sprintf("token for %v since %v", l.ttl, l.since) }

func (l lease) good(now time.Time) bool {
	return l.token != "" && (l.ttl == 0 || now.Before(l.since.Add(l.ttl)))
}

// due is when the lease wants to be renewed: two thirds into its life.
func (l lease) due() time.Time { return l.since.Add(l.ttl * 2 / 3) }

func (c *Client) held() lease {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lease
}

func (c *Client) hold(l lease) {
	c.mu.Lock()
	c.lease = l
	c.mu.Unlock()
	c.note(func(s *Status) {
		s.HasToken, s.TokenExpires = l.token != "", time.Time{}
		if l.token != "" && l.ttl > 0 {
			s.TokenExpires = l.since.Add(l.ttl)
		}
	})
}

// token returns a token to work with, and logs in when there is none.
func (c *Client) token(ctx context.Context) (string, error) {
	if c.cfg.Login.Method == MethodTokenFile {
		return c.fileToken()
	}
	select {
	case c.enter <- struct{}{}:
		defer func() { <-c.enter }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if l := c.held(); l.good(time.Now()) {
		return l.token, nil
	}
	l, err := c.login(ctx)
	c.note(func(s *Status) { s.LoginFailed = err != nil })
	if err != nil {
		return "", err
	}
	c.cfg.Log.Info("vault: logged in", "method", string(c.cfg.Login.Method), "ttl", l.ttl.String())
	c.hold(l)
	return l.token, nil
}

// forget drops a token that Vault refused, when Vault no longer knows it; false
// when the token is good and only not allowed what was asked.
func (c *Client) forget(ctx context.Context, token string) bool {
	if c.cfg.Login.Method == MethodTokenFile {
		return false
	}
	if _, err := c.lookup(ctx, token); !errors.Is(err, ErrDenied) {
		return false
	}
	if c.held().token == token {
		c.hold(lease{})
	}
	return true
}

// Run watches over Vault until ctx ends: its health, and the life of keyd's own
// token, which is renewed at two thirds and replaced by a new login when its
// maximum life ends. It then revokes the token, best effort. C-09.
func (c *Client) Run(ctx context.Context) {
	b, told := newBackoff(), ""
	health := time.NewTicker(healthEvery)
	defer health.Stop()
	_ = c.health(ctx) // counted, and shown as gauges
	var not time.Time // before which nothing is tried again
	for {
		wait := max(c.untilDue(), time.Until(not))
		if wait <= 0 {
			err := c.prolong(ctx)
			wait = time.Second
			switch {
			case err == nil:
				b.reset()
				told = ""
			case ctx.Err() == nil:
				wait = c.waitAfter(b, err)
				if told != err.Error() {
					told = err.Error()
					c.cfg.Log.Warn("vault: the token was not renewed", "cause", Cause(err), "again_in", wait.String(), "err", err)
					c.alarm(err)
				}
			}
			not = time.Now().Add(wait)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			c.revoke(context.WithoutCancel(ctx))
			return
		case <-c.wake:
			not = time.Time{}
			_ = c.health(ctx)
		case <-timer.C:
		case <-health.C:
			_ = c.health(ctx)
		}
		timer.Stop()
	}
}

// waitAfter is the wait after a login that failed. A file that waits for a new
// wrapped token is looked at without asking Vault, and so more often.
func (c *Client) waitAfter(b *backoff, err error) time.Duration {
	if errors.Is(err, ErrSpent) || Cause(err) == "" {
		return jitter(healthEvery)
	}
	return b.after(err)
}

// untilDue is how long the token may be left alone. That of a file is looked at
// with each question for health.
func (c *Client) untilDue() time.Duration {
	l := c.held()
	switch {
	case c.cfg.Login.Method == "":
		return healthEvery
	case l.token == "":
		return 0
	case c.cfg.Login.Method == MethodTokenFile:
		return time.Until(l.since.Add(healthEvery))
	case l.ttl == 0:
		return healthEvery
	}
	return time.Until(l.due())
}

// prolong keeps a token at hand.
func (c *Client) prolong(ctx context.Context) error {
	if c.cfg.Login.Method == MethodTokenFile {
		return c.watchFile(ctx)
	}
	l := c.held()
	if l.good(time.Now()) && l.renewable {
		if fresh, err := c.renew(ctx, l); err == nil {
			c.hold(fresh)
			return nil
		} else if Passes(err) {
			return err
		}
	}
	return c.replace(ctx, l)
}

// errMaximum: a renewal added no time, since the token's maximum life ends.
var errMaximum = errors.New("the token's maximum life ends")

func (c *Client) renew(ctx context.Context, l lease) (lease, error) {
	answer, err := c.ask(ctx, request{operation: "renew", what: "renewing the own token", path: "auth/token/renew-self", body: map[string]any{}, token: l.token})
	if err != nil {
		return lease{}, err
	}
	if answer == nil || answer.Auth == nil {
		return lease{}, fmt.Errorf("renewing the own token: %w: no lease in it", ErrAnswer)
	}
	fresh := newLease(l.token, time.Duration(answer.Auth.LeaseDuration)*time.Second, answer.Auth.Renewable)
	if fresh.ttl < l.ttl/2 {
		return lease{}, errMaximum
	}
	return fresh, nil
}

// replace logs in anew and drops the old token.
func (c *Client) replace(ctx context.Context, old lease) error {
	select {
	case c.enter <- struct{}{}:
		defer func() { <-c.enter }()
	case <-ctx.Done():
		return ctx.Err()
	}
	fresh, err := c.login(ctx)
	c.note(func(s *Status) { s.LoginFailed = err != nil })
	if err != nil {
		return err
	}
	c.hold(fresh)
	c.cfg.Log.Info("vault: logged in anew", "method", string(c.cfg.Login.Method), "ttl", fresh.ttl.String())
	if old.good(time.Now()) {
		c.drop(ctx, old.token)
	}
	return nil
}

// LogsIn says whether a way to log in is configured. Unwrapping needs none.
func (c *Client) LogsIn() bool { return c.cfg.Login.Method != "" }

// watchFile learns how long the token of the file lives; who keeps the file
// renews it.
func (c *Client) watchFile(ctx context.Context) error {
	token, err := c.fileToken()
	if err != nil {
		return err
	}
	l, err := c.lookup(ctx, token)
	if err != nil {
		return err
	}
	c.hold(l)
	return nil
}

// revoke ends the own token; one of a file is not keyd's own.
func (c *Client) revoke(ctx context.Context) {
	l := c.held()
	if c.cfg.Login.Method == MethodTokenFile || !l.good(time.Now()) {
		return
	}
	c.hold(lease{})
	c.drop(ctx, l.token)
}

func (c *Client) drop(ctx context.Context, token string) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := c.ask(ctx, request{operation: "revoke", what: "revoking the own token", path: "auth/token/revoke-self", body: map[string]any{}, token: token})
	if err != nil {
		c.cfg.Log.Info("vault: the own token was not revoked and will run out", "err", err)
	}
}

// Close revokes the own token, best effort, for who has not called Run.
func (c *Client) Close(ctx context.Context) {
	c.revoke(ctx)
	c.transport.CloseIdleConnections()
}

func (c *Client) alarm(err error) {
	if c.cfg.Alarm != nil && !Passes(err) {
		c.cfg.Alarm(err)
	}
}
