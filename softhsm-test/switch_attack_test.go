package softhsmtest_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/dudect"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
	"keyd.dev/keyd/mac"
)

// TestAttacks are attacks of terminals on reversals, with two registered
// terminals: nothing goes upstream, no row of the database changes, and one
// record names what was refused.
func TestAttacks(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), func(c *isoswitch.Config) { c.Lockout.Failures = 1000 })
	a := &attack{h: h, victim: h.pos(0), thief: h.pos(2)}
	a.sale, a.answer = a.victim.sell(9100)
	a.thief.sell(9102)
	for _, c := range []struct {
		name string
		make func() ([]byte, error)
		code string
		rule string
	}{
		{"A-01.T2 D-04 receipt, the victim's TID, the thief's key", a.underThiefsKey, "63", "D-04"},
		{"A-01.T3 R-62 receipt, a guessed MAC", a.guessed("0400"), "63", "D-04"},
		{"A-01.T3 R-62 receipt, no MAC", a.bare("0400"), "63", "D-03"},
		{"A-04.T2 sale of another terminal", a.saleUnderThiefsKey, "63", "D-04"},
		{"A-04.T3 reversal without MAC", a.bare("0400"), "63", "D-03"},
		{"A-04.T3 refund without MAC", a.bare("0220"), "63", "D-03"},
		{"A-07.T1 D-03 R-40 0400", a.bare("0400"), "63", "D-03"},
		{"A-07.T2 R-40 0200", a.bare("0200"), "63", "D-03"},
		{"A-07.T2 R-40 0420", a.bare("0420"), "63", "D-03"},
		{"A-07.T2 R-40 0421", a.bare("0421"), "63", "D-03"},
		{"A-09.T1 a zero in the last variable field", a.longerKSN, "63", "D-06"},
		{"A-09.T1 a zero where padding would put it", a.zeroBeforeMAC, "30", "D-01"},
		{"A-09.T2 a zero after the last field", a.zeroAfterMAC, "30", "D-01"},
		{"A-11.T1 D-03 no byte of the MAC", a.cutMAC(0), "63", "D-03"},
		{"A-11.T1 D-03 one byte", a.cutMAC(1), "63", "D-03"},
		{"A-11.T1 D-03 four bytes", a.cutMAC(4), "63", "D-03"},
		{"A-11.T1 D-03 seven bytes", a.cutMAC(7), "63", "D-03"},
		{"A-11.T1 D-04 a right beginning and zeros", a.prefixMAC, "63", "D-04"},
		{"A-16.T1 D-06 another device's KSN and MAC", a.foreignKSN, "63", "D-06"},
		{"A-24.T3 D-04 0421 with a bad MAC", a.guessed("0421"), "63", "D-04"},
	} {
		t.Run("I-6 R-12 "+c.name, func(t *testing.T) { a.refused(t, c.make, c.code, c.rule) })
	}
	// After all of it the genuine one takes effect.
	wantCode(t, a.victim.undo(iso8583.ReversalRequest, a.sale, a.answer, nil), "00")
	h.awaitReversed(a.sale)
}

// attack is a victim with an approved sale, and a thief who knows its receipt.
type attack struct {
	h             *house
	victim, thief *pos
	sale          *sim.Sent
	answer        *iso8583.Message
}

// refused sends a message by the thief's connection.
func (a *attack) refused(t *testing.T, build func() ([]byte, error), code, rule string) {
	h := a.h
	raw, err := build()
	must(t, err)
	book, rows := h.issuer.Book(), h.rows()
	named := func(r record) bool {
		return r.ISO.Rule == rule && r.ISO.DE39 == code || rule == "D-01" && r.Action == "frame.refuse"
	}
	before := len(h.records(named))
	wantCode(t, a.thief.parsed(raw), code)
	if n := len(h.records(named)) - before; n != 1 {
		t.Errorf("%d records that name %s, want 1", n, rule)
	}
	if diff := cmp.Diff(book, h.issuer.Book()); diff != "" {
		t.Errorf("something went upstream (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(rows, h.rows()); diff != "" {
		t.Errorf("the database has changed (-before +after):\n%s", diff)
	}
}

// rows are those of all tables, except that of terminals, which are none of a
// message's business.
func (h *house) rows() map[string][]string {
	h.t.Helper()
	all := make(map[string][]string)
	h.sql(func(db *sql.DB) error {
		for _, table := range []string{"txn", "reversal", "ksn", "accepted", "counter"} {
			found, err := rowsOf(db, table)
			if err != nil {
				return err
			}
			all[table] = found
		}
		return nil
	})
	return all
}

func rowsOf(db *sql.DB, table string) (found []string, err error) {
	rows, err := db.Query("SELECT * FROM " + table)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close(), rows.Err()) }()
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		values := make([]any, len(names))
		for i := range values {
			values[i] = new(any)
		}
		if err := rows.Scan(values...); err != nil {
			return nil, err
		}
		line := ""
		for i, v := range values {
			line += fmt.Sprintf("%s=%x ", names[i], *v.(*any))
		}
		found = append(found, line)
	}
	slices.Sort(found)
	return found, nil
}

// reversal is a good one of the victim's, whose KSN is then as if never used.
func (a *attack) reversal(mti iso8583.MTI, draft sim.Draft) (*sim.Sent, error) {
	return a.victim.Reversal(mti, a.sale, a.answer.Text(37), a.answer.Text(38), draft)
}

// underThiefsKey has the victim's TID and next KSN, and the MAC of the thief's
// key for its own.
func (a *attack) underThiefsKey() ([]byte, error) {
	good, err := a.reversal(iso8583.ReversalRequest, nil)
	if err != nil {
		return nil, err
	}
	forged, err := a.thief.Reversal(iso8583.ReversalRequest, a.sale, a.answer.Text(37), a.answer.Text(38), func(b *iso8583.Builder) {
		b.Set(41, "T0000001").Set(42, "M00000000000001").Set(62, good.KSN)
	})
	if err != nil {
		return nil, err
	}
	return forged.Raw, nil
}

func (a *attack) saleUnderThiefsKey() ([]byte, error) {
	good, err := a.victim.Sale(9104, visa, nil)
	if err != nil {
		return nil, err
	}
	forged, err := a.thief.Sale(9104, sim.Card{PAN: visa.PAN}, func(b *iso8583.Builder) {
		b.Set(41, "T0000001").Set(42, "M00000000000001").Set(62, good.KSN)
	})
	if err != nil {
		return nil, err
	}
	return forged.Raw, nil
}

func (a *attack) foreignKSN() ([]byte, error) {
	forged, err := a.thief.Reversal(iso8583.ReversalRequest, a.sale, a.answer.Text(37), a.answer.Text(38), func(b *iso8583.Builder) {
		b.Set(41, "T0000001").Set(42, "M00000000000001")
	})
	if err != nil {
		return nil, err
	}
	return forged.Raw, nil
}

// genuine is a message of the type with a valid MAC of the victim's.
func (a *attack) genuine(mti iso8583.MTI) (*sim.Sent, error) {
	if mti.Class() == '4' {
		return a.reversal(mti, nil)
	}
	return a.victim.Sale(9106, sim.Card{PAN: visa.PAN}, nil)
}

func (a *attack) guessed(mti iso8583.MTI) func() ([]byte, error) {
	return func() ([]byte, error) {
		good, err := a.genuine(mti)
		if err != nil {
			return nil, err
		}
		raw := bytes.Clone(good.Raw)
		copy(raw[len(raw)-16:], "0123456789ABCDEF")
		return raw, nil
	}
}

// bare takes the MAC and its bit out of a good message: that of DE 128 where
// DE 90 brings a secondary bitmap with it, else that of DE 64.
func (a *attack) bare(mti iso8583.MTI) func() ([]byte, error) {
	return func() ([]byte, error) {
		good, err := a.genuine(mti)
		if err != nil {
			return nil, err
		}
		raw := append([]byte(mti), good.Raw[4:len(good.Raw)-16]...)
		if mti == iso8583.FinancialAdvice {
			raw = bytes.Replace(raw, []byte(visa.PAN+"000000"), []byte(visa.PAN+"200000"), 1)
		}
		last := 4 + 16 - 1
		if mti.Class() == '4' {
			last = 4 + 32 - 1
		}
		bits, err := hex.DecodeString("0" + string(raw[last]))
		if err != nil || bits[0]&1 == 0 {
			return nil, fmt.Errorf("the last bit of the bitmap is not set: %q", raw[:36])
		}
		raw[last] = "0123456789ABCDEF"[bits[0]&0xE]
		return raw, nil
	}
}

// longerKSN has a zero byte more in DE 62, and its length says so.
func (a *attack) longerKSN() ([]byte, error) {
	good, err := a.genuine("0200")
	if err != nil {
		return nil, err
	}
	raw := bytes.Replace(good.Raw, []byte("020"+good.KSN), []byte("021"+good.KSN+"\x00"), 1)
	if len(raw) != len(good.Raw)+1 {
		return nil, errors.New("no DE 62 found")
	}
	return raw, nil
}

// zeroBeforeMAC has one where padding 1 adds them itself: the MAC of algorithm 3
// is the same with it, as far as the last block has room.
func (a *attack) zeroBeforeMAC() ([]byte, error) {
	good, err := a.genuine("0200")
	if err != nil {
		return nil, err
	}
	at := len(good.Raw) - 16
	return slices.Concat(good.Raw[:at], []byte{0}, good.Raw[at:]), nil
}

func (a *attack) zeroAfterMAC() ([]byte, error) {
	good, err := a.genuine(iso8583.ReversalRequest)
	if err != nil {
		return nil, err
	}
	return append(bytes.Clone(good.Raw), 0), nil
}

// cutMAC keeps so many bytes of a good MAC, each of which is two digits.
func (a *attack) cutMAC(n int) func() ([]byte, error) {
	return func() ([]byte, error) {
		good, err := a.genuine(iso8583.ReversalRequest)
		if err != nil {
			return nil, err
		}
		return bytes.Clone(good.Raw[:len(good.Raw)-16+2*n]), nil
	}
}

func (a *attack) prefixMAC() ([]byte, error) {
	good, err := a.genuine(iso8583.ReversalRequest)
	if err != nil {
		return nil, err
	}
	raw := bytes.Clone(good.Raw)
	copy(raw[len(raw)-8:], "00000000")
	return raw, nil
}

// TestPaddingOne is A-09.T3: what algorithm 1 cannot tell apart the codec does.
func TestPaddingOne(t *testing.T) {
	t.Run("A-09.T3", func(t *testing.T) {
		key, err := hex.DecodeString(testKeys()["alias/dev/zak"])
		must(t, err)
		_, c, err := mac.NewAlgorithm3(key)
		must(t, err)
		term, err := sim.NewTerminal(sim.TerminalConfig{TID: "T0000001", MID: "M00000000000001", BDK: testKeys()["alias/dev/bdk-tdes"], KSN: "FFFF9876543210E00001"}, 0)
		must(t, err)
		sale, err := term.Sale(1000, sim.Card{PAN: "378282246310005"}, nil)
		must(t, err)
		m := sale.Message.MACInput()
		if len(m)%8 == 0 { // a whole last block has no room
			t.Fatalf("the message has %d bytes, take another", len(m))
		}
		plain, err := mac.Algorithm1(c, m, mac.Padding1)
		must(t, err)
		longer, err := mac.Algorithm1(c, append(bytes.Clone(m), 0), mac.Padding1)
		must(t, err)
		if !bytes.Equal(plain, longer) {
			t.Error("algorithm 1 with padding 1 tells m from m and a zero")
		}
		if _, err := iso8583.ASCII87().Parse(append(bytes.Clone(sale.Raw), 0), iso8583.SideTerminal); err == nil {
			t.Error("the codec takes a message with a zero behind it")
		}
	})
}

// TestAttackRepeats are recorded and repeated messages.
func TestAttackRepeats(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), nil)
	p := h.pos(0)
	t.Run("A-12.T1 R-08 a recorded 0400, also after a restart", func(t *testing.T) {
		sale, answer := p.sell(9200)
		recorded, err := p.Reversal(iso8583.ReversalRequest, sale, answer.Text(37), answer.Text(38), nil)
		must(t, err)
		first := p.ask(recorded, nil)
		wantCode(t, first, "00")
		for n := range 6 {
			if n == 3 {
				h.awaitReversed(sale)
				h.reopen()
				p.link = h.dial("terminal")
			}
			again := p.ask(recorded, nil)
			for _, de := range []int{37, 38, 39} {
				if again.Text(de) != first.Text(de) {
					t.Errorf("repeat %d has another DE %d", n, de)
				}
			}
		}
		h.quiet()
		if e := h.booked(sale); e.Effective != 1 || len(e.Named) != 1 {
			t.Errorf("the issuer has %+v, want one reversal", *e)
		}
	})
	t.Run("A-24.T1 a 0401 without an earlier 0400", func(t *testing.T) {
		sale, answer := p.sell(9202)
		wantCode(t, p.undo(iso8583.ReversalRepeat, sale, answer, nil), "00")
		h.awaitReversed(sale)
		never, err := p.Sale(9204, visa, nil)
		must(t, err)
		wantCode(t, p.ask(p.Reversal(iso8583.ReversalRepeat, never, "", "", nil)), "25")
	})
	t.Run("D-36 the origin is gone before its answer", func(t *testing.T) {
		sale, answer := p.sell(9206)
		reversal, err := p.Reversal(iso8583.ReversalRequest, sale, answer.Text(37), answer.Text(38), nil)
		must(t, err)
		must(t, p.link.Send(reversal.Raw))
		must(t, p.link.Close())
		h.awaitReversed(sale)
		p.link = h.dial("terminal")
		wantCode(t, p.undo(iso8583.ReversalRepeat, sale, answer, nil), "00")
		h.quiet()
		h.awaitReversed(sale)
	})
}

// TestAttackCutOff ends a transaction between the KSN and the effect.
func TestAttackCutOff(t *testing.T) {
	t.Run("A-15.T5 M-21 I-4 all of a message or nothing", cutBetween)
}

// torn is a journal whose next transaction is undone at its end: a kill before
// the commit.
type torn struct {
	isoswitch.Journal
	next atomic.Bool
}

var errTorn = errors.New("cut off before the commit")

func (j *torn) Update(ctx context.Context, fn func(isoswitch.Tx) error) error {
	return j.Journal.Update(ctx, func(tx isoswitch.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		if j.next.CompareAndSwap(true, false) {
			return errTorn
		}
		return nil
	})
}

func cutBetween(t *testing.T) {
	var journal *torn
	h := newHouse(t, sim.DefaultRules(), func(c *isoswitch.Config) {
		journal = &torn{Journal: c.Journal}
		c.Journal = journal
	})
	p := h.pos(0)
	sale, answer := p.sell(9300)
	reversal, err := p.Reversal(iso8583.ReversalRequest, sale, answer.Text(37), answer.Text(38), nil)
	must(t, err)
	before := h.rows()
	delete(before, "counter") // numbers may be lost, never given out twice
	journal.next.Store(true)
	wantCode(t, p.parsed(reversal.Raw), "96")
	after := h.rows()
	delete(after, "counter")
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the KSN, or the effect, stands without the other (-before +after):\n%s", diff)
	}
	h.reopen()
	p.link = h.dial("terminal")
	wantCode(t, p.ask(reversal, nil), "00")
	wantCode(t, p.ask(reversal, nil), "00")
	h.awaitReversed(sale)
	h.quiet()
	h.awaitReversed(sale)
}

// TestAttackUpstream is the line to the issuer in an attacker's hand.
func TestAttackUpstream(t *testing.T) {
	t.Run("A-06.T1 R-33 a decline made an approval", func(t *testing.T) {
		h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
			if m.MTI().Class() == '4' {
				return [][]byte{b.approve(m)}
			}
			declined := b.seal(m.Answer("51"))
			at := bytes.Index(declined, []byte("51T0000001")) // DE 39 stands before DE 41
			if at < 0 {
				b.t.Errorf("no DE 39 found")
				return nil
			}
			copy(declined[at:], "00")
			return [][]byte{declined}
		}, nil)
		undoneByKeyd(t, h, b, "96", isoswitch.ByBadAnswer)
	})
	t.Run("A-07.T2 R-40 a 0210 without MAC", func(t *testing.T) {
		h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
			approved := b.approve(m)
			if m.MTI().Class() == '4' {
				return [][]byte{approved}
			}
			bare := approved[:len(approved)-16]
			bits, err := hex.DecodeString("0" + string(bare[19]))
			if err != nil || bits[0]&1 == 0 {
				b.t.Errorf("bit 64 is not set")
			}
			bare[19] = "0123456789ABCDEF"[bits[0]&0xE]
			return [][]byte{bare}
		}, nil)
		p := h.pos(0)
		sale, answer := p.sell(9400)
		wantCode(t, answer, "96") // bad_upstream_mac_answer
		eventually(t, "keyd has reversed the sale", func() bool { return h.find(sale).State == isoswitch.Reversed })
		if n := len(b.reversals()); n != 1 {
			t.Errorf("%d reversals upstream, want 1", n)
		}
	})
	t.Run("A-21.T1 R-14 approvals that come late", lateApprovals)
}

// undoneByKeyd sells, and wants the code of no approval and one reversal.
func undoneByKeyd(t *testing.T, h *house, b *bank, code string, cause isoswitch.Cause) {
	t.Helper()
	p := h.pos(0)
	sale, answer := p.sell(9400)
	wantCode(t, answer, code)
	eventually(t, "keyd has reversed the sale", func() bool { return h.find(sale).State == isoswitch.Reversed })
	if got := b.reversals(); len(got) != 1 || got[0].MTI() != iso8583.ReversalAdvice {
		t.Errorf("upstream has %d reversals, want one 0420", len(got))
	}
	var got string
	h.sql(func(db *sql.DB) error { return db.QueryRow("SELECT cause FROM reversal").Scan(&got) })
	if got != string(cause) {
		t.Errorf("the cause is %q, want %q", got, cause)
	}
}

// lateApprovals answers after T_upstream, some time later, and after T_stray.
func lateApprovals(t *testing.T) {
	const upstream, stray = 200 * time.Millisecond, 1500 * time.Millisecond
	for _, c := range []struct {
		name  string
		after time.Duration // from the sale
		kept  string        // of the late answer, in the journal
	}{
		{"at once", upstream + 50*time.Millisecond, "00 A1B2C3"},
		{"some time later", upstream + 700*time.Millisecond, "00 A1B2C3"},
		{"after T_stray", upstream + stray + time.Second, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
				if m.MTI().Class() == '4' {
					return [][]byte{b.approve(m)}
				}
				return nil
			}, func(cfg *isoswitch.Config) { cfg.Timers.Upstream, cfg.Timers.Stray = upstream, stray })
			p := h.pos(0)
			start := time.Now()
			sale, answer := p.sell(9500)
			wantCode(t, answer, "68")
			eventually(t, "its moment has come", func() bool { return time.Since(start) >= c.after })
			b.write(b.approve(b.received(iso8583.FinancialRequest)[0]))
			recorded := func(r record) bool {
				late := r.Action == "sale.answer" && r.Reason == "timeout" && r.ISO.DE39 == "00"
				return late || r.Action == "response.refuse" && r.Reason == "unexpected_response"
			}
			eventually(t, "the late answer is recorded", func() bool { return len(h.records(recorded)) == 1 })
			eventually(t, "the sale is reversed", func() bool { return h.find(sale).State == isoswitch.Reversed })
			if got := h.find(sale).Late; got != c.kept {
				t.Errorf("the journal has kept %q, want %q", got, c.kept)
			}
			h.quiet()
			if n := len(b.reversals()); n != 1 {
				t.Errorf("%d reversals upstream, want 1", n)
			}
			next, got := p.sell(9502) // the next frame is no late approval
			if got.Text(11) != next.Message.Text(11) {
				t.Error("the terminal was given the late answer")
			}
		})
	}
}

// TestAttackOracle is: what the answers to refused messages tell.
func TestAttackOracle(t *testing.T) {
	var watched *watchedJournal
	h := newHouse(t, sim.DefaultRules(), func(c *isoswitch.Config) {
		watched = &watchedJournal{Journal: c.Journal}
		c.Journal = watched
		c.Lockout.Failures, c.Lockout.Records = 1<<30, 1<<30
	})
	p := h.pos(0)
	sale, answer := p.sell(9600)
	bad := func(stan string) []byte {
		names, err := iso8583.OriginalData{MTI: "0200", STAN: stan, DateTime: sale.Message.Text(7)}.Text()
		must(t, err)
		reversal, err := p.Reversal(iso8583.ReversalRequest, sale, answer.Text(37), answer.Text(38), func(b *iso8583.Builder) { b.Set(90, names) })
		must(t, err)
		raw := bytes.Clone(reversal.Raw)
		copy(raw[len(raw)-16:], "0123456789ABCDEF")
		return raw
	}
	t.Run("A-17.T2 R-12 no look into the journal before the MAC is valid", func(t *testing.T) {
		before := watched.looks.Load()
		for _, stan := range []string{sale.Message.Text(11), "777777"} {
			wantCode(t, p.parsed(bad(stan)), "63")
		}
		if n := watched.looks.Load() - before; n != 0 {
			t.Errorf("%d looks into the journal", n)
		}
		wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, func(b *iso8583.Builder) { b.Set(4, "000000000001") }), "64")
		if watched.looks.Load() == before {
			t.Error("a message with a valid MAC was decided without a look: the count is worth nothing")
		}
	})
	t.Run("A-20.T1 R-40 every refusal has a valid MAC", func(t *testing.T) {
		for _, c := range []struct {
			code  string
			draft sim.Draft
		}{
			{"14", func(b *iso8583.Builder) { b.Set(2, "5555555555554444") }},
			{"64", func(b *iso8583.Builder) { b.Set(4, "000000000001") }},
			{"25", func(b *iso8583.Builder) { b.Set(37, "000000000000") }},
			{"03", func(b *iso8583.Builder) { b.Set(42, "M00000000000002") }},
			{"22", func(b *iso8583.Builder) { b.Set(7, time.Now().UTC().Add(20*time.Minute).Format("0102150405")) }},
		} {
			wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, c.draft), c.code)
		}
		for code, draft := range map[string]sim.Draft{
			"12": func(b *iso8583.Builder) { b.Set(49, "840") },
			"61": func(b *iso8583.Builder) { b.Set(4, "000005000002") },
			"51": func(b *iso8583.Builder) { b.Set(4, "000000009601") },
		} {
			wantCode(t, p.ask(p.Sale(9602, sim.Card{PAN: visa.PAN}, draft)), code)
		}
		for _, forged := range sim.Forgeries() {
			if !strings.HasPrefix(forged.Row, "D-03") && !strings.HasPrefix(forged.Row, "D-04") {
				continue
			}
			sent, err := forged.Make(p.Terminal, nil, sale, sale)
			wantCode(t, p.ask(sent, err), "63")
		}
	})
	t.Run("A-17.T3 a bad MAC takes its time whatever it names", func(t *testing.T) {
		known, unknown, stranger := bad(sale.Message.Text(11)), bad("777777"), bytes.Replace(bad("777777"), []byte("T0000001"), []byte("T9999999"), 1)
		ask := func(raw []byte) {
			if _, err := p.link.Exchange(raw); err != nil {
				t.Error(err)
			}
		}
		control := dudect.T(2000, 1, known, stranger, ask) // refused without the token
		got := dudect.T(1000, 1, known, unknown, ask)
		t.Logf("t = %.1f, of the control %.1f", got, control)
		if control < dudect.Threshold {
			t.Error("a refusal without a call to the token was not found out: the measurement is worth nothing")
		}
		if got > dudect.Threshold {
			t.Errorf("the time depends on whether the original exists: t = %.1f", got)
		}
	})
}

// watchedJournal counts looks at what terminals have sent.
type watchedJournal struct {
	isoswitch.Journal
	looks atomic.Int64
}

func (j *watchedJournal) Update(ctx context.Context, fn func(isoswitch.Tx) error) error {
	j.looks.Add(1)
	return j.Journal.Update(ctx, fn)
}

func (j *watchedJournal) View(ctx context.Context, fn func(isoswitch.Tx) error) error {
	return j.Journal.View(ctx, func(tx isoswitch.Tx) error { return fn(looking{tx, j}) })
}

// looking counts what reads originals; the loop that sends reversals reads its
// queue all the time.
type looking struct {
	isoswitch.Tx
	j *watchedJournal
}

func (l looking) Newest(key isoswitch.LookupKey, since time.Time) (*isoswitch.Txn, error) {
	l.j.looks.Add(1)
	return l.Tx.Newest(key, since)
}

func (l looking) Foreign(q isoswitch.ForeignQuery) (bool, error) {
	l.j.looks.Add(1)
	return l.Tx.Foreign(q)
}

// TestAttackParts is A-22.T2: two partial reversals that leave the same.
func TestAttackParts(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), nil)
	p := h.pos(0)
	t.Run("A-22.T2 I-2 two parts at once", func(t *testing.T) {
		sale, answer := p.sell(10000)
		text, err := iso8583.ReplacementText(4000)
		must(t, err)
		codes := make(chan string, 2)
		for range 2 { // each under a STAN and a KSN of its own
			part, err := p.Reversal(iso8583.ReversalRequest, sale, answer.Text(37), answer.Text(38), func(b *iso8583.Builder) { b.Set(95, text) })
			must(t, err)
			link := h.dial("terminal")
			go func() {
				raw, err := link.Exchange(part.Raw)
				if err != nil {
					codes <- err.Error()
					return
				}
				m, err := p.Answer(part, raw)
				if err != nil {
					codes <- err.Error()
					return
				}
				codes <- m.Text(39)
			}()
		}
		// Which comes first is chance; the one of the lower KSN may come too late (63).
		got := []string{<-codes, <-codes}
		slices.Sort(got)
		if got[0] != "00" || got[1] != "13" && got[1] != "63" {
			t.Errorf("answered %q, want one 00 and one refusal", got)
		}
		eventually(t, "the issuer has the part", func() bool { return h.booked(sale).Reversed == 6000 })
		h.quiet()
		if e := h.booked(sale); e.Reversed != 6000 || e.Effective != 1 {
			t.Errorf("the issuer has %+v, want 6000 reversed once", *e)
		}
	})
}

// TestAttackNumbers is A-25.T1: a year later a terminal has the same STAN on the
// same date.
func TestAttackNumbers(t *testing.T) {
	var later atomic.Int64
	clock := func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	h := newHouse(t, sim.DefaultRules(), func(c *isoswitch.Config) { c.Clock = clock })
	t.Run("A-25.T1 only the new sale is reversed", func(t *testing.T) {
		p := h.pos(0)
		fixed := testTerminals()[0]
		old, _ := p.sell(9700)
		ksn, _ := p.State()
		later.Store(int64(365 * 24 * time.Hour))
		var err error
		p.Terminal, err = sim.NewTerminal(sim.TerminalConfig{TID: fixed.tid, MID: fixed.mid, BDK: testKeys()[fixed.bdk], KSN: ksn, Clock: clock}, 0)
		must(t, err)
		fresh, answer := p.sell(9702)
		wantCode(t, answer, "00")
		if a, b := old.Message, fresh.Message; a.Text(11) != b.Text(11) || a.Text(7)[:4] != b.Text(7)[:4] {
			t.Fatalf("STAN and date are %s %s and %s %s, want the same", a.Text(11), a.Text(7), b.Text(11), b.Text(7))
		}
		wantCode(t, p.undo(iso8583.ReversalRequest, fresh, answer, nil), "00")
		h.awaitReversed(fresh)
		h.untouched(old)
	})
}
