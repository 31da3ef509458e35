package sim

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"keyd.dev/keyd/internal/iso8583"
)

// The attacks that are UnionPay's own: its MAC is linear before it enciphers
// its header is under no MAC, its numbers come again with each batch
// and its keys with each sign-in.

// CUP is a UnionPay terminal in an attacker's laboratory.
type CUP struct {
	t     *UnionPay
	state State
	link  *Link // of what is honest
}

// NewCUP makes one whose batch nobody has used. It signs in before each attack.
func NewCUP(cfg UnionPayConfig) (*CUP, error) {
	t, err := NewUnionPay(cfg)
	if err != nil {
		return nil, err
	}
	c := &CUP{t: t}
	return c, t.begin(&c.state, true)
}

// Batch is the batch that the terminal is in.
func (c *CUP) Batch() int { return c.state.Batch }

// cupRun begins an attack: connects, signs in, and begins a batch.
func cupRun(run func(*Fraud, *CUP) error) func(*Fraud) error {
	return func(f *Fraud) error {
		c := f.cfg.Master
		link, err := f.cfg.DialMaster(f.ctx)
		if err != nil {
			return err
		}
		defer func() { _ = link.Close() }()
		c.link = link
		c.t.closes(&c.state)
		if err := c.signIn(); err != nil {
			return err
		}
		return run(f, c)
	}
}

func (c *CUP) signIn() error {
	sent, err := c.t.call(&c.state, DoSignIn)
	if err != nil {
		return err
	}
	m, err := c.exchange(sent.Raw)
	if err != nil {
		return err
	}
	if m.Text(39) != "00" {
		return fmt.Errorf("sim: an honest sign-in was answered %s", m.Text(39))
	}
	batch := c.state.Batch
	err = c.t.installs(&c.state, m)
	c.state.Batch = batch
	return err
}

func (c *CUP) exchange(raw []byte) (*iso8583.Message, error) {
	got, err := c.link.Exchange(raw)
	if err != nil {
		return nil, err
	}
	return c.t.cfg.Dialect.Parse(got, iso8583.SideTerminal)
}

// cupSale is an approved sale.
type cupSale struct {
	sent   *Sent
	memory Memory
}

func (f *Fraud) cupSell(c *CUP) (*cupSale, error) {
	f.amount += 100
	sent, err := c.t.request(&c.state, Order{Do: DoSale, Amount: f.amount, Card: Card{PAN: f.cfg.Card}})
	if err != nil {
		return nil, err
	}
	m, err := c.exchange(sent.Raw)
	if err != nil {
		return nil, err
	}
	if m.Text(39) != "00" {
		return nil, fmt.Errorf("sim: an honest sale of %d was answered %s", f.amount, m.Text(39))
	}
	return &cupSale{sent, sent.Remember(m)}, nil
}

func (f *Fraud) cupStands(c *CUP, s *cupSale) error {
	m, err := c.exchange(s.sent.Raw)
	if err != nil {
		return err
	}
	return f.untouched(s.memory.RRN, m.Text(39), m.Text(37))
}

// cupRefused sends a message by a connection of its own.
func (f *Fraud) cupRefused(c *CUP, tried string, raw []byte, codes ...string) error {
	link, err := f.cfg.DialMaster(f.ctx)
	if err != nil {
		return err
	}
	defer func() { _ = link.Close() }()
	return f.refusedBy(link, c.t.cfg.Dialect, tried, raw, codes...)
}

// cupBad is A-01.T3, A-07.T1 and A-11.T1 at a UnionPay listener.
func cupBad(f *Fraud, c *CUP) error {
	s, err := f.cupSell(c)
	if err != nil {
		return err
	}
	good, err := c.t.undo(iso8583.ReversalRequest, &s.memory, "98")
	if err != nil {
		return err
	}
	head := len(c.t.head())
	bare := bytes.Clone(good.Raw[:len(good.Raw)-8])
	bare[head+2+7] &^= 1 // bit 64
	for _, forged := range []struct {
		how string
		raw []byte
	}{
		{"0400 without DE 64 and its bit", bare},
		{"0400 with a guessed MAC", withMAC(good.Raw, "01234567")},
		{"0400 with four bytes of its right MAC", good.Raw[:len(good.Raw)-4]},
		{"0400 with half its right MAC and zeros", withMAC(good.Raw, "0000")},
	} {
		if err := f.cupRefused(c, forged.how, forged.raw, "A0", "30"); err != nil {
			return err
		}
	}
	return f.cupStands(c, s)
}

// linear is A-08.T2 and T3: every message that differs from a genuine reversal in a
// byte of the amount and another at the same place of its block, and has its MAC.
func linear(f *Fraud, c *CUP) error {
	s, err := f.cupSell(c)
	if err != nil {
		return err
	}
	genuine, err := c.t.undo(iso8583.ReversalRequest, &s.memory, "98")
	if err != nil {
		return err
	}
	forgeries, err := c.linearForgeries(genuine)
	if err != nil {
		return err
	}
	link, err := f.cfg.DialMaster(f.ctx)
	if err != nil {
		return err
	}
	defer func() { _ = link.Close() }()
	codes := make(map[string]int)
	for _, forged := range forgeries {
		seen, err := reply(link, c.t.cfg.Dialect, forged.raw)
		if err != nil {
			return err
		}
		const tried = "a 0400 with another amount under the MAC of a genuine one"
		if c.t.approves(seen) {
			f.through = true
			return fmt.Errorf("%w: %s was answered %s", errThrough, tried, seen)
		}
		if err := among(tried, seen, forged.stops()); err != nil {
			return err
		}
		codes[seen]++
	}
	f.saw(fmt.Sprintf("%d messages that the MAC of a genuine 0400 fits too", len(forgeries)), fmt.Sprint(codes))
	if err := f.cupStands(c, s); err != nil {
		return err
	}
	return f.cupReverse(c, s, genuine)
}

// cupReverse honours the genuine one and wants it once upstream.
func (f *Fraud) cupReverse(c *CUP, s *cupSale, genuine *Sent) error {
	m, err := c.exchange(genuine.Raw)
	if err != nil {
		return err
	}
	if m.Text(39) != "00" {
		return fmt.Errorf("sim: the genuine reversal was answered %s", m.Text(39))
	}
	f.saw("the genuine 0400 after them", "00")
	return f.onceReversed(func(e Entry) bool { return e.RRN == s.memory.RRN }, reversedOnce)
}

// linearForgery is a message that has the MAC of another under a linear algorithm.
type linearForgery struct {
	raw      []byte
	terminal bool // it names another terminal, under whose key the MAC is not valid
}

// stops are the answers of a comparison with registry and original, and of a switch
// that refuses what such a MAC cannot vouch for. Of another terminal, which may be
// none or not signed in, they are also those of its key.
func (l linearForgery) stops() []string {
	codes := []string{"03", "12", "13", "25", "58", "64"}
	if l.terminal {
		codes = append(codes, "97", "A0")
	}
	return codes
}

// linearForgeries changes a byte of DE 4 and one of DE 41, 42 or the batch. It is an
// error if none keeps this terminal's key: no comparison would be tried.
func (c *CUP) linearForgeries(genuine *Sent) ([]linearForgery, error) {
	head := len(c.t.head())
	mab := genuine.Raw[head : len(genuine.Raw)-8]
	amount, err := hex.DecodeString(genuine.Message.Text(4))
	if err != nil {
		return nil, err
	}
	ids := []byte(genuine.Message.Text(41) + genuine.Message.Text(42))
	batch, err := hex.DecodeString(genuine.Message.Text(60)[:8])
	if err != nil {
		return nil, err
	}
	de4, de41, de60 := bytes.Index(mab, amount), bytes.Index(mab, ids), bytes.LastIndex(mab, batch)
	if de4 < 0 || de41 < 0 || de60 < 0 {
		return nil, fmt.Errorf("sim: DE 4, 41 or 60 is not found in the message")
	}
	var all []linearForgery
	for i := de4; i < de4+len(amount); i++ {
		for j := range mab {
			text := de41 <= j && j < de41+len(ids)
			if i%8 != j%8 || !text && (j <= de60 || j >= de60+4) {
				continue
			}
			for n := range 100 {
				diff := byte(n/10<<4|n%10) ^ mab[i]
				if diff == 0 || text && !letterOrDigit(mab[j]^diff) || !text && !digits(mab[j]^diff) {
					continue
				}
				forged := bytes.Clone(genuine.Raw)
				forged[head+i], forged[head+j] = mab[i]^diff, mab[j]^diff
				all = append(all, linearForgery{forged, text && j < de41+len(genuine.Message.Text(41))})
			}
		}
	}
	if !slices.ContainsFunc(all, func(l linearForgery) bool { return !l.terminal }) {
		return nil, errors.New("sim: no other message has the MAC of this 0400: nothing can be tried")
	}
	return all, nil
}

func letterOrDigit(c byte) bool { return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' }
func digits(c byte) bool        { return c>>4 <= 9 && c&0xF <= 9 }

// rerouted is A-18.T1: another TPDU and header changes no decision.
func rerouted(f *Fraud, c *CUP) error {
	s, err := f.cupSell(c)
	if err != nil {
		return err
	}
	other := s.memory
	other.Fields = map[string]string{}
	for de, text := range s.memory.Fields {
		other.Fields[de] = text
	}
	other.Fields["4"] = "000000000001"
	wrong, err := c.t.undo(iso8583.ReversalRequest, &other, "98")
	if err != nil {
		return err
	}
	changed := bytes.Clone(wrong.Raw)
	for i := range c.t.head() {
		changed[i] ^= 0x5A
	}
	for _, tried := range []struct {
		how string
		raw []byte
	}{{"0400 with another amount", wrong.Raw}, {"the same under another TPDU and header", changed}} {
		if err := f.cupRefused(c, tried.how, tried.raw, "64", "13"); err != nil {
			return err
		}
	}
	return f.cupStands(c, s)
}

// oldKey is A-12.T2: a reversal that was recorded before a new sign-in.
func oldKey(f *Fraud, c *CUP) error {
	s, err := f.cupSell(c)
	if err != nil {
		return err
	}
	recorded, err := c.t.undo(iso8583.ReversalRequest, &s.memory, "98")
	if err != nil {
		return err
	}
	if err := c.signIn(); err != nil {
		return err
	}
	if err := f.cupRefused(c, "a recorded 0400 after a new sign-in", recorded.Raw, "A0"); err != nil {
		return err
	}
	fresh, err := c.t.undo(iso8583.ReversalRequest, &s.memory, "98")
	if err != nil {
		return err
	}
	return f.cupReverse(c, s, fresh)
}

// signIns is A-19.T1: the keys of many sign-ins.
func signIns(f *Fraud, c *CUP) error {
	const times = 20
	var all [][]byte
	for range times {
		if err := c.signIn(); err != nil { // it compares the check values
			return err
		}
		for _, key := range [][]byte{c.t.keys.pik, c.t.keys.mak, c.t.keys.tdk} {
			for ; len(key) >= 8; key = key[8:] {
				all = append(all, key[:8])
			}
		}
	}
	for i, key := range all {
		if slices.ContainsFunc(all[:i], func(other []byte) bool { return bytes.Equal(other, key) }) {
			f.through = true
			return fmt.Errorf("%w: a value stands in two keys, or in two halves", errThrough)
		}
	}
	f.saw(fmt.Sprintf("%d sign-ins, %d values", times, len(all)), "no value twice, every check value right")
	return nil
}

// nextBatch is A-25.T2: the numbers of a sale again in the next batch.
func nextBatch(f *Fraud, c *CUP) error {
	c.state.STAN = 999_998
	if _, err := f.cupSell(c); err != nil { // 999999
		return err
	}
	c.state.STAN = 0
	first, err := f.cupSell(c) // 000001
	if err != nil {
		return err
	}
	c.t.closes(&c.state)
	c.state.STAN = 0
	second, err := f.cupSell(c)
	if err != nil {
		return err
	}
	if first.memory.field(11) != second.memory.field(11) || first.memory.RRN == second.memory.RRN {
		return fmt.Errorf("sim: the two sales have the STANs %s and %s", first.memory.field(11), second.memory.field(11))
	}
	undo, err := c.t.undo(iso8583.ReversalRequest, &second.memory, "98")
	if err != nil {
		return err
	}
	if err := f.cupReverse(c, second, undo); err != nil {
		return err
	}
	return f.cupStands(c, first)
}
