package softhsmtest_test

import (
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
)

// TestSwitchGreet is the sign-on, the sign-off and the echo of a link.
func TestSwitchGreet(t *testing.T) {
	h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte { return [][]byte{b.approve(m)} }, func(c *isoswitch.Config) {
		c.Timers.Upstream = 300 * time.Millisecond
		c.Upstreams[0].Echo, c.Upstreams[0].Silence = 400*time.Millisecond, 2
	})
	p := h.pos(0)
	link := func() isoswitch.LinkStatus { return linkOf(h.sw, "issuer", "primary") }
	signedOn := func(t *testing.T) {
		t.Helper()
		b.answers0800(nil)
		eventually(t, "the link is signed on", func() bool { return link().State == isoswitch.LinkSignedOn })
	}
	t.Run("W-05 a sign-on that is refused", func(t *testing.T) {
		b.answers0800(func(*iso8583.Message) string { return "91" })
		b.hangUp()
		eventually(t, "the sign-on is refused", func() bool { return link().State == isoswitch.LinkRefused && link().Fault != nil })
		before := len(b.received(iso8583.FinancialRequest))
		_, answer := p.sell(1000)
		wantCode(t, answer, "91")
		if after := len(b.received(iso8583.FinancialRequest)); after != before {
			t.Error("a sale went to a host that refuses the sign-on")
		}
		signedOn(t)
		_, answer = p.sell(1001)
		wantCode(t, answer, "00")
	})
	t.Run("W-05 the host signs off, and takes the next sign-on", func(t *testing.T) {
		b.answers0800(func(m *iso8583.Message) string {
			if m.Text(70) == "001" {
				return "91"
			}
			return "00"
		})
		b.write(b.seal(iso8583.ASCII87().Build(iso8583.NetworkRequest, iso8583.SideUpstream).
			Set(7, time.Now().UTC().Format("0102150405")).Set(11, "000001").Set(41, "KEYD0001").Set(42, "KEYD00000000001").Set(70, "002")))
		eventually(t, "nothing goes over the link", func() bool { return link().State == isoswitch.LinkRefused })
		_, answer := p.sell(1002)
		wantCode(t, answer, "91")
		signedOn(t)
		_, answer = p.sell(1003)
		wantCode(t, answer, "00")
	})
	t.Run("an echo that is not answered", func(t *testing.T) {
		before := link().Connects
		b.answers0800(func(m *iso8583.Message) string {
			if m.Text(70) == "301" {
				return ""
			}
			return "00"
		})
		eventually(t, "the connection is made anew", func() bool { return link().Connects > before })
		signedOn(t)
		_, answer := p.sell(1004)
		wantCode(t, answer, "00")
	})
	t.Run("an echo that is refused has a sign-on behind it", func(t *testing.T) {
		asked := make(chan string, 64)
		b.answers0800(func(m *iso8583.Message) string {
			select {
			case asked <- m.Text(70):
			default:
			}
			if m.Text(70) == "301" {
				return "58"
			}
			return "00"
		})
		eventually(t, "a sign-on follows", func() bool { return <-asked == "301" })
		eventually(t, "a sign-on follows", func() bool { return <-asked == "001" })
		signedOn(t)
	})
	t.Run("the sign-off at the end", func(t *testing.T) {
		last := make(chan string, 64)
		b.answers0800(func(m *iso8583.Message) string {
			last <- m.Text(70)
			return "00"
		})
		h.stop()
		h.stop = func() {}
		for code := range last {
			if code == "002" {
				return
			}
			if len(last) == 0 {
				t.Fatal("keyd ended without a sign-off")
			}
		}
	})
}
