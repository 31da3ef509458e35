package sim

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"keyd.dev/keyd/internal/iso8583"
)

// KeyChange is a zone key that the issuer changes at some time, by an 0800.
type KeyChange struct {
	At  time.Duration // since the issuer began; it waits for a sign-on besides
	Key string        // "mac" or "pin"
	Do  string        // one of [KeyChangeWords]
}

// KeyChangeWords are what an issuer can do in a key change, and what that is.
func KeyChangeWords() [][2]string {
	return [][2]string{
		{"good", "sends a new key as it must be"},
		{"again", "sends the last change once more"},
		{"old-number", "sends a new key under the number of the last change"},
		{"replay", "sends the bytes of the first change of this run once more"},
		{"wrong-mac", "sends a new key under a wrong MAC"},
		{"wrong-check", "sends a new key with another check value"},
		{"wrong-usage", "sends a key of the other kind"},
		{"wrong-key", "sends a key block under another key-encryption key"},
	}
}

// Changed is a key change in the book. It holds no key.
type Changed struct {
	Change string `json:"change"` // "mac" or "pin"
	Do     string `json:"do"`
	Number uint64 `json:"number"`
	STAN   string `json:"stan"`
	Answer string `json:"answer"` // DE 39, or "none", or "forged"
	Check  string `json:"check"`  // of the key that was offered
	Taken  bool   `json:"taken"`  // the switch has it, and has shown it
}

// changer makes the key changes of an issuer, one after the other.
type changer struct {
	i     *Issuer
	mu    sync.Mutex // held while one is made
	kek   []byte
	stan  int
	raw   []byte // the message of the first change
	first offer
	last  offer
}

// offer is a key on its way to the switch.
type offer struct {
	kind   string
	key    []byte
	number uint64
	block  string
	check  string
}

// newChanger is nil for an issuer without a key-encryption key.
func newChanger(i *Issuer) (*changer, error) {
	if i.cfg.KEK == "" {
		if i.cfg.Script != nil && len(i.cfg.Script.Changes) > 0 {
			return nil, errors.New("sim: a script with key changes needs a key-encryption key")
		}
		return nil, nil
	}
	kek, err := unhex("the key-encryption key", i.cfg.KEK)
	return &changer{i: i, kek: kek}, err
}

// play makes the changes of the script, each at its time.
func (c *changer) play(ctx context.Context, changes []KeyChange) {
	began := time.Now()
	for _, change := range changes {
		wait(ctx, time.Until(began.Add(change.At)))
		p := c.i.greeted(ctx)
		if p == nil {
			return
		}
		c.change(ctx, p, change)
	}
}

// wanted sends the key that the switch asks for in an 0800 of its own.
func (c *changer) wanted(ctx context.Context, p *peer, m *iso8583.Message) {
	change := KeyChange{Key: zoneMAC, Do: "good"}
	if strings.HasPrefix(m.Text(53), "01") {
		change.Key = zonePIN
	}
	c.change(ctx, p, change)
}

// keyWanted is DE 70 of an 0800 in which the switch asks for a new zone key.
const keyWanted = "162"

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(max(0, d))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// change sends one and books what came of it.
func (c *changer) change(ctx context.Context, p *peer, change KeyChange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.send(ctx, p, change); err != nil {
		c.i.cfg.Log.Error("issuer: no key change", "err", err)
	}
}

// send makes a change. A good one that is not answered is sent again, for the
// switch may have it: what it makes is then made with the new key.
func (c *changer) send(ctx context.Context, p *peer, change KeyChange) error {
	o, err := c.offer(change)
	if err != nil {
		return err
	}
	if change.Do == "good" {
		c.last = o
	}
	answered, err := c.once(ctx, p, o, change.Do)
	for try := 1; err == nil && !answered && change.Do == "good" && try < mostTries && ctx.Err() == nil; try++ {
		if next := c.i.greeted(ctx); next != nil {
			answered, err = c.once(ctx, next, o, "again")
		}
	}
	return err
}

// mostTries is how often a change is sent that is not answered.
const mostTries = 4

// once sends an offer one time and books what came of it.
func (c *changer) once(ctx context.Context, p *peer, o offer, do string) (answered bool, err error) {
	values, z, err := c.i.keys.offer(o.kind, o.key, o.number)
	if err != nil {
		return false, err
	}
	raw, m, err := c.message(o, do)
	if err != nil {
		return false, err
	}
	done := Changed{Change: o.kind, Do: do, Number: o.number, STAN: m.Text(11), Check: o.check, Answer: "none"}
	answer := c.i.ask(ctx, p, raw, m)
	if answer != nil {
		done.Answer, done.Taken = c.judge(answer, z, o)
	}
	if done.Taken {
		if err := c.i.keys.adopt(values); err != nil {
			return true, err
		}
	}
	c.i.cfg.Log.Info("issuer: a key change", "key", o.kind, "do", do, "answer", done.Answer, "taken", done.Taken)
	return answer != nil, c.i.book.note(done)
}

// offer is the key to be sent.
func (c *changer) offer(change KeyChange) (offer, error) {
	if change.Do == "again" {
		if c.last.block == "" {
			return offer{}, errors.New("sim: no change before that could be sent again")
		}
		return c.last, nil
	}
	if change.Do == "replay" && c.raw != nil {
		return c.first, nil
	}
	number := max(c.i.keys.number()+1, numberAt(time.Now()))
	if change.Do == "old-number" {
		number = max(1, c.i.keys.number())
	}
	key, err := newTDESKey()
	if err != nil {
		return offer{}, err
	}
	kek, usage, mode := slices.Clone(c.kek), "M3", byte('C')
	if (change.Key == zonePIN) != (change.Do == "wrong-usage") {
		usage, mode = "P0", 'B'
	}
	if change.Do == "wrong-key" {
		kek[0] ^= 0xFF
	}
	block, err := keyBlock(kek, usage, mode, key)
	if err != nil {
		return offer{}, err
	}
	check, err := checkValue(key)
	if change.Do == "wrong-check" {
		check = check[:5] + otherHex(check[5])
	}
	return offer{kind: change.Key, key: key, number: number, block: block, check: check}, err
}

// message is the 0800 of an offer.
func (c *changer) message(o offer, do string) ([]byte, *iso8583.Message, error) {
	if do == "replay" && c.raw != nil {
		m, err := c.i.dialect.Parse(c.raw, iso8583.SideUpstream)
		return c.raw, m, err
	}
	kind := "02"
	if o.kind == zonePIN {
		kind = "01"
	}
	c.stan = c.stan%999999 + 1
	b := c.i.dialect.Build(iso8583.NetworkRequest, iso8583.SideUpstream).
		Set(7, time.Now().UTC().Format("0102150405")).Set(11, fmt.Sprintf("%06d", c.stan)).
		Set(41, "ISSUER01").Set(42, "ISSUER000000001").
		Set(48, o.check+o.block).Set(53, fmt.Sprintf("%s%014d", kind, o.number)).Set(70, "161")
	raw, err := c.i.keys.current().seal(b, do == "wrong-mac")
	if err != nil {
		return nil, nil, err
	}
	if c.raw == nil && do == "good" {
		c.raw, c.first = raw, o
	}
	m, err := c.i.dialect.Parse(raw, iso8583.SideUpstream)
	return raw, m, err
}

// judge reads an 0810: its code, and whether the switch has shown that it has the
// key: by the check value and, of a MAC key, by the MAC of the answer.
func (c *changer) judge(answer *iso8583.Message, z zone, o offer) (code string, taken bool) {
	code = answer.Text(39)
	switch {
	case code == "00" && !z.genuine(answer), code != "00" && !c.i.keys.genuine(answer):
		return "forged", false
	}
	return code, code == "00" && answer.Text(48) == o.check
}

// numberAt is the number of a change made at this time: YYYYMMDDhhmmss.
func numberAt(at time.Time) uint64 {
	n, _ := strconv.ParseUint(at.UTC().Format("20060102150405"), 10, 64)
	return n
}

// newTDESKey makes a double-length key of odd parity.
func newTDESKey() ([]byte, error) {
	key := make([]byte, 16)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	for i := range key {
		if bits.OnesCount8(key[i])%2 == 0 {
			key[i] ^= 1
		}
	}
	return key, nil
}

// otherHex is another hexadecimal digit.
func otherHex(digit byte) string {
	if digit == '0' {
		return "1"
	}
	return "0"
}
