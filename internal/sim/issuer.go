package sim

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
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
	TLS      *tls.Config // of a server
	PINKey   string      // zone PIN key, hexadecimal
	MACKey   string      // zone MAC key, hexadecimal
	PIN      string      // the PIN of every card; "" accepts any well-formed one
	Rules    []Rule      // the first that fits counts; none approves
	BookPath string      // "" keeps the book in memory
	Log      *slog.Logger
}

// Issuer answers the upstream link of a switch and keeps a book of what came.
// It is safe for concurrent use.
type Issuer struct {
	cfg     IssuerConfig
	zone    zone
	dialect *iso8583.Dialect
	pin     [sha256.Size]byte
	book    *book

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// NewIssuer checks the configuration and opens the book.
func NewIssuer(cfg IssuerConfig) (*Issuer, error) {
	if cfg.TLS == nil || cfg.Log == nil {
		return nil, errors.New("sim: an issuer needs TLS and a log")
	}
	pinKey, err := unhex("the zone PIN key", cfg.PINKey)
	if err != nil {
		return nil, err
	}
	macKey, err := unhex("the zone MAC key", cfg.MACKey)
	if err != nil {
		return nil, err
	}
	z, err := newZone(pinKey, macKey)
	if err != nil {
		return nil, err
	}
	b, err := openBook(cfg.BookPath)
	if err != nil {
		return nil, err
	}
	return &Issuer{
		cfg: cfg, zone: z, dialect: iso8583.ASCII87(), book: b,
		pin: sha256.Sum256([]byte(cfg.PIN)), conns: make(map[net.Conn]struct{}),
	}, nil
}

// Serve answers on l until ctx ends; it closes l and every connection.
func (i *Issuer) Serve(ctx context.Context, l net.Listener) error {
	listener := tls.NewListener(l, i.cfg.TLS)
	stop := context.AfterFunc(ctx, func() {
		_ = listener.Close()
		i.closeAll()
	})
	defer stop()
	var work sync.WaitGroup
	defer work.Wait()
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return i.book.close()
			}
			return fmt.Errorf("sim: issuer: %w", err)
		}
		if !i.keep(ctx, conn) {
			continue
		}
		work.Go(func() { i.serve(ctx, conn) })
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
	var answers sync.WaitGroup
	defer func() {
		_ = conn.Close()
		answers.Wait()
		i.mu.Lock()
		delete(i.conns, conn)
		i.mu.Unlock()
	}()
	var write sync.Mutex
	for {
		raw, err := iso8583.ReadFrame(conn)
		if err != nil {
			return
		}
		m, err := i.dialect.Parse(raw, iso8583.SideUpstream)
		if err != nil {
			i.cfg.Log.Warn("issuer: message not of the dialect", "err", err)
			continue
		}
		rule, answer, err := i.answer(m)
		if err != nil {
			i.cfg.Log.Error("issuer: no answer", "err", err)
			return
		}
		if rule.Close {
			return
		}
		if answer == nil {
			continue
		}
		answers.Go(func() {
			i.send(ctx, conn, &write, rule.Delay, answer)
			if rule.Twice {
				i.send(ctx, conn, &write, 0, answer)
			}
		})
	}
}

func (i *Issuer) send(ctx context.Context, conn net.Conn, write *sync.Mutex, delay time.Duration, answer []byte) {
	if delay > 0 {
		wait := time.NewTimer(delay)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-ctx.Done():
			return
		}
	}
	frame, err := iso8583.AppendFrame(nil, answer)
	if err != nil {
		i.cfg.Log.Error("issuer: answer does not fit a frame", "err", err)
		return
	}
	write.Lock()
	defer write.Unlock()
	if _, err := conn.Write(frame); err != nil {
		_ = conn.Close()
	}
}

// answer decides and books; a nil answer is silence.
func (i *Issuer) answer(m *iso8583.Message) (Rule, []byte, error) {
	if !i.zone.genuine(m) {
		i.book.mu.Lock()
		i.book.badMACs++
		i.book.mu.Unlock()
		i.cfg.Log.Warn("issuer: MAC absent or wrong", "mti", string(m.MTI()))
		return i.refuse(m)
	}
	if m.MTI().Class() == '8' {
		raw, err := i.zone.seal(m.Answer("00"), false)
		return Rule{}, raw, err
	}
	i.mu.Lock()
	rule := ruleFor(i.cfg.Rules, m)
	i.mu.Unlock()
	code, err := i.record(m, rule)
	if err != nil || rule.Silent {
		return rule, nil, err
	}
	b := m.Answer(code)
	if !b.Has(37) {
		b.Set(37, m.Text(7)[:6]+m.Text(11))
	}
	if code == "00" && m.MTI().Class() != '4' {
		b.Set(38, m.Text(11))
	}
	raw, err := i.zone.seal(b, rule.WrongMAC)
	return rule, raw, err
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
	raw, err := i.zone.seal(b, false)
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
	digest, ok := i.zone.pinFits(m)
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
