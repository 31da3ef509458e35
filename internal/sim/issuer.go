package sim

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"keyd.dev/keyd/internal/iso8583"
)

// IssuerConfig is what an issuer is made of.
type IssuerConfig struct {
	TLS      *tls.Config      // of a server
	PINKey   string           // zone PIN key, hexadecimal
	MACKey   string           // zone MAC key, hexadecimal
	Dialect  *iso8583.Dialect // that it speaks; nil: ascii87
	Sealing  Sealing
	KEK      string  // under which it sends new zone keys, hexadecimal, AES-256; needed for a script with key changes
	KeysPath string  // keeps zone keys that were changed; "" in memory
	PIN      string  // the PIN of every card; "" accepts any well-formed one
	Script   *Script // its steps come first; nil: there are none
	Rules    []Rule  // the first that fits counts; none approves
	BookPath string  // "" keeps the book in memory
	Log      *slog.Logger
	Clock    func() time.Time // time.Now; for the times of a script
}

// Issuer answers the upstream link of a switch and keeps a book of what came.
// It is safe for concurrent use.
type Issuer struct {
	cfg     IssuerConfig
	keys    *keyring
	dialect *iso8583.Dialect
	pin     [sha256.Size]byte
	book    *book
	player  *player  // nil: no script
	changer *changer // nil: no key-encryption key

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	latest *peer // over which the switch spoke last
}

// NewIssuer checks the configuration and opens the book.
func NewIssuer(cfg IssuerConfig) (*Issuer, error) {
	if cfg.TLS == nil || cfg.Log == nil {
		return nil, errors.New("sim: an issuer needs TLS and a log")
	}
	if cfg.Dialect == nil {
		cfg.Dialect = iso8583.ASCII87Link()
	}
	keys, err := newKeyring(cfg.KeysPath, cfg.PINKey, cfg.MACKey, cfg.Sealing)
	if err != nil {
		return nil, err
	}
	b, err := openBook(cfg.BookPath)
	if err != nil {
		return nil, err
	}
	i := &Issuer{
		cfg: cfg, keys: keys, dialect: cfg.Dialect, book: b,
		pin: sha256.Sum256([]byte(cfg.PIN)), conns: make(map[net.Conn]struct{}),
	}
	if i.changer, err = newChanger(i); err != nil {
		return nil, err
	}
	if cfg.Script != nil {
		clock := cfg.Clock
		if clock == nil {
			clock = time.Now
		}
		i.player = newPlayer(cfg.Script, clock)
	}
	return i, nil
}

// Serve answers on all ends until ctx ends, out of one book; it closes them and
// every connection. An end that takes no connections any more ends all.
func (i *Issuer) Serve(ctx context.Context, ends ...net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() {
		for _, end := range ends {
			_ = end.Close()
		}
		i.closeAll()
	})
	defer stop()
	var work sync.WaitGroup
	if i.changer != nil && i.cfg.Script != nil {
		work.Go(func() { i.changer.play(ctx, i.cfg.Script.Changes) })
	}
	for _, end := range ends {
		work.Go(func() {
			if err := i.accept(ctx, &work, tls.NewListener(end, i.cfg.TLS)); err != nil {
				cancel(err)
			}
		})
	}
	work.Wait()
	err := context.Cause(ctx)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, i.book.close())
}

// accept takes connections until ctx ends.
func (i *Issuer) accept(ctx context.Context, work *sync.WaitGroup, end net.Listener) error {
	for {
		conn, err := end.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case err != nil:
			return fmt.Errorf("sim: issuer: %w", err)
		case i.keep(ctx, conn):
			work.Go(func() { i.serve(ctx, conn) })
		}
	}
}

// SetRules gives the issuer other rules, which hold for messages that come
// afterwards.
func (i *Issuer) SetRules(rules []Rule) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cfg.Rules = rules
}

// keep registers a connection, unless the issuer has ended meanwhile.
func (i *Issuer) keep(ctx context.Context, conn net.Conn) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if ctx.Err() != nil {
		_ = conn.Close()
		return false
	}
	i.conns[conn] = struct{}{}
	return true
}

func (i *Issuer) closeAll() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for conn := range i.conns {
		_ = conn.Close()
	}
}

// serve reads frames; each is answered on its own, so that a delayed answer
// holds up no other.
func (i *Issuer) serve(ctx context.Context, conn net.Conn) {
	p := &peer{conn: conn, waiting: make(map[string]chan *iso8583.Message)}
	var answers sync.WaitGroup
	defer func() {
		p.flush()
		_ = conn.Close()
		answers.Wait()
		i.leave(p)
	}()
	r := bufio.NewReader(conn)
	for {
		if !whole(r) { // what is held goes out before this waits
			p.flush()
		}
		raw, err := iso8583.ReadFrame(r)
		if err != nil {
			return
		}
		m, err := i.dialect.Parse(raw, iso8583.SideUpstream)
		if err != nil {
			i.cfg.Log.Warn("issuer: message not of the dialect", "err", err)
			continue
		}
		if m.MTI().IsResponse() {
			p.give(m)
			continue
		}
		rule, answer, err := i.answer(p, m)
		if err != nil {
			i.cfg.Log.Error("issuer: no answer", "err", err)
			return
		}
		if rule.Close || rule.CloseFirst {
			return
		}
		switch {
		case answer == nil:
		case rule.prompt() && m.Text(70) != keyWanted:
			if err := p.hold(answer); err != nil {
				i.cfg.Log.Error("issuer: answer does not fit a frame", "err", err)
			}
		default:
			answers.Go(func() { i.deliver(ctx, p, m, rule, answer) })
		}
	}
}

// whole reports whether a frame can be read without waiting.
func whole(r *bufio.Reader) bool {
	head, err := r.Peek(min(r.Buffered(), 2))
	return err == nil && len(head) == 2 && r.Buffered() >= 2+int(binary.BigEndian.Uint16(head))
}

// deliver sends an answer, and the key that was asked for after it.
func (i *Issuer) deliver(ctx context.Context, p *peer, m *iso8583.Message, rule Rule, answer []byte) {
	i.send(ctx, p, rule, answer)
	if i.changer != nil && m.Text(70) == keyWanted && rule.Code == "00" {
		i.changer.wanted(ctx, p, m)
	}
}

// send writes an answer as the rule says: later, twice, garbled, or half of it.
func (i *Issuer) send(ctx context.Context, p *peer, rule Rule, answer []byte) {
	if rule.Delay > 0 {
		wait := time.NewTimer(rule.Delay)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-ctx.Done():
			return
		}
	}
	if rule.Garbled {
		answer = garbled(answer)
	}
	frame, err := iso8583.AppendFrame(nil, answer)
	if err != nil {
		i.cfg.Log.Error("issuer: answer does not fit a frame", "err", err)
		return
	}
	switch {
	case rule.Twice:
		frame = append(frame, frame...)
	case rule.Partial:
		frame = frame[:len(frame)/2]
	}
	p.write.Lock()
	defer p.write.Unlock()
	if _, err := p.conn.Write(frame); err != nil || rule.Partial {
		_ = p.conn.Close()
	}
}

// garbled are as many bytes that mean nothing in any dialect.
func garbled(answer []byte) []byte {
	other := make([]byte, len(answer))
	for n, b := range answer {
		other[n] = b ^ 0xA5
	}
	return other
}

// answer decides and books; a nil answer is silence.
func (i *Issuer) answer(p *peer, m *iso8583.Message) (Rule, []byte, error) {
	genuine, err := i.keys.genuineRequest(m)
	if err != nil {
		return Rule{}, nil, err
	}
	if !genuine {
		i.book.mu.Lock()
		i.book.badMACs++
		i.book.mu.Unlock()
		i.cfg.Log.Warn("issuer: MAC absent or wrong", "mti", string(m.MTI()))
		return i.refuse(m)
	}
	i.hail(p)
	rule, err := i.rule(m)
	if err != nil || !rule.effective() {
		return rule, nil, err
	}
	code := rule.Code
	if m.MTI().Class() != '8' {
		code, err = i.record(m, rule)
	}
	if err != nil || rule.Silent || rule.Close {
		return rule, nil, err
	}
	raw, err := i.keys.current().seal(i.compose(m, rule, code), rule.WrongMAC)
	return rule, raw, err
}

// rule is what the issuer does with a message: what the script's step says that
// fits it, else the first rule that does. An 0800 is for the script alone.
func (i *Issuer) rule(m *iso8583.Message) (Rule, error) {
	if i.player != nil {
		if step := i.player.meet(m); step != nil {
			i.cfg.Log.Info("issuer: a step of the script", "step", step.Name, "do", step.Do.Words(), "mti", string(m.MTI()), "stan", m.Text(11))
			return step.Do, i.book.note(faultOf(step, m))
		}
	}
	if m.MTI().Class() == '8' {
		if m.Text(70) == keyWanted && i.changer == nil {
			return Rule{Code: "40"}, nil
		}
		return Rule{Code: "00"}, nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return ruleFor(i.cfg.Rules, m), nil
}

// compose builds an answer up to its MAC.
func (i *Issuer) compose(m *iso8583.Message, rule Rule, code string) *iso8583.Builder {
	b := m.Answer(code)
	if class := m.MTI().Class(); class != '8' {
		if !b.Has(37) {
			b.Set(37, m.Text(7)[:6]+m.Text(11))
		}
		if code == "00" && class != '4' {
			b.Set(38, m.Text(11))
		}
	}
	if rule.OtherSTAN {
		b.Set(11, otherDigit(m.Text(11)))
	}
	if rule.OtherAmount && m.Has(4) {
		b.Set(4, otherDigit(m.Text(4)))
	}
	return b
}

// otherDigit is a number whose last digit is another.
func otherDigit(number string) string {
	last := len(number) - 1
	return number[:last] + string('0'+(number[last]-'0'+1)%10)
}

// refuse answers a message whose MAC is not the zone's.
func (i *Issuer) refuse(m *iso8583.Message) (Rule, []byte, error) {
	if !m.MTI().IsRequest() {
		return Rule{}, nil, nil
	}
	b := m.Answer("63")
	if !b.Has(37) {
		b.Set(37, "000000000000")
	}
	raw, err := i.keys.current().seal(b, false)
	return Rule{}, raw, err
}

// record books a sale or a reversal and returns DE 39.
func (i *Issuer) record(m *iso8583.Message, rule Rule) (string, error) {
	i.book.mu.Lock()
	defer i.book.mu.Unlock()
	i.book.requests++
	if m.MTI().Class() == '4' {
		return i.reverse(m, rule)
	}
	return i.sell(m, rule)
}

func (i *Issuer) sell(m *iso8583.Message, rule Rule) (string, error) {
	k := bookKey{m.Text(11), m.Text(7)}
	e, again := i.book.entries[k]
	if !again {
		amount, _ := m.Amount()
		e = &Entry{
			MTI: string(m.MTI()), STAN: k.stan, DateTime: k.dateTime, RRN: m.Text(37), TID: m.Text(41),
			Amount: amount, State: "approved", Code: rule.Code, PIN: i.judgePIN(m), Proc: m.Text(3), Names: m.Text(90),
		}
		if e.PIN == "wrong" || e.PIN == "malformed" {
			e.Code = "55"
		}
		if e.Code == "00" {
			e.Code = i.book.relate(e)
		}
		if e.Code != "00" {
			e.State = "declined"
		}
		i.book.add(e)
	}
	e.Messages++
	return e.Code, i.book.write(e)
}

// judgePIN says what became of the PIN on its way: right or wrong, well-formed
// where the issuer knows no PIN, or malformed.
func (i *Issuer) judgePIN(m *iso8583.Message) string {
	if !m.Has(52) {
		return ""
	}
	digest, ok := i.keys.pinFits(m)
	switch {
	case !ok:
		return "malformed"
	case i.cfg.PIN == "":
		return "well-formed"
	case subtle.ConstantTimeCompare(digest[:], i.pin[:]) != 1:
		return "wrong"
	}
	return "right"
}

func (i *Issuer) reverse(m *iso8583.Message, rule Rule) (string, error) {
	original, _ := m.Original()
	e, known := i.book.entries[bookKey{original.STAN, original.DateTime}]
	if !known {
		i.book.unknown++
		return "25", nil
	}
	e.Received++
	if name := m.Text(7) + "-" + m.Text(11); !slices.Contains(e.Named, name) {
		e.Named = append(e.Named, name)
	}
	code := rule.Code
	if amount := reversedAmount(m, e); code == "00" && e.State == "approved" && amount > e.Reversed {
		e.Effective++
		e.Reversed = amount
		if amount == e.Amount {
			e.State = "reversed"
			i.book.restore(e)
		}
	}
	return code, i.book.write(e)
}

// reversedAmount is what the sale has lost once the reversal stands: all of it,
// or all but the rest that DE 95 names.
func reversedAmount(m *iso8583.Message, e *Entry) int64 {
	if rest, partial := m.Rest(); partial {
		return e.Amount - rest
	}
	return e.Amount
}

// Book returns what the issuer knows, in the order in which the sales came.
func (i *Issuer) Book() []Entry {
	i.book.mu.Lock()
	defer i.book.mu.Unlock()
	return i.book.list()
}

// Strays returns how many reversals named a sale that never came, and how many
// messages had no valid MAC.
func (i *Issuer) Strays() (unknownOriginals, badMACs int) {
	i.book.mu.Lock()
	defer i.book.mu.Unlock()
	return i.book.unknown, i.book.badMACs
}
