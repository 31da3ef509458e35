package isoswitch

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/profile"
)

// Upstream is an acquirer host or issuer, reached over one or more links.
type Upstream struct {
	Name   string      // in records and the journal: never changed while a transaction can be reversed
	Links  []Endpoint  // those preferred first
	PINKey custody.Ref // zone PIN key
	MACKey custody.Ref // zone MAC key, both directions
	// ExchangeKey is that under which the host sends new zone keys; none: it may not.
	ExchangeKey custody.Ref
	KeyAge      time.Duration // of a zone key, at which the host is asked for a new one; 0 is never

	TID string // DE 41 of keyd's own 0800; "KEYD0001"
	MID string // DE 42 of keyd's own 0800; "KEYD00000000001"

	Profile *profile.Profile // what it speaks; nil: ascii87
	Head    []byte           // what stands before the MTI of what is sent to it; zeros where the profile has it

	Acquirer string // DE 32 of what is sent to it, in place of the terminal's; empty: the terminal's

	Echo     time.Duration // time of silence on a link after which an 0800 echo is sent; Timers.Echo
	FailBack time.Duration // so long a link that failed must be fit before messages go over it again while another is fit; 1 min
	Silence  int           // messages in a row that a link leaves unanswered, after which another is chosen; 5; below 0 is never
}

// Endpoint is one link to an upstream.
type Endpoint struct {
	Name string // unlike that of the upstream's others; "primary" of the first
	Addr string // host:port
	TLS  *tls.Config

	// Dial opens the transport below TLS; a net.Dialer's when nil.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
}

func (u Upstream) withDefaults(echo time.Duration) (Upstream, error) {
	u.TID = orDefault(u.TID, "KEYD0001")
	u.MID = orDefault(u.MID, "KEYD00000000001")
	u.Echo = orDefault(u.Echo, orDefault(echo, time.Minute))
	u.FailBack = orDefault(u.FailBack, time.Minute)
	u.Silence = orDefault(u.Silence, 5)
	if u.Name == "" || len(u.Links) == 0 {
		return u, fmt.Errorf("%w: an upstream needs a name and a link with an address", ErrConfig)
	}
	if len(u.TID) != 8 || len(u.MID) != 15 {
		return u, fmt.Errorf("%w: upstream %s: the TID has 8 characters and the MID 15", ErrConfig, u.Name)
	}
	if len(u.Acquirer) > 11 || strings.Trim(u.Acquirer, "0123456789") != "" {
		return u, fmt.Errorf("%w: upstream %s: an acquirer id has at most 11 digits", ErrConfig, u.Name)
	}
	if u.Echo < 0 || u.FailBack < 0 {
		return u, fmt.Errorf("%w: upstream %s: a timer is negative", ErrConfig, u.Name)
	}
	if (u.MACKey == custody.Ref{}) || (u.PINKey == custody.Ref{}) {
		return u, fmt.Errorf("%w: upstream %s needs a zone MAC key and a zone PIN key: without a MAC no answer could be believed", ErrConfig, u.Name)
	}
	if err := u.checkSpeech(); err != nil {
		return u, err
	}
	links := make([]Endpoint, 0, len(u.Links))
	named := map[string]bool{}
	for i, end := range u.Links {
		if i == 0 {
			end.Name = orDefault(end.Name, "primary")
		}
		if end.Name == "" || named[end.Name] || end.Addr == "" {
			return u, fmt.Errorf("%w: upstream %s: each link needs an address, and a name that no other link has", ErrConfig, u.Name)
		}
		if end.TLS == nil || end.TLS.InsecureSkipVerify || end.TLS.MinVersion < tls.VersionTLS12 {
			return u, fmt.Errorf("%w: upstream %s: link %s needs TLS 1.2 or later and a verified server", ErrConfig, u.Name, end.Name)
		}
		named[end.Name] = true
		links = append(links, end)
	}
	u.Links = links
	return u, nil
}

// upstreamNames are the names of upstreams, in their order.
func upstreamNames(list []Upstream) []string {
	names := make([]string, 0, len(list))
	for _, u := range list {
		names = append(names, u.Name)
	}
	return names
}

func (s *Switch) upstreams() []string { return upstreamNames(s.cfg.Upstreams) }

// upstreamsWithDefaults returns the upstreams with their defaults, or why they
// are refused.
func upstreamsWithDefaults(list []Upstream, echo time.Duration) ([]Upstream, error) {
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: an upstream is needed", ErrConfig)
	}
	all := make([]Upstream, 0, len(list))
	named := map[string]bool{}
	for _, u := range list {
		u, err := u.withDefaults(echo)
		if err != nil {
			return nil, err
		}
		if named[u.Name] {
			return nil, fmt.Errorf("%w: two upstreams have the name %s", ErrConfig, u.Name)
		}
		named[u.Name] = true
		all = append(all, u)
	}
	return all, checkShared(all)
}
