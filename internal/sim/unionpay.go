package sim

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/mac"
	"keyd.dev/keyd/pin"
)

// UnionPayConfig is a UnionPay terminal.
type UnionPayConfig struct {
	TID, MID  string
	TMK       string           // terminal master key, hexadecimal, 16 bytes
	Dialect   *iso8583.Dialect // as its switch's profile describes it
	Algorithm string           // of the MAC: cup_ecb, x9_9, x9_19, cbc_mac_3des (U-53)
	Form      string           // of the sign-in, DE 60.3: 001, 003 or 004; "" is 003
	Currency  string           // DE 49; "" is 156
	Batch     int              // of a new terminal; 0 is 1
	// ReversalDE3 is DE 3 of every reversal; "" is that of the original. DE61Always:
	// also the reversal of a sale has DE 61 (U-65).
	ReversalDE3 string
	DE61Always  bool
	Approvals   []string // DE 39 of answers that approve; none: 00 and U-68
	// Strict: a refusal is believed with a valid MAC alone. Fielded terminals look
	// at the MAC of an approval only (U-60, A-20).
	Strict bool
	Clock  func() time.Time
}

// UnionPay is the language of UnionPay terminals.
type UnionPay struct {
	cfg  UnionPayConfig
	tmk  []byte
	keys *workingKeys // nil: sign in
}

// NewUnionPay checks the configuration.
func NewUnionPay(cfg UnionPayConfig) (*UnionPay, error) {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	for field, usual := range map[*string]string{&cfg.Currency: "156", &cfg.Form: "003"} {
		if *field == "" {
			*field = usual
		}
	}
	if len(cfg.Approvals) == 0 {
		cfg.Approvals = []string{"00", "10", "11", "A2", "A4", "A5", "A6"}
	}
	if cfg.Batch == 0 {
		cfg.Batch = 1
	}
	tmk, err := unhex("the terminal master key", cfg.TMK)
	switch {
	case err != nil:
		return nil, err
	case len(tmk) != 16:
		return nil, fmt.Errorf("sim: a terminal master key of %d bytes, want 16", len(tmk))
	case cfg.Dialect == nil:
		return nil, errors.New("sim: a UnionPay terminal needs a dialect")
	case !slices.Contains([]string{"001", "003", "004"}, cfg.Form):
		return nil, fmt.Errorf("sim: no sign-in of form %q; there are 001, 003 and 004", cfg.Form)
	case !slices.Contains([]string{"cup_ecb", "x9_9", "x9_19", "cbc_mac_3des"}, cfg.Algorithm):
		return nil, fmt.Errorf("sim: no MAC algorithm %q for UnionPay terminals", cfg.Algorithm)
	case cfg.Batch < 1 || cfg.Batch > maxSTAN:
		return nil, fmt.Errorf("sim: a batch of %d", cfg.Batch)
	}
	return &UnionPay{cfg: cfg, tmk: tmk}, nil
}

func (t *UnionPay) begin(s *State, fresh bool) error {
	if fresh {
		s.Batch = t.cfg.Batch
		return nil
	}
	if s.Keys == "" {
		return nil
	}
	field, err := hex.DecodeString(s.Keys)
	if err == nil {
		t.keys, err = openKeys(t.tmk, field)
	}
	if err != nil {
		s.Keys = "" // of another master key: sign in anew
	}
	return nil
}

// cupType is what a kind is on the wire. U-15 to U-20.
type cupType struct{ mti, de3, de25, de60 string }

func cupTypes() map[Kind]cupType {
	return map[Kind]cupType{
		DoSale:     {"0200", "000000", "00", "22"},
		DoPreauth:  {"0100", "030000", "06", "10"},
		DoComplete: {"0200", "000000", "06", "20"},
		DoRefund:   {"0220", "200000", "00", "25"},
		DoBalance:  {"0200", "310000", "00", "01"},
	}
}

// typeOf is the type of an order; a void has that of what it undoes.
func (t *UnionPay) typeOf(o Order) (cupType, error) {
	if o.Do != DoVoid {
		return cupTypes()[o.Do], nil
	}
	switch type60 := o.Of.type60(); type60 {
	case "22":
		return cupType{"0200", "200000", "00", "23"}, nil
	case "10":
		return cupType{"0100", "200000", "06", "11"}, nil
	case "20":
		return cupType{"0200", "200000", "06", "21"}, nil
	default:
		return cupType{}, fmt.Errorf("%w: a transaction of type %q cannot be voided", ErrOrder, type60)
	}
}

// type60 and batch are DE 60.1 and DE 60.2 of a memory.
func (m *Memory) type60() string { return m.field(60)[:min(2, len(m.field(60)))] }
func (m *Memory) batch() string {
	if len(m.field(60)) < 8 {
		return "000000"
	}
	return m.field(60)[2:8]
}

// names61 is DE 61 that names a transaction (U-38).
func (m *Memory) names61() string {
	date := m.Date
	if len(date) != 4 {
		date = "0000"
	}
	return m.batch() + m.field(11) + date
}

// build begins a message with what stands before the MTI, and the terminal.
func (t *UnionPay) build(mti iso8583.MTI) *iso8583.Builder {
	return t.cfg.Dialect.Build(mti, iso8583.SideTerminal).Head(t.head()).Set(41, t.cfg.TID).Set(42, t.cfg.MID)
}

// head is TPDU and header of the worked dialogue where the dialect has them so
// (U-02, U-04: 60 of a stripe, 61 of a chip), and zeros for a caller's number.
func (t *UnionPay) head() []byte { return t.headOf(0x60) }

func (t *UnionPay) chipHead() []byte { return t.headOf(0x61) }

func (t *UnionPay) headOf(class byte) []byte {
	h := t.cfg.Dialect.Spec().Head
	head := make([]byte, h.TPDU+h.ANI+h.Header)
	if h.TPDU == 5 {
		copy(head, "\x60\x00\x06\x00\x00")
	}
	if h.Header == 6 {
		copy(head[h.TPDU+h.ANI:], "\x60\x31\x00\x31\x10\x03")
		head[h.TPDU+h.ANI] = class
	}
	return head
}

func (t *UnionPay) request(s *State, o Order) (*Sent, error) {
	is, err := t.typeOf(o)
	if err != nil {
		return nil, err
	}
	if is.mti == "" {
		return nil, fmt.Errorf("%w: %q", ErrOrder, o.Do)
	}
	s.STAN = after(s.STAN)
	capability := "6"
	if o.Card.Chip {
		capability = "5"
	}
	b := t.build(iso8583.MTI(is.mti)).Set(3, is.de3).Set(11, fmt.Sprintf("%06d", s.STAN)).
		Set(25, is.de25).Set(49, t.cfg.Currency).Set(60, fmt.Sprintf("%s%06d000%s0", is.de60, s.Batch, capability))
	if o.Do != DoBalance {
		amount := o.Amount
		if o.Do == DoVoid {
			amount = o.Of.Amount()
		}
		text, err := iso8583.AmountText(amount)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrOrder, err)
		}
		b.Set(4, text)
	}
	if o.Do.names() {
		t.refer(b, o.Of)
	} else if err := t.card(b, o.Card); err != nil {
		return nil, err
	} else if o.Card.Chip {
		b.Head(t.chipHead()).Set(22, "051").Set(23, "001").Set(55, chipData(o.Amount, t.cfg.Currency, s.STAN))
	}
	return t.seal(b)
}

// refer gives a message what names the transaction that it refers to.
func (t *UnionPay) refer(b *iso8583.Builder, of *Memory) {
	b.Set(2, of.field(2)).Set(22, of.field(22)).Set(61, of.names61())
	if of.RRN != "" {
		b.Set(37, of.RRN)
	}
	if of.Approval != "" {
		b.Set(38, of.Approval)
	}
}

// card gives a message the card as a stripe reader and a PIN pad do.
func (t *UnionPay) card(b *iso8583.Builder, card Card) error {
	track := card.Track2
	if track == "" {
		track = card.PAN + "D2812" + "2010000000000"
	}
	b.Set(2, card.PAN).Set(35, track)
	if card.PIN == "" {
		b.Set(22, "022")
		return nil
	}
	block, err := t.pinBlock(card)
	if err != nil {
		return err
	}
	control := "2600000000000000" // the PAN is in the block, key of double length (U-36)
	if len(t.keys.pik) == 8 {
		control = "2000000000000000"
	}
	b.Set(22, "021").Set(26, "12").Set(52, fmt.Sprintf("%X", block)).Set(53, control)
	return nil
}

// pinBlock is the PIN in format 0 under the PIK.
func (t *UnionPay) pinBlock(card Card) ([]byte, error) {
	if t.keys == nil {
		return nil, fmt.Errorf("%w: no PIK", ErrSignIn)
	}
	pan, err := pin.ParsePAN(card.PAN)
	if err != nil {
		return nil, err
	}
	p, err := pin.ParsePIN([]byte(card.PIN))
	if err != nil {
		return nil, err
	}
	defer p.Clear()
	side := pin.Side{Format: pin.Format0, PAN: pan}
	field, err := pin.Encode(&side, &p, rand.Reader)
	if err != nil {
		return nil, err
	}
	defer field.Clear()
	key, err := t.keys.pin()
	if err != nil {
		return nil, err
	}
	return pin.Encipher(key, &side, &field)
}

// owes: what the yes rows of section 4 list. An inquiry moves nothing, an advice is
// sent again.
func (t *UnionPay) owes(o Order) bool { return o.Do != DoBalance && o.Do != DoRefund }

func (t *UnionPay) repeats(o Order) bool { return o.Do == DoRefund }

func (t *UnionPay) again(m *Memory) (*Sent, error) {
	b := t.build(iso8583.MTI(m.MTI))
	for _, de := range []int{2, 3, 4, 11, 22, 25, 37, 38, 49, 60, 61} {
		if text := m.field(de); text != "" {
			b.Set(de, text)
		}
	}
	return t.seal(b)
}

// reversal is the original with its own STAN and batch, a 0400 each time, under a
// fresh MAC (U-64 to U-66).
func (t *UnionPay) reversal(_ *State, p *Pending) (*Sent, error) {
	p.STAN = p.Original.field(11)
	return t.undo(iso8583.ReversalRequest, &p.Original, p.Reason)
}

func (t *UnionPay) undoes(of *Memory, mti iso8583.MTI, rest int64) (*Sent, error) {
	if rest >= 0 {
		return nil, fmt.Errorf("%w: the dialect has no partial reversal", ErrOrder)
	}
	return t.undo(mti, of, "06")
}

// undo builds a reversal.
func (t *UnionPay) undo(mti iso8583.MTI, o *Memory, reason string) (*Sent, error) {
	b := t.build(mti).Set(39, reason)
	for _, de := range []int{2, 3, 4, 11, 14, 22, 23, 25, 49, 60, 61} {
		if text := o.field(de); text != "" {
			b.Set(de, text)
		}
	}
	if text := reversedChip(o.field(55)); text != "" {
		b.Head(t.chipHead()).Set(55, text)
	}
	if t.cfg.ReversalDE3 != "" {
		b.Set(3, t.cfg.ReversalDE3)
	}
	if t.cfg.DE61Always && o.field(61) == "" {
		b.Set(61, o.names61())
	}
	if o.Approval != "" {
		b.Set(38, o.Approval)
	}
	return t.seal(b)
}

func (t *UnionPay) numbers(*State) {}

func (t *UnionPay) call(s *State, k Kind) (*Sent, error) {
	mti, code := iso8583.MTI("0820"), ""
	switch k {
	case DoSignIn:
		mti, code = iso8583.NetworkRequest, t.cfg.Form
		t.keys = nil
	case DoSignOff:
		code = "002"
	case DoEcho:
		code = "301"
	default:
		return nil, fmt.Errorf("%w: the switch has no message to %s", ErrOrder, k)
	}
	s.STAN = after(s.STAN)
	raw, err := t.build(mti).Set(11, fmt.Sprintf("%06d", s.STAN)).
		Set(60, fmt.Sprintf("00%06d%s", s.Batch, code)).PackWithoutMAC()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOrder, err)
	}
	return t.sent(raw)
}

// seal gives a message its MAC.
func (t *UnionPay) seal(b *iso8583.Builder) (*Sent, error) {
	open, err := b.Pack()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOrder, err)
	}
	sum, err := t.mac(open.MACInput())
	if err != nil {
		return nil, err
	}
	return t.sent(open.Seal(sum))
}

func (t *UnionPay) sent(raw []byte) (*Sent, error) {
	m, err := t.cfg.Dialect.Parse(raw, iso8583.SideTerminal)
	if err != nil {
		return nil, err
	}
	return &Sent{Raw: raw, Message: m}, nil
}

// mac is the MAC of a message under the MAK.
func (t *UnionPay) mac(input []byte) ([8]byte, error) {
	if t.keys == nil {
		return [8]byte{}, fmt.Errorf("%w: no MAK", ErrSignIn)
	}
	return t.keys.mac(t.cfg.Algorithm, input)
}

// judge is U-58 and U-60.
func (t *UnionPay) judge(sent *Sent, raw []byte) (Judged, error) {
	m, err := t.cfg.Dialect.Parse(raw, iso8583.SideTerminal)
	if err != nil {
		return Judged{}, fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	j := Judged{Message: m, MAC: t.verified(m)}
	code, of := m.Text(39), sent.Message
	switch {
	case m.MTI() != of.MTI().Response(), m.Text(11) != of.Text(11), m.Text(41) != of.Text(41), !echoes(m, of, 3),
		t.approves(code) && !echoes(m, of, 42),
		code != "10" && !echoes(m, of, 4):
		return j, fmt.Errorf("%w: its echo differs", ErrMismatch)
	case of.MTI().Class() == '8', j.MAC == MACValid, !t.cfg.Strict && !t.approves(code):
		return j, nil
	}
	return j, fmt.Errorf("%w: %s", ErrAnswer, j.MAC)
}

func (t *UnionPay) verified(m *iso8583.Message) MACState {
	received, err := m.MAC()
	if err != nil {
		return MACAbsent
	}
	want, err := t.mac(m.MACInput())
	if err != nil {
		return MACUnchecked
	}
	n := t.cfg.Dialect.MACForm().Bytes()
	if mac.Verify(want[:], received[:n], n) != nil {
		return MACWrong
	}
	return MACValid
}

func (t *UnionPay) reason(err error) string {
	switch {
	case errors.Is(err, errSilent):
		return "98"
	case errors.Is(err, ErrAnswer):
		return "A0"
	}
	return "06"
}

func (t *UnionPay) approves(code string) bool { return slices.Contains(t.cfg.Approvals, code) }

// settles is U-63.
func (t *UnionPay) settles(code string) bool {
	return slices.Contains([]string{"00", "12", "25"}, code)
}

// renew is U-49.
func (t *UnionPay) renew(s *State, code string) {
	if code == "A0" || code == "99" {
		s.Keys, t.keys = "", nil
	}
}

func (t *UnionPay) ready(*State) bool { return t.keys != nil }

// installs takes the working keys of an 0810, and the batch where it sets one
// (U-42 to U-48).
func (t *UnionPay) installs(s *State, m *iso8583.Message) error {
	field := m.Bytes(62)
	if want := map[string]int{"001": 24, "003": 40, "004": 60}[t.cfg.Form]; len(field) != want {
		return fmt.Errorf("%w: form %s has %d bytes, there are %d", ErrWorkingKeys, t.cfg.Form, want, len(field))
	}
	fresh, err := openKeys(t.tmk, field)
	if err != nil {
		return err
	}
	t.keys, s.Keys = fresh, fmt.Sprintf("%X", field)
	if text := m.Text(60); len(text) >= 8 {
		var batch int
		if _, err := fmt.Sscanf(text[2:8], "%06d", &batch); err == nil && batch > 0 {
			s.Batch = batch
		}
	}
	return nil
}

// closes begins the next batch.
func (t *UnionPay) closes(s *State) { s.Batch = after(s.Batch) }
