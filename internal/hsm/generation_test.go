package hsm_test

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/mac"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// Local master keys of the tests, by generation.
const (
	lmkOne   = "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F"
	lmkTwo   = "F0E1D2C3B4A5968778695A4B3C2D1E0F00112233445566778899AABBCCDDEEFF"
	lmkThree = "8899AABBCCDDEEFF0011223344556677F0E1D2C3B4A5968778695A4B3C2D1E0F"
)

func lmk(t testing.TB, digits string) secret.Bytes { return secret.From(unhex(t, digits)) }

// generations initialises a token with the first value and adds the others.
func generations(t testing.TB, token *hsm.Token, values ...string) *hsm.Manager {
	t.Helper()
	m := hsm.NewManager(token)
	if err := m.InitFrom(t.Context(), lmk(t, values[0])); err != nil {
		t.Fatal(err)
	}
	for i, v := range values[1:] {
		if g, err := m.AddLMK(t.Context(), lmk(t, v)); err != nil || g != uint32(i+2) {
			t.Fatalf("AddLMK: generation %d, want %d, %v", g, i+2, err)
		}
	}
	return m
}

// TestLMKCheck computes the check values once more, with other code.
func TestLMKCheck(t *testing.T) {
	m := generations(t, softhsmtest.Open(t, softhsmtest.Config(t)), lmkOne, lmkTwo)
	list, err := m.LMKs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var want []keys.LMK
	for i, v := range []struct{ value, info string }{
		{lmkOne, "keyd own key block-mac"},
		{lmkTwo, "keyd own key block-mac of generation 2"},
	} {
		key, err := hkdf.Key(sha256.New, unhex(t, v.value), nil, v.info, 32)
		if err != nil {
			t.Fatal(err)
		}
		blockMAC := must(mac.NewAES(key))(t)
		full := must(mac.CMAC(blockMAC, append([]byte("keyd LMK check\x01"), 0, 0, 0, byte(i+1))))(t)
		want = append(want, keys.LMK{Generation: uint32(i + 1), Check: keys.KCV(full[:3]), Whole: true})
		if got := must(hsm.LMKCheck(lmk(t, v.value), uint32(i+1)))(t); got != want[i].Check {
			t.Errorf("generation %d in the process: %v, want %v", i+1, got, want[i].Check)
		}
	}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Error(diff)
	}
	if a, b := must(hsm.LMKCheck(lmk(t, lmkOne), 1))(t), must(hsm.LMKCheck(lmk(t, lmkOne), 2))(t); a == b {
		t.Error("one value has one check value in two generations")
	}
	for name, value := range map[string]secret.Bytes{"zeros": secret.New(32), "short": secret.From(unhex(t, lmkOne)[:16])} {
		if _, err := hsm.LMKCheck(value, 1); !errors.Is(err, keys.ErrMaterial) {
			t.Errorf("%s: %v, want %v", name, err, keys.ErrMaterial)
		}
		if _, err := m.AddLMK(t.Context(), value); !errors.Is(err, keys.ErrMaterial) {
			t.Errorf("adding %s: %v, want %v", name, err, keys.ErrMaterial)
		}
	}
}

// TestProve compares tokens of two modules, and lets each use the other's block.
func TestProve(t *testing.T) {
	challenge := [32]byte{1, 2, 3}
	type site struct {
		answers [3][16]byte // of generations 1 and 2, and of 2 to another challenge
		block   *keys.Block
	}
	visit := func(name string, module softhsmtest.Module, foreign *keys.Block, values ...string) (s site) {
		t.Run(name, func(t *testing.T) {
			token := softhsmtest.Open(t, module.Config(t))
			m := generations(t, token, values...)
			for i, g := range []uint32{1, 2} {
				s.answers[i] = must(m.Prove(t.Context(), g, challenge))(t)
			}
			s.answers[2] = must(m.Prove(t.Context(), 2, [32]byte{4}))(t)
			if _, err := m.Prove(t.Context(), 3, challenge); !errors.Is(err, keys.ErrLMK) {
				t.Errorf("a generation that is not there: %v, want %v", err, keys.ErrLMK)
			}
			if foreign != nil {
				loaded(t, token, foreign)
			}
			s.block = imported(t, m, template("P0", keys.AES128, 'B'), unhex(t, clear32)[:16])
			if err := token.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
	here := visit("first", softhsmtest.SoftHSM(), nil, lmkOne, lmkTwo)
	there := visit("second", softhsmtest.SoftHSM(), here.block, lmkOne, lmkTwo)
	elsewhere := visit("another module", softhsmtest.Softokn(), here.block, lmkOne, lmkTwo)
	visit("and back", softhsmtest.SoftHSM(), elsewhere.block, lmkOne, lmkTwo)
	stranger := visit("another second key", softhsmtest.SoftHSM(), nil, lmkOne, lmkThree)
	if here.answers != there.answers || here.answers != elsewhere.answers {
		t.Error("the same local master keys give other answers")
	}
	if here.answers[0] != stranger.answers[0] || here.answers[1] == stranger.answers[1] {
		t.Error("the answers do not tell which generation differs")
	}
	a := here.answers
	if a[0] == a[1] || a[1] == a[2] || a[0] == [16]byte{} {
		t.Error("the answer does not depend on generation and challenge")
	}
}

// TestGenerations is the life of a change: blocks of both generations side by
// side, re-wrapping, retirement, and the token opened anew.
func TestGenerations(t *testing.T) {
	cfg := softhsmtest.Config(t)
	token := softhsmtest.Open(t, cfg)
	m := generations(t, token, lmkOne)
	value := unhex(t, clear32)[:16]
	old := imported(t, m, template("P0", keys.AES128, 'B'), value)
	before := loaded(t, token, old)
	if g := must(m.AddLMK(t.Context(), lmk(t, lmkTwo)))(t); g != 2 {
		t.Fatalf("generation %d, want 2", g)
	}
	fresh, _, err := m.Generate(t.Context(), template("P0", keys.AES128, 'B'))
	if err != nil || fresh.LMK != 2 || old.LMK != 1 {
		t.Fatalf("a new block is under generation %d, an old one under %d, %v; want 2 and 1", fresh.LMK, old.LMK, err)
	}
	sealed := must(m.Seal(t.Context(), old, map[string]string{"keyd:note": "x"}))(t)
	if sealed.LMK != 1 {
		t.Errorf("sealing moved the block to generation %d", sealed.LMK)
	}
	for _, b := range []*keys.Block{old, fresh, sealed} {
		loaded(t, token, b)
	}

	moved := must(m.Rewrap(t.Context(), sealed))(t)
	want := *sealed
	want.LMK, want.Wrapped, want.MAC = 2, moved.Wrapped, moved.MAC
	if diff := cmp.Diff(&want, moved); diff != "" || moved.MAC == sealed.MAC || bytes.Equal(moved.Wrapped, sealed.Wrapped) {
		t.Errorf("more was changed than the generation, or less: %s", diff)
	}
	if got := unwrap3394(t, unhex(t, lmkTwo), moved.Wrapped); !bytes.Equal(got, value) {
		t.Error("another value under the new local master key")
	}
	if again := must(m.Rewrap(t.Context(), moved))(t); cmp.Diff(moved, again) != "" {
		t.Error("a block of the newest generation was changed")
	}

	for _, test := range []struct {
		name       string
		generation uint32
		blocks     int
		want       error
	}{
		{"with a block under it", 1, 1, hsm.ErrInUse},
		{"the newest", 2, 0, hsm.ErrInUse},
		{"one that is not there", 3, 0, keys.ErrLMK},
	} {
		if err := m.RetireLMK(t.Context(), test.generation, test.blocks); !errors.Is(err, test.want) {
			t.Errorf("retire %s: %v, want %v", test.name, err, test.want)
		}
	}
	if err := m.RetireLMK(t.Context(), 1, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := before.Key.Encrypt(nil, make([]byte, 16)); !errors.Is(err, keys.ErrLMK) {
		t.Errorf("a key that was loaded from the retired generation: %v, want %v", err, keys.ErrLMK)
	}
	checkRetired(t, token, old, moved)
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	checkRetired(t, softhsmtest.Open(t, cfg), old, moved)
}

// checkRetired checks that generation 1 is gone and 2 at work.
func checkRetired(t *testing.T, token *hsm.Token, old, moved *keys.Block) {
	t.Helper()
	m := hsm.NewManager(token)
	_, err := token.Load(t.Context(), old)
	if !errors.Is(err, keys.ErrLMK) || !strings.Contains(err.Error(), "under generation 1, the token holds [2]") {
		t.Errorf("a block of the retired generation, as in an old backup: %v, want %v that names both", err, keys.ErrLMK)
	}
	if _, err := m.Rewrap(t.Context(), old); !errors.Is(err, keys.ErrLMK) {
		t.Errorf("re-wrapping it: %v, want %v", err, keys.ErrLMK)
	}
	loaded(t, token, moved)
	made, missing, err := m.Exists(t.Context())
	slices.Sort(made)
	want := []string{"keyd-block-mac-2", "keyd-data", "keyd-lmk-2", "keyd-log", "keyd-token"}
	if err != nil || len(missing) > 0 || !slices.Equal(made, want) {
		t.Errorf("the token holds %q and lacks %q, %v", made, missing, err)
	}
	if err := token.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestRewrap moves a key of every kind, and tampered ones among them.
func TestRewrap(t *testing.T) {
	token := softhsmtest.Open(t, softhsmtest.Config(t))
	m := generations(t, token, lmkOne)
	var blocks []*keys.Block
	every(t, func(t *testing.T, tmpl keys.Block) {
		tmpl.ID = keys.ID(fmt.Sprintf("%032d", len(blocks)))
		value := bytes.Repeat(unhex(t, clear32), 2)[:tmpl.Attributes.Algorithm.KeyBytes()]
		blocks = append(blocks, imported(t, m, tmpl, value))
	})
	erased := must(m.Erase(t.Context(), blocks[0]))(t)
	forged := *blocks[1]
	forged.Attributes.Exportability = keys.NonExportable
	blocks = append(blocks, erased, &forged)
	must(m.AddLMK(t.Context(), lmk(t, lmkTwo)))(t)
	objects := must(token.Objects())(t)
	done := must(m.RewrapAll(t.Context(), blocks))(t)
	if n := must(token.Objects())(t); n != objects {
		t.Errorf("%d session objects, %d before: some were left", n, objects)
	}
	for i, r := range done {
		old := blocks[i]
		switch {
		case old == &forged:
			if !errors.Is(r.Err, keys.ErrBlockMAC) || r.Block != nil {
				t.Errorf("a forged block: %v, want %v", r.Err, keys.ErrBlockMAC)
			}
			continue
		case r.Err != nil:
			t.Errorf("%s: %v", old.Attributes, r.Err)
			continue
		case old == erased:
			if r.Block.LMK != 2 || len(r.Block.Wrapped) > 0 {
				t.Errorf("what is left of a destroyed key: generation %d, %d bytes", r.Block.LMK, len(r.Block.Wrapped))
			}
			continue
		}
		loaded(t, token, r.Block)
		for _, p := range [][2][]byte{{old.Wrapped, r.Block.Wrapped}, {old.Companion, r.Block.Companion}} {
			if len(p[0]) == 0 && len(p[1]) == 0 {
				continue
			}
			if !bytes.Equal(unwrap3394(t, unhex(t, lmkOne), p[0]), unwrap3394(t, unhex(t, lmkTwo), p[1])) {
				t.Errorf("%s: another value", old.Attributes)
			}
		}
	}
}

// TestRewrapWrongly: a module that wraps something else is found out before the
// old block is given up.
func TestRewrapWrongly(t *testing.T) {
	token, faulty, err := hsm.OpenFaulty(softhsmtest.Config(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	m := generations(t, token, lmkOne)
	b := imported(t, m, template("P0", keys.AES128, 'B'), unhex(t, lmkTwo)[:16])
	must(m.AddLMK(t.Context(), lmk(t, lmkTwo)))(t)
	faulty.Set(func(call string) error {
		if call == "C_WrapKey" {
			return hsm.Wrongly
		}
		return nil
	})
	if _, err := m.Rewrap(t.Context(), b); !errors.Is(err, hsm.ErrSelfTest) {
		t.Errorf("%v, want %v", err, hsm.ErrSelfTest)
	}
	faulty.Set(func(call string) error {
		if call == "C_WrapKey" {
			return pkcs11.Error(pkcs11.CKR_DEVICE_ERROR)
		}
		return nil
	})
	if done, err := m.RewrapAll(t.Context(), []*keys.Block{b, b}); !errors.Is(err, keys.ErrUnavailable) || done != nil {
		t.Errorf("a token that fails: %v, want %v for all", err, keys.ErrUnavailable)
	}
}

// TestAddLMKInterrupted: what is left between the two objects is no hindrance
// to anything, shows, and is removed by the next addition.
func TestAddLMKInterrupted(t *testing.T) {
	cfg := softhsmtest.Config(t)
	token, faulty, err := hsm.OpenFaulty(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := generations(t, token, lmkOne)
	b := imported(t, m, template("P0", keys.AES128, 'B'), unhex(t, clear32)[:16])
	creations := 0
	faulty.Set(func(call string) error {
		if call != "C_CreateObject" {
			return nil
		}
		if creations++; creations == 2 {
			return pkcs11.Error(pkcs11.CKR_FUNCTION_FAILED)
		}
		return nil
	})
	if _, err := m.AddLMK(t.Context(), lmk(t, lmkTwo)); !errors.Is(err, keys.ErrUnavailable) {
		t.Fatalf("%v, want %v", err, keys.ErrUnavailable)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	again := softhsmtest.Open(t, cfg)
	m = hsm.NewManager(again)
	list := must(m.LMKs(t.Context()))(t)
	if len(list) != 2 || !list[0].Whole || list[1].Whole || list[1].Check != (keys.KCV{}) {
		t.Errorf("the token shows %+v, want generation 1 and half of 2", list)
	}
	if _, missing, err := m.Exists(t.Context()); err != nil || len(missing) > 0 {
		t.Errorf("missing %q, %v: half an addition keeps a node from starting", missing, err)
	}
	loaded(t, again, b)
	if fresh := imported(t, m, template("P0", keys.AES128, 'B'), unhex(t, clear32)[:16]); fresh.LMK != 1 {
		t.Errorf("a new block is under generation %d", fresh.LMK)
	}
	if g := must(m.AddLMK(t.Context(), lmk(t, lmkThree)))(t); g != 2 {
		t.Errorf("generation %d, want 2", g)
	}
	check := must(hsm.LMKCheck(lmk(t, lmkThree), 2))(t)
	if list := must(m.LMKs(t.Context()))(t); len(list) != 2 || list[1].Check != check {
		t.Errorf("the token shows %+v, want check value %v", list, check)
	}
}

func TestAddLMKRefused(t *testing.T) {
	token := softhsmtest.Open(t, softhsmtest.Config(t))
	m := hsm.NewManager(token)
	if _, err := m.AddLMK(t.Context(), lmk(t, lmkOne)); !errors.Is(err, keys.ErrNoKey) {
		t.Errorf("a token that is not initialised: %v, want %v", err, keys.ErrNoKey)
	}
	generations(t, token, lmkOne, lmkTwo)
	for _, value := range []string{lmkOne, lmkTwo} {
		if _, err := m.AddLMK(t.Context(), lmk(t, value)); !errors.Is(err, keys.ErrSameLMK) {
			t.Errorf("a value that is there: %v, want %v", err, keys.ErrSameLMK)
		}
	}
}

// TestRetireRemains: a module that says it destroyed an object and did not.
func TestRetireRemains(t *testing.T) {
	token, faulty, err := hsm.OpenFaulty(softhsmtest.Config(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	m := generations(t, token, lmkOne, lmkTwo)
	faulty.Set(func(call string) error {
		if call == "C_DestroyObject" {
			return hsm.ErrLie
		}
		return nil
	})
	if err := m.RetireLMK(t.Context(), 1, 0); !errors.Is(err, keys.ErrNotDestroyed) {
		t.Errorf("%v, want %v", err, keys.ErrNotDestroyed)
	}
	faulty.Set(nil)
	if err := m.RetireLMK(t.Context(), 1, 0); err != nil {
		t.Errorf("again: %v", err)
	}
}

// TestLMKOfAnotherProcess: a generation that another user of the token added is
// found when a block of it comes.
func TestLMKOfAnotherProcess(t *testing.T) {
	cfg := softhsmtest.Config(t)
	here, there := softhsmtest.Open(t, cfg), softhsmtest.Open(t, cfg)
	m := generations(t, here, lmkOne)
	b := imported(t, m, template("P0", keys.AES128, 'B'), unhex(t, clear32)[:16])
	if err := there.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	loaded(t, there, b)
	must(m.AddLMK(t.Context(), lmk(t, lmkTwo)))(t)
	loaded(t, there, must(m.Rewrap(t.Context(), b))(t))
}

// TestUseMeanwhile uses a key while the local master key is changed under it.
func TestUseMeanwhile(t *testing.T) {
	token := softhsmtest.Open(t, softhsmtest.Config(t))
	m := generations(t, token, lmkOne)
	old := imported(t, m, template("P0", keys.AES128, 'B'), unhex(t, clear32)[:16])
	var mu sync.Mutex
	current := old
	block := func() *keys.Block {
		mu.Lock()
		defer mu.Unlock()
		return current
	}
	during := func(change func()) {
		ctx, stop := context.WithCancel(t.Context())
		var users sync.WaitGroup
		for range 2 {
			users.Go(func() {
				for ctx.Err() == nil {
					use(t, token, block())
				}
			})
		}
		change()
		stop()
		users.Wait()
	}
	during(func() {
		must(m.AddLMK(t.Context(), lmk(t, lmkTwo)))(t)
		mu.Lock()
		defer mu.Unlock()
		current = must(m.Rewrap(t.Context(), old))(t)
	})
	during(func() {
		if err := m.RetireLMK(t.Context(), 1, 0); err != nil {
			t.Error(err)
		}
	})
}

func use(t *testing.T, token *hsm.Token, b *keys.Block) {
	l, err := token.Load(t.Context(), b)
	if err != nil {
		t.Error(err)
		return
	}
	defer l.Release()
	if _, err := l.Key.Encrypt(nil, make([]byte, 16)); err != nil {
		t.Error(err)
	}
}

// TestInitAt: a token that begins with the second local master key reads what
// others have under it, and nothing older.
func TestInitAt(t *testing.T) {
	first := softhsmtest.Open(t, softhsmtest.Config(t))
	m := generations(t, first, lmkOne)
	old := imported(t, m, template("P0", keys.AES128, 'B'), unhex(t, clear32)[:16])
	must(m.AddLMK(t.Context(), lmk(t, lmkTwo)))(t)
	moved := must(m.Rewrap(t.Context(), old))(t)
	answer := must(m.Prove(t.Context(), 2, [32]byte{1}))(t)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	token := softhsmtest.Open(t, softhsmtest.Config(t))
	m = hsm.NewManager(token)
	if err := m.InitAt(t.Context(), lmk(t, lmkTwo), 0); !errors.Is(err, keys.ErrMaterial) {
		t.Errorf("generation 0: %v, want %v", err, keys.ErrMaterial)
	}
	if err := m.InitAt(t.Context(), lmk(t, lmkTwo), 2); err != nil {
		t.Fatal(err)
	}
	checkRetired(t, token, old, moved)
	if got := must(m.Prove(t.Context(), 2, [32]byte{1}))(t); got != answer {
		t.Error("another answer to a challenge")
	}
	if g := must(m.AddLMK(t.Context(), lmk(t, lmkThree)))(t); g != 3 {
		t.Errorf("the next generation is %d, want 3", g)
	}
}

// TestManyLookAtOnce: of many who come with blocks of a generation that this
// process does not know, none is refused because another looks for it.
func TestManyLookAtOnce(t *testing.T) {
	cfg := softhsmtest.Config(t)
	here, there := softhsmtest.Open(t, cfg), softhsmtest.Open(t, cfg)
	m := generations(t, here, lmkOne)
	if err := there.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(m.AddLMK(t.Context(), lmk(t, lmkTwo)))(t)
	b := imported(t, m, template("P0", keys.AES128, 'B'), unhex(t, clear32)[:16])
	var users sync.WaitGroup
	for range 16 {
		users.Go(func() { use(t, there, b) })
	}
	users.Wait()
}
