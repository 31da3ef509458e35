package isoswitch

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"

	"keyd.dev/keyd/internal/profile"
)

func builtin(t *testing.T, name string) *profile.Profile {
	t.Helper()
	p, err := profile.Builtin(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestDistinct: listeners of which one could never be used are refused.
func TestDistinct(t *testing.T) {
	ascii, cup := builtin(t, "ascii87"), builtin(t, "unionpay")
	kiosk := ownProfile(t, "name = \"kiosk\"\nbase = \"ascii87\"\nabout = \"one\"\n")
	other := ownProfile(t, "name = \"kiosk\"\nbase = \"ascii87\"\nabout = \"another\"\n")
	for _, c := range []struct {
		name string
		all  []Listener
		ok   bool
	}{
		{"R-17 two key schemes", []Listener{{Profile: ascii}, {Profile: cup}}, true},
		{"one profile twice", []Listener{{Profile: ascii}, {Profile: ascii}}, true},
		{"one key scheme, names for the second", []Listener{{Profile: ascii}, {Profile: kiosk, Terminals: []string{"T*"}}}, true},
		{"one key scheme, no names", []Listener{{Profile: ascii}, {Profile: kiosk}}, false},
		{"names before, none after", []Listener{{Profile: cup}, {Profile: kiosk, Terminals: []string{"T*"}}, {Profile: ascii}}, true},
		{"two profiles of a name", []Listener{{Profile: kiosk}, {Profile: other, Terminals: []string{"T*"}}}, false},
	} {
		err := Distinct(c.all...)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestHome: whatever listeners there are, a terminal speaks one profile.
func TestHome(t *testing.T) {
	kiosk := ownProfile(t, "name = \"kiosk\"\nbase = \"ascii87\"\nabout = \"one\"\n")
	s := &Switch{listeners: []Listener{
		{Profile: builtin(t, "ascii87")}, {Profile: builtin(t, "unionpay")},
		{Profile: kiosk, Terminals: []string{"K???????", "T0000009"}},
	}}
	for _, c := range []struct {
		tid    string
		scheme Scheme
		want   string
	}{
		{"T0000001", TDESDUKPT, "ascii87"},
		{"T0000001", AESDUKPT, "ascii87"},
		{"T0000001", MasterKey, "unionpay"},
		{"T0000009", TDESDUKPT, "kiosk"},
		{"K1234567", AESDUKPT, "kiosk"},
		{"K1234567", MasterKey, "unionpay"}, // kiosk has no master keys
		{"T0000001", "none", ""},
	} {
		if got := s.home(Terminal{TID: c.tid, Scheme: c.scheme}); got != c.want {
			t.Errorf("%s with %s speaks %q, want %q", c.tid, c.scheme, got, c.want)
		}
	}
	for profile, want := range map[string]string{"unionpay": "unionpay", "kiosk": "kiosk", "": "ascii87", "gone": "ascii87"} {
		if got := s.speechOf(&Txn{Profile: profile}).Name; got != want {
			t.Errorf("an original of %q is answered in %s, want %s", profile, got, want)
		}
	}
}

// TestListenersConfig: a further listener is checked as the first is, and a switch
// serves by as many as it was told of.
func TestListenersConfig(t *testing.T) {
	for _, c := range []struct {
		name, says string
		further    Listener
	}{
		{"no profile", "needs a profile", Listener{}},
		{"client certificates not demanded", "client certificates", Listener{
			Profile: builtin(t, "unionpay"), TLS: &tls.Config{MinVersion: tls.VersionTLS12},
		}},
		{"old TLS", "TLS 1.2", Listener{
			Profile: builtin(t, "unionpay"), TLS: &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert},
		}},
		{"a pattern that is none", "no pattern", Listener{Profile: builtin(t, "unionpay"), Terminals: []string{"["}}},
		{"nobody's", "no terminal could use", Listener{Profile: ownProfile(t, "name = \"kiosk\"\nbase = \"ascii87\"\nabout = \"one\"\n")}},
	} {
		cfg := safeConfig()
		cfg.Listeners = []Listener{c.further}
		if _, err := New(cfg); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want ErrConfig about %q", c.name, err, c.says)
		}
	}
	cfg := safeConfig()
	cfg.Listeners = []Listener{{Profile: builtin(t, "unionpay")}}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	end, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context(), end); err == nil || !strings.Contains(err.Error(), "2 listeners are configured and 1 given") {
		t.Errorf("served by one of two: %v", err)
	}
	if _, err := end.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener stays open: %v", err)
	}
}
