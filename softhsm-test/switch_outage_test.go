package softhsmtest_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/sim"
	"keyd.dev/keyd/keys"
)

// TestSwitchOutage takes one part away at a time: nothing is approved, nothing
// is lost, and the answer says 96.
func TestSwitchOutage(t *testing.T) {
	t.Run("D-05 token away", tokenAway)
	t.Run("W-09 database away", databaseAway)
	t.Run("L-130 audit log away", logAway)
	t.Run("zone key away", zoneKeyAway)
	t.Run("a sale in flight is finished at the end", drains)
	t.Run("A-17.T1 a bad MAC learns nothing", learnsNothing)
	t.Run("W-19 a recorded sign-on unlocks nobody", recordedSignOn)
	t.Run("A-21 DE 38 of a late answer", lateApproval)
}

// parsed is the next answer on the link, its MAC not looked at.
func (p *pos) parsed(raw []byte) *iso8583.Message {
	p.t.Helper()
	got, err := p.link.Exchange(raw)
	must(p.t, err)
	m, err := iso8583.ASCII87().Parse(got, iso8583.SideTerminal)
	must(p.t, err)
	return m
}

func hasMAC(m *iso8583.Message) bool { return m.Has(64) || m.Has(128) }

func tokenAway(t *testing.T) {
	h := newHouse(t, nil, nil)
	p := h.pos(0)
	sale, answer := p.sell(1000)
	must(t, h.token.Close())
	for range 2 {
		next, err := p.Sale(1002, visa, nil)
		must(t, err)
		m := p.parsed(next.Raw)
		wantCode(t, m, "96")
		if hasMAC(m) {
			t.Error("D-05: the answer has a MAC")
		}
	}
	reversal, err := p.Reversal(iso8583.ReversalAdvice, sale, answer.Text(37), answer.Text(38), nil)
	must(t, err)
	wantCode(t, p.parsed(reversal.Raw), "96")
	h.untouched(sale)
}

func databaseAway(t *testing.T) {
	h := newHouse(t, nil, nil)
	p := h.pos(0)
	sale, answer := p.sell(1000)
	must(t, h.db.Close())
	next, err := p.Sale(1002, visa, nil)
	must(t, err)
	wantCode(t, p.parsed(next.Raw), "96")
	reversal, err := p.Reversal(iso8583.ReversalRequest, sale, answer.Text(37), answer.Text(38), nil)
	must(t, err)
	wantCode(t, p.parsed(reversal.Raw), "96")
	h.untouched(sale)
	if e := h.booked(next); e != nil {
		t.Errorf("the issuer has %+v of a sale that could not be journalled", *e)
	}
}

func logAway(t *testing.T) {
	h := newHouse(t, nil, nil)
	p := h.pos(0)
	sale, answer := p.sell(1000)
	must(t, h.log.Close(context.Background()))
	next, err := p.Sale(1002, visa, nil)
	must(t, err)
	wantCode(t, p.parsed(next.Raw), "96")
	reversal, err := p.Reversal(iso8583.ReversalRequest, sale, answer.Text(37), answer.Text(38), nil)
	must(t, err)
	wantCode(t, p.parsed(reversal.Raw), "96")
	h.untouched(sale)
	if got := h.find(sale).State; got != isoswitch.Approved {
		t.Errorf("the sale is %s: an effect without a record", got)
	}
	if e := h.booked(next); e != nil {
		t.Errorf("the issuer has %+v of a sale that could not be recorded", *e)
	}
}

func zoneKeyAway(t *testing.T) {
	h := newHouse(t, nil, nil)
	_, err := h.custody.ImportClear(t.Context(), custody.SystemCaller("test", custody.RoleCustodian), "test", custody.ImportClear{
		Attributes: keys.Attributes{Usage: keys.UsagePIN, Algorithm: keys.TDES2, Mode: keys.ModeEncrypt, Exportability: keys.NonExportable},
		Policy:     map[string]string{"keyd:custody": "token"}, Alias: "alias/dev/unseen", Value: secret.From([]byte("fedcba9876543210")),
	})
	must(t, err)
	for _, c := range []struct {
		name   string
		change func(*isoswitch.Upstream)
		want   error
	}{
		{"no such alias", func(u *isoswitch.Upstream) { u.MACKey.Alias = "alias/dev/none" }, custody.ErrNoKey},
		{"PIN key in the place of the MAC key", func(u *isoswitch.Upstream) { u.MACKey.Alias = "alias/dev/zpk" }, isoswitch.ErrConfig},
		{"MAC key in the place of the PIN key", func(u *isoswitch.Upstream) { u.PINKey.Alias = "alias/dev/zak" }, isoswitch.ErrConfig},
		{"a PIN key that forbids clear PINs", func(u *isoswitch.Upstream) { u.PINKey.Alias = "alias/dev/unseen" }, isoswitch.ErrConfig},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := h.config()
			c.change(&cfg.Upstreams[0])
			sw, err := isoswitch.New(cfg)
			must(t, err)
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			if err := sw.Serve(t.Context(), listener); !errors.Is(err, c.want) {
				t.Errorf("served, or ended with %v; want %v", err, c.want)
			}
		})
	}
}

func drains(t *testing.T) {
	h := newHouse(t, []sim.Rule{{Suffix: "90", Code: "00", Delay: 300 * time.Millisecond}}, nil)
	p := h.pos(0)
	sale, err := p.Sale(1090, visa, nil)
	must(t, err)
	must(t, p.link.Send(sale.Raw))
	eventually(t, "the sale is at the issuer", func() bool { return h.booked(sale) != nil })
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.stop()
	}()
	raw, err := p.link.Receive()
	must(t, err)
	m, err := p.Answer(sale, raw)
	must(t, err)
	wantCode(t, m, "00")
	<-done
	h.serve()
	h.quiet()
	h.untouched(sale)
}

func learnsNothing(t *testing.T) {
	h := newHouse(t, nil, nil)
	p := h.pos(0)
	sale, answer := p.sell(1000)
	var got []string
	for _, stan := range []string{sale.Message.Text(11), "777777"} {
		names, err := iso8583.OriginalData{MTI: "0200", STAN: stan, DateTime: sale.Message.Text(7)}.Text()
		must(t, err)
		reversal, err := p.Reversal(iso8583.ReversalRequest, sale, answer.Text(37), answer.Text(38), func(b *iso8583.Builder) { b.Set(90, names) })
		must(t, err)
		bad := append([]byte(nil), reversal.Raw...)
		copy(bad[len(bad)-16:], "0123456789ABCDEF")
		m := p.parsed(bad)
		var fields []string
		for _, de := range []int{2, 3, 4, 37, 38, 39, 41, 42, 49, 55} {
			fields = append(fields, m.Text(de))
		}
		got = append(got, strings.Join(fields, "|"))
	}
	if got[0] != got[1] {
		t.Errorf("the answers differ:\n%s", strings.Join(got, "\n"))
	}
}

func recordedSignOn(t *testing.T) {
	h := newHouse(t, nil, nil)
	p := h.pos(0)
	recorded, err := p.Network("001")
	wantCode(t, p.ask(recorded, err), "00")
	for range 5 {
		sale, err := p.Sale(1000, visa, nil)
		must(t, err)
		copy(sale.Raw[len(sale.Raw)-16:], "0123456789ABCDEF")
		wantCode(t, p.parsed(sale.Raw), "63")
	}
	wantCode(t, p.parsed(recorded.Raw), "00") // the same bytes: accepted before, and without effect
	sale, err := p.Sale(1000, visa, nil)
	must(t, err)
	wantCode(t, p.parsed(sale.Raw), "63")
}

// lateApproval answers a sale after its time and after its reversal was sent.
func lateApproval(t *testing.T) {
	h, b := newScripted(t, func(*bank, *iso8583.Message) [][]byte { return nil }, func(c *isoswitch.Config) {
		c.Timers.Upstream = 200 * time.Millisecond
	})
	p := h.pos(0)
	sale, answer := p.sell(1000)
	wantCode(t, answer, "68")
	eventually(t, "the reversal is sent", func() bool { return len(b.reversals()) > 0 })
	b.write(b.approve(b.received(iso8583.FinancialRequest)[0]))
	eventually(t, "the late answer is journalled", func() bool { return h.find(sale).Late == "00 A1B2C3" })
	if got := h.find(sale).Approval; got != "" {
		t.Errorf("7.1: DE 38 of the reversal changed to %q between its tries", got)
	}
}
