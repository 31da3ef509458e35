package custody_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/tr31"
	"keyd.dev/keyd/keys/unionpay"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// registry is a room with a registry of terminals, on a clock of its own.
type registry struct {
	*room
	now time.Time
}

func newRegistry(t testing.TB, token *hsm.Token, profiles ...custody.TerminalProfile) *registry {
	t.Helper()
	r := &registry{now: time.Now()}
	r.room = newRoomOver(t, token, func(cfg *custody.Config) {
		m := hsm.NewManager(token)
		cfg.Keeper = m
		cfg.Clock = func() time.Time { return r.now }
		cfg.Terminals = &custody.Terminals{Store: cfg.Store.(custody.TerminalStore), Maker: m, Profiles: profiles}
	})
	return r
}

func mid() string { return "M00000000000001" }

// generated asks for a terminal whose keys the token makes.
func generated(n int, profile string) custody.NewTerminal {
	return custody.NewTerminal{
		TID: fmt.Sprintf("T%07d", n), MID: mid(), Scheme: custody.SchemeMaster, Profile: profile,
		Master: custody.NewMaster{Generate: true}, Keys: true,
	}
}

func (r *registry) add(t *testing.T, list ...custody.NewTerminal) custody.AddedTerminals {
	t.Helper()
	got, err := r.AddTerminals(t.Context(), admin, "add-1", list)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// mustAdd adds terminals of which none is refused.
func (r *registry) mustAdd(t *testing.T, list ...custody.NewTerminal) {
	t.Helper()
	if got := r.add(t, list...); len(got.Refused) > 0 {
		t.Fatalf("refused: %+v", got.Refused)
	}
}

// TestAddTerminals registers terminals of every profile, twice: the second time
// nothing changes.
func TestAddTerminals(t *testing.T) {
	softhsmtest.Each(t, func(t *testing.T, module softhsmtest.Module) {
		r := newRegistry(t, module.Token(t))
		r.key(t, "alias/bdk", attributes(keys.UsageBDK, keys.TDES2, keys.ModeDerive), "0123456789ABCDEFFEDCBA9876543210", nil)
		list := []custody.NewTerminal{
			generated(1, "unionpay"), generated(2, "tdes"), generated(3, "aes"),
			{TID: "T0000004", MID: mid(), Scheme: custody.SchemeTDESDUKPT, BDK: "alias/bdk", KSN: "FFFF9876543210E00001", MACBytes: 4, Most: 5000},
		}
		list[0].Data = true
		if diff := cmp.Diff(custody.AddedTerminals{Added: 4}, r.add(t, list...)); diff != "" {
			t.Fatalf("the first time (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(custody.AddedTerminals{Unchanged: 4}, r.add(t, list...)); diff != "" {
			t.Errorf("the second time (-want +got):\n%s", diff)
		}
		want := map[string]string{"T0000001": "TMK TPK TAK TDK", "T0000002": "TMK TPK TAK", "T0000003": "TMK TPK TAK", "T0000004": ""}
		for tid, slots := range want {
			got, err := r.GetTerminal(t.Context(), admin, "get", tid)
			if err != nil {
				t.Fatal(err)
			}
			var has []string
			for _, k := range got.Has {
				has = append(has, k.Slot)
			}
			if strings.Join(has, " ") != slots || got.Status != custody.InService {
				t.Errorf("%s is %s and has %q, want %q", tid, got.Status, has, slots)
			}
		}
		all, err := r.ListTerminals(t.Context(), admin, "ls", "T0000002", 0)
		if err != nil || len(all) != 2 || all[1].Device != "FFFF9876543210E00000" || all[1].Most != 5000 {
			t.Errorf("listed %+v, %v", all, err)
		}
	})
}

// TestAddTerminalsRefused: of a batch with one bad entry nothing is registered,
// and the answer says which entry and why.
func TestAddTerminalsRefused(t *testing.T) {
	r := newRegistry(t, softhsmtest.Token(t))
	r.key(t, "alias/bdk", attributes(keys.UsageBDK, keys.TDES2, keys.ModeDerive), "0123456789ABCDEFFEDCBA9876543210", nil)
	r.key(t, "alias/tmk", attributes(keys.UsageKEK, keys.TDES2, keys.ModeBoth), "CA5D92598DCA48CE8A4C76361A9269E9", nil)
	r.key(t, "alias/same", attributes(keys.UsageKEK, keys.TDES2, keys.ModeBoth), "CA5D92598DCA48CE8A4C76361A9269E9", nil)
	attached := func(n int, alias string) custody.NewTerminal {
		e := generated(n, "unionpay")
		e.Master = custody.NewMaster{Key: custody.Ref{Alias: alias}}
		return e
	}
	dukpt := func(n int, bdk, ksn string) custody.NewTerminal {
		return custody.NewTerminal{TID: fmt.Sprintf("T%07d", n), MID: mid(), Scheme: custody.SchemeTDESDUKPT, BDK: bdk, KSN: ksn}
	}
	r.mustAdd(t, attached(1, "alias/tmk"), dukpt(2, "alias/bdk", "FFFF9876543210E00001"))
	otherMID := attached(1, "alias/tmk")
	otherMID.MID = "M00000000000002"
	shortTID := generated(3, "unionpay")
	shortTID.TID = "T3"
	both := generated(3, "unionpay")
	both.Master.Key = custody.Ref{Alias: "alias/tmk"}
	noKEK := generated(3, "unionpay")
	noKEK.Master = custody.NewMaster{TR31: "B0000"}
	for _, test := range []struct {
		name   string
		entry  custody.NewTerminal
		reason string
		text   string
	}{
		{"short TID", shortTID, custody.RefusedForm, "8 printable"},
		{"no such profile", generated(3, "none"), custody.RefusedForm, "there are [aes tdes unionpay]"},
		{"two sources of the master key", both, custody.RefusedForm, "exactly one"},
		{"a block without its key", noKEK, custody.RefusedForm, "go together"},
		{"no such BDK", dukpt(3, "alias/none", "FFFF9876543212E00001"), custody.RefusedKey, "alias/none"},
		{"malformed KSN", dukpt(3, "alias/bdk", "FFFF"), custody.RefusedForm, "key serial number"},
		{"device of another", dukpt(3, "alias/bdk", "FFFF9876543210E00007"), custody.RefusedTaken, "belongs to another terminal"},
		{"registered otherwise", otherMID, custody.RefusedTaken, "differently"},
		{"no such master key", attached(3, "alias/none"), custody.RefusedKey, "no such alias"},
		{"a BDK as master key", attached(3, "alias/bdk"), custody.RefusedKey, "B0"},
		{"A-04.T1 the same key", attached(3, "alias/tmk"), custody.RefusedKeyUsed, "T0000001"},
		{"A-04.T1 another key of the same value", attached(3, "alias/same"), custody.RefusedKeyUsed, "T0000001"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := r.add(t, generated(4, "unionpay"), test.entry)
			if got.Added != 0 || len(got.Refused) != 1 {
				t.Fatalf("%+v", got)
			}
			no := got.Refused[0]
			if no.Index != 1 || no.Reason != test.reason || !strings.Contains(strings.ToLower(no.Text), strings.ToLower(test.text)) {
				t.Errorf("refused %+v, want entry 1, %q and %q", no, test.reason, test.text)
			}
			if _, err := r.GetTerminal(t.Context(), admin, "get", "T0000004"); !errors.Is(err, custody.ErrNoTerminal) {
				t.Errorf("the good entry of the batch: %v, want %v", err, custody.ErrNoTerminal)
			}
		})
	}
	t.Run("the same value twice in a batch", func(t *testing.T) {
		r.key(t, "alias/other", attributes(keys.UsageKEK, keys.TDES2, keys.ModeBoth), "70F2A84CCBC2AE8625CBB0F2C22AB923", nil)
		got := r.add(t, attached(11, "alias/other"), attached(12, "alias/other"))
		if len(got.Refused) != 1 || got.Refused[0].Reason != custody.RefusedKeyUsed || got.Added != 0 {
			t.Errorf("%+v", got)
		}
	})
	if _, err := r.AddTerminals(t.Context(), admin, "c", nil); !errors.Is(err, custody.ErrRequest) {
		t.Errorf("an empty batch: %v", err)
	}
	if _, err := r.AddTerminals(t.Context(), app, "c", []custody.NewTerminal{generated(9, "unionpay")}); !errors.Is(err, custody.ErrDenied) {
		t.Errorf("by an application: %v", err)
	}
}

// TestMasterKeyBlock: master keys come in key blocks under a key-encryption key,
// one value for one terminal.
func TestMasterKeyBlock(t *testing.T) {
	softhsmtest.Each(t, func(t *testing.T, module softhsmtest.Module) {
		r := newRegistry(t, module.Token(t))
		const kek = "89ABCDEF012345671032547698BADCFE"
		r.key(t, "alias/kek", attributes(keys.UsageKEK, keys.TDES2, keys.ModeBoth), kek, nil)
		block := func(value string, a keys.Attributes) string {
			t.Helper()
			return sealedUnder(t, kek, keys.TDES2, a, value)
		}
		with := func(n int, text string) custody.NewTerminal {
			e := generated(n, "unionpay")
			e.Master = custody.NewMaster{TR31: text, Under: custody.Ref{Alias: "alias/kek"}}
			return e
		}
		a := attributes(keys.UsageKEK, keys.TDES2, keys.ModeDecrypt)
		a.Mode = keys.ModeBoth
		const tmk, other = "CA5D92598DCA48CE8A4C76361A9269E9", "70F2A84CCBC2AE8625CBB0F2C22AB923"
		r.mustAdd(t, with(1, block(tmk, a)))
		if got := r.add(t, with(1, block(tmk, a))); got.Unchanged != 1 {
			t.Errorf("the same again: %+v", got)
		}
		if got := r.add(t, with(1, block(other, a))); len(got.Refused) != 1 || got.Refused[0].Reason != custody.RefusedTaken {
			t.Errorf("another key for the same TID: %+v", got)
		}
		if got := r.add(t, with(2, block(tmk, a))); len(got.Refused) != 1 || got.Refused[0].Reason != custody.RefusedKeyUsed {
			t.Errorf("the same value for another TID: %+v", got)
		}
		pin := attributes(keys.UsagePIN, keys.TDES2, keys.ModeBoth)
		if got := r.add(t, with(2, block(other, pin))); len(got.Refused) != 1 || got.Refused[0].Reason != custody.RefusedKey {
			t.Errorf("a PIN key as master key: %+v", got)
		}
		broken := []byte(block(other, a))
		broken[len(broken)-1] ^= 1
		if got := r.add(t, with(2, string(broken))); len(got.Refused) != 1 || got.Refused[0].Reason != custody.RefusedKey {
			t.Errorf("a changed block: %+v", got)
		}
	})
}

// sealedUnder makes a key block in software.
func sealedUnder(t *testing.T, kek string, kekIs keys.Algorithm, a keys.Attributes, value string) string {
	t.Helper()
	raw, err := hex.DecodeString(kek)
	if err != nil {
		t.Fatal(err)
	}
	under, err := softkey.New(kekIs, raw)
	if err != nil {
		t.Fatal(err)
	}
	clear, err := hex.DecodeString(value)
	if err != nil {
		t.Fatal(err)
	}
	text, err := tr31.Seal(under, kekIs, tr31.NewHeader(a, kekIs), secret.From(clear), bytes.NewReader(make([]byte, 64)))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The master keys of the tests are published: those of vectors V0 and V3.
const (
	testTMK  = "CA5D92598DCA48CE8A4C76361A9269E9"
	otherTMK = "70F2A84CCBC2AE8625CBB0F2C22AB923"
)

func softTMK(t testing.TB, value string) keys.Key {
	t.Helper()
	raw, err := hex.DecodeString(value)
	if err != nil {
		t.Fatal(err)
	}
	k, err := softkey.New(keys.TDES2, raw)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func checkValue(value []byte) ([4]byte, error) {
	k, err := softkey.New(keys.TDES2, value)
	if err != nil {
		return [4]byte{}, err
	}
	return keys.CheckUnionPay(k)
}

// TestA19Property opens many sets of new working keys as the terminal does:
// U-42 to U-46 and U-50, every form of field 62.
func TestA19Property(t *testing.T) {
	softhsmtest.Each(t, func(t *testing.T, module softhsmtest.Module) {
		profiles := []custody.TerminalProfile{
			{Name: "single", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 8, Single: true},
			{Name: "double", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 16},
		}
		r := newRegistry(t, module.Token(t), profiles...)
		for n, profile := range profiles {
			value := []string{testTMK, otherTMK}[n]
			alias := fmt.Sprintf("alias/tmk%d", n)
			r.key(t, alias, attributes(keys.UsageKEK, keys.TDES2, keys.ModeBoth), value, nil)
			e := generated(n+1, profile.Name)
			e.Master, e.Keys = custody.NewMaster{Key: custody.Ref{Alias: alias}}, false
			r.mustAdd(t, e)
			forms := map[custody.Delivery]unionpay.Form{custody.DeliverDE62: unionpay.Form003, custody.DeliverDE62Data: unionpay.Form004}
			if profile.Single {
				forms[custody.DeliverDE62Single] = unionpay.Form001
			}
			seen := make(map[string]bool)
			for range 25 {
				for delivery, form := range forms {
					got, err := r.DistributeKeys(t.Context(), admin, "d", custody.DistributeKeys{TID: e.TID, Form: delivery})
					if err != nil {
						t.Fatal(err)
					}
					set, err := unionpay.Parse(form, got.Field)
					if err != nil {
						t.Fatal(err)
					}
					slots := []unionpay.Slot{set.PIN, set.MAC}
					if set.Data != nil {
						slots = append(slots, *set.Data)
					}
					if set.MAC.Half != profile.Single || set.PIN.Half != (form == unionpay.Form001) {
						t.Errorf("%s in %s: halves %t and %t", profile.Name, form, set.PIN.Half, set.MAC.Half)
					}
					for i, s := range slots {
						clear, err := unionpay.Open(softTMK(t, value), s, checkValue)
						if err != nil {
							t.Fatal(err)
						}
						if seen[string(clear[:8])] || !s.Half && seen[string(clear[8:])] || !s.Half && bytes.Equal(clear[:8], clear[8:]) {
							t.Fatal("a value stands in two slots")
						}
						seen[string(clear[:8])], seen[string(clear[8:])] = true, true
						if kcv := got.Keys[i].Check; !bytes.Equal(kcv[:], s.Check[:3]) {
							t.Errorf("check value %s beside %X", kcv, s.Check)
						}
					}
				}
			}
		}
	})
}

// TestDistributeTR31 opens key blocks as the terminal does, under TDES and AES.
func TestDistributeTR31(t *testing.T) {
	r := newRegistry(t, softhsmtest.Token(t))
	const aesTMK = "000102030405060708090A0B0C0D0E0F"
	r.key(t, "alias/tdes", attributes(keys.UsageKEK, keys.TDES2, keys.ModeBoth), testTMK, nil)
	r.key(t, "alias/aes", attributes(keys.UsageKEK, keys.AES128, keys.ModeBoth), aesTMK, nil)
	for n, test := range []struct {
		profile, value string
		a              keys.Algorithm
	}{{"tdes", testTMK, keys.TDES2}, {"aes", aesTMK, keys.AES128}} {
		e := generated(n+1, test.profile)
		e.Master, e.Data = custody.NewMaster{Key: custody.Ref{Alias: "alias/" + test.profile}}, true
		r.mustAdd(t, e)
		got, err := r.DistributeKeys(t.Context(), admin, "d", custody.DistributeKeys{TID: e.TID, Form: custody.DeliverTR31, Present: true})
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := hex.DecodeString(test.value)
		under, err := softkey.New(test.a, raw)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Blocks) != 3 || got.Version != 1 || got.Custody != audit.CustodyProcess {
			t.Fatalf("%d blocks of version %d, custody %s", len(got.Blocks), got.Version, got.Custody)
		}
		wantModes := map[string]keys.Mode{"TPK": 'E', "TAK": 'C', "TDK": 'E'}
		for i, b := range got.Blocks {
			block, err := tr31.Parse(b.Block)
			if err != nil {
				t.Fatal(err)
			}
			value, err := block.Open(under, test.a, tr31.Policy{})
			if err != nil {
				t.Fatal(err)
			}
			k, err := softkey.New(test.a, value.Reveal())
			if err != nil {
				t.Fatal(err)
			}
			kcv, err := keys.Check(k, test.a.CheckMethod())
			if err != nil || kcv != got.Keys[i].Check || block.Mode != wantModes[b.Slot] || block.Exportability != keys.NonExportable {
				t.Errorf("%s: check value %s, want %s; mode %c, exportability %c (%v)", b.Slot, kcv, got.Keys[i].Check, block.Mode, block.Exportability, err)
			}
		}
	}
}

// TestDistributeRefused: who gets no keys, and in which form not.
func TestDistributeRefused(t *testing.T) {
	r := newRegistry(t, softhsmtest.Token(t))
	bare := generated(2, "unionpay")
	bare.Keys = false
	r.mustAdd(t, generated(1, "unionpay"), bare, generated(3, "aes"), generated(4, "unionpay"))
	if _, err := r.ChangeTerminal(t.Context(), admin, "c", custody.ChangeTerminal{TID: "T0000004", Status: custody.Suspended, Reason: "stolen"}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		q    custody.DistributeKeys
		want error
	}{
		{"no such terminal", custody.DistributeKeys{TID: "T0000009", Form: custody.DeliverDE62}, custody.ErrNoTerminal},
		{"no such form", custody.DistributeKeys{TID: "T0000001", Form: "de62-002"}, custody.ErrRequest},
		{"form 001 without permission", custody.DistributeKeys{TID: "T0000001", Form: custody.DeliverDE62Single}, custody.ErrRequest},
		{"a single-length key in a key block", custody.DistributeKeys{TID: "T0000001", Form: custody.DeliverTR31}, custody.ErrRequest},
		{"field 62 for AES", custody.DistributeKeys{TID: "T0000003", Form: custody.DeliverDE62}, custody.ErrRequest},
		{"no keys yet", custody.DistributeKeys{TID: "T0000002", Form: custody.DeliverDE62, Present: true}, custody.ErrConflict},
		{"suspended", custody.DistributeKeys{TID: "T0000004", Form: custody.DeliverDE62}, custody.ErrConflict},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, err := r.DistributeKeys(t.Context(), admin, "d", test.q); !errors.Is(err, test.want) || got.Field != nil {
				t.Errorf("%+v, %v; want %v", got, err, test.want)
			}
		})
	}
	if _, err := r.DistributeKeys(t.Context(), app, "d", custody.DistributeKeys{TID: "T0000001", Form: custody.DeliverDE62}); !errors.Is(err, custody.ErrDenied) {
		t.Errorf("by an application: %v", err)
	}
}

// TestKeyChange is the state machine of a terminal's working keys: which MACs
// are good under which set, at any time after any number of changes. U-51 for a
// profile without overlap.
func TestKeyChange(t *testing.T) {
	token := softhsmtest.Token(t)
	const overlap = time.Hour
	profiles := []custody.TerminalProfile{
		{Name: "at-once", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 16},
		{Name: "overlap", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 16, Overlap: overlap},
	}
	r := newRegistry(t, token, profiles...)
	number := 0
	const most = 12 // runs: each takes the token some hundred milliseconds
	rapid.Check(t, func(rt *rapid.T) {
		if number == most {
			return
		}
		profile := rapid.SampledFrom(profiles).Draw(rt, "profile")
		number++
		e := generated(number, profile.Name)
		r.mustAdd(t, e)
		type set struct {
			mac   []byte
			until time.Time // zero: the present one
		}
		message := []byte("a message of 24 bytes ok")
		macOf := func() []byte {
			view, err := r.GetTerminal(t.Context(), admin, "g", e.TID)
			if err != nil {
				rt.Fatal(err)
			}
			var mac []byte
			err = r.act(t, app, func(a *custody.Act) error {
				got, err := a.GenerateMAC(t.Context(), custody.GenerateMAC{Key: custody.Ref{ID: view.Keys.MAC}, Algorithm: custody.MACAlg1, Message: message, Length: 8})
				mac = got.MAC
				return err
			})
			if err != nil {
				rt.Fatal(err)
			}
			return mac
		}
		sets := []set{{mac: macOf()}}
		rt.Repeat(map[string]func(*rapid.T){
			"change": func(rt *rapid.T) {
				got, err := r.DistributeKeys(t.Context(), admin, "d", custody.DistributeKeys{TID: e.TID, Form: custody.DeliverDE62})
				if err != nil {
					rt.Fatal(err)
				}
				if int(got.Version) != len(sets)+1 {
					rt.Fatalf("version %d after %d sets", got.Version, len(sets))
				}
				for i := range sets { // a set before the one before is gone at once
					if until := r.now.Add(profile.Overlap); i == len(sets)-1 {
						sets[i].until = until
					} else {
						sets[i].until = time.Unix(1, 0)
					}
				}
				sets = append(sets, set{mac: macOf()})
			},
			"wait": func(rt *rapid.T) {
				r.now = r.now.Add(time.Duration(rapid.IntRange(1, 50).Draw(rt, "minutes")) * time.Minute)
			},
			"": func(rt *rapid.T) {
				view, err := r.GetTerminal(t.Context(), admin, "g", e.TID)
				if err != nil {
					rt.Fatal(err)
				}
				// By the keys themselves, whatever the registry says of them.
				under := []keys.ID{view.Keys.MAC}
				if view.Previous.Version > 0 {
					under = append(under, view.Previous.MAC)
				}
				for i, s := range sets[max(0, len(sets)-3):] {
					want := s.until.IsZero() || r.now.Before(s.until)
					good := false
					for _, id := range under {
						err := r.act(t, app, func(a *custody.Act) error {
							_, err := a.VerifyMAC(t.Context(), custody.VerifyMAC{Key: custody.Ref{ID: id}, Algorithm: custody.MACAlg1, Message: message, MAC: s.mac, Length: 8})
							return err
						})
						good = good || err == nil
						if err != nil && !errors.Is(err, custody.ErrMAC) && !errors.Is(err, custody.ErrKeyState) {
							rt.Fatal(err)
						}
					}
					if good != want {
						rt.Fatalf("MAC of set %d of the last %d: good %t, want %t", i+1, min(3, len(sets)), good, want)
					}
				}
				if inTime := view.Previous.Version > 0 && r.now.Before(view.Retires); inTime != (len(view.Accepted(r.now)) == 2) {
					rt.Fatalf("accepted: %+v", view.Accepted(r.now))
				}
				if accepted := view.Accepted(r.now); len(accepted) < 1 || accepted[0].Version != uint32(len(sets)) {
					rt.Fatalf("accepted: %+v", accepted)
				}
			},
		})
	})
}

// TestChangeTerminal suspends, resumes, limits and retires.
func TestChangeTerminal(t *testing.T) {
	r := newRegistry(t, softhsmtest.Token(t))
	r.mustAdd(t, generated(1, "unionpay"))
	change := func(q custody.ChangeTerminal) (custody.Terminal, error) {
		q.TID = "T0000001"
		return r.ChangeTerminal(t.Context(), admin, "c", q)
	}
	limit := int64(100)
	for _, step := range []struct {
		q    custody.ChangeTerminal
		want custody.TerminalStatus
	}{
		{custody.ChangeTerminal{Status: custody.Suspended, Reason: "reported stolen"}, custody.Suspended},
		{custody.ChangeTerminal{Most: &limit}, custody.Suspended},
		{custody.ChangeTerminal{Status: custody.InService}, custody.InService},
		{custody.ChangeTerminal{Status: custody.Retired, Reason: "sold"}, custody.Retired},
	} {
		got, err := change(step.q)
		if err != nil || got.Status != step.want {
			t.Fatalf("%+v: %s, %v", step.q, got.Status, err)
		}
		seen, err := r.db.Terminal(t.Context(), "T0000001")
		if err != nil || seen.Disabled != (step.want != custody.InService) {
			t.Errorf("the switch sees %+v, %v", seen, err)
		}
	}
	view, err := r.GetTerminal(t.Context(), admin, "g", "T0000001")
	if err != nil || view.Most != limit || view.Reason != "sold" {
		t.Fatalf("%+v, %v", view, err)
	}
	if k, err := r.Key(t.Context(), admin, "k", custody.Ref{ID: view.Keys.MAC}); err != nil || k.Enabled {
		t.Errorf("the MAC key of a retired terminal: enabled %t, %v", k.Enabled, err)
	}
	for name, q := range map[string]custody.ChangeTerminal{
		"back into service": {Status: custody.InService},
	} {
		if _, err := change(q); !errors.Is(err, custody.ErrConflict) {
			t.Errorf("%s: %v, want %v", name, err, custody.ErrConflict)
		}
	}
	for name, q := range map[string]custody.ChangeTerminal{
		"nothing": {}, "no reason": {Status: custody.Suspended}, "unknown": {Status: "gone", Reason: "x"},
	} {
		if _, err := change(q); !errors.Is(err, custody.ErrRequest) {
			t.Errorf("%s: %v, want %v", name, err, custody.ErrRequest)
		}
	}
}

// BenchmarkAddTerminals is the rate of registration: a batch of 1000 terminals
// with three keys each, made in the token.
func BenchmarkAddTerminals(b *testing.B) {
	r := newRegistry(b, softhsmtest.Token(b))
	n, start := 0, time.Now()
	for b.Loop() {
		list := make([]custody.NewTerminal, custody.MostTerminals)
		for i := range list {
			n++
			list[i] = generated(n, "unionpay")
		}
		got, err := r.AddTerminals(b.Context(), admin, "bench", list)
		if err != nil || got.Added != len(list) {
			b.Fatalf("%+v, %v", got, err)
		}
	}
	b.ReportMetric(float64(n)/time.Since(start).Seconds(), "terminals/s")
}
