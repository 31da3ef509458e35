package hsm_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// TestExamine: what could not be used is found before anybody needs it.
func TestExamine(t *testing.T) {
	cfg := softhsmtest.Config(t)
	cfg.Prefix = "examine"
	m := hsm.NewManager(softhsmtest.Open(t, cfg))
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	generate := func(id byte, usage keys.Usage, algorithm keys.Algorithm, mode keys.Mode) *keys.Block {
		b, _, err := m.Generate(t.Context(), keys.Block{
			ID: keys.ID(strings.Repeat(string(rune(id)), 32)), Version: 1, CreatedMs: 1,
			Attributes: keys.Attributes{Usage: usage, Algorithm: algorithm, Mode: mode, Exportability: keys.NonExportable},
		})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := []*keys.Block{
		generate('a', keys.UsageBDK, keys.TDES2, keys.ModeDerive),
		generate('b', keys.UsagePIN, keys.AES128, keys.ModeBoth),
		generate('c', keys.UsageHMAC, keys.HMACSHA256, keys.ModeMAC),
		generate('d', keys.UsageMACAlg3, keys.TDES2, keys.ModeMAC),
	}
	if err := m.Examine(t.Context(), good); err != nil {
		t.Errorf("genuine blocks: %v", err)
	}
	changed := func(change func(*keys.Block)) *keys.Block {
		b := *good[0]
		b.Wrapped, b.Companion = slices.Clone(b.Wrapped), slices.Clone(b.Companion)
		change(&b)
		return &b
	}
	for name, c := range map[string]struct {
		block *keys.Block
		want  error
	}{
		"a changed usage":         {changed(func(b *keys.Block) { b.Attributes.Usage = keys.UsageKEK }), keys.ErrBlockMAC},
		"a changed value":         {changed(func(b *keys.Block) { b.Wrapped[3] ^= 1 }), keys.ErrBlockMAC},
		"another's companion":     {changed(func(b *keys.Block) { b.Companion = good[3].Companion }), keys.ErrBlockMAC},
		"another generation":      {changed(func(b *keys.Block) { b.LMK = 7 }), keys.ErrLMK},
		"another's MAC":           {changed(func(b *keys.Block) { b.MAC = good[1].MAC }), keys.ErrBlockMAC},
		"a changed check value":   {changed(func(b *keys.Block) { b.Check[0] ^= 1 }), keys.ErrBlockMAC},
		"a value that is no more": {changed(func(b *keys.Block) { b.Wrapped = nil }), keys.ErrBlockMAC},
	} {
		t.Run(name, func(t *testing.T) {
			if err := m.Examine(t.Context(), append(slices.Clone(good), c.block)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	t.Run("another token", func(t *testing.T) {
		cfg.Prefix = "examine-other"
		other := hsm.NewManager(softhsmtest.Open(t, cfg))
		if err := other.InitFrom(t.Context(), secret.From([]byte("0123456789abcdef0123456789ABCDEF"))); err != nil {
			t.Fatal(err)
		}
		if err := other.Examine(t.Context(), good[:1]); !errors.Is(err, keys.ErrBlockMAC) {
			t.Errorf("got %v, want ErrBlockMAC", err)
		}
	})
}
