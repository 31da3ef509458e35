package sim

import (
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"keyd.dev/keyd/internal/iso8583"
)

func changingIssuer(t *testing.T, path string) *Issuer {
	t.Helper()
	i, err := NewIssuer(IssuerConfig{
		TLS: &tls.Config{}, Log: slog.New(slog.DiscardHandler), KeysPath: path,
		PINKey: "606162636465666768696A6B6C6D6E6F", MACKey: "505152535455565758595A5B5C5D5E5F", KEK: strings.Repeat("5AC3", 16),
	})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// TestChangeUnanswered: a change whose answer is lost is sent again as it was, with
// the same number, block and check value, and is taken by the answer to that.
func TestChangeUnanswered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	synctest.Test(t, func(t *testing.T) {
		i := changingIssuer(t, path)
		ours, theirs := net.Pipe()
		p := &peer{conn: ours, waiting: make(map[string]chan *iso8583.Message)}
		i.hail(p)
		offers := make(chan string, 8)
		go func() {
			for n := 0; ; n++ {
				raw, err := iso8583.ReadFrame(theirs)
				if err != nil {
					return
				}
				m, err := i.dialect.Parse(raw, iso8583.SideUpstream)
				if err != nil {
					t.Error(err)
					return
				}
				offers <- m.Text(53) + m.Text(48)
				if n == 0 {
					continue // the answer is lost
				}
				all := i.keys.all()
				answer, err := all[1].seal(m.Answer("00").Set(48, i.changer.last.check), false)
				if err != nil {
					t.Error(err)
					return
				}
				a, err := i.dialect.Parse(answer, iso8583.SideUpstream)
				if err != nil {
					t.Error(err)
					return
				}
				p.give(a)
			}
		}()
		i.changer.change(t.Context(), p, KeyChange{Key: zoneMAC, Do: "good"})
		_, _ = ours.Close(), theirs.Close()
		if len(offers) != 2 {
			t.Fatalf("%d offers, want 2", len(offers))
		}
		if first, again := <-offers, <-offers; first != again {
			t.Error("the change was not sent again as it was")
		}
		if i.keys.number() == 0 || i.keys.number() != i.changer.last.number {
			t.Error("the key is not in use")
		}
	})
	raw, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(raw), `"number":2`) {
		t.Errorf("the file has not the new key: %v", err)
	}
	if left, err := filepath.Glob(path + ".*"); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

// TestTakenByRequest: a request that the switch makes with a key on offer shows
// that it has it; one under the key in use, or the last one, shows nothing.
func TestTakenByRequest(t *testing.T) {
	i := changingIssuer(t, "")
	request := func(z zone) *iso8583.Message {
		t.Helper()
		raw, err := z.seal(i.dialect.Build(iso8583.NetworkRequest, iso8583.SideUpstream).
			Set(7, "1122093000").Set(11, "000001").Set(41, "KEYD0001").Set(42, "KEYD00000000001").Set(70, "301"), false)
		if err != nil {
			t.Fatal(err)
		}
		m, err := i.dialect.Parse(raw, iso8583.SideUpstream)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	said := func(z zone, number uint64) {
		t.Helper()
		if ok, err := i.keys.genuineRequest(request(z)); !ok || err != nil {
			t.Errorf("a request is not genuine: %v", err)
		}
		if got := i.keys.number(); got != number {
			t.Errorf("the key in use is that of change %d, want %d", got, number)
		}
	}
	first := i.keys.current()
	offer := func(number uint64) zone {
		t.Helper()
		key, err := newTDESKey()
		if err != nil {
			t.Fatal(err)
		}
		_, z, err := i.keys.offer(zoneMAC, key, number)
		if err != nil {
			t.Fatal(err)
		}
		return z
	}
	second := offer(10)
	offer(11) // lost on its way
	said(first, 0)
	said(second, 10)
	said(first, 10) // it was in flight
	third := offer(12)
	said(second, 10)
	said(third, 12)
}
