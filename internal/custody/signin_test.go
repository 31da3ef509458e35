package custody_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/unionpay"
	"keyd.dev/keyd/mac"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// theSwitch is the switch core at work for a terminal.
var theSwitch = custody.SwitchCaller("terminal-1", audit.ActorSwitch, "127.0.0.1:4711", "c-1", "")

// The profiles of the tests: every length of the MAC key and every algorithm.
var signInProfiles = []custody.TerminalProfile{
	{Name: "cup-8", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 8, Algorithm: custody.CUPECB, Single: true},
	{Name: "cup-16", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 16, Algorithm: custody.CUPECB},
	{Name: "x9-9", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 8, Single: true},
	{Name: "cbc-3des", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 16},
	{Name: "x9-19", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg3, MACBytes: 16},
}

// algorithms are those of the profiles, in their order.
var algorithms = []custody.TerminalAlgorithm{custody.CUPECB, custody.CUPECB, custody.X99, custody.CBCMAC3DES, custody.X919}

// terminal is a terminal of the tests with a known master key, and what it got
// at its last sign-in.
type terminal struct {
	tid       string
	algorithm custody.TerminalAlgorithm
	tmk       string
	pin, mac  []byte
	length    int  // of the MAC key in the dialect, bytes
	double    bool // the MAC key that it got is of double length
}

// fielded registers a terminal of a profile under a published master key.
func (r *registry) fielded(t *testing.T, n int, profile string, by custody.TerminalAlgorithm, tmk string) *terminal {
	t.Helper()
	length := 16
	if strings.HasSuffix(profile, "8") || strings.HasSuffix(profile, "x9-9") {
		length = 8
	}
	alias := fmt.Sprintf("alias/tmk-%d", n)
	r.key(t, alias, attributes(keys.UsageKEK, keys.TDES2, keys.ModeBoth), tmk, nil)
	e := generated(n, profile)
	e.Master, e.Keys = custody.NewMaster{Key: custody.Ref{Alias: alias}}, false
	r.mustAdd(t, e)
	return &terminal{tid: e.TID, algorithm: by, tmk: tmk, length: length}
}

// masterKey is a master key of its own for each number: V0's with other halves.
func masterKey(n int) string {
	return fmt.Sprintf("CA5D92598DCA48CE%014X%02X", 0x8A4C76361A92+n*0x0200, 0x68+n*2)
}

// signIn signs a terminal in and opens what it gets as the terminal does: each
// check value is compared, and no value may stand in two places (U-42 to U-50).
func (u *terminal) signIn(t testing.TB, c *custody.Custody, form string) custody.DistributedKeys {
	t.Helper()
	got, err := c.SignIn(t.Context(), theSwitch, "signin-1", custody.SignIn{TID: u.tid, Form: form, Algorithm: u.algorithm, MACBytes: u.length})
	if err != nil {
		t.Fatalf("sign-in of %s in form %s: %v", u.tid, form, err)
	}
	u.open(t, form, got.Field)
	return got
}

// open takes a field 62 apart as the terminal does.
func (u *terminal) open(t testing.TB, form string, field []byte) {
	t.Helper()
	set, err := unionpay.Parse(unionpay.Form(form), field)
	if err != nil {
		t.Fatal(err)
	}
	slots := []unionpay.Slot{set.PIN, set.MAC}
	if set.Data != nil {
		slots = append(slots, *set.Data)
	}
	seen := make(map[string]bool)
	for i, s := range slots {
		value, err := unionpay.Open(softTMK(t, u.tmk), s, checkValue)
		if err != nil {
			t.Fatalf("slot %d: %v", i, err)
		}
		if seen[string(value[:8])] || !s.Half && (seen[string(value[8:])] || bytes.Equal(value[:8], value[8:])) {
			t.Fatal("A-19.T1: a value stands in two slots, or the halves of a key are equal")
		}
		seen[string(value[:8])], seen[string(value[8:])] = true, true
		switch i {
		case 0:
			u.pin = value
		case 1:
			u.mac, u.double = value, !s.Half
		}
	}
}

// sealed is the MAC that the terminal makes, in software.
func (u *terminal) sealed(t testing.TB, message []byte) []byte {
	t.Helper()
	full, err := mac.NewTDES(u.mac)
	if err != nil {
		t.Fatal(err)
	}
	var made []byte
	switch u.algorithm {
	case custody.CUPECB:
		made, err = mac.UnionPayWhole(full, message)
	case custody.X919:
		var left mac.Cipher
		if left, err = mac.NewTDES(u.mac[:8]); err == nil {
			made, err = mac.Algorithm3(left, full, message, mac.Padding1)
		}
	default:
		made, err = mac.Algorithm1(full, message, mac.Padding1)
	}
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// now is the request that the switch makes of a message of the terminal.
func (u *terminal) now(t testing.TB, r *registry, message []byte, n int) custody.TerminalMAC {
	t.Helper()
	entry, err := r.GetTerminal(t.Context(), admin, "g", u.tid)
	if err != nil {
		t.Fatal(err)
	}
	q := custody.TerminalMAC{TID: u.tid, Key: entry.Keys.MAC, Algorithm: u.algorithm, Message: message, Bytes: n}
	if u.mac != nil {
		q.MAC = u.sealed(t, message)[:n]
	}
	return q
}

func (r *registry) verify(t *testing.T, q custody.TerminalMAC) error {
	t.Helper()
	return r.act(t, theSwitch, func(a *custody.Act) error {
		_, err := a.VerifyTerminalMAC(t.Context(), q)
		return err
	})
}

// TestSignIn signs terminals in through the Custody of the switch, by every
// profile and form, and verifies and makes MACs under what they got: U-42 to
// U-46, U-50, U-53.
func TestSignIn(t *testing.T) {
	softhsmtest.Each(t, func(t *testing.T, module softhsmtest.Module) {
		r := newRegistry(t, module.Token(t), signInProfiles...)
		user := r.WithoutMaker()
		message := []byte("a message of the terminal, not of whole blocks")
		for n, profile := range signInProfiles {
			u := r.fielded(t, n+1, profile.Name, algorithms[n], masterKey(n))
			forms := []string{"003", "004"}
			if profile.Single {
				forms = append(forms, "001")
			}
			for version, form := range forms {
				got := u.signIn(t, user, form)
				if int(got.Version) != version+1 || u.double != (profile.MACBytes == 16) {
					t.Errorf("%s in %s: version %d, MAC key of double length %t", profile.Name, form, got.Version, u.double)
				}
				for _, bytes := range []int{8, 4} {
					if err := r.verify(t, u.now(t, r, message, bytes)); err != nil {
						t.Errorf("%s in %s: a MAC of %d bytes: %v", profile.Name, form, bytes, err)
					}
				}
				q := u.now(t, r, message, 8)
				err := r.act(t, theSwitch, func(a *custody.Act) error {
					made, err := a.SealTerminal(t.Context(), q)
					if err == nil && !bytes.Equal(made.MAC, q.MAC) {
						t.Errorf("%s in %s: keyd makes %X, the terminal %X", profile.Name, form, made.MAC, q.MAC)
					}
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// TestSignInRefused: who gets no keys. What was there stays as it was.
func TestSignInRefused(t *testing.T) {
	r := newRegistry(t, softhsmtest.Token(t))
	r.mustAdd(t, generated(1, "unionpay"), generated(2, "aes"), generated(3, "unionpay"))
	if _, err := r.ChangeTerminal(t.Context(), admin, "c", custody.ChangeTerminal{TID: "T0000003", Status: custody.Suspended, Reason: "stolen"}); err != nil {
		t.Fatal(err)
	}
	user := r.WithoutMaker()
	good := func(n int) custody.SignIn {
		return custody.SignIn{TID: fmt.Sprintf("T%07d", n), Form: "003", Algorithm: custody.CUPECB, MACBytes: 8}
	}
	with := func(q custody.SignIn, change func(*custody.SignIn)) custody.SignIn {
		change(&q)
		return q
	}
	for _, test := range []struct {
		name string
		who  custody.Caller
		q    custody.SignIn
		want error
	}{
		{"by an administrator", admin, good(1), custody.ErrDenied},
		{"by an application", app, good(1), custody.ErrDenied},
		{"no such terminal", theSwitch, good(9), custody.ErrNoTerminal},
		{"keys of AES", theSwitch, good(2), custody.ErrRequest},
		{"suspended", theSwitch, good(3), custody.ErrConflict},
		{"no such form", theSwitch, with(good(1), func(q *custody.SignIn) { q.Form = "005" }), custody.ErrRequest},
		{"key blocks", theSwitch, with(good(1), func(q *custody.SignIn) { q.Form = "tr31" }), custody.ErrRequest},
		{"A-19 form 001 without permission", theSwitch, with(good(1), func(q *custody.SignIn) { q.Form = "001" }), custody.ErrRequest},
		{"another algorithm", theSwitch, with(good(1), func(q *custody.SignIn) { q.Algorithm = custody.X99 }), custody.ErrConflict},
		{"another length of the MAC key", theSwitch, with(good(1), func(q *custody.SignIn) { q.MACBytes = 16 }), custody.ErrConflict},
		{"no algorithm", theSwitch, with(good(1), func(q *custody.SignIn) { q.Algorithm = "" }), custody.ErrConflict},
	} {
		t.Run(test.name, func(t *testing.T) {
			before, _ := r.GetTerminal(t.Context(), admin, "g", "T0000001")
			if got, err := user.SignIn(t.Context(), test.who, "s", test.q); !errors.Is(err, test.want) || got.Field != nil {
				t.Errorf("%X, %v; want %v", got.Field, err, test.want)
			}
			if after, err := r.GetTerminal(t.Context(), admin, "g", "T0000001"); err != nil || after.Keys != before.Keys {
				t.Errorf("the keys are %+v, were %+v (%v)", after.Keys, before.Keys, err)
			}
		})
	}
	if _, err := user.DistributeKeys(t.Context(), theSwitch, "d", custody.DistributeKeys{TID: "T0000001", Form: custody.DeliverDE62}); !errors.Is(err, custody.ErrUnavailable) {
		t.Errorf("the path of transactions gives out keys otherwise: %v", err)
	}
}

// TestTerminalMACRefused: which messages are not believed, and what is said of
// them. None of it counts for the terminal whose key it is.
func TestTerminalMACRefused(t *testing.T) {
	r := newRegistry(t, softhsmtest.Token(t), signInProfiles...)
	user := r.WithoutMaker()
	u := r.fielded(t, 1, "cup-8", custody.CUPECB, masterKey(1))
	other := r.fielded(t, 2, "cup-8", custody.CUPECB, masterKey(2))
	fresh := r.fielded(t, 3, "cup-8", custody.CUPECB, masterKey(3))
	u.signIn(t, user, "003")
	other.signIn(t, user, "003")
	message := []byte("0200 and what follows, 32 bytes.")
	r.key(t, "alias/loose", attributes(keys.UsageMACAlg1, keys.TDES2, keys.ModeMAC), "55036372B17543ECB173730768B8D6C4",
		map[string]string{custody.TagMACAlgorithm: "KEYD_UNIONPAY_ECB"})
	loose, err := r.Key(t.Context(), admin, "k", ref("alias/loose"))
	if err != nil {
		t.Fatal(err)
	}
	pik, err := r.GetTerminal(t.Context(), admin, "g", u.tid)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(*custody.TerminalMAC)
		want   error
	}{
		{"right", func(*custody.TerminalMAC) {}, nil},
		{"D-04 one bit of the MAC", func(q *custody.TerminalMAC) { q.MAC[3] ^= 1 }, custody.ErrMAC},
		{"D-04 one bit of the message", func(q *custody.TerminalMAC) { q.Message = append([]byte{1}, q.Message[1:]...) }, custody.ErrMAC},
		{"A-11.T1 a right prefix", func(q *custody.TerminalMAC) { q.MAC = q.MAC[:3] }, custody.ErrMAC},
		{"A-11.T1 empty", func(q *custody.TerminalMAC) { q.MAC = nil }, custody.ErrMAC},
		{"A-11.T1 right, and more", func(q *custody.TerminalMAC) { q.MAC = append(q.MAC, 0) }, custody.ErrMAC},
		{"A-04.T2 the MAC of another terminal", func(q *custody.TerminalMAC) { q.MAC = other.sealed(t, message)[:4] }, custody.ErrMAC},
		{"M-13 the key of another terminal", func(q *custody.TerminalMAC) { *q = other.now(t, r, message, 4); q.TID = u.tid }, custody.ErrKeyUse},
		{"M-13 a key of no terminal", func(q *custody.TerminalMAC) { q.Key = loose.Block.ID }, custody.ErrSignIn},
		{"M-13 no such key", func(q *custody.TerminalMAC) { q.Key = "0123456789abcdefghijklmnopqrstuv" }, custody.ErrNoKey},
		{"U-51 no keys yet", func(q *custody.TerminalMAC) { *q = fresh.now(t, r, message, 4); q.MAC = make([]byte, 4) }, custody.ErrSignIn},
		{"A-19.T2 the PIN key", func(q *custody.TerminalMAC) { q.Key = pik.Keys.PIN }, custody.ErrKeyUse},
		{"M-30 another algorithm", func(q *custody.TerminalMAC) { q.Algorithm = custody.X99 }, custody.ErrKeyUse},
		{"M-30 algorithm 3", func(q *custody.TerminalMAC) { q.Algorithm = custody.X919 }, custody.ErrKeyUse},
		{"no algorithm", func(q *custody.TerminalMAC) { q.Algorithm = "" }, custody.ErrRequest},
		{"M-07 a length that no form has", func(q *custody.TerminalMAC) { q.Bytes, q.MAC = 2, q.MAC[:2] }, custody.ErrRequest},
		{"an empty message", func(q *custody.TerminalMAC) { q.Message = nil }, custody.ErrRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			q := u.now(t, r, message, 4)
			test.change(&q)
			if err := r.verify(t, q); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
	if err := r.act(t, app, func(a *custody.Act) error {
		_, err := a.GenerateMAC(t.Context(), custody.GenerateMAC{Key: custody.Ref{ID: pik.Keys.PIN}, Algorithm: custody.MACAlg1, Message: message})
		return err
	}); !errors.Is(err, custody.ErrKeyUse) {
		t.Errorf("A-19.T2: a MAC under the PIN key: %v", err)
	}
}

// TestA12T2 is U-51 and A-12.T2: a new sign-in replaces the MAC key at once, and
// what was recorded under the old one is worth nothing, today or tomorrow. A
// restart in between: softhsm-test TestCUPRecorded.
func TestA12T2(t *testing.T) {
	r := newRegistry(t, softhsmtest.Token(t), append(signInProfiles,
		custody.TerminalProfile{Name: "overlap", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 16, Overlap: time.Hour})...)
	user := r.WithoutMaker()
	for n, test := range []struct {
		profile string
		by      custody.TerminalAlgorithm
	}{{"cup-8", custody.CUPECB}, {"overlap", custody.CBCMAC3DES}} {
		u := r.fielded(t, n+1, test.profile, test.by, masterKey(n))
		message := []byte("0400, recorded")
		u.signIn(t, user, "003")
		recorded := u.now(t, r, message, 4)
		if err := r.verify(t, recorded); err != nil {
			t.Fatal(err)
		}
		u.signIn(t, user, "003")
		replay := u.now(t, r, message, 4)
		replay.MAC = recorded.MAC
		if err := r.verify(t, replay); !errors.Is(err, custody.ErrMAC) {
			t.Errorf("%s: the recorded message after a sign-in: %v, want %v", test.profile, err, custody.ErrMAC)
		}
		if err := r.verify(t, u.now(t, r, message, 4)); err != nil {
			t.Errorf("%s: with a new MAC: %v", test.profile, err)
		}
		t.Run("A-12.T3 the next day, "+test.profile, func(t *testing.T) {
			r.now = r.now.Add(24 * time.Hour)
			if err := r.verify(t, replay); !errors.Is(err, custody.ErrMAC) {
				t.Errorf("%v, want %v", err, custody.ErrMAC)
			}
		})
	}
}

// TestA10T1: after its number of messages, or past its age, a MAC key verifies
// nothing, and the terminal must sign in; then its traffic goes on (M-14).
func TestA10T1(t *testing.T) {
	const most = 10
	r := newRegistry(t, softhsmtest.Token(t), custody.TerminalProfile{
		Name: "short-8", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 8,
		Algorithm: custody.CUPECB, MaxMessages: most, MaxAge: time.Hour,
	})
	user := r.WithoutMaker()
	u := r.fielded(t, 1, "short-8", custody.CUPECB, masterKey(1))
	message := []byte("0200")
	must := func(t *testing.T, want error) {
		t.Helper()
		if err := r.verify(t, u.now(t, r, message, 4)); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	seal := func(t *testing.T) {
		t.Helper()
		if err := r.act(t, theSwitch, func(a *custody.Act) error {
			_, err := a.SealTerminal(t.Context(), u.now(t, r, message, 4))
			return err
		}); err != nil {
			t.Errorf("the answer to a message that was believed has no MAC: %v", err)
		}
	}
	for round := range 3 {
		t.Run(fmt.Sprintf("round %d", round+1), func(t *testing.T) {
			u.signIn(t, user, "003")
			for range most {
				must(t, nil)
				seal(t)
			}
			must(t, custody.ErrSignIn)
			must(t, custody.ErrKeyState)
			seal(t)
		})
	}
	t.Run("age", func(t *testing.T) {
		u.signIn(t, user, "003")
		must(t, nil)
		view, err := r.GetTerminal(t.Context(), admin, "g", u.tid)
		if err != nil || view.Messages != 1 || view.MostMessages != most || !view.Until.Equal(view.Keys.Made.Truncate(time.Millisecond).Add(time.Hour)) {
			t.Errorf("operators see %d of %d messages, until %s, made %s (%v)", view.Messages, view.MostMessages, view.Until, view.Keys.Made, err)
		}
		r.now = r.now.Add(time.Hour - time.Second)
		must(t, nil)
		r.now = r.now.Add(time.Second)
		must(t, custody.ErrSignIn)
		seal(t)
		u.signIn(t, user, "003")
		must(t, nil)
	})
	all := strings.Join(r.records(t, opsLog()), "\n")
	for _, want := range []string{`"reason":"key_exhausted"`, `"reason":"key_expired"`, `"alg":"cup_ecb","len":4,"verdict":"ok"`} {
		if !strings.Contains(all, want) {
			t.Errorf("no record has %s", want)
		}
	}
}

// TestSignInRecords: a sign-in leaves the distribution in the log of operations,
// with the switch as actor, and the change of keys in the other, each as intent
// and outcome. No value of a key is in any of them.
func TestSignInRecords(t *testing.T) {
	r := newRegistry(t, softhsmtest.Token(t), signInProfiles...)
	u := r.fielded(t, 1, "cup-8", custody.CUPECB, masterKey(1))
	got := u.signIn(t, r.WithoutMaker(), "004")
	ops, sec := r.records(t, opsLog()), r.records(t, "sec")
	count := func(list []string, parts ...string) (n int) {
		for _, text := range list {
			all := true
			for _, part := range parts {
				all = all && strings.Contains(text, part)
			}
			if all {
				n++
			}
		}
		return n
	}
	for phase, want := range map[string]int{"intent": 1, "outcome": 1} {
		if n := count(ops, `"action":"key.distribute"`, `"phase":"`+phase+`"`, `"corr":"signin-1"`, `"id":"terminal-1"`); n != want {
			t.Errorf("%d records of a distribution, phase %s, want %d", n, phase, want)
		}
		if n := count(sec, `"action":"key.rotate"`, `"phase":"`+phase+`"`, `"corr":"signin-1"`, `"object":"terminal/`+u.tid+`"`); n != want {
			t.Errorf("%d records of a change of keys, phase %s, want %d", n, phase, want)
		}
	}
	if n := count(ops, `"action":"key.distribute"`, `"outcome":"ok"`, string(got.Keys[0].ID), string(got.Keys[1].ID), string(got.Keys[2].ID)); n != 1 {
		t.Errorf("%d outcomes name the three keys, want 1", n)
	}
	for _, text := range append(ops, sec...) {
		for _, value := range [][]byte{u.pin[:8], u.mac[:8], got.Field[:8]} {
			if strings.Contains(strings.ToUpper(text), fmt.Sprintf("%X", value)) {
				t.Error("a record has a key, clear or enciphered")
			}
		}
	}
}

// TestTerminalPIN moves a PIN from under the key of a sign-in to a zone key:
// format 0, as digit 1 of DE 53 says. The key is the terminal's own or none.
func TestTerminalPIN(t *testing.T) {
	softhsmtest.Each(t, func(t *testing.T, module softhsmtest.Module) {
		r := newRegistry(t, module.Token(t), signInProfiles...)
		user := r.WithoutMaker()
		r.key(t, "alias/zpk", attributes(keys.UsagePIN, keys.TDES2, keys.ModeEncrypt), "55036372B17543ECB173730768B8D6C4", nil)
		zone, err := softkey.New(keys.TDES2, unhex(t, "55036372B17543ECB173730768B8D6C4"))
		if err != nil {
			t.Fatal(err)
		}
		u, other := r.fielded(t, 1, "cup-8", custody.CUPECB, masterKey(1)), r.fielded(t, 2, "cup-8", custody.CUPECB, masterKey(2))
		other.signIn(t, user, "003")
		const pan = custody.PAN("6224242900000113")
		block := unhex(t, "061276146FFFFFEE") // section 11
		for _, form := range []string{"003", "001"} {
			u.signIn(t, user, form)
			pik, err := softkey.New(keys.TDES2, u.pin)
			if err != nil {
				t.Fatal(err)
			}
			enciphered, err := pik.Encrypt(nil, block)
			if err != nil {
				t.Fatal(err)
			}
			move := func(tid, from string) ([]byte, error) {
				entry, err := r.GetTerminal(t.Context(), admin, "g", from)
				if err != nil {
					t.Fatal(err)
				}
				var out []byte
				err = r.act(t, theSwitch, func(a *custody.Act) error {
					got, err := a.TranslatePIN(t.Context(), custody.TranslatePIN{
						In:    custody.PINSide{Key: custody.Ref{ID: entry.Keys.PIN}, Terminal: tid, Format: custody.ISO0, PAN: pan},
						Out:   custody.PINSide{Key: ref("alias/zpk"), Format: custody.ISO0, PAN: pan},
						Block: enciphered,
					})
					out = got.Block
					return err
				})
				return out, err
			}
			moved, err := move(u.tid, u.tid)
			if err != nil {
				t.Fatal(err)
			}
			if clear, err := zone.Decrypt(nil, moved); err != nil || !bytes.Equal(clear, block) {
				t.Errorf("form %s: another PIN block came out (%v)", form, err)
			}
			if _, err := move(u.tid, other.tid); !errors.Is(err, custody.ErrKeyUse) {
				t.Errorf("M-13 the PIN key of another terminal: %v, want %v", err, custody.ErrKeyUse)
			}
			if _, err := move(other.tid, other.tid); !errors.Is(err, custody.ErrPINBlock) {
				t.Errorf("the PIN block of another terminal: %v, want %v", err, custody.ErrPINBlock)
			}
		}
	})
}

// TestTerminalVectors are V2 and section 11.4 with keys in the token. Those of
// single length are in package mac; a token takes no published one.
func TestTerminalVectors(t *testing.T) {
	const v2 = "55036372B17543ECB173730768B8D6C4"
	mab := unhex(t, "04007020048002C0801116622424290000011300000000000001000000040302100039383130303030313938353031303030383234313030303230313536001322000024000600")
	softhsmtest.Each(t, func(t *testing.T, module softhsmtest.Module) {
		r := newRegistry(t, module.Token(t), signInProfiles...)
		for n, test := range []struct {
			name   string
			usage  keys.Usage
			policy map[string]string
			by     custody.MACAlgorithm
			length int
			want   string
		}{
			{"11.4 x9_19", keys.UsageMACAlg3, nil, custody.MACAlg3, 8, "1888583BFA973CAA"},
			{"11.4 cbc_mac_3des", keys.UsageMACAlg1, nil, custody.MACAlg1, 8, "D73E6A0B981E3C70"},
			{"11.4 cup_ecb", keys.UsageMACAlg1, map[string]string{custody.TagMACAlgorithm: "KEYD_UNIONPAY_ECB"}, custody.MACUnionPay, 0, fmt.Sprintf("%X", "2726D08A")},
		} {
			t.Run(test.name, func(t *testing.T) {
				alias := fmt.Sprintf("alias/v2-%d", n)
				r.key(t, alias, attributes(test.usage, keys.TDES2, keys.ModeMAC), v2, test.policy)
				err := r.act(t, theSwitch, func(a *custody.Act) error {
					got, err := a.GenerateMAC(t.Context(), custody.GenerateMAC{Key: ref(alias), Algorithm: test.by, Padding: custody.Padding1, Message: mab, Length: test.length})
					if err == nil && fmt.Sprintf("%X", got.MAC) != test.want {
						t.Errorf("%X, want %s", got.MAC, test.want)
					}
					return err
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
	})
}
