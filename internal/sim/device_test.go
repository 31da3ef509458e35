package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/profile"
)

// host answers a UnionPay terminal as its switch would, by a script of codes. It
// has the keys of V0.
type host struct {
	t    testing.TB
	addr string
	u    *UnionPay

	mu    sync.Mutex
	codes map[string][]string // by what is asked: the next answers; "silent" gives none
	seen  []string            // what came: kind, STAN, reason
	twice bool                // the answer that is being written goes out twice
	sales map[string]string   // by STAN: approved, reversed
	dials int
	ended int // connections
}

func newHost(t testing.TB) *host {
	t.Helper()
	u, _ := cupTerminal(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, addr: l.Addr().String(), u: u, codes: map[string][]string{}, sales: map[string]string{}}
	ctx, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { conn.Close() })
			work.Go(func() {
				h.serve(conn)
				h.mu.Lock()
				defer h.mu.Unlock()
				h.ended++
			})
		}
	})
	t.Cleanup(func() { stop(); l.Close(); work.Wait() })
	return h
}

func (h *host) serve(conn net.Conn) {
	defer conn.Close()
	for {
		raw, err := iso8583.ReadFrame(conn)
		if err != nil {
			return
		}
		m, err := h.u.cfg.Dialect.Parse(raw, iso8583.SideTerminal)
		if err != nil {
			return
		}
		answer := h.answer(m)
		if answer == nil {
			continue
		}
		frame, err := iso8583.AppendFrame(nil, answer)
		if err != nil {
			return
		}
		if h.doubled() {
			frame = append(frame, frame...)
		}
		if _, err := conn.Write(frame); err != nil {
			return
		}
	}
}

func (h *host) doubled() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { h.twice = false }()
	return h.twice
}

// answer keeps the book and answers.
func (h *host) answer(m *iso8583.Message) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	kind, stan := string(m.MTI()), m.Text(11)
	h.seen = append(h.seen, strings.TrimSpace(fmt.Sprintf("%s %s %s", kind, stan, m.Text(39))))
	code := "A0"
	if m.MTI().Class() == '8' || h.u.verified(m) == MACValid {
		code = h.work(kind, stan, m.Text(4))
	}
	if next := h.codes[kind]; len(next) > 0 {
		code, h.codes[kind] = next[0], next[1:]
	}
	if code == "silent" {
		return nil
	}
	code, h.twice = strings.CutSuffix(code, "+")
	b := m.Answer(strings.TrimSuffix(code, "!"))
	if m.MTI().Class() == '8' {
		if m.MTI() == iso8583.NetworkRequest {
			b.Set(62, v0Keys)
		}
		raw, err := b.PackWithoutMAC()
		if err != nil {
			h.t.Error(err)
		}
		return raw
	}
	sent, err := h.u.seal(b.Set(12, "101530").Set(13, "1121").Set(37, "112110000403"))
	if err != nil {
		h.t.Error(err)
		return nil
	}
	if strings.HasSuffix(code, "!") {
		return spoiled(sent.Raw)
	}
	return sent.Raw
}

// work is what the host does: amounts whose last digit is odd are declined.
func (h *host) work(kind, stan, amount string) string {
	switch kind {
	case "0100", "0200", "0220":
		if amount != "" && amount[len(amount)-1]%2 == 1 {
			return "51"
		}
		h.sales[stan] = "approved"
	case "0400":
		if h.sales[stan] == "" {
			return "25"
		}
		h.sales[stan] = "reversed"
	}
	return "00"
}

// script gives the next answers to a message type; "!" after a code spoils the MAC,
// "+" sends the answer twice.
func (h *host) script(kind string, codes ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.codes[kind] = codes
}

func (h *host) took() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { h.seen = nil }()
	return append([]string{}, h.seen...)
}

func (h *host) book() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[string]string{}
	for k, v := range h.sales {
		all[k] = v
	}
	return all
}

// device is the terminal of the folder, at the host.
func (h *host) device(t testing.TB, dir string, wait time.Duration) *Device {
	t.Helper()
	p, err := profile.Builtin("unionpay")
	if err != nil {
		t.Fatal(err)
	}
	u, err := NewUnionPay(UnionPayConfig{TID: "10000198", MID: "501000824100020", TMK: v0TMK, Dialect: p.Dialect, Algorithm: "cup_ecb"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDevice(DeviceConfig{Speaker: u, Dir: dir, Dial: func(ctx context.Context) (*Link, error) {
		h.mu.Lock()
		h.dials++
		h.mu.Unlock()
		return Dial(ctx, h.addr, nil, wait)
	}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// read waits until the host has read all that a terminal sent that is closed.
func (h *host) read(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(patient); ; time.Sleep(time.Millisecond) {
		h.mu.Lock()
		done := h.ended == h.dials
		h.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the host still reads")
		}
	}
}

func sale(amount int64, f Faults) Order {
	return Order{Do: DoSale, Amount: amount, Card: Card{PAN: "6224242900000113", PIN: testPINOfTrials}, Faults: f}
}

const (
	patient   = 10 * time.Second
	impatient = 50 * time.Millisecond // for answers that never come
)

// TestDeviceReasons is U-57 to U-63: what a terminal reverses, why, how often, and
// when it is done with it.
func TestDeviceReasons(t *testing.T) {
	tests := []struct {
		name    string
		sale    []string // the host's answers
		faults  Faults
		undo    []string
		owed    string   // after the sale
		sends   []string // reasons of the reversals, in order
		code    string
		givenUp bool
		signs   int // sign-ins between
	}{
		{name: "approved", sale: []string{"00"}},
		{name: "declined", sale: []string{"51"}},
		{name: "declined with a bad MAC (A-20)", sale: []string{"51!"}},
		{name: "no answer", sale: []string{"silent"}, owed: "98", sends: []string{"98"}, code: "00"},
		{name: "lost answer", faults: Faults{LoseAnswer: true}, owed: "98", sends: []string{"98"}, code: "00"},
		{name: "cut connection", faults: Faults{Cut: true}, owed: "98", sends: []string{"98"}, code: "00"},
		{name: "approved with a bad MAC", sale: []string{"00!"}, owed: "A0", sends: []string{"A0"}, code: "00"},
		{name: "answer turned on the way", faults: Faults{AnswerMAC: true}, owed: "A0", sends: []string{"A0"}, code: "00"},
		{name: "card gone after the approval", faults: Faults{CardGone: true}, owed: "06", sends: []string{"06"}, code: "00"},
		{name: "card gone after a decline", sale: []string{"51"}, faults: Faults{CardGone: true}},
		{name: "answer cut short", faults: Faults{Garble: true}, owed: "06", sends: []string{"06"}, code: "00"},
		{name: "reversal ends with 12", sale: []string{"silent"}, undo: []string{"12"}, owed: "98", sends: []string{"98"}, code: "12"},
		{name: "reversal ends with 25", sale: []string{"silent"}, undo: []string{"25"}, owed: "98", sends: []string{"98"}, code: "25"},
		{name: "reversal answered 96, then 00", sale: []string{"silent"}, undo: []string{"96", "00"}, owed: "98", sends: []string{"98", "06"}, code: "00"},
		{name: "reversal answered A0: a new sign-in", sale: []string{"silent"}, undo: []string{"A0", "00"}, owed: "98", sends: []string{"98", "06"}, code: "00", signs: 1},
		{name: "reversal answered 00 with a bad MAC", sale: []string{"silent"}, undo: []string{"00!", "00"}, owed: "98", sends: []string{"98", "98"}, code: "00"},
		{name: "given up after three", sale: []string{"silent"}, undo: []string{"96", "silent", "silent"}, owed: "98", sends: []string{"98", "06", "06"}, code: "96", givenUp: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, dir := newHost(t), t.TempDir()
			wait := patient
			if slicesContain(tt.sale, "silent") {
				wait = impatient
			}
			d := h.device(t, dir, wait)
			defer d.Close()
			h.script("0200", tt.sale...)
			h.script("0400", tt.undo...)
			r, err := d.Do(t.Context(), sale(100, tt.faults))
			if err != nil {
				t.Fatal(err)
			}
			if r.Owed != tt.owed || (d.State().Pending != nil) != (tt.owed != "") {
				t.Errorf("owes %q, want %q (%v)", r.Owed, tt.owed, r.Fault)
			}
			h.took()
			next, err := d.Do(t.Context(), sale(200, Faults{}))
			if err != nil {
				t.Fatal(err)
			}
			var reasons []string
			signs := 0
			seen := h.took()
			for _, s := range seen {
				if reason, ok := strings.CutPrefix(s, "0400 "+r.Sent.Message.Text(11)+" "); ok {
					reasons = append(reasons, reason)
				}
				if strings.HasPrefix(s, "0800") {
					signs++
				}
			}
			if diff := cmp.Diff(tt.sends, reasons); diff != "" {
				t.Errorf("reversals (-want +got):\n%s", diff)
			}
			if signs != tt.signs {
				t.Errorf("%d sign-ins, want %d", signs, tt.signs)
			}
			if last := seen[len(seen)-1]; !strings.HasPrefix(last, "0200 ") {
				t.Errorf("U-61: the new sale went before the reversal: %q", seen)
			}
			if tt.owed == "" {
				if next.Before != nil {
					t.Errorf("a reversal went out: %+v", next.Before)
				}
				return
			}
			if b := next.Before; b == nil || b.Code != tt.code || b.GivenUp != tt.givenUp || d.State().Pending != nil {
				t.Errorf("%+v; want code %s, given up %v", b, tt.code, tt.givenUp)
			}
		})
	}
}

func slicesContain(list []string, s string) bool { return strings.Contains(strings.Join(list, " "), s) }

// TestDeviceSignsIn is U-47 and U-49: before the first message, and after A0 and
// 99, but not after 03 or 12.
func TestDeviceSignsIn(t *testing.T) {
	for code, signs := range map[string]bool{"A0": true, "99": true, "03": false, "12": false, "97": false} {
		t.Run(code, func(t *testing.T) {
			h := newHost(t)
			d := h.device(t, t.TempDir(), patient)
			defer d.Close()
			h.script("0200", code)
			r, err := d.Do(t.Context(), sale(100, Faults{}))
			if err != nil || r.Code != code || !r.SignedIn || r.Owed != "" {
				t.Fatalf("%+v, %v", r, err)
			}
			if r, err = d.Do(t.Context(), sale(100, Faults{})); err != nil || r.Code != "00" || r.SignedIn != signs {
				t.Errorf("then %s, signed in: %v, %v", r.Code, r.SignedIn, err)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		h := newHost(t)
		d := h.device(t, t.TempDir(), patient)
		defer d.Close()
		h.script("0800", "97")
		if _, err := d.Do(t.Context(), sale(100, Faults{})); !errors.Is(err, ErrSignIn) {
			t.Errorf("%v", err)
		}
		if got := h.took(); len(got) != 1 {
			t.Errorf("it sent %q", got)
		}
	})
}

// TestDeviceRefundAgain is U-20: an advice is sent again, never reversed.
func TestDeviceRefundAgain(t *testing.T) {
	h := newHost(t)
	d := h.device(t, t.TempDir(), impatient)
	defer d.Close()
	bought, err := d.Do(t.Context(), sale(100, Faults{}))
	if err != nil {
		t.Fatal(err)
	}
	m := bought.Sent.Remember(bought.Answer)
	h.took()
	h.script("0220", "silent", "00")
	r, err := d.Do(t.Context(), Order{Do: DoRefund, Amount: 100, Of: &m})
	if err != nil || r.Code != "00" || r.Sends != 2 || r.Owed != "" {
		t.Fatalf("%+v, %v", r, err)
	}
	stan := r.Sent.Message.Text(11)
	if diff := cmp.Diff([]string{"0220 " + stan, "0220 " + stan}, h.took()); diff != "" {
		t.Error(diff)
	}
}

// TestDeviceAdvicePower: an advice waits over losses of power and goes, with the
// same numbers, before anything new; its tries are counted.
func TestDeviceAdvicePower(t *testing.T) {
	h, dir := newHost(t), t.TempDir()
	run := func(o Order) *Result {
		t.Helper()
		d := h.device(t, dir, patient)
		r, err := d.Do(t.Context(), o)
		d.Close()
		h.read(t)
		if err != nil && !errors.Is(err, ErrPower) {
			t.Fatal(err)
		}
		return r
	}
	bought := run(sale(100, Faults{}))
	m := bought.Sent.Remember(bought.Answer)
	refund := Order{Do: DoRefund, Amount: 100, Of: &m, Faults: Faults{PowerAt: StageSend}}
	stan := run(refund).Sent.Message.Text(11)
	h.took()
	r := run(sale(200, Faults{}))
	if a := r.Advised; a == nil || a.STAN != stan || a.Code != "00" || a.Tries != 2 || a.GivenUp {
		t.Errorf("%+v", r.Advised)
	}
	if got := h.took(); len(got) != 2 || got[0] != "0220 "+stan {
		t.Errorf("it sent %q", got)
	}
	if r = run(Order{Do: DoResume}); r.Advised != nil {
		t.Errorf("and again: %+v", r.Advised)
	}
}

// TestDevicePower: power goes at any stage of a sale, and then at any stage of what
// the terminal does next. Afterwards no sale of which it printed nothing stands at
// the host, none that it printed as approved is gone, no STAN was used twice, and
// the reversal went before anything else (U-57, U-61, A-27).
func TestDevicePower(t *testing.T) {
	stages := append([]Stage{""}, Stages()...)
	for _, first := range stages {
		for _, second := range stages {
			t.Run(fmt.Sprintf("%s,%s", first, second), func(t *testing.T) {
				t.Parallel()
				powerTrial(t, []Stage{first, second, ""})
			})
		}
	}
}

func powerTrial(t *testing.T, losses []Stage) {
	h, dir := newHost(t), t.TempDir()
	printed := map[string]bool{} // approved, by STAN
	for n, power := range losses {
		h.took()
		d := h.device(t, dir, patient)
		owed := d.State().Pending
		r, err := d.Do(t.Context(), sale(100, Faults{PowerAt: power, LoseAnswer: n == 0 && power == ""}))
		if err != nil && !errors.Is(err, ErrPower) {
			t.Fatal(err)
		}
		if err == nil && r.Code == "00" {
			printed[r.Sent.Message.Text(11)] = true
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		h.read(t)
		checkOrder(t, owed, h.took())
	}
	for stan, state := range h.book() {
		if (state == "approved") != printed[stan] {
			t.Errorf("STAN %s is %s at the host, printed as approved: %v", stan, state, printed[stan])
		}
	}
}

// checkOrder: what was owed went first, and every STAN is of one sale.
func checkOrder(t *testing.T, owed *Pending, seen []string) {
	t.Helper()
	stans := map[string]bool{}
	for i, s := range seen {
		if strings.HasPrefix(s, "0200 ") {
			if stans[s] {
				t.Fatalf("a STAN twice: %q", seen)
			}
			stans[s] = true
		}
		if i == 0 && owed != nil && s != fmt.Sprintf("0400 %s %s", owed.Original.field(11), owed.Reason) {
			t.Fatalf("owed was the reversal of %s, and %q went first", owed.Original.field(11), s)
		}
	}
}

// TestDeviceTries: tries are counted over losses of power; after three the terminal
// goes on (U-62).
func TestDeviceTries(t *testing.T) {
	h, dir := newHost(t), t.TempDir()
	lose := func(o Order) *Result {
		t.Helper()
		d := h.device(t, dir, patient)
		r, err := d.Do(t.Context(), o)
		d.Close()
		h.read(t)
		if err != nil && !errors.Is(err, ErrPower) {
			t.Fatal(err)
		}
		return r
	}
	lose(sale(100, Faults{PowerAt: StageSend}))
	for range reversalTries {
		lose(Order{Do: DoResume, Faults: Faults{PowerAt: StageReversalSend}})
	}
	h.took()
	r := lose(sale(200, Faults{}))
	if r.Before == nil || !r.Before.GivenUp || r.Before.Tries != reversalTries || r.Code != "00" {
		t.Errorf("%+v, before it %+v", r, r.Before)
	}
	if got := h.took(); len(got) != 1 || !strings.HasPrefix(got[0], "0200") {
		t.Errorf("it sent %q", got)
	}
	slips, err := ReadSlips(dir)
	if err != nil || len(slips) != 2 || slips[0].Result != "reversal failed" || slips[1].Result != "approved" {
		t.Errorf("slips %+v, %v", slips, err)
	}
}

// TestDeviceFolder: one process at a time, and nothing is begun anew that cannot be
// read.
func TestDeviceFolder(t *testing.T) {
	h, dir := newHost(t), t.TempDir()
	d := h.device(t, dir, patient)
	cfg := DeviceConfig{Speaker: d.cfg.Speaker, Dir: dir, Dial: d.cfg.Dial}
	if _, err := NewDevice(cfg); !errors.Is(err, ErrState) {
		t.Errorf("a second one in the folder: %v", err)
	}
	if _, err := d.Do(t.Context(), sale(100, Faults{})); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "{", `{"stan":1}{}`, `{"stan":1000000}`, `{"stan":1,"colour":"red"}`, `{"stan":1,"pending":{"original":{"mti":"0210"},"reason":"98"}}`} {
		if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := NewDevice(cfg); !errors.Is(err, ErrState) {
			t.Errorf("%q was taken: %v", text, err)
		}
	}
	if _, err := ReadState(t.TempDir()); !errors.Is(err, ErrState) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no terminal: %v", err)
	}
}

// TestDeviceStray: after an answer that belongs to another message the terminal
// hangs up, and what is left on that connection is not read as the answers to what
// it sends next (U-58).
func TestDeviceStray(t *testing.T) {
	h := newHost(t)
	d := h.device(t, t.TempDir(), patient)
	defer d.Close()
	h.script("0200", "00+")
	if r, err := d.Do(t.Context(), sale(100, Faults{})); err != nil || r.Code != "00" {
		t.Fatalf("%+v, %v", r, err)
	}
	r, err := d.Do(t.Context(), sale(200, Faults{}))
	if err != nil || !errors.Is(r.Fault, ErrMismatch) || r.Owed != "06" {
		t.Fatalf("the answer to the sale before: %+v, %v", r, err)
	}
	r, err = d.Do(t.Context(), sale(400, Faults{}))
	if err != nil {
		t.Fatal(err)
	}
	if b := r.Before; b == nil || b.Code != "00" || b.Tries != 1 || r.Code != "00" {
		t.Errorf("then %+v, before it %+v", r, r.Before)
	}
}

// TestDeviceUnreachable: what could not leave is no try.
func TestDeviceUnreachable(t *testing.T) {
	h, dir := newHost(t), t.TempDir()
	d := h.device(t, dir, patient)
	if _, err := d.Do(t.Context(), sale(100, Faults{LoseAnswer: true})); err != nil {
		t.Fatal(err)
	}
	d.hangUp()
	away := errors.New("away")
	d.cfg.Dial = func(context.Context) (*Link, error) { return nil, away }
	if _, err := d.Do(t.Context(), sale(100, Faults{})); !errors.Is(err, ErrUnreachable) || !errors.Is(err, away) {
		t.Errorf("%v", err)
	}
	if p := d.State().Pending; p == nil || p.Tries != 0 {
		t.Errorf("pending %+v", p)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// FuzzState: a state on file may be anything.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"stan":7,"batch":24,"keys":"` + v0Keys + `","pending":{"original":{"mti":"0200","ksn":"","fields":{"2":"6224242900000113","11":"000403","60":"2200002400060"}},"reason":"98","tries":1}}`))
	f.Add([]byte(`{}`))
	u, _ := cupTerminal(f, nil)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var s State
		if err := s.parse(raw); err != nil {
			return
		}
		if err := u.begin(&s, false); err != nil || s.Pending == nil || !u.ready(&s) {
			return
		}
		_, _ = u.reversal(&s, s.Pending) // an error, never a panic
	})
}

// TestDeviceReprints: a slip that power kept from being printed is printed at the
// next start, once.
func TestDeviceReprints(t *testing.T) {
	h, dir := newHost(t), t.TempDir()
	open := func(do func(*Device)) []Slip {
		t.Helper()
		d := h.device(t, dir, patient)
		do(d)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		slips, err := ReadSlips(dir)
		if err != nil {
			t.Fatal(err)
		}
		return slips
	}
	first := open(func(d *Device) {
		if _, err := d.Do(t.Context(), sale(100, Faults{})); err != nil {
			t.Fatal(err)
		}
	})
	if len(first) != 1 || first[0].RRN != "112110000403" || first[0].Result != "approved" {
		t.Fatalf("%+v", first)
	}
	if err := os.WriteFile(filepath.Join(dir, slipFile), []byte(`{"time":"2026-`), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if diff := cmp.Diff(first, open(func(*Device) {})); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}
