package isoswitch

import (
	"errors"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/profile"
)

// TestUnlockBySignIn is A-11.T2: a sign-in without a MAC ends a lock-out a minute
// after the first failure, and no sooner.
func TestUnlockBySignIn(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	l := newLockout(func() Lockout { return Lockout{Failures: 2, Window: time.Hour} }, func() time.Time { return now })
	l.fail("T0000001")
	l.fail("T0000001")
	for _, step := range []struct {
		after  time.Duration
		locked bool
	}{{0, true}, {unlockAfter - time.Second, true}, {time.Second, false}} {
		now = now.Add(step.after)
		l.unlock("T0000001", unlockAfter)
		if got := l.locked("T0000001"); got != step.locked {
			t.Errorf("after another %s: locked %t, want %t", step.after, got, step.locked)
		}
	}
	l.unlock("T0000002", unlockAfter) // which has no failures
}

// TestNetworkCode: what an 0800 asks for, by DE 70 or by DE 60.
func TestNetworkCode(t *testing.T) {
	p, err := profile.Builtin("unionpay")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, de60, code, wanted string
		scheme                   Scheme
		mti                      iso8583.MTI
	}{
		{"U-12 sign-in 001", "00000024001", "001", "001", MasterKey, "0800"},
		{"U-12 sign-in 003", "00000024003", "003", "003", MasterKey, "0800"},
		{"U-12 sign-in 004", "0000002400460", "004", "004", MasterKey, "0800"},
		{"U-13 sign-off", "00000024002", "002", "", MasterKey, "0820"},
		{"U-14 echo", "00000024301", "301", "", MasterKey, "0820"},
		{"U-24 parameters", "00000024360", "360", "", MasterKey, "0800"},
		{"keys by an 0820", "00000024003", "003", "", MasterKey, "0820"},
		{"a DUKPT terminal", "00000024003", "003", "", TDESDUKPT, "0800"},
	} {
		t.Run(test.name, func(t *testing.T) {
			raw, err := p.Dialect.Build(test.mti, iso8583.SideTerminal).
				Set(11, "000001").Set(41, "10000198").Set(42, "501000824100020").Set(60, test.de60).PackWithoutMAC()
			if err != nil {
				t.Fatal(err)
			}
			m, err := p.Dialect.Parse(raw, iso8583.SideTerminal)
			if err != nil {
				t.Fatal(err)
			}
			r := &request{msg: m, terminal: Terminal{Scheme: test.scheme}}
			if got := networkCode(m); got != test.code {
				t.Errorf("network code %q, want %q", got, test.code)
			}
			if got := keysWanted(r); got != test.wanted {
				t.Errorf("keys wanted in form %q, want %q", got, test.wanted)
			}
		})
	}
}

// TestDelivers: a profile whose 0800 asks for keys has a field for them.
func TestDelivers(t *testing.T) {
	text := `
name = "no-keys"
base = "unionpay"
about = "no place for keys in the answer"

[[message]]
name = "sign_in"
types = ["0800"]
mac = "none"
must = [11, 41, 42, 60]
may = [63]
answer_must = [11, 39, 41]
answer_may = [12, 13, 32, 37, 42, 60]
`
	p, err := profile.Parse("no-keys.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := Serves(p); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "field 62") {
		t.Errorf("%v, want %v and the field", err, ErrConfig)
	}
	builtIn, err := profile.Builtin("unionpay")
	if err != nil {
		t.Fatal(err)
	}
	if err := Serves(builtIn); err != nil {
		t.Errorf("unionpay as it is built in: %v", err)
	}
}

// TestMasterPIN is U-36: what DE 53 may say of a PIN block.
func TestMasterPIN(t *testing.T) {
	p, err := profile.Builtin("unionpay")
	if err != nil {
		t.Fatal(err)
	}
	for control, good := range map[string]bool{
		"": true, "2600000000000000": true, "2000000000000000": true,
		"1600000000000000": false, "2300000000000000": false, "0000000000000000": false,
	} {
		b := p.Dialect.Build(iso8583.FinancialRequest, iso8583.SideTerminal).Set(2, "6224242900000113").Set(3, "000000").
			Set(4, "000000010000").Set(11, "000403").Set(22, "021").Set(25, "00").Set(41, "10000198").Set(42, "501000824100020").
			Set(49, "156").Set(52, "23B72AC5781BA141").Set(60, "22000024000")
		if control != "" {
			b.Set(53, control)
		}
		open, err := b.Pack()
		if err != nil {
			t.Fatal(err)
		}
		m, err := p.Dialect.Parse(open.Seal([8]byte{1}), iso8583.SideTerminal)
		if err != nil {
			t.Fatal(err)
		}
		r := &request{msg: m, terminal: Terminal{TID: "10000198", Scheme: MasterKey, PINKey: "pik"}, pan: "6224242900000113"}
		side, err := r.masterPIN()
		if good && (err != nil || side.Terminal != "10000198" || side.Key.ID != "pik") || !good && !errors.Is(err, errPINRefused) {
			t.Errorf("DE 53 %q: %+v, %v", control, side, err)
		}
	}
}
