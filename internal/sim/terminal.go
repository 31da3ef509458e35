package sim

import (
	"crypto/rand"
	"fmt"
	"time"

	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/mac"
	"keyd.dev/keyd/pin"
)

// TerminalConfig is a terminal's identity and keys. The initial key is derived
// from the BDK, as an injection facility does.
type TerminalConfig struct {
	TID, MID string
	BDK      string // hexadecimal, 16 bytes
	KSN      string // of the next transaction: 20 hexadecimal digits (TDES DUKPT) or 24 (AES)
	Currency string // DE 49; "" is 978
	Clock    func() time.Time
}

// Terminal builds and seals messages as a POS terminal does and checks the
// answers: each message has a new KSN (W-07). It is for one goroutine.
type Terminal struct {
	cfg     TerminalConfig
	dialect *iso8583.Dialect
	keys    terminalKeys
	stan    int
}

// terminalKeys is what differs between TDES and AES DUKPT.
type terminalKeys interface {
	ksn() string // of the next transaction
	next() error // moves on to the next counter
	format() pin.Format
	cipher(ksn string, use dukpt.Use) (secret.Cipher, error)
	mac(ksn string, use dukpt.Use, input []byte) ([8]byte, error)
}

// NewTerminal checks the configuration. stan is the last STAN that was used.
func NewTerminal(cfg TerminalConfig, stan int) (*Terminal, error) {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Currency == "" {
		cfg.Currency = "978"
	}
	bdk, err := unhex("the BDK", cfg.BDK)
	if err != nil {
		return nil, err
	}
	defer secret.Clear(bdk)
	t := &Terminal{cfg: cfg, dialect: iso8583.ASCII87(), stan: stan}
	switch len(cfg.KSN) {
	case 20:
		t.keys, err = newTDESKeys(bdk, cfg.KSN)
	case 24:
		t.keys, err = newAESKeys(bdk, cfg.KSN)
	default:
		err = fmt.Errorf("sim: KSN of %d digits; want 20 (TDES) or 24 (AES)", len(cfg.KSN))
	}
	return t, err
}

// State is what a terminal must remember: its next KSN and its last STAN.
func (t *Terminal) State() (ksn string, stan int) { return t.keys.ksn(), t.stan }

// Card is what a sale is paid with. Test cards only: the number is in the clear.
type Card struct {
	PAN string
	PIN string // "" for a sale without PIN
	// Track2 is DE 35 of terminals that send it; "" makes one of the number.
	Track2 string
	Chip   bool // read by its chip, with DE 55
}

// Sent is a message on its way and what is needed to judge its answer and to
// reverse it.
type Sent struct {
	Raw     []byte
	Message *iso8583.Message
	KSN     string
	keys    terminalKeys // those of the KSN: an answer comes under them
}

// Draft changes a message before it is sealed; nil changes nothing.
type Draft func(b *iso8583.Builder)

// Sale builds a 0200 of a purchase.
func (t *Terminal) Sale(amount int64, card Card, draft Draft) (*Sent, error) {
	return t.request(iso8583.FinancialRequest, "000000", amount, card, draft)
}

// Reversal builds a 0400 or, with another mti, a 0401, 0420 or 0421 of a sale.
// rrn and approval are those of the sale's answer, or empty.
func (t *Terminal) Reversal(mti iso8583.MTI, sale *Sent, rrn, approval string, draft Draft) (*Sent, error) {
	now := t.cfg.Clock().UTC()
	m := sale.Message
	original, err := iso8583.OriginalData{MTI: m.MTI(), STAN: m.Text(11), DateTime: m.Text(7)}.Text()
	if err != nil {
		return nil, err
	}
	b := t.dialect.Build(mti, iso8583.SideTerminal).
		Copy(m, 2, 3, 4, 12, 13, 22, 25, 49).
		Set(7, now.Format("0102150405")).Set(11, t.nextSTAN()).
		Set(39, "06").Set(41, t.cfg.TID).Set(42, t.cfg.MID).Set(90, original)
	if rrn != "" {
		b.Set(37, rrn)
	}
	if approval != "" {
		b.Set(38, approval)
	}
	ksn, err := t.take()
	if err != nil {
		return nil, err
	}
	return t.seal(b, ksn, draft)
}

// Network builds a 0800: 001 sign-on, 002 sign-off, 301 echo.
func (t *Terminal) Network(code string) (*Sent, error) {
	now := t.cfg.Clock().UTC()
	b := t.dialect.Build(iso8583.NetworkRequest, iso8583.SideTerminal).
		Set(7, now.Format("0102150405")).Set(11, t.nextSTAN()).
		Set(41, t.cfg.TID).Set(42, t.cfg.MID).Set(70, code)
	ksn, err := t.take()
	if err != nil {
		return nil, err
	}
	return t.seal(b, ksn, nil)
}

// Answer reads the answer to a message and checks its MAC with the response key
// of the message's KSN. It returns the message with [ErrAnswer] when the MAC is
// not there or not right.
func (t *Terminal) Answer(sent *Sent, raw []byte) (*iso8583.Message, error) {
	m, err := t.dialect.Parse(raw, iso8583.SideTerminal)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if m.Text(11) != sent.Message.Text(11) || m.Text(41) != sent.Message.Text(41) {
		return m, fmt.Errorf("%w: another STAN or TID", ErrMismatch)
	}
	received, err := m.MAC()
	if err != nil {
		return m, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	want, err := sent.keys.mac(sent.KSN, dukpt.MACResponse, m.MACInput())
	if err != nil {
		return m, err
	}
	if err := mac.Verify(want[:], received[:], len(received)); err != nil {
		return m, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return m, nil
}

// take uses up the next KSN.
func (t *Terminal) take() (string, error) {
	ksn := t.keys.ksn()
	return ksn, t.keys.next()
}

func (t *Terminal) nextSTAN() string {
	t.stan = t.stan%999999 + 1
	return fmt.Sprintf("%06d", t.stan)
}

// setPIN adds DE 52 or DE 63 under the PIN key of the KSN.
func (t *Terminal) setPIN(b *iso8583.Builder, ksn string, card Card) error {
	if card.PIN == "" {
		return nil
	}
	pan, err := pin.ParsePAN(card.PAN)
	if err != nil {
		return err
	}
	p, err := pin.ParsePIN([]byte(card.PIN))
	if err != nil {
		return err
	}
	defer p.Clear()
	side := pin.Side{Format: t.keys.format(), PAN: pan}
	field, err := pin.Encode(&side, &p, rand.Reader)
	if err != nil {
		return err
	}
	defer field.Clear()
	key, err := t.keys.cipher(ksn, dukpt.PIN)
	if err != nil {
		return err
	}
	block, err := pin.Encipher(key, &side, &field)
	if err != nil {
		return err
	}
	de := 52
	if side.Format == pin.Format4 {
		de = 63
	}
	b.Set(de, fmt.Sprintf("%X", block))
	return nil
}

// seal adds the KSN, lets draft have its way, and gives the message its MAC.
func (t *Terminal) seal(b *iso8583.Builder, ksn string, draft Draft) (*Sent, error) {
	b.Set(62, ksn)
	if draft != nil {
		draft(b)
	}
	open, err := b.Pack()
	if err != nil {
		return nil, err
	}
	sum, err := t.keys.mac(ksn, dukpt.MACRequest, open.MACInput())
	if err != nil {
		return nil, err
	}
	return t.sent(open.Seal(sum), ksn)
}

func (t *Terminal) sent(raw []byte, ksn string) (*Sent, error) {
	m, err := t.dialect.Parse(raw, iso8583.SideTerminal)
	if err != nil {
		return nil, err
	}
	return &Sent{Raw: raw, Message: m, KSN: ksn, keys: t.keys}, nil
}
