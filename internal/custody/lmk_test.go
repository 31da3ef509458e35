package custody_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// The second local master key of these tests.
const secondLMK = "F0E1D2C3B4A5968778695A4B3C2D1E0F00112233445566778899AABBCCDDEEFF"

func lmkValue(t testing.TB, digits string) secret.Bytes {
	t.Helper()
	raw, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return secret.From(raw)
}

// bothOf names the people behind a ceremony.
func bothOf(names ...string) (all []audit.Approval) {
	for i, name := range names {
		all = append(all, audit.Approval{ID: name, Ref: audit.UUID{byte(i + 1), 6: 0x70, 8: 0x80}, At: time.Now()})
	}
	return all
}

// masterRoom is a room in which the local master key can be changed.
func masterRoom(t *testing.T) (*room, *hsm.Manager) {
	t.Helper()
	token := softhsmtest.Token(t)
	m := hsm.NewManager(token)
	r := newRoomOver(t, token, func(cfg *custody.Config) {
		cfg.Masters, cfg.LMKStore = m, cfg.Store.(custody.LMKStore)
	})
	return r, m
}

func (r *room) addLMK(t *testing.T) uint32 {
	t.Helper()
	generation, err := r.AddLMK(t.Context(), admin, "lmk", lmkValue(t, secondLMK), bothOf("alice", "bob"))
	if err != nil {
		t.Fatal(err)
	}
	return generation
}

// rewrapAll calls until no more is done, and returns the last answer with the
// number of all that were moved.
func (r *room) rewrapAll(t *testing.T) custody.Rewrapping {
	t.Helper()
	for moved := 0; ; {
		p, err := r.RewrapKeys(t.Context(), admin, "rewrap")
		if err != nil {
			t.Fatal(err)
		}
		moved += p.Moved
		if p.Done == p.Total || p.Moved == 0 {
			p.Moved = moved
			return p
		}
	}
}

func TestChangeOfLMK(t *testing.T) {
	r, m := masterRoom(t)
	r.key(t, "alias/mac", attributes(keys.UsageCMAC, keys.AES128, keys.ModeMAC), "000102030405060708090A0B0C0D0E0F", nil)
	r.key(t, "alias/pin", attributes(keys.UsagePIN, keys.TDES2, keys.ModeBoth), "0123456789ABCDEFFEDCBA9876543210", map[string]string{"keyd:custody": "token"})
	before := r.stored(t)
	cmac := r.cmac(t)

	if next, err := r.NextLMK(t.Context()); err != nil || next != 2 {
		t.Fatalf("the next generation is %d, %v", next, err)
	}
	check, err := r.CheckLMK(lmkValue(t, secondLMK), 2)
	if err != nil {
		t.Fatal(err)
	}
	if g := r.addLMK(t); g != 2 {
		t.Fatalf("generation %d, want 2", g)
	}
	r.key(t, "alias/new", attributes(keys.UsageCMAC, keys.AES128, keys.ModeMAC), "101112131415161718191A1B1C1D1E1F", nil)
	status := r.status(t)
	if len(status) != 2 || status[0].Keys != 2 || status[1].Keys != 1 || !status[1].Newest || status[1].Check != check || status[0].Since.IsZero() {
		t.Errorf("after the addition: %+v, want check value %v", status, check)
	}
	if err := r.RetireLMK(t.Context(), admin, "retire", 1); !errors.Is(err, custody.ErrConflict) || !strings.Contains(err.Error(), "2 keys are under") {
		t.Errorf("retiring while keys are left: %v, want %v that counts them", err, custody.ErrConflict)
	}
	if got := r.cmac(t); got != cmac {
		t.Error("another MAC beside the second local master key")
	}

	p := r.rewrapAll(t)
	if want := (custody.Rewrapping{Generation: 2, Total: 3, Done: 3, Moved: 2}); !cmp.Equal(want, p) {
		t.Errorf("re-wrapping says %+v, want %+v", p, want)
	}
	for id, k := range r.stored(t) {
		old, was := before[id]
		if k.Block.LMK != 2 {
			t.Errorf("key %s is under generation %d", id, k.Block.LMK)
		}
		if !was {
			continue
		}
		old.Block.LMK, old.Block.Wrapped, old.Block.Companion, old.Block.MAC = 2, k.Block.Wrapped, k.Block.Companion, k.Block.MAC
		if diff := cmp.Diff(old, k); diff != "" {
			t.Errorf("re-wrapping changed more of a key than it may: %s", diff)
		}
	}
	if got := r.cmac(t); got != cmac {
		t.Error("another MAC after the re-wrapping")
	}
	if again := r.rewrapAll(t); again.Moved != 0 || again.Done != 3 {
		t.Errorf("nothing was left to do, and it says %+v", again)
	}

	if err := r.RetireLMK(t.Context(), admin, "retire", 1); err != nil {
		t.Fatal(err)
	}
	if got := r.cmac(t); got != cmac {
		t.Error("another MAC after the retirement")
	}
	held, err := m.LMKs(t.Context())
	if err != nil || len(held) != 1 || held[0].Generation != 2 {
		t.Errorf("the token holds %+v, %v", held, err)
	}
	status = r.status(t)
	if len(status) != 2 || status[0].Held || status[0].Retired.IsZero() {
		t.Errorf("after the retirement: %+v", status)
	}
	for name, generation := range map[string]uint32{"a second time": 1, "the newest": 2} {
		if err := r.RetireLMK(t.Context(), admin, "retire", generation); !errors.Is(err, custody.ErrConflict) {
			t.Errorf("retiring %s: %v, want %v", name, err, custody.ErrConflict)
		}
	}
	if err := r.RetireLMK(t.Context(), admin, "retire", 7); !errors.Is(err, custody.ErrRequest) {
		t.Errorf("retiring what never was: %v, want %v", err, custody.ErrRequest)
	}
	// A key of an old backup does not come back, neither here nor in the store.
	for _, old := range before {
		old.Block.LMK = 1
		if err := r.db.AddKey(t.Context(), custody.KeyRecord{Block: old.Block, State: custody.CreateComplete}, nil); err == nil {
			t.Error("a block of the retired generation was stored")
		}
		if _, err := r.token.Load(t.Context(), old.Block); !errors.Is(err, keys.ErrLMK) || !strings.Contains(err.Error(), "under generation 1") {
			t.Errorf("a block of the retired generation: %v, want %v", err, keys.ErrLMK)
		}
	}
	r.checkLMKRecords(t)
}

// checkLMKRecords looks for the records of TestChangeOfLMK.
func (r *room) checkLMKRecords(t *testing.T) {
	t.Helper()
	all := r.records(t, "sec")
	for _, line := range all {
		if strings.Contains(line, `"scrub"`) {
			t.Errorf("values of a record were replaced: %s", line)
		}
	}
	for _, want := range [][]string{
		{`"action":"key.import"`, `"id":"lmk/2"`, `"phase":"intent"`, `"id":"alice"`, `"id":"bob"`},
		{`"action":"key.import"`, `"id":"lmk/2"`, `"outcome":"ok"`, `"custody":"process"`},
		{`"action":"key.rotate"`, `"id":"lmk/2"`, `"role":"kek"`, `"outcome":"ok"`, `"custody":"token"`, `"before":"`, `"after":"`},
		{`"action":"key.destroy"`, `"id":"lmk/1"`, `"role":"target"`, `"phase":"intent"`},
		{`"action":"key.destroy"`, `"id":"lmk/1"`, `"outcome":"ok"`},
	} {
		if !slices.ContainsFunc(all, func(line string) bool { return containsAll(line, want) }) {
			t.Errorf("no record has %q", want)
		}
	}
}

func containsAll(line string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(line, part) {
			return false
		}
	}
	return true
}

// stored are all keys by their ids.
func (r *room) stored(t *testing.T) map[keys.ID]custody.KeyRecord {
	t.Helper()
	all := make(map[keys.ID]custody.KeyRecord)
	q := custody.KeyQuery{Limit: 1000}
	for {
		page, err := r.db.Keys(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range page {
			all[k.Block.ID], q.After = k, k.Block.ID
		}
		if len(page) < q.Limit {
			return all
		}
	}
}

func (r *room) status(t *testing.T) []custody.LMKStatus {
	t.Helper()
	list, err := r.LMKs(t.Context(), admin, "status")
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// cmac is a MAC by alias/mac.
func (r *room) cmac(t *testing.T) string {
	t.Helper()
	var got custody.GeneratedMAC
	if err := r.act(t, app, func(a *custody.Act) (err error) {
		got, err = a.GenerateMAC(t.Context(), custody.GenerateMAC{Key: custody.Ref{Alias: "alias/mac"}, Algorithm: custody.MACCMAC, Message: []byte("hello")})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(got.MAC)
}

func TestLMKDenied(t *testing.T) {
	r, _ := masterRoom(t)
	for name, test := range map[string]struct {
		do   func(who custody.Caller) error
		who  []custody.Caller // may not
		can  custody.Caller
		want error
	}{
		"status": {func(who custody.Caller) error { _, err := r.LMKs(t.Context(), who, "x"); return err },
			[]custody.Caller{app}, caller("eve", custody.RoleAuditor), nil},
		"re-wrap": {func(who custody.Caller) error { _, err := r.RewrapKeys(t.Context(), who, "x"); return err },
			[]custody.Caller{app, custodian, caller("o", custody.RoleOperator), caller("eve", custody.RoleAuditor)}, admin, nil},
		"retire": {func(who custody.Caller) error { return r.RetireLMK(t.Context(), who, "x", 1) },
			[]custody.Caller{app, custodian, caller("o", custody.RoleOperator), caller("eve", custody.RoleAuditor)}, admin, custody.ErrConflict},
		"add": {func(who custody.Caller) error {
			_, err := r.AddLMK(t.Context(), who, "x", secret.New(32), bothOf("alice", "bob"))
			return err
		}, []custody.Caller{app, caller("o", custody.RoleOperator), caller("eve", custody.RoleAuditor)}, custodian, custody.ErrRequest},
	} {
		t.Run(name, func(t *testing.T) {
			for _, who := range test.who {
				if err := test.do(who); !errors.Is(err, custody.ErrDenied) {
					t.Errorf("%s: %v, want %v", who.Name, err, custody.ErrDenied)
				}
			}
			if err := test.do(test.can); !errors.Is(err, test.want) {
				t.Errorf("%s: %v, want %v", test.can.Name, err, test.want)
			}
		})
	}
	t.Run("one custodian twice", func(t *testing.T) {
		_, err := r.AddLMK(t.Context(), custodian, "x", lmkValue(t, secondLMK), bothOf("alice", "alice"))
		if !errors.Is(err, custody.ErrDenied) {
			t.Errorf("%v, want %v", err, custody.ErrDenied)
		}
	})
	t.Run("the same local master key twice", func(t *testing.T) {
		r.addLMK(t)
		_, err := r.AddLMK(t.Context(), custodian, "x", lmkValue(t, secondLMK), bothOf("alice", "bob"))
		if !errors.Is(err, custody.ErrConflict) {
			t.Errorf("%v, want %v", err, custody.ErrConflict)
		}
	})
	t.Run("the path of transactions", func(t *testing.T) {
		if _, err := r.WithoutMaker().RewrapKeys(t.Context(), admin, "x"); !errors.Is(err, custody.ErrUnavailable) {
			t.Errorf("%v, want %v", err, custody.ErrUnavailable)
		}
	})
}

func TestProveLMK(t *testing.T) {
	r, _ := masterRoom(t)
	r.addLMK(t)
	challenge := [32]byte{1}
	answer, err := r.ProveLMK(t.Context(), admin, "x", 2, challenge)
	if err != nil {
		t.Fatal(err)
	}
	wrong := answer
	wrong[15] ^= 1
	for name, test := range map[string]struct {
		generation uint32
		challenge  [32]byte
		answer     [16]byte
		want       bool
	}{
		"the same":          {2, challenge, answer, true},
		"another answer":    {2, challenge, wrong, false},
		"another challenge": {2, [32]byte{2}, answer, false},
		"another":           {1, challenge, answer, false},
	} {
		if same, err := r.VerifyLMK(t.Context(), admin, "x", test.generation, test.challenge, test.answer); err != nil || same != test.want {
			t.Errorf("%s: %t, %v; want %t", name, same, err, test.want)
		}
	}
	if _, err := r.ProveLMK(t.Context(), admin, "x", 9, challenge); !errors.Is(err, custody.ErrRequest) {
		t.Errorf("a generation that is not there: %v, want %v", err, custody.ErrRequest)
	}
}

// TestRewrapRefused: a block that somebody changed is named and left, and all
// others are moved.
func TestRewrapRefused(t *testing.T) {
	r, m := masterRoom(t)
	var forged keys.ID
	for i := range 3 {
		b, err := m.Import(t.Context(), keys.Block{
			ID: keys.ID(fmt.Sprintf("%032d", i)), Version: 1, CreatedMs: 1, Attributes: attributes(keys.UsageData, keys.AES128, keys.ModeBoth),
		}, lmkValue(t, "000102030405060708090A0B0C0D0E0F"))
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			b.Attributes.Exportability, forged = keys.NonExportable, b.ID
		}
		if err := r.db.AddKey(t.Context(), custody.KeyRecord{Block: b, State: custody.CreateComplete}, nil); err != nil {
			t.Fatal(err)
		}
	}
	r.addLMK(t)
	p := r.rewrapAll(t)
	if p.Done != 2 || p.Total != 3 || p.Moved != 2 || len(p.Refused) != 1 || p.Refused[0].ID != forged || !errors.Is(p.Refused[0].Why, custody.ErrTampered) {
		t.Errorf("%+v, want two moved and %s refused", p, forged)
	}
	if err := r.RetireLMK(t.Context(), admin, "x", 1); !errors.Is(err, custody.ErrConflict) {
		t.Errorf("retiring with a block left: %v, want %v", err, custody.ErrConflict)
	}
}

// TestRewrapManyInUse re-wraps 20,000 keys while a client uses some of them,
// none of whose calls may fail.
func TestRewrapManyInUse(t *testing.T) {
	many := several(20_000)
	r, m := masterRoom(t)
	r.key(t, "alias/mac", attributes(keys.UsageCMAC, keys.AES128, keys.ModeMAC), "000102030405060708090A0B0C0D0E0F", nil)
	r.fill(t, m, many-1)
	r.addLMK(t)

	ctx, stop := context.WithCancel(t.Context())
	var calls, failed atomic.Int64
	var users sync.WaitGroup
	users.Go(func() {
		for ctx.Err() == nil {
			calls.Add(1)
			if err := r.use(t, "alias/mac"); err != nil {
				failed.Add(1)
				t.Error(err)
				return
			}
		}
	})
	begin := time.Now()
	p := r.rewrapAll(t)
	took := time.Since(begin)
	if p.Done != many || p.Total != many {
		t.Errorf("re-wrapping says %+v", p)
	}
	if err := r.RetireLMK(t.Context(), admin, "x", 1); err != nil {
		t.Error(err)
	}
	stop()
	users.Wait()
	if calls.Load() == 0 {
		t.Error("nobody used a key meanwhile")
	}
	t.Logf("%d keys re-wrapped in %v, %.0f a second, beside %d MACs of a client", many, took.Round(time.Millisecond), float64(many)/took.Seconds(), calls.Load())
}

// several is a number of keys that a module re-wraps in seconds: softokn is as
// good as SoftHSM for whether a call fails, and no good for the rate.
func several(n int) int {
	if os.Getenv(softhsmtest.ModuleVar) == "softokn" {
		return min(n, 200)
	}
	return n
}

// use makes one MAC.
func (r *room) use(t *testing.T, alias string) error {
	a, err := r.Begin(t.Context(), app, "use")
	if err != nil {
		return err
	}
	defer a.Close()
	_, failed := a.GenerateMAC(t.Context(), custody.GenerateMAC{Key: custody.Ref{Alias: alias}, Algorithm: custody.MACCMAC, Message: []byte("hello")})
	if _, err := a.Commit(t.Context()); err != nil {
		return err
	}
	return failed
}

// fill stores n keys of the first generation, whose ids are their numbers.
func (r *room) fill(t *testing.T, m *hsm.Manager, n int) {
	t.Helper()
	wanted := make([]keys.Wanted, n)
	for i := range wanted {
		wanted[i].Template = keys.Block{
			ID: keys.ID(fmt.Sprintf("%032d", i)), Version: 1, CreatedMs: 1, Attributes: attributes(keys.UsageData, keys.AES128, keys.ModeBoth),
		}
	}
	made, err := m.GenerateBatch(t.Context(), wanted)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.db.ChangeKeys(t.Context(), nil, func(ch custody.KeyChange) error {
		for _, k := range made {
			if err := ch.AddKey(custody.KeyRecord{Block: k.Block, State: custody.CreateComplete, Enabled: true}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestRewrapWhileKeysChange stops keys while they are re-wrapped:
// no change fails, and none is lost.
func TestRewrapWhileKeysChange(t *testing.T) {
	many := several(1_500)
	r, m := masterRoom(t)
	r.fill(t, m, many)
	r.addLMK(t)
	ids := make([]keys.ID, 0, many)
	for i := range many {
		ids = append(ids, keys.ID(fmt.Sprintf("%032d", i)))
	}
	var stopped []keys.ID
	ctx, stop := context.WithCancel(t.Context())
	var changer sync.WaitGroup
	changer.Go(func() {
		for i := 0; i < many && ctx.Err() == nil; i += 7 {
			id := ids[len(ids)-1-i]
			if _, err := r.StopKeyUsage(t.Context(), admin, "stop", custody.KeyStep{Key: custody.Ref{ID: id}}); err != nil {
				t.Error(err)
				return
			}
			stopped = append(stopped, id)
		}
	})
	r.rewrapAll(t)
	stop()
	changer.Wait()
	p := r.rewrapAll(t) // what was sealed anew on the way
	if p.Done != many {
		t.Errorf("%+v, want all %d", p, many)
	}
	after := r.stored(t)
	for _, id := range stopped {
		if after[id].Enabled {
			t.Errorf("key %s was stopped, and is in use", id)
		}
	}
	on := 0
	for _, k := range after {
		if k.Enabled {
			on++
		}
	}
	if on != many-len(stopped) || len(stopped) == 0 {
		t.Errorf("%d keys are in use, want %d less %d", on, many, len(stopped))
	}
	t.Logf("%d keys stopped meanwhile", len(stopped))
}
