package softhsmtest_test

import (
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// TestSwitchSharedZoneKey: two names of one zone key, which a host may change,
// are found at the start.
func TestSwitchSharedZoneKey(t *testing.T) {
	x := newHosts(t)
	kek, err := hex.DecodeString(strings.Repeat("5A", 16) + strings.Repeat("C3", 16))
	must(t, err)
	_, err = x.custody.ImportClear(t.Context(), custody.SystemCaller("test", custody.RoleCustodian), "test", custody.ImportClear{
		Attributes: keys.Attributes{Usage: keys.UsageKEK, Algorithm: keys.AES256, Mode: keys.ModeBoth, Exportability: keys.NonExportable},
		Value:      secret.From(kek), Alias: "alias/dev/kek",
	})
	must(t, err)
	zak, err := x.custody.Key(t.Context(), custody.SystemCaller("test", custody.RoleOperator), "test", custody.Ref{Alias: "alias/dev/zak"})
	must(t, err)
	_, err = x.custody.CreateAlias(t.Context(), custody.SystemCaller("test", custody.RoleAdmin), "test", custody.Alias{Name: "alias/dev/zak-too", Key: zak.Block.ID}, nil)
	must(t, err)
	x.stop()
	x.stop = func() {}
	cfg := x.config()
	cfg.Upstreams[0].ExchangeKey = custody.Ref{Alias: "alias/dev/kek"}
	cfg.Upstreams[1].MACKey = custody.Ref{Alias: "alias/dev/zak-too"}
	sw, err := isoswitch.New(cfg)
	must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	if err := sw.Serve(t.Context(), listener); !errors.Is(err, isoswitch.ErrConfig) || !strings.Contains(err.Error(), "alias/dev/zak is alias/dev/zak-too of upstream other") {
		t.Errorf("a start with one zone key under two names: %v", err)
	}
}

// TestSwitchMirror: a peer without the zone MAC key sends all back that it gets.
// What keyd made itself, answer or request, proves nothing.
func TestSwitchMirror(t *testing.T) {
	h := build(t, func(c *isoswitch.Config) { c.Upstreams[0].Echo = 300 * time.Millisecond })
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	mirror := tls.NewListener(raw, h.ca.server(t, "issuer"))
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := mirror.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer func() { _ = conn.Close() }()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(work.Wait)
	t.Cleanup(func() { _ = mirror.Close() })
	h.bank = raw
	h.moveIn()
	eventually(t, "the reflection is recorded", func() bool {
		return len(h.records(func(r record) bool {
			return r.Action == "signin.refuse" && r.Reason == "duplicate" && r.ISO.Alert == "security" && r.ISO.DE39 == ""
		})) >= 2
	})
	if h.sw.Status().SignedOn {
		t.Error("a mirror is taken for the host")
	}
	if taken := h.records(func(r record) bool { return r.Action == "signin.accept" }); len(taken) > 0 {
		t.Errorf("keyd took %+v of a mirror", taken)
	}
}

// TestSwitchHostAsks: what an authentic 0800 of a host may ask for.
func TestSwitchHostAsks(t *testing.T) {
	h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte { return [][]byte{b.approve(m)} }, nil)
	asks := func(stan, function string, at time.Time) []byte {
		return b.seal(iso8583.ASCII87().Build(iso8583.NetworkRequest, iso8583.SideUpstream).
			Set(7, at.UTC().Format("0102150405")).Set(11, stan).Set(41, "ISSUER01").Set(42, "ISSUER000000001").Set(70, function))
	}
	link := func() isoswitch.LinkStatus { return linkOf(h.sw, "issuer", "primary") }
	is := func(stan, action, reason, code string) {
		t.Helper()
		eventually(t, "the 0800 "+stan+" is answered "+code, func() bool {
			return len(h.records(func(r record) bool {
				return r.ISO.STAN == stan && r.Action == action && r.Reason == reason && r.ISO.DE39 == code
			})) > 0
		})
	}
	for _, tt := range []struct{ name, stan, function, action, reason, code string }{
		{"an echo", "900001", "301", "signin.accept", "", "00"},
		{"a sign-on", "900002", "001", "signin.accept", "", "00"},
		{"keyd's own wish", "900003", "162", "signin.refuse", "profile_denied", "40"},
		{"what nobody knows", "900004", "777", "signin.refuse", "profile_denied", "40"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b.write(asks(tt.stan, tt.function, time.Now()))
			is(tt.stan, tt.action, tt.reason, tt.code)
		})
	}
	for name, at := range map[string]time.Time{"900005": time.Now().Add(-6 * time.Minute), "900006": time.Now().Add(6 * time.Minute)} {
		b.write(asks(name, "002", at))
		is(name, "signin.refuse", "format_error", "30")
		if link().State != isoswitch.LinkSignedOn {
			t.Error("a sign-off of another time took the link out")
		}
	}
	once := asks("900007", "002", time.Now())
	before := len(h.records(func(r record) bool { return r.Action == "signin.accept" }))
	b.write(once)
	is("900007", "signin.accept", "", "00")
	eventually(t, "the link is signed on again", func() bool {
		return link().State == isoswitch.LinkSignedOn && len(h.records(func(r record) bool { return r.Action == "signin.accept" })) >= before+2
	})
	b.write(once)
	is("900007", "signin.refuse", "duplicate", "94")
	if link().State != isoswitch.LinkSignedOn {
		t.Error("a recorded sign-off took the link out")
	}
}
