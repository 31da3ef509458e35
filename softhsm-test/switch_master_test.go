package softhsmtest_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/profile"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/sim"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/unionpay"
)

// masterProfile is the UnionPay dialect with the fields by which the switch tells
// one sale from another.
const masterProfile = `
name = "tmk-test"
base = "unionpay"
about = "UnionPay terminals whose reversals name the original in DE 90"
original = "de90"
reversible_type = []

[[message]]
name = "transaction"
types = ["0100", "0200", "0220"]
must = [2, 3, 4, 7, 11, 12, 13, 22, 25, 41, 42, 49, 60]
may = [14, 23, 26, 52, 53]
one_of = []
answer_must = [3, 11, 12, 13, 37, 39, 41, 42]
answer_may = [2, 4, 7, 25, 32, 38, 49, 60]

[[message]]
name = "reversal"
types = ["0400", "0401", "0420", "0421"]
must = [2, 3, 4, 7, 11, 12, 13, 22, 25, 39, 41, 42, 49, 60, 90]
may = [14, 23, 38]
answer_must = [3, 4, 11, 12, 13, 37, 39, 41, 42]
answer_may = [2, 7, 25, 32, 38, 49, 60]

[[field]]
de = 2
name = "PAN"
form = "n..19"
echo = true

[[field]]
de = 7
name = "transmission date and time"
form = "n10"
echo = true

[[field]]
de = 12
name = "time"
form = "n6"
echo = true

[[field]]
de = 13
name = "date"
form = "n4"
echo = true

[[field]]
de = 90
name = "original"
form = "n42"
`

// The terminal of the tests, and its published master key (vector V0).
const (
	masterTID = "10000198"
	masterMID = "501000824100020"
	masterTMK = "CA5D92598DCA48CE8A4C76361A9269E9"
)

// masterHouse is a house whose terminals have master keys.
type masterHouse struct {
	*house
	registry *custody.Custody
	kind     custody.TerminalProfile
	speech   *profile.Profile
}

// newMasterHouse begins a switch with a terminal whose MAC keys verify so many
// messages; 0 is the default.
func newMasterHouse(t *testing.T, messages uint64) *masterHouse {
	t.Helper()
	speech, err := profile.Builtin("unionpay")
	must(t, err)
	return newHouseOf(t, speech, messages)
}

// newHouseOf is newMasterHouse for a dialect.
func newHouseOf(t *testing.T, speech *profile.Profile, messages uint64) *masterHouse {
	t.Helper()
	h := &masterHouse{house: build(t, nil), speech: speech, kind: custody.TerminalProfile{
		Name: "unionpay", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 8,
		Algorithm: custody.CUPECB, MaxMessages: messages,
	}}
	h.tune = func(cfg *isoswitch.Config) {
		h.furnishRegistry()
		cfg.Custody, cfg.Profile = h.registry.WithoutMaker(), h.speech
	}
	h.startIssuer("127.0.0.1:0")
	h.moveIn()
	return h
}

// furnishRegistry opens a custody with a registry, and adds the terminal.
func (h *masterHouse) furnishRegistry() {
	h.t.Helper()
	var err error
	m := hsm.NewManager(h.token)
	h.registry, err = custody.New(custody.Config{
		Token: h.token, Maker: m, Keeper: m, Store: h.db, Log: h.log,
		Clients: []custody.Client{{Name: "terminal", URI: "spiffe://test/terminal", Roles: []custody.Role{custody.RoleTerminal}}},
		Clock:   time.Now, Serial: h.token.Info().Serial,
		Terminals: &custody.Terminals{Store: h.db, Maker: m, Profiles: []custody.TerminalProfile{h.kind}},
	})
	must(h.t, err)
	admin := custody.SystemCaller("test", custody.RoleAdmin, custody.RoleCustodian)
	if _, err := h.registry.Key(h.t.Context(), admin, "test", custody.Ref{Alias: "alias/tmk"}); errors.Is(err, custody.ErrNoKey) {
		value, err := hex.DecodeString(masterTMK)
		must(h.t, err)
		_, err = h.registry.ImportClear(h.t.Context(), admin, "test", custody.ImportClear{
			Attributes: keys.Attributes{Usage: keys.UsageKEK, Algorithm: keys.TDES2, Mode: keys.ModeBoth, Exportability: keys.NonExportable},
			Value:      secret.From(value), Alias: "alias/tmk",
		})
		must(h.t, err)
	}
	added, err := h.registry.AddTerminals(h.t.Context(), admin, "test", []custody.NewTerminal{{
		TID: masterTID, MID: masterMID, Scheme: custody.SchemeMaster, Profile: "unionpay",
		Master: custody.NewMaster{Key: custody.Ref{Alias: "alias/tmk"}},
	}})
	must(h.t, err)
	if len(added.Refused) > 0 {
		h.t.Fatalf("refused: %+v", added.Refused)
	}
}

// master is a terminal with a master key, at work.
type master struct {
	h        *masterHouse
	link     *sim.Link
	stan     int
	pin, mac []byte
	maker    func(key, input []byte) ([]byte, error) // of MACs; nil: that of UnionPay
}

func (h *masterHouse) terminal() *master { return &master{h: h, link: h.dial("terminal")} }

// exchange sends a message and reads its answer.
func (u *master) exchange(raw []byte) *iso8583.Message {
	u.h.t.Helper()
	got, err := u.link.Exchange(raw)
	must(u.h.t, err)
	m, err := u.h.speech.Dialect.Parse(got, iso8583.SideTerminal)
	must(u.h.t, err)
	return m
}

func (u *master) begin(mti iso8583.MTI) *iso8583.Builder {
	u.stan++
	return u.h.speech.Dialect.Build(mti, iso8583.SideTerminal).
		Set(11, fmt.Sprintf("%06d", u.stan)).Set(41, masterTID).Set(42, masterMID)
}

// signIn asks for keys and takes them in as terminals do: U-42 to U-47.
func (u *master) signIn(form string) *iso8583.Message {
	u.h.t.Helper()
	raw, err := u.begin(iso8583.NetworkRequest).Set(60, "00000024"+form).Set(63, "01 ").PackWithoutMAC()
	must(u.h.t, err)
	m := u.exchange(raw)
	if m.Text(39) != "00" {
		return m
	}
	set, err := unionpay.Parse(unionpay.Form(form), m.Bytes(62))
	must(u.h.t, err)
	value, err := hex.DecodeString(masterTMK)
	must(u.h.t, err)
	tmk, err := softkey.New(keys.TDES2, value)
	must(u.h.t, err)
	check := func(value []byte) ([4]byte, error) {
		k, err := softkey.New(keys.TDES2, value)
		must(u.h.t, err)
		return keys.CheckUnionPay(k)
	}
	u.pin, err = unionpay.Open(tmk, set.PIN, check)
	must(u.h.t, err)
	u.mac, err = unionpay.Open(tmk, set.MAC, check)
	must(u.h.t, err)
	return m
}

// sealed ends a message with the terminal's MAC.
func (u *master) sealed(b *iso8583.Builder) []byte {
	u.h.t.Helper()
	open, err := b.Pack()
	must(u.h.t, err)
	return open.Seal(u.macOf(open.MACInput()))
}

func (u *master) macOf(input []byte) [8]byte {
	u.h.t.Helper()
	maker := u.maker
	if maker == nil {
		maker = ways()["cup_ecb"].make
	}
	full, err := maker(u.mac, input)
	must(u.h.t, err)
	var out [8]byte
	copy(out[:], full[:4])
	return out
}

// believed checks the MAC of an answer.
func (u *master) believed(m *iso8583.Message) *iso8583.Message {
	u.h.t.Helper()
	got, err := m.MAC()
	must(u.h.t, err)
	if got != u.macOf(m.MACInput()) {
		u.h.t.Errorf("the answer %s %s has a wrong MAC", m.MTI(), m.Text(39))
	}
	return m
}

const masterPAN = "6224242900000113"

// sale begins a sale with the PIN 1234 under the terminal's key.
func (u *master) sale(amount int64) *iso8583.Builder {
	u.h.t.Helper()
	pik, err := softkey.New(keys.TDES2, u.pin)
	must(u.h.t, err)
	block, err := hex.DecodeString("041234FFFFFFFFFF")
	must(u.h.t, err)
	pan, err := hex.DecodeString("0000" + masterPAN[len(masterPAN)-13:len(masterPAN)-1])
	must(u.h.t, err)
	for i := range block {
		block[i] ^= pan[i]
	}
	enciphered, err := pik.Encrypt(nil, block)
	must(u.h.t, err)
	return u.dated(u.begin(iso8583.FinancialRequest)).Set(2, masterPAN).Set(3, "000000").Set(4, fmt.Sprintf("%012d", amount)).
		Set(22, "021").Set(25, "00").Set(26, "12").Set(49, "156").Set(52, fmt.Sprintf("%X", enciphered)).
		Set(53, "2600000000000000").Set(60, "22000024000")
}

// dated gives a message its times, in a dialect that has them.
func (u *master) dated(b *iso8583.Builder) *iso8583.Builder {
	if u.h.speech.Original == profile.ByBatch {
		return b
	}
	now := time.Now().UTC()
	return b.Set(7, now.Format("0102150405")).Set(12, now.Format("150405")).Set(13, now.Format("0102"))
}

// reversal begins the reversal of a sale.
func (u *master) reversal(sale, answer *iso8583.Message) *iso8583.Builder {
	b := u.dated(u.begin(iso8583.ReversalRequest)).Copy(sale, 2, 3, 4, 22, 25, 49, 60).Set(39, "98")
	if u.h.speech.Original == profile.ByBatch {
		b.Copy(sale, 11) // U-64
	} else {
		b.Set(90, "0200"+sale.Text(11)+sale.Text(7)+"0000000000000000000000")
	}
	if answer != nil && answer.Has(38) {
		b.Set(38, answer.Text(38))
	}
	return b
}

func (u *master) parsed(raw []byte) *iso8583.Message {
	u.h.t.Helper()
	m, err := u.h.speech.Dialect.Parse(raw, iso8583.SideTerminal)
	must(u.h.t, err)
	return m
}

// TestMasterKeyTerminal is a day of a terminal with a master key: refused without
// keys, signed in, a sale with a PIN, its reversal, signed in anew. U-12, U-42 to
// U-51, U-53 to U-55, A-12.T2.
func TestMasterKeyTerminal(t *testing.T) {
	own, err := profile.Parse("tmk-test.toml", []byte(masterProfile))
	must(t, err)
	builtIn, err := profile.Builtin("unionpay")
	must(t, err)
	for form, speech := range map[string]*profile.Profile{"003": builtIn, "004": own} {
		t.Run(speech.Name+" in form "+form, func(t *testing.T) {
			h := newHouseOf(t, speech, 0)
			u := h.terminal()
			u.pin, u.mac = make([]byte, 16), []byte("no key at all, K")
			if m := u.exchange(u.sealed(u.sale(100))); m.Text(39) != "A0" {
				t.Errorf("U-51 a sale before the first sign-in: %s, want A0", m.Text(39))
			}
			m := u.signIn(form)
			if m.Text(39) != "00" || m.MTI() != "0810" {
				t.Fatalf("sign-in: %s %s", m.MTI(), m.Text(39))
			}
			if now := time.Now().UTC(); m.Text(13) != now.Format("0102") && m.Text(13) != now.Add(-time.Minute).Format("0102") || !m.Has(12) {
				t.Errorf("U-48 the 0810 has the date %q and the time %q", m.Text(13), m.Text(12))
			}
			sale := u.sealed(u.sale(10000))
			approved := u.believed(u.exchange(sale))
			if approved.Text(39) != "00" {
				t.Fatalf("sale: %s", approved.Text(39))
			}
			if m := u.believed(u.exchange(u.sealed(u.reversal(u.parsed(sale), approved)))); m.Text(39) != "00" {
				t.Errorf("reversal: %s", m.Text(39))
			}
			if speech == own { // nothing is compared with its DE 7
				(&cup{u, t}).order(custody.ReleaseReversal)
			}
			eventually(t, "the issuer has reversed the sale", func() bool {
				for _, e := range h.issuer.Book() {
					if e.TID == masterTID && e.Amount == 10000 && e.Effective == 1 {
						return true
					}
				}
				return false
			})
			forged := u.sealed(u.sale(20000))
			forged[len(forged)-1] ^= 1
			if m := u.exchange(forged); m.Text(39) != "A0" {
				t.Errorf("D-04 a wrong MAC: %s, want A0", m.Text(39))
			}
			recorded := u.sealed(u.sale(30000))
			u.signIn(form)
			if m := u.exchange(recorded); m.Text(39) != "A0" {
				t.Errorf("A-12.T2 recorded before the sign-in: %s, want A0", m.Text(39))
			}
			if m := u.believed(u.exchange(u.sealed(u.sale(40000)))); m.Text(39) != "00" {
				t.Errorf("a sale after the second sign-in: %s", m.Text(39))
			}
		})
	}
}

// TestMasterKeyRestart: keys of a sign-in that was answered are there after a
// restart, and what was approved is reversed under new ones.
func TestMasterKeyRestart(t *testing.T) {
	h := newMasterHouse(t, 0)
	u := h.terminal()
	u.signIn("003")
	sale := u.sealed(u.sale(10000))
	approved := u.believed(u.exchange(sale))
	h.reopen()
	u.link = h.dial("terminal")
	if m := u.believed(u.exchange(u.sealed(u.sale(20000)))); m.Text(39) != "00" {
		t.Errorf("a sale after the restart: %s", m.Text(39))
	}
	u.signIn("003")
	if m := u.believed(u.exchange(u.sealed(u.reversal(u.parsed(sale), approved)))); m.Text(39) != "00" {
		t.Errorf("U-51 the pending reversal, under the new key: %s", m.Text(39))
	}
}

// TestA10T1 is A-10.T1 at the wire: after the tenth message the terminal must
// sign in, and then its traffic goes on. That locks nobody.
func TestA10T1(t *testing.T) {
	h := newMasterHouse(t, 10)
	u := h.terminal()
	u.signIn("003")
	for n := range 10 {
		if m := u.believed(u.exchange(u.sealed(u.sale(int64(1000 + n))))); m.Text(39) != "00" {
			t.Fatalf("message %d: %s", n+1, m.Text(39))
		}
	}
	for n := range 12 {
		if m := u.believed(u.exchange(u.sealed(u.sale(int64(2000 + n))))); m.Text(39) != "A0" {
			t.Fatalf("message %d: %s, want A0", n+11, m.Text(39))
		}
	}
	u.signIn("003")
	if m := u.believed(u.exchange(u.sealed(u.sale(3000)))); m.Text(39) != "00" {
		t.Errorf("after the sign-in: %s", m.Text(39))
	}
	for _, want := range []struct{ reason, verdict string }{{"key_exhausted", "nokey"}} {
		if n := len(h.records(func(r record) bool {
			return r.Action == "sale.refuse" && r.Reason == want.reason && r.MAC.Verdict == want.verdict
		})); n != 12 {
			t.Errorf("%d refusals with %+v, want 12", n, want)
		}
	}
}

// TestSignInAtTheSwitch: which sign-ins get no keys, and what has no MAC.
func TestSignInAtTheSwitch(t *testing.T) {
	h := newMasterHouse(t, 0)
	u := h.terminal()
	if m := u.signIn("001"); m.Text(39) != "40" || m.Has(62) {
		t.Errorf("A-19 form 001 without permission: %s, want 40", m.Text(39))
	}
	u.signIn("003")
	before := u.mac
	raw, err := u.begin(iso8583.NetworkRequest).Set(60, "00000024301").PackWithoutMAC()
	must(t, err)
	if m := u.exchange(raw); m.Text(39) != "00" || m.Has(62) || m.Has(64) {
		t.Errorf("U-14 an echo: %s", m.Text(39))
	}
	if m := u.believed(u.exchange(u.sealed(u.sale(100)))); m.Text(39) != "00" || string(before) != string(u.mac) {
		t.Errorf("an echo changed the keys: %s", m.Text(39))
	}
	stranger, err := h.speech.Dialect.Build(iso8583.NetworkRequest, iso8583.SideTerminal).
		Set(11, "000009").Set(41, "10000199").Set(42, masterMID).Set(60, "00000024003").PackWithoutMAC()
	must(t, err)
	if m := u.exchange(stranger); m.Text(39) != "97" || m.Has(62) {
		t.Errorf("D-02 an unknown terminal: %s, want 97", m.Text(39))
	}
	admin := custody.SystemCaller("test", custody.RoleAdmin)
	_, err = h.registry.ChangeTerminal(t.Context(), admin, "c", custody.ChangeTerminal{TID: masterTID, Status: custody.Suspended, Reason: "stolen"})
	must(t, err)
	if m := u.signIn("003"); m.Text(39) == "00" || m.Has(62) {
		t.Errorf("a suspended terminal: %s", m.Text(39))
	}
}
