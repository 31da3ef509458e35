package isoswitch

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func TestParseKSN(t *testing.T) {
	for _, c := range []struct {
		name, text string
		scheme     Scheme
		device     Device
		counter    uint32
		ok         bool
	}{
		{"W-10 TDES", "FFFF9876543210E00001", TDESDUKPT, "FFFF9876543210E00000", 1, true},
		{"TDES, bit 21 of the counter", "FFFF9876543210F00001", TDESDUKPT, "FFFF9876543210E00000", 0x100001, true},
		{"TDES, device bits beside the counter", "FFFF9876551001000001", TDESDUKPT, "FFFF9876551001000000", 1, true},
		{"W-10 AES", "123456789012345600000001", AESDUKPT, "1234567890123456", 1, true},
		{"M-25 TDES counter 0", "FFFF9876543210E00000", TDESDUKPT, "", 0, false},
		{"M-25 AES counter 0", "123456789012345600000000", AESDUKPT, "", 0, false},
		{"M-25 TDES ten one bits", "FFFF9876543210E003FF", TDESDUKPT, "FFFF9876543210E00000", 0x3FF, true},
		{"A-15.T6 TDES eleven one bits", "FFFF9876543210E007FF", TDESDUKPT, "", 0, false},
		{"M-25 AES sixteen one bits", "12345678901234560000FFFF", AESDUKPT, "1234567890123456", 0xFFFF, true},
		{"M-25 AES seventeen one bits", "12345678901234560001FFFF", AESDUKPT, "", 0, false},
		{"W-18 the other scheme", "123456789012345600000001", TDESDUKPT, "", 0, false},
		{"W-18 not hex", "GGGG9876543210E00001", TDESDUKPT, "", 0, false},
		{"unknown scheme", "FFFF9876543210E00001", "none", "", 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := parseKSN(c.scheme, c.text)
			if ok != c.ok || ok && (got.device != c.device || got.counter != c.counter) {
				t.Errorf("got device %s, counter %d, %v", got.device, got.counter, ok)
			}
		})
	}
}

func FuzzParseKSN(f *testing.F) {
	f.Add("FFFF9876543210E00001", true)
	f.Add("123456789012345600000001", false)
	f.Fuzz(func(t *testing.T, text string, tdes bool) {
		scheme := AESDUKPT
		if tdes {
			scheme = TDESDUKPT
		}
		got, ok := parseKSN(scheme, text)
		if !ok {
			return
		}
		if got.counter == 0 || len(got.device) != map[Scheme]int{TDESDUKPT: 20, AESDUKPT: 16}[scheme] {
			t.Errorf("%q gives device %q and counter %d", text, got.device, got.counter)
		}
	})
}

func TestJudgeCounter(t *testing.T) {
	for _, c := range []struct {
		name                string
		last, counter, step uint32
		same                bool
		want                freshness
	}{
		{"the first", 0, 1, 100, false, fresh},
		{"the next", 7, 8, 100, false, fresh},
		{"M-24 the greatest step", 7, 107, 100, false, fresh},
		{"M-24 a step too far", 7, 108, 100, false, tooFar},
		{"A-15.T2 the same bytes", 7, 7, 100, true, repeated},
		{"A-15.T3 other bytes", 7, 7, 100, false, replayed},
		{"A-15.T1 going back", 7, 6, 100, false, replayed},
		{"M-22 the same bytes of long ago", 7, 2, 100, true, repeated},
		{"the end of the counter", 0xFFFFFFFE, 0xFFFFFFFF, 100, false, fresh},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := judgeCounter(c.last, c.counter, c.step, c.same); got != c.want {
				t.Errorf("judged %d, want %d", got, c.want)
			}
		})
	}
}

func TestTimeOf(t *testing.T) {
	newYear := time.Date(2027, 1, 1, 0, 5, 0, 0, time.UTC)
	for _, c := range []struct {
		name, de7 string
		now, want time.Time
		ok        bool
	}{
		{"the same day", "1122113000", noon, time.Date(2026, 11, 22, 11, 30, 0, 0, time.UTC), true},
		{"over New Year, back", "1231235959", newYear, time.Date(2026, 12, 31, 23, 59, 59, 0, time.UTC), true},
		{"over New Year, ahead", "0101000100", time.Date(2026, 12, 31, 23, 59, 0, 0, time.UTC), time.Date(2027, 1, 1, 0, 1, 0, 0, time.UTC), true},
		{"leap day", "0229120000", time.Date(2028, 3, 1, 0, 0, 0, 0, time.UTC), time.Date(2028, 2, 29, 12, 0, 0, 0, time.UTC), true},
		{"no month", "1399999999", noon, time.Time{}, false},
		{"no hour", "1122246000", noon, time.Time{}, false},
		{"short", "112211", noon, time.Time{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := timeOf(c.de7, c.now)
			if ok != c.ok || !got.Equal(c.want) {
				t.Errorf("got %v, %v", got, ok)
			}
		})
	}
}

func TestIdentities(t *testing.T) {
	key := LookupKey{1}
	a, b := newOID(key, noon), newOID(key, noon.Add(24*time.Hour))
	if a == b {
		t.Error("A-25: the same numbers on another day are another original")
	}
	if fullRID(a) == partialRID(a, 400, "000001") || partialRID(a, 400, "000001") == partialRID(a, 400, "000002") {
		t.Error("4.4: reversals share an identity")
	}
	if digest("x", "ab", "c") == digest("x", "a", "bc") {
		t.Error("4.2: parts run into each other")
	}
}

func TestLockout(t *testing.T) {
	now := noon
	l := newLockout(func() Lockout { return Lockout{Failures: 5, Window: 10 * time.Minute} }, func() time.Time { return now })
	for i := range 4 {
		if l.fail("T1") {
			t.Fatalf("W-19: locked after %d", i+1)
		}
	}
	now = now.Add(11 * time.Minute)
	if l.fail("T1") || l.locked("T1") {
		t.Error("D-04: failures outside the window count")
	}
	for range 3 {
		l.fail("T1")
	}
	if !l.fail("T1") || !l.locked("T1") {
		t.Error("W-19: not locked after 5")
	}
	if l.fail("T1") {
		t.Error("the sixth locks again")
	}
	now = now.Add(time.Hour)
	if !l.locked("T1") || l.locked("T2") {
		t.Error("W-19: a lock ends by a sign-on alone, and is of one TID")
	}
	l.clear("T1")
	if l.locked("T1") {
		t.Error("W-05: a sign-on does not clear")
	}
}

func TestFloods(t *testing.T) {
	now := noon
	f := newFloods(func() Lockout { return Lockout{Flood: 2, Window: 10 * time.Minute, Slow: time.Second} }, func() time.Time { return now })
	if f.count("a") || f.delay("a") != 0 {
		t.Error("slow after one")
	}
	if !f.count("a") || f.delay("a") != time.Second || f.count("a") {
		t.Error("W-19: not slow after two, or alarmed twice")
	}
	if f.delay("b") != 0 {
		t.Error("W-19: another certificate is slow")
	}
	now = now.Add(11 * time.Minute)
	if f.delay("a") != 0 {
		t.Error("slow for ever")
	}
}

func TestRates(t *testing.T) {
	now := noon
	r := newRates(func() time.Time { return now })
	one, other := []tally{{"T1", 2}}, []tally{{"T2", 2}}
	r.add(one)
	if r.over(one) {
		t.Error("D-35: over after one")
	}
	r.add(one)
	if !r.over(one) || r.over(other) || !r.over([]tally{{"T2", 2}, {"T1", 2}}) {
		t.Error("D-35: not over after two")
	}
	r.takeBack(one)
	if r.over(one) {
		t.Error("D-35: what was not journalled counts")
	}
	r.add(one)
	now = now.Add(time.Hour)
	if r.over(one) {
		t.Error("D-35: over for ever")
	}
	for i := range mostTallies { // at the border those whose hour is over go
		r.add([]tally{{fmt.Sprint(i), 1}})
	}
	if now = now.Add(time.Hour); len(r.count) > mostTallies {
		t.Errorf("%d counts are kept", len(r.count))
	}
	if r.add(one); len(r.count) != 1 {
		t.Errorf("%d counts of an hour ago are kept", len(r.count)-1)
	}
}

func TestLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLanes(2)
		first, _ := l.take("T1")
		second, _ := l.take("T1")
		if _, ok := l.take("T1"); ok {
			t.Error("a third request of one terminal is let in")
		}
		other, ok := l.take("T2")
		if !ok {
			t.Fatal("W-17: another terminal is held up")
		}
		other.wait()
		other.done()
		first.wait()
		began := make(chan struct{})
		go func() {
			second.wait()
			close(began)
		}()
		synctest.Wait()
		select {
		case <-began:
			t.Fatal("W-17: the second overtakes the first")
		default:
		}
		first.end() // and still waits for upstream
		synctest.Wait()
		<-began
		second.done()
		first.done()
		if len(l.byTID) != 0 {
			t.Error("lanes are left over")
		}
	})
}

// answerTo is an answer of upstream with these matching fields.
func answerTo(t *testing.T, mti iso8583.MTI, stan, sent, tid string) *iso8583.Message {
	t.Helper()
	d := iso8583.ASCII87()
	open, err := d.Build(mti, iso8583.SideUpstream).
		Set(2, "4111111111111111").Set(3, "000000").Set(4, "000000001000").Set(7, sent).Set(11, stan).
		Set(12, "110000").Set(13, "1122").Set(37, "000000000001").Set(39, "00").
		Set(41, tid).Set(42, "M00000000000001").Set(49, "978").Pack()
	if err != nil {
		t.Fatal(err)
	}
	m, err := d.Parse(open.Seal([8]byte{}), iso8583.SideUpstream)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestExchanges(t *testing.T) {
	now := noon
	clock := func() time.Time { return now }
	key := match{stan: "000001", sent: "1122110000", class: '2', tid: "T0000001"}
	good := answerTo(t, "0210", "000001", "1122110000", "T0000001")
	t.Run("STAN, DE 7, class and TID all count", func(t *testing.T) {
		x := newExchanges(clock)
		open := x.start(key)
		for _, other := range []*iso8583.Message{
			answerTo(t, "0210", "000002", "1122110000", "T0000001"),
			answerTo(t, "0210", "000001", "1122110001", "T0000001"),
			answerTo(t, "0410", "000001", "1122110000", "T0000001"),
			answerTo(t, "0210", "000001", "1122110000", "T0000002"),
		} {
			if _, expected := x.deliver(other); expected {
				t.Errorf("%v was taken for the answer", other)
			}
		}
		if _, expected := x.deliver(good); !expected || <-open.reply != good {
			t.Error("the answer did not arrive")
		}
		if _, expected := x.deliver(good); expected {
			t.Error("A-06.T2: a second answer was expected")
		}
	})
	t.Run("A-21 a late answer is known for T_stray", func(t *testing.T) {
		x := newExchanges(clock)
		var late *iso8583.Message
		x.expire(x.start(key), now.Add(time.Minute), func(m *iso8583.Message) { late = m })
		take, expected := x.deliver(good)
		if !expected || take == nil {
			t.Fatal("the late answer was not known")
		}
		if take(good); late != good {
			t.Error("the late answer went elsewhere")
		}
		x.expire(x.start(key), now.Add(time.Minute), func(*iso8583.Message) {})
		now = now.Add(2 * time.Minute)
		if _, expected := x.deliver(good); expected {
			t.Error("an answer after T_stray was known")
		}
	})
	t.Run("a lost link tells all that left by it", func(t *testing.T) {
		x := newExchanges(clock)
		broken, other := new(link), new(link)
		open, beside := x.start(key), x.start(match{stan: "000002"})
		x.over(open, broken)
		x.over(beside, other)
		x.drop(broken)
		x.drop(broken)
		<-open.lost
		select {
		case <-beside.lost:
			t.Error("what left by the other link was told as well")
		default:
		}
	})
	t.Run("R-03 a link that broke before a request left by another says nothing of it", func(t *testing.T) {
		x := newExchanges(clock)
		down, up := new(link), new(link)
		open := x.start(key)
		x.over(open, down) // and it is not connected
		x.drop(down)
		x.over(open, up)
		x.drop(down)
		select {
		case <-open.lost:
			t.Fatal("what left by another link is told that it is lost")
		default:
		}
		var drops sync.WaitGroup
		for range 4 {
			drops.Go(func() { x.drop(down); x.drop(up) })
		}
		<-open.lost
		drops.Wait()
	})
}

func TestNumbers(t *testing.T) {
	journal := newMemory()
	seen := map[string]bool{}
	for range 3 { // starts of the process
		n := &numbers{journal: journal, clock: func() time.Time { return noon }}
		for range 10 {
			got, err := n.take(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if seen[got.stan] || len(got.stan) != 6 || len(got.rrn) != 12 || got.sent != "1122120000" {
				t.Fatalf("W-08: number %+v, or given twice", got)
			}
			seen[got.stan] = true
		}
	}
	fresh := newMemory() // of a version that counted for each upstream
	_ = fresh.Update(context.Background(), func(tx Tx) error {
		_, err := tx.Reserve("stan/old", 70_000)
		return err
	})
	after := &numbers{journal: fresh, before: []string{"stan/none", "stan/old"}, clock: func() time.Time { return noon }}
	if got, err := after.take(context.Background()); err != nil || got.stan < "070000" {
		t.Errorf("after an upgrade the numbers begin at %s again, %v", got.stan, err)
	}
	journal.failNext = errors.New("disk full")
	n := &numbers{journal: journal, clock: func() time.Time { return noon }}
	if _, err := n.take(context.Background()); err == nil {
		t.Error("a number that was not reserved was given out")
	}
}

func TestBackoff(t *testing.T) {
	r, err := Retry{First: time.Second, Ceiling: 5 * time.Second}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	for tries, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 4: 5 * time.Second, 400: 5 * time.Second} {
		if got := r.backoff(tries); got != want {
			t.Errorf("after %d tries %v, want %v", tries, got, want)
		}
	}
	for range 100 {
		if d := jitter(time.Second); d < time.Second || d >= 5*time.Second/4 {
			t.Fatalf("jitter gave %v", d)
		}
	}
}

func TestStorable(t *testing.T) {
	for _, c := range []struct {
		name string
		emv  []byte
		kept bool
	}{
		{"authentication data and response code", []byte{0x91, 2, 1, 2, 0x8A, 2, '0', '0'}, true},
		{"script with a long length", append([]byte{0x71, 0x81, 200}, make([]byte, 200)...), true},
		{"A-26 track 2 equivalent", []byte{0x57, 2, 1, 2}, false},
		{"A-26 PAN behind what is allowed", []byte{0x91, 1, 1, 0x5A, 2, 1, 2}, false},
		{"cut off", []byte{0x91, 9, 1}, false},
		{"half a tag", []byte{0x91}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := storable(c.emv); (got != nil) != c.kept {
				t.Errorf("kept %v", got != nil)
			}
		})
	}
}

func FuzzStorable(f *testing.F) {
	f.Add([]byte{0x91, 2, 1, 2})
	f.Fuzz(func(t *testing.T, emv []byte) {
		if got := storable(emv); got != nil && !bytes.Equal(got, emv) {
			t.Error("changed what it kept")
		}
	})
}

// safeConfig is a configuration that New takes.
func safeConfig() Config {
	return Config{
		Custody: new(custody.Custody), Journal: newMemory(), Dialect: iso8583.ASCII87(), Log: quiet(),
		TLS: &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12},
		Upstreams: []Upstream{{
			Name: "issuer", Links: []Endpoint{{Addr: "127.0.0.1:1", TLS: &tls.Config{MinVersion: tls.VersionTLS12}}},
			PINKey: custody.Ref{Alias: "alias/zpk"}, MACKey: custody.Ref{Alias: "alias/zak"},
		}},
		Limits: Limits{MaxAmount: 1, Currencies: []string{"978"}},
	}
}

// twins are two upstreams, of which the second may change its zone keys.
func twins(c *Config, change func(*Upstream)) []Upstream {
	other := c.Upstreams[0]
	other.Name, other.ExchangeKey = "other", custody.Ref{Alias: "alias/kek"}
	change(&other)
	c.Routes = []Route{{Name: "all", Upstream: "other"}}
	return append(c.Upstreams, other)
}

// TestSharedKeys: what no host may change two upstreams may share.
func TestSharedKeys(t *testing.T) {
	cfg := safeConfig()
	cfg.Upstreams = twins(&cfg, func(u *Upstream) { u.ExchangeKey = custody.Ref{} })
	if _, err := New(cfg); err != nil {
		t.Errorf("two upstreams with the same keys, which nobody changes: %v", err)
	}
	cfg = safeConfig()
	cfg.Upstreams = twins(&cfg, func(u *Upstream) { u.PINKey.Alias, u.MACKey.Alias = "alias/zpk2", "alias/zak2" })
	if _, err := New(cfg); err != nil {
		t.Errorf("two upstreams with keys of their own: %v", err)
	}
}

func TestConfig(t *testing.T) {
	if _, err := New(safeConfig()); err != nil {
		t.Fatalf("a safe configuration is refused: %v", err)
	}
	for _, c := range []struct {
		name, says string
		change     func(*Config)
	}{
		{"no journal", "needed", func(c *Config) { c.Journal = nil }},
		{"client certificates not demanded", "client certificates", func(c *Config) { c.TLS.ClientAuth = tls.VerifyClientCertIfGiven }},
		{"old TLS", "TLS 1.2", func(c *Config) { c.TLS.MinVersion = tls.VersionTLS10 }},
		{"A-07.T3 M-06 no zone MAC key", "zone MAC key", func(c *Config) { c.Upstreams[0].MACKey = custody.Ref{} }},
		{"no zone PIN key", "zone PIN key", func(c *Config) { c.Upstreams[0].PINKey = custody.Ref{} }},
		{"upstream not verified", "verified server", func(c *Config) { c.Upstreams[0].Links[0].TLS.InsecureSkipVerify = true }},
		{"upstream without TLS", "verified server", func(c *Config) { c.Upstreams[0].Links[0].TLS = nil }},
		{"T_upstream not below T_switch", "T_upstream", func(c *Config) { c.Timers.Upstream = 30 * time.Second }},
		{"T_switch not below T_terminal", "T_terminal", func(c *Config) { c.Timers.Switch = time.Minute }},
		{"T_hold not below T_terminal", "T_hold", func(c *Config) { c.Timers.Hold = time.Minute }},
		{"max_age above look_back", "look_back", func(c *Config) { c.Timers.MaxAge = 8 * 24 * time.Hour }},
		{"one zone PIN key of two, which a host changes", "share a zone key", func(c *Config) {
			c.Upstreams = twins(c, func(u *Upstream) { u.MACKey.Alias = "alias/zak2" })
		}},
		{"one zone MAC key of two, which a host changes", "share a zone key", func(c *Config) {
			c.Upstreams = twins(c, func(u *Upstream) { u.PINKey.Alias = "alias/zpk2" })
		}},
		{"negative timer", "negative", func(c *Config) { c.Timers.Stray = -1 }},
		{"no currency", "currency", func(c *Config) { c.Limits.Currencies = nil }},
		{"no greatest amount", "amount", func(c *Config) { c.Limits.MaxAmount = 0 }},
		{"partial reversals of balances", "partial", func(c *Config) { c.Limits.PartialTypes = []string{"31"} }},
		{"ceiling below the first retry", "retries", func(c *Config) { c.Retry.First, c.Retry.Ceiling = 2, 1 }},
		{"negative lock-out", "lock-out", func(c *Config) { c.Lockout.Failures = -1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := safeConfig()
			c.change(&cfg)
			_, err := New(cfg)
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want ErrConfig about %q", err, c.says)
			}
		})
	}
}

// TestVoidsLocally is D-20: the lock on the original decides between a sale that
// never leaves and one whose reversal waits.
func TestVoidsLocally(t *testing.T) {
	for _, left := range []bool{false, true} {
		m := newMachine()
		m.sell()
		if left {
			m.depart()
		}
		m.reverse("0400", -1, "")
		x := m.journal.held.txns[m.sale.OID]
		switch {
		case left && (!x.ReverseOnCompletion || x.State != Forwarded):
			t.Errorf("D-18: the original is %s", x.State)
		case !left && (x.State != LocalVoid || m.flight.depart()):
			t.Errorf("D-20: the original is %s and may leave: %v", x.State, m.flight.depart())
		}
	}
}

// TestLeftJustNow is the race of D-20: the sale leaves between the look and the
// effect.
func TestLeftJustNow(t *testing.T) {
	m := newMachine()
	m.sell()
	q := goodQuestion()
	q.token, q.rrn, q.approval = "k1:card", "", ""
	x := m.journal.held.txns[m.sale.OID]
	f := facts{original: &x, left: false}
	m.depart()
	r := m.message("0400", func(b *iso8583.Builder) { b.Set(39, "06").Set(90, strings.Repeat("0", 42)) })
	err := m.journal.Update(context.Background(), func(tx Tx) error {
		d, err := m.s.apply(tx, r, q, f, custody.Card{}, number{stan: "000009"})
		if d.verdict.rule != "D-18" {
			t.Errorf("decided %s, want D-18", d.verdict.rule)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestKeepLate is section 7.1: DE 38 of a late answer goes into the reversal
// only while that has not been sent.
func TestKeepLate(t *testing.T) {
	for _, sent := range []bool{false, true} {
		m := newMachine()
		m.sell()
		m.depart()
		m.settle(result{kind: unknownResult, cause: ByTimeout, code: "68"})
		if sent {
			m.forward("00", false)
		}
		err := m.journal.Update(context.Background(), func(tx Tx) error {
			_, err := keepLate(tx, m.sale.OID, "00", "A1B2C3")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		x := m.journal.held.txns[m.sale.OID]
		if x.Late != "00 A1B2C3" || (x.Approval == "A1B2C3") == sent || x.State != ReversalPending {
			t.Errorf("sent %v: late %q, approval %q, %s", sent, x.Late, x.Approval, x.State)
		}
	}
}
