package sim

import (
	"fmt"
	"strings"
	"sync"

	"keyd.dev/keyd/internal/iso8583"
)

// Forgery is a reversal that the switch must refuse.
type Forgery struct {
	Name  string
	About string
	Row   string // of the decision table that refuses it
	Code  string // DE 39 of the refusal
	// Make builds it. sale is an approved sale of t, reversal its honoured
	// reversal where one is needed, other a terminal with keys of its own.
	Make func(t, other *Terminal, sale, reversal *Sent) (*Sent, error)
}

// Forgeries lists them by name.
func Forgeries() []Forgery {
	return []Forgery{
		{"no-mac", "the MAC and its bit taken out", "D-03", "63", forgeNoMAC},
		{"wrong-mac", "one bit of the MAC changed", "D-04", "63", forgeWrongMAC},
		{"tampered-amount", "the amount changed on the way, under the old MAC", "D-04", "63", forgeTampered},
		{"changed-amount", "another amount than the sale's, under a valid MAC", "D-14", "64", forgeAmount},
		{"foreign-key", "made with another terminal's key", "D-06", "63", forgeForeign},
		{"replayed-ksn", "a key serial number that was used before", "D-06", "63", forgeReplay},
		{"unknown-original", "of a sale that never was", "D-10", "25", forgeUnknown},
		{"reversal-of-reversal", "a reversal as its original", "D-28", "12", forgeReversal},
	}
}

// ForgeryByName returns the forgery of a name, or an error that lists the names.
func ForgeryByName(name string) (Forgery, error) {
	var names []string
	for _, f := range Forgeries() {
		if f.Name == name {
			return f, nil
		}
		names = append(names, f.Name)
	}
	return Forgery{}, fmt.Errorf("sim: unknown forgery %q; there are %s", name, strings.Join(names, ", "))
}

// forgeNoMAC takes a good reversal, cuts the MAC off and clears its bit: that of
// DE 128, since DE 90 brings a secondary bitmap with it.
func forgeNoMAC(t, _ *Terminal, sale, _ *Sent) (*Sent, error) {
	good, err := t.Reversal(iso8583.ReversalRequest, sale, "", "", nil)
	if err != nil {
		return nil, err
	}
	raw := append([]byte(nil), good.Raw[:len(good.Raw)-16]...)
	const lastOfBitmap = 4 + 32 - 1 // bits 125 to 128, one hexadecimal digit
	raw[lastOfBitmap]--             // bit 128 is its lowest and is set
	if raw[lastOfBitmap] == 'A'-1 {
		raw[lastOfBitmap] = '9'
	}
	return t.sent(raw, good.KSN)
}

func forgeWrongMAC(t, _ *Terminal, sale, _ *Sent) (*Sent, error) {
	good, err := t.Reversal(iso8583.ReversalRequest, sale, "", "", nil)
	if err != nil {
		return nil, err
	}
	raw := append([]byte(nil), good.Raw...)
	raw[len(raw)-1] = flipped(raw[len(raw)-1])
	return t.sent(raw, good.KSN)
}

// flipped is another hexadecimal digit.
func flipped(digit byte) byte {
	if digit == '0' {
		return '1'
	}
	return '0'
}

func forgeTampered(t, _ *Terminal, sale, _ *Sent) (*Sent, error) {
	good, err := t.Reversal(iso8583.ReversalRequest, sale, "", "", nil)
	if err != nil {
		return nil, err
	}
	amount := []byte(good.Message.Text(4))
	at := strings.Index(string(good.Raw), string(amount))
	raw := append([]byte(nil), good.Raw...)
	raw[at+2] = '9'
	return t.sent(raw, good.KSN)
}

func forgeAmount(t, _ *Terminal, sale, _ *Sent) (*Sent, error) {
	amount, _ := sale.Message.Amount()
	text, err := iso8583.AmountText(amount + 1)
	if err != nil {
		return nil, err
	}
	return t.Reversal(iso8583.ReversalRequest, sale, "", "", func(b *iso8583.Builder) { b.Set(4, text) })
}

// forgeForeign is the victim's reversal with the attacker's KSN and MAC.
func forgeForeign(t, other *Terminal, sale, _ *Sent) (*Sent, error) {
	return other.Reversal(iso8583.ReversalRequest, sale, "", "", func(b *iso8583.Builder) {
		b.Set(41, t.cfg.TID).Set(42, t.cfg.MID)
	})
}

// forgeReplay is a new reversal under the KSN of the sale, correctly sealed.
func forgeReplay(t, _ *Terminal, sale, _ *Sent) (*Sent, error) {
	now := t.keys
	defer func() { t.keys = now }()
	old, err := oldKeys(t.keys, sale.KSN)
	if err != nil {
		return nil, err
	}
	t.keys = old
	return t.Reversal(iso8583.ReversalRequest, sale, "", "", nil)
}

func oldKeys(k terminalKeys, ksn string) (terminalKeys, error) {
	switch k := k.(type) {
	case *tdesKeys:
		old := tdesKeys{ik: k.ik, at: k.at, mu: new(sync.Mutex)}
		err := old.set(ksn)
		return &old, err
	case *aesKeys:
		old := *k
		err := old.set(ksn)
		return &old, err
	}
	return nil, fmt.Errorf("sim: unknown key scheme")
}

func forgeUnknown(t, _ *Terminal, sale, _ *Sent) (*Sent, error) {
	never, err := iso8583.OriginalData{MTI: sale.Message.MTI(), STAN: "987654", DateTime: sale.Message.Text(7)}.Text()
	if err != nil {
		return nil, err
	}
	return t.Reversal(iso8583.ReversalRequest, sale, "", "", func(b *iso8583.Builder) { b.Set(90, never) })
}

func forgeReversal(t, _ *Terminal, sale, reversal *Sent) (*Sent, error) {
	m := reversal.Message
	named, err := iso8583.OriginalData{MTI: m.MTI(), STAN: m.Text(11), DateTime: m.Text(7)}.Text()
	if err != nil {
		return nil, err
	}
	return t.Reversal(iso8583.ReversalRequest, sale, "", "", func(b *iso8583.Builder) { b.Set(90, named) })
}
