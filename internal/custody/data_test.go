package custody_test

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

const (
	nistKey  = "2B7E151628AED2A6ABF7158809CF4F3C"
	nistText = "6BC1BEE22E409F96E93D7E117393172A"
	nistECB  = "3AD77BB40D7A3660A89ECAF32466EF97"
)

func (r *room) encrypt(t *testing.T, who custody.Caller, q custody.EncryptData) (made custody.CryptedData, err error) {
	t.Helper()
	err = r.act(t, who, func(a *custody.Act) error { made, err = a.EncryptData(t.Context(), q); return err })
	return made, err
}

func (r *room) decrypt(t *testing.T, who custody.Caller, q custody.DecryptData) (made custody.CryptedData, err error) {
	t.Helper()
	err = r.act(t, who, func(a *custody.Act) error { made, err = a.DecryptData(t.Context(), q); return err })
	return made, err
}

// TestDataVersions: under an alias data is deciphered by the newest version
// alone, for nothing tells a right plain text; by its id an older one deciphers
// during its overlap, and makes nothing.
func TestDataVersions(t *testing.T) {
	r := newRoom(t, nil)
	r.key(t, "alias/data", attributes(keys.UsageData, keys.AES128, keys.ModeBoth), nistKey, nil)
	before, err := r.Key(t.Context(), admin, "t", ref("alias/data"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.RotateKey(t.Context(), admin, "t", custody.RotateKey{Key: ref("alias/data"), Overlap: time.Hour}); err != nil {
		t.Fatal(err)
	}
	old := custody.DataSide{Key: custody.Ref{ID: before.Block.ID}, Mode: custody.DataECB}
	newest := custody.DataSide{Key: ref("alias/data"), Mode: custody.DataECB}
	text := unhex(t, nistECB)
	got, err := r.decrypt(t, app, custody.DecryptData{DataSide: old, Ciphered: text})
	if err != nil || hexOf(got.Data) != nistText {
		t.Errorf("the old version: %X, %v", got.Data, err)
	}
	got, err = r.decrypt(t, app, custody.DecryptData{DataSide: newest, Ciphered: text})
	if err != nil || hexOf(got.Data) == nistText || got.Key.ID == before.Block.ID {
		t.Errorf("the alias: %v under %s", err, got.Key.ID)
	}
	if _, err := r.encrypt(t, app, custody.EncryptData{DataSide: old, Plain: text}); !errors.Is(err, custody.ErrKeyState) {
		t.Errorf("the old version makes something: %v", err)
	}
}

func hexOf(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }

// TestWrappedKeyLimits: each use of a key in a key block is a use of the key
// that it is under, and ends when that one's do.
func TestWrappedKeyLimits(t *testing.T) {
	r := newRoom(t, nil)
	r.key(t, "alias/kek", attributes(keys.UsageKEK, keys.AES256, keys.ModeBoth), kekAES, map[string]string{"keyd:max-uses": "2"})
	q := custody.EncryptData{Plain: unhex(t, nistText), DataSide: custody.DataSide{
		Key: ref("alias/kek"), Mode: custody.DataECB, Wrapped: &custody.WrappedKey{Block: sealed(t, kekAES, keys.AES256, header(attributes(keys.UsageData, keys.AES128, keys.ModeBoth), keys.AES256), nistKey)},
	}}
	for range 2 {
		got, err := r.encrypt(t, app, q)
		if err != nil || hexOf(got.Data) != nistECB || got.Custody != audit.CustodyProcess {
			t.Fatalf("%X, %v, %v", got.Data, got.Custody, err)
		}
	}
	if _, err := r.encrypt(t, app, q); !errors.Is(err, custody.ErrKeyState) {
		t.Errorf("a third use: %v", err)
	}
	for _, record := range r.records(t, opsLog()) {
		for _, text := range []string{nistKey, nistText, nistECB, q.Wrapped.Block[16:40]} {
			if strings.Contains(strings.ToUpper(record), text) {
				t.Errorf("a record has a secret: %s", record)
			}
		}
	}
}

// guardFails is a store that cannot keep, or cannot look at, what serial numbers
// were used for.
type guardFails struct {
	custody.Store
	check, spend error
}

func (g *guardFails) CheckKSN(ctx context.Context, use custody.KSNUse) error {
	if g.check != nil {
		return g.check
	}
	return g.Store.CheckKSN(ctx, use)
}

func (g *guardFails) SpendKSN(ctx context.Context, use custody.KSNUse) error {
	if g.spend != nil {
		return g.spend
	}
	return g.Store.SpendKSN(ctx, use)
}

// TestKSNGuardFailsClosed: where the guard cannot keep what was used, or know
// it, there is no result; the switch core has its own rules.
func TestKSNGuardFailsClosed(t *testing.T) {
	store := new(guardFails)
	r := newRoom(t, func(c *custody.Config) { store.Store, c.Store = c.Store, store })
	r.key(t, "alias/bdk", attributes(keys.UsageBDK, keys.TDES2, keys.ModeDerive), bdkTDES, map[string]string{"keyd:ksn-guard": "monotonic"})
	r.key(t, "alias/zpk-a", attributes(keys.UsagePIN, keys.TDES2, keys.ModeBoth), zpkA, nil)
	r.key(t, "alias/data", attributes(keys.UsageData, keys.AES128, keys.ModeBoth), nistKey, nil)
	d := &custody.DUKPT{KSN: unhex(t, "FFFF9876543210E00001"), Variant: custody.Request}
	side := custody.DataSide{Key: ref("alias/bdk"), DUKPT: d, Mode: custody.DataCBC}
	verify := custody.VerifyMAC{Key: ref("alias/bdk"), DUKPT: d, Algorithm: custody.MACAlg3, Message: unhex(t, published), MAC: unhex(t, "9CCC7817")}
	pan := custody.PAN("4012345678909")
	translate := custody.TranslatePIN{
		In:  custody.PINSide{Key: ref("alias/bdk"), DUKPT: &custody.DUKPT{KSN: d.KSN}, Format: custody.ISO0, PAN: pan},
		Out: custody.PINSide{Key: ref("alias/zpk-a"), Format: custody.ISO0, PAN: pan}, Block: unhex(t, "1B9C1845EB993A7A"),
	}
	operations := map[string]func(*custody.Act) ([]byte, error){
		"VerifyMac": func(a *custody.Act) ([]byte, error) {
			v, err := a.VerifyMAC(t.Context(), verify)
			return []byte(v.Key.ID), err
		},
		"TranslatePinData": func(a *custody.Act) ([]byte, error) {
			v, err := a.TranslatePIN(t.Context(), translate)
			return v.Block, err
		},
		"DecryptData": func(a *custody.Act) ([]byte, error) {
			v, err := a.DecryptData(t.Context(), custody.DecryptData{DataSide: side, Ciphered: unhex(t, nistECB)})
			return v.Data, err
		},
		"ReEncryptData": func(a *custody.Act) ([]byte, error) {
			v, err := a.ReEncryptData(t.Context(), custody.ReEncryptData{In: side, Out: custody.DataSide{Key: ref("alias/data"), Mode: custody.DataECB}, Ciphered: unhex(t, nistECB)})
			return v.Data, err
		},
	}
	away := errors.New("the disk is full")
	for name, do := range operations {
		for _, c := range []struct {
			name         string
			check, spend error
		}{{"cannot look", away, nil}, {"cannot keep", nil, away}, {"another was first", nil, custody.ErrKSN}} {
			t.Run(name+" "+c.name, func(t *testing.T) {
				store.check, store.spend = c.check, c.spend
				var result []byte
				err := r.act(t, app, func(a *custody.Act) (err error) { result, err = do(a); return err })
				want := custody.ErrUnavailable
				if c.spend == custody.ErrKSN {
					want = custody.ErrKSN
				}
				if !errors.Is(err, want) || len(result) > 0 {
					t.Errorf("%d bytes of a result, %v; want none and %v", len(result), err, want)
				}
			})
		}
		t.Run(name+" by the switch core", func(t *testing.T) {
			store.check, store.spend = away, away
			core := custody.SwitchCaller("pos", audit.ActorSwitch, "127.0.0.1:4711", "c-1", "")
			err := r.act(t, core, func(a *custody.Act) error { _, err := do(a); return err })
			if name == "VerifyMac" || name == "TranslatePinData" {
				if err != nil {
					t.Errorf("the guard held the switch core: %v", err)
				}
			} else if !errors.Is(err, custody.ErrDenied) {
				t.Errorf("the switch core does %s: %v", name, err)
			}
		})
	}
}
