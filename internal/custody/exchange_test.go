package custody_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/tr31"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// The wrapping keys and some carried keys of section 16 of the API.
const (
	kekTDES  = "A4795D7338988CC757946BFEBC8F1089"
	kekAES   = "0FA631684D70DF34BFB34A63293AB7BC04A23935B38B553B041EBF28E0D93085"
	kekTDES3 = "7C89D6CB3D45E549C16D76585416A18A7AB9649DE91F1C9E"
	carried2 = "49049D94F1F1929B1A83192CF71038CB"
	carried3 = "EA040820ABB0CB9E8AF7ADD64F54C73D0289C8923D70FB8C"
)

func notExportable(u keys.Usage, a keys.Algorithm, m keys.Mode) keys.Attributes {
	return keys.Attributes{Usage: u, Algorithm: a, Mode: m, Exportability: keys.NonExportable}
}

// newExchange is a room with wrapping keys: alias/kek-tdes, alias/kek-tdes3,
// alias/kek-aes, alias/kek-in and alias/kek-out, whose modes are one side alone.
func newExchange(t *testing.T, change func(*custody.Config)) *room {
	t.Helper()
	r := newRoom(t, change)
	r.key(t, "alias/kek-tdes", notExportable(keys.UsageKEK, keys.TDES2, keys.ModeBoth), kekTDES, nil)
	r.key(t, "alias/kek-tdes3", notExportable(keys.UsageKEK, keys.TDES3, keys.ModeAny), kekTDES3, nil)
	r.key(t, "alias/kek-aes", notExportable(keys.UsageKBPK, keys.AES256, keys.ModeBoth), kekAES, nil)
	r.key(t, "alias/kek-in", notExportable(keys.UsageKEK, keys.AES256, keys.ModeDecrypt), "1"+kekAES[1:], nil)
	r.key(t, "alias/kek-out", notExportable(keys.UsageKEK, keys.AES256, keys.ModeEncrypt), "2"+kekAES[1:], nil)
	return r
}

// sql changes the database as somebody could who has the file.
func (r *room) sql(t *testing.T, text string) {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(r.dir, "keyd.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

func alias(name string) custody.Ref { return custody.Ref{Alias: name} }

// sealed makes a block in software.
func sealed(t *testing.T, kbpk string, under keys.Algorithm, h tr31.Header, value string) string {
	t.Helper()
	k, err := softkey.New(under, unhex(t, kbpk))
	if err != nil {
		t.Fatal(err)
	}
	text, err := tr31.Seal(k, under, h, secret.From(unhex(t, value)), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func header(a keys.Attributes, under keys.Algorithm) tr31.Header { return tr31.NewHeader(a, under) }

// TestImportBlockRefuses: what a block may not be, by its header and by what
// opening reveals. The latter is one error with one text.
func TestImportBlockRefuses(t *testing.T) {
	r := newExchange(t, nil)
	pinKey := attributes(keys.UsagePIN, keys.TDES2, keys.ModeBoth)
	good := sealed(t, kekAES, keys.AES256, header(pinKey, keys.AES256), carried2)
	damaged := []byte(good)
	damaged[40] ^= 1
	if damaged[40] > 'F' || damaged[40] > '9' && damaged[40] < 'A' {
		damaged[40] = '7'
	}
	widened := "D" + strings.Replace(good[1:], "P0TB", "P0TN", 1)
	change := func(f func(*tr31.Header)) tr31.Header {
		h := header(pinKey, keys.AES256)
		f(&h)
		return h
	}
	for _, c := range []struct {
		name, kek, block string
		tags             map[string]string
		want             error
	}{
		{name: "not a block", block: strings.Repeat("A", 80), want: custody.ErrKeyBlock},
		{name: "cut short", block: good[:len(good)-2], want: custody.ErrKeyBlock},
		{name: "a bit of the key changed", block: string(damaged), want: custody.ErrKeyBlock},
		{name: "mode of use widened", block: widened, want: custody.ErrKeyBlock},
		{name: "another wrapping key", kek: "alias/kek-in", block: good, want: custody.ErrKeyBlock},
		{name: "equal halves", block: sealed(t, kekAES, keys.AES256, header(pinKey, keys.AES256), strings.Repeat("49049D94F1F1929B", 2)), want: custody.ErrKeyBlock},
		{name: "a length the usage has not", want: custody.ErrKeyBlock, block: sealed(t, kekAES, keys.AES256,
			header(attributes(keys.UsageMACAlg3, keys.TDES3, keys.ModeMAC), keys.AES256), carried3)},
		{name: "usage B1", want: custody.ErrRequest, block: sealed(t, kekAES, keys.AES256, change(func(h *tr31.Header) { h.Usage = "B1"; h.Mode = 'X' }), carried2)},
		{name: "an unknown usage", want: custody.ErrRequest, block: sealed(t, kekAES, keys.AES256, change(func(h *tr31.Header) { h.Usage = "99" }), carried2)},
		{name: "an unknown mode", want: custody.ErrRequest, block: sealed(t, kekAES, keys.AES256, change(func(h *tr31.Header) { h.Mode = 'Q' }), carried2)},
		{name: "a component", want: custody.ErrRequest, block: sealed(t, kekAES, keys.AES256, change(func(h *tr31.Header) { h.KeyVersion = "c1" }), carried2)},
		{name: "version B under AES", want: custody.ErrRequest, block: sealed(t, kekTDES, keys.TDES2, header(pinKey, keys.TDES2), carried2)},
		{name: "version A, not configured", kek: "alias/kek-tdes", want: custody.ErrRequest, block: publishedA},
		{name: "a wrapping key that may only wrap", kek: "alias/kek-out", block: good, want: custody.ErrKeyUse},
		{name: "no wrapping key", kek: "alias/none", block: good, want: custody.ErrNoWrappingKey},
		{name: "policy token", block: good, tags: map[string]string{"keyd:custody": "token"}, want: custody.ErrCustody},
		{name: "a policy that nobody sets", block: good, tags: map[string]string{"keyd:tr31-version": "01"}, want: custody.ErrRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.kek == "" {
				c.kek = "alias/kek-aes"
			}
			before := keyCount(t, r)
			_, _, err := r.ImportBlock(t.Context(), admin, "c", custody.ImportBlock{KEK: alias(c.kek), Block: c.block, Enabled: true, Tags: c.tags})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if keyCount(t, r) != before {
				t.Error("a key was stored all the same")
			}
		})
	}
	for _, who := range []custody.Caller{app, custodian, caller("other", custody.RoleAdmin, "alias/else*")} {
		if _, _, err := r.ImportBlock(t.Context(), who, "c", custody.ImportBlock{KEK: alias("alias/kek-aes"), Block: good}); !errors.Is(err, custody.ErrDenied) {
			t.Errorf("%s: %v", who.Name, err)
		}
	}
	k, class, err := r.ImportBlock(t.Context(), admin, "c", custody.ImportBlock{KEK: alias("alias/kek-in"), Enabled: true,
		Block: sealed(t, "1"+kekAES[1:], keys.AES256, header(pinKey, keys.AES256), carried2)})
	if err != nil || class != audit.CustodyProcess || k.Block.Check.String() != "F7AFA6" || k.Block.Origin != keys.External {
		t.Errorf("under a key that may only unwrap: %v, %v", err, class)
	}
	for _, record := range r.records(t, "sec") {
		for _, digits := range []string{good[20:60], carried2, strings.ToLower(carried2)} {
			if strings.Contains(record, digits) {
				t.Errorf("a record holds a block or a key: %.200s", record)
			}
		}
	}
}

func keyCount(t *testing.T, r *room) int {
	t.Helper()
	all, err := r.db.Keys(t.Context(), custody.KeyQuery{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// A published block of version A, and its protection key (vectors tr31, 1a).
const (
	publishedA    = "A0072K0TN00N0000F40D5672C6D0EC86F860BA88D44D00F0CA9A8CE8CD2F640287A9A9EB"
	publishedKBPK = "EFE0853B256B583D868F251CE99EA1D9"
)

// TestLegacyBlocks: a block of version A comes in under the key-encryption key
// that the configuration names, and under no other.
func TestLegacyBlocks(t *testing.T) {
	r := newExchange(t, func(cfg *custody.Config) { cfg.Exchange.LegacyBlocks = []string{"alias/old-*"} })
	r.key(t, "alias/old-kek", notExportable(keys.UsageKEK, keys.TDES2, keys.ModeBoth), publishedKBPK, nil)
	r.key(t, "alias/new-kek", notExportable(keys.UsageKBPK, keys.TDES2, keys.ModeBoth), publishedKBPK, nil)
	if _, _, err := r.ImportBlock(t.Context(), admin, "c", custody.ImportBlock{KEK: alias("alias/new-kek"), Block: publishedA}); !errors.Is(err, custody.ErrRequest) {
		t.Errorf("under a key that is not named: %v", err)
	}
	k, _, err := r.ImportBlock(t.Context(), admin, "c", custody.ImportBlock{KEK: alias("alias/old-kek"), Block: publishedA, Enabled: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := k.Block.Attributes; got != (keys.Attributes{Usage: "K0", Algorithm: keys.TDES2, Mode: 'N', Exportability: 'N'}) {
		t.Errorf("came in as %v", got)
	}
	damaged := publishedA[:len(publishedA)-1] + "C"
	if _, _, err := r.ImportBlock(t.Context(), admin, "c", custody.ImportBlock{KEK: alias("alias/old-kek"), Block: damaged}); !errors.Is(err, custody.ErrKeyBlock) {
		t.Errorf("damaged: %v", err)
	}
}

// TestWrappingStrength: section 8.4 of the API, out and in.
func TestWrappingStrength(t *testing.T) {
	r := newExchange(t, nil)
	r.key(t, "alias/kek-aes128", notExportable(keys.UsageKEK, keys.AES128, keys.ModeBoth), kekAES[:32], nil)
	values := map[keys.Algorithm]string{keys.TDES2: carried2, keys.TDES3: carried3, keys.AES128: carried2, keys.AES192: carried3, keys.AES256: "3" + kekAES[1:], keys.HMACSHA256: "4" + kekAES[1:]}
	for a, value := range values {
		use := attributes(keys.UsageCMAC, a, keys.ModeMAC)
		if a.IsHMAC() {
			use.Usage = keys.UsageHMAC
		}
		r.key(t, "alias/carried-"+strings.ToLower(strings.ReplaceAll(a.String(), "_", "-")), use, value, nil)
	}
	permitted := map[string][]keys.Algorithm{
		"alias/kek-tdes":   {keys.TDES2},
		"alias/kek-tdes3":  {keys.TDES2, keys.TDES3},
		"alias/kek-aes128": {keys.TDES2, keys.TDES3, keys.AES128},
		"alias/kek-aes":    {keys.TDES2, keys.TDES3, keys.AES128, keys.AES192, keys.AES256, keys.HMACSHA256},
	}
	for kek, list := range permitted {
		for a := range values {
			name := "alias/carried-" + strings.ToLower(strings.ReplaceAll(a.String(), "_", "-"))
			out, err := r.ExportKey(t.Context(), admin, "c", custody.ExportKey{Key: alias(name), KEK: alias(kek)})
			want := false
			for _, other := range list {
				want = want || a == other
			}
			if (err == nil) != want || err != nil && !errors.Is(err, custody.ErrRequest) {
				t.Errorf("%s under %s: %v", a, kek, err)
			}
			if err != nil {
				continue
			}
			in, _, err := r.ImportBlock(t.Context(), admin, "c", custody.ImportBlock{KEK: alias(kek), Block: out.Block, Enabled: true})
			if err != nil || in.Block.Check != out.Check {
				t.Errorf("%s under %s, in again: %v", a, kek, err)
			}
		}
	}
}

// TestExportRefuses: what may not leave, and how.
func TestExportRefuses(t *testing.T) {
	r := newExchange(t, nil)
	r.key(t, "alias/pin", attributes(keys.UsagePIN, keys.TDES2, keys.ModeBoth), carried2, nil)
	r.key(t, "alias/mac", keys.Attributes{Usage: keys.UsageCMAC, Algorithm: keys.TDES2, Mode: keys.ModeMake, Exportability: keys.Sensitive}, carried2, nil)
	r.key(t, "alias/stays", notExportable(keys.UsagePIN, keys.TDES2, keys.ModeBoth), carried2, nil)
	r.key(t, "alias/unseen", attributes(keys.UsagePIN, keys.TDES2, keys.ModeBoth), carried2, map[string]string{"keyd:custody": "token"})
	r.key(t, "alias/bdk", notExportable(keys.UsageBDK, keys.TDES2, keys.ModeDerive), "0123456789ABCDEFFEDCBA9876543210", nil)
	r.key(t, "alias/bdk-aes", notExportable(keys.UsageBDK, keys.AES128, keys.ModeDerive), "FEDCBA9876543210F1F1F1F1F1F1F1F1", nil)
	long := []tr31.Optional{{ID: "L0", Data: strings.Repeat("x", 100)}, {ID: "L1", Data: "123456789"}}
	for _, c := range []struct {
		name, key, kek, ksn string
		headers             custody.BlockHeaders
		check               keys.CheckMethod
		want                error
	}{
		{name: "not exportable", key: "alias/stays", want: custody.ErrKeyUse},
		{name: "policy token", key: "alias/unseen", want: custody.ErrCustody},
		{name: "itself", key: "alias/kek-aes", want: custody.ErrKeyUse},
		{name: "under a PIN key", key: "alias/pin", kek: "alias/pin", want: custody.ErrKeyUse},
		{name: "under a key that may only unwrap", key: "alias/pin", kek: "alias/kek-in", want: custody.ErrKeyUse},
		{name: "no key", key: "alias/none", want: custody.ErrNoKey},
		{name: "mode wider", key: "alias/mac", headers: custody.BlockHeaders{Mode: keys.ModeMAC}, want: custody.ErrRequest},
		{name: "mode other", key: "alias/pin", headers: custody.BlockHeaders{Mode: keys.ModeDerive}, want: custody.ErrRequest},
		{name: "mode no restriction", key: "alias/pin", headers: custody.BlockHeaders{Mode: keys.ModeAny}, want: custody.ErrRequest},
		{name: "exportability wider", key: "alias/mac", headers: custody.BlockHeaders{Exportability: keys.Exportable}, want: custody.ErrRequest},
		{name: "optional blocks too long", key: "alias/pin", headers: custody.BlockHeaders{Optional: long}, want: custody.ErrRequest},
		{name: "an optional block of keyd's own", key: "alias/pin", headers: custody.BlockHeaders{Optional: []tr31.Optional{{ID: "HM", Data: "21"}}}, want: custody.ErrRequest},
		{name: "a component", key: "alias/pin", headers: custody.BlockHeaders{Version: "c1"}, want: custody.ErrRequest},
		{name: "check value of another kind", key: "alias/pin", check: keys.CheckByHMAC, want: custody.ErrRequest},
		{name: "initial key of a PIN key", key: "alias/pin", ksn: "FFFF9876543210E00000", want: custody.ErrKeyUse},
		{name: "initial key, counter not zero", key: "alias/bdk", ksn: "FFFF9876543210E00001", want: custody.ErrRequest},
		{name: "initial key, AES number", key: "alias/bdk", ksn: "123456789012345600000000", want: custody.ErrRequest},
		{name: "AES initial key, counter not zero", key: "alias/bdk-aes", ksn: "123456789012345600000001", want: custody.ErrRequest},
		{name: "AES initial key, TDES number", key: "alias/bdk-aes", ksn: "FFFF9876543210E00000", want: custody.ErrRequest},
		{name: "AES initial key under TDES", key: "alias/bdk-aes", kek: "alias/kek-tdes3", ksn: "123456789012345600000000", want: custody.ErrRequest},
		{name: "initial key with another KS", key: "alias/bdk", ksn: "FFFF9876543210E00000", want: custody.ErrRequest,
			headers: custody.BlockHeaders{Optional: []tr31.Optional{{ID: "KS", Data: "FFFF9876543210E00001"}}}},
		{name: "the base derivation key itself", key: "alias/bdk", want: custody.ErrKeyUse},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.kek == "" {
				c.kek = "alias/kek-aes"
			}
			q := custody.ExportKey{Key: alias(c.key), KEK: alias(c.kek), Headers: c.headers, CheckBy: c.check}
			if c.ksn != "" {
				q.KSN = unhex(t, c.ksn)
			}
			if out, err := r.ExportKey(t.Context(), admin, "c", q); !errors.Is(err, c.want) || out.Block != "" {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	for _, who := range []custody.Caller{app, custodian} {
		if _, err := r.ExportKey(t.Context(), who, "c", custody.ExportKey{Key: alias("alias/pin"), KEK: alias("alias/kek-aes")}); !errors.Is(err, custody.ErrDenied) {
			t.Errorf("%s: %v", who.Name, err)
		}
	}
	// An initial key goes out of a base derivation key that does not.
	out, err := r.ExportKey(t.Context(), admin, "c", custody.ExportKey{Key: alias("alias/bdk"), KEK: alias("alias/kek-tdes3"), KSN: unhex(t, "FFFF9876543210E00000")})
	if err != nil || out.Check.String() != "AF8C07" || !strings.HasPrefix(out.Block, "B0120B1TX00N0100KS18FFFF9876543210E00000") {
		t.Errorf("initial key: %.50s, %v", out.Block, err)
	}
}

// TestKeptHeader: version and optional blocks of a key block reappear, also when
// the key's policy was changed meanwhile, and nobody else sets them.
func TestKeptHeader(t *testing.T) {
	r := newExchange(t, nil)
	h := header(attributes(keys.UsagePIN, keys.TDES2, keys.ModeBoth), keys.AES256)
	h.KeyVersion = "07"
	h.Optional = []tr31.Optional{{ID: "LB", Data: "zone=1"}, {ID: "KP", Data: "0012345"}, {ID: "10", Data: "own"}}
	k, _, err := r.ImportBlock(t.Context(), admin, "c", custody.ImportBlock{KEK: alias("alias/kek-aes"), Block: sealed(t, kekAES, keys.AES256, h, carried2), Enabled: true})
	if err != nil {
		t.Fatal(err)
	}
	id := k.Block.ID
	if tags, err := r.Tags(t.Context(), admin, "c", id); err != nil || len(tags) != 0 {
		t.Errorf("tags %v, %v", tags, err)
	}
	if err := r.TagKey(t.Context(), admin, "c", id, map[string]string{"keyd:tr31-version": "99"}, nil); !errors.Is(err, custody.ErrRequest) {
		t.Errorf("set by a tag: %v", err)
	}
	if err := r.TagKey(t.Context(), admin, "c", id, map[string]string{"keyd:iso4-pan": "full"}, nil); err != nil {
		t.Fatal(err)
	}
	out, err := r.ExportKey(t.Context(), admin, "c", custody.ExportKey{Key: custody.Ref{ID: id}, KEK: alias("alias/kek-aes")})
	if err != nil {
		t.Fatal(err)
	}
	block, err := tr31.Parse(out.Block)
	if err != nil {
		t.Fatal(err)
	}
	h.Optional = []tr31.Optional{{ID: "LB", Data: "zone=1"}, {ID: "10", Data: "own"}}
	if diff := cmp.Diff(h, block.Header); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if _, err := r.ExportKey(t.Context(), admin, "c", custody.ExportKey{Key: custody.Ref{ID: id}, KEK: alias("alias/kek-aes"), Headers: custody.BlockHeaders{Version: "08"}}); !errors.Is(err, custody.ErrRequest) {
		t.Errorf("another version: %v", err)
	}
	h.Optional = []tr31.Optional{{ID: "LB", Data: strings.Repeat("x", 2100)}}
	if _, _, err := r.ImportBlock(t.Context(), admin, "c", custody.ImportBlock{KEK: alias("alias/kek-aes"), Block: sealed(t, kekAES, keys.AES256, h, carried2)}); !errors.Is(err, custody.ErrRequest) {
		t.Errorf("too much to keep: %v", err)
	}
}

// TestCryptograms: keys of old hosts, published and computed, in and out, where
// the configuration names the zone master key.
func TestCryptograms(t *testing.T) {
	r := newExchange(t, func(cfg *custody.Config) {
		cfg.Exchange.CryptogramImport = []string{"alias/zmk-*"}
		cfg.Exchange.CryptogramExport = []string{"alias/zmk-both", "alias/zmk-triple"}
	})
	// Pair 06-07 of the published test LMK stands for the zone master key.
	const published = "61616161616161617070707070707070"
	r.key(t, "alias/zmk-both", notExportable(keys.UsageKEK, keys.TDES2, keys.ModeBoth), published, nil)
	r.key(t, "alias/zmk-in", notExportable(keys.UsageKEK, keys.TDES2, keys.ModeBoth), published, nil)
	r.key(t, "alias/zmk-triple", notExportable(keys.UsageKEK, keys.TDES3, keys.ModeBoth), kekTDES3, nil)
	r.key(t, "alias/zmk-block", notExportable(keys.UsageKBPK, keys.TDES2, keys.ModeBoth), published, nil)
	double, triple := attributes(keys.UsagePIN, keys.TDES2, keys.ModeBoth), attributes(keys.UsagePIN, keys.TDES3, keys.ModeBoth)
	// X is ECB of the whole key under the ZMK, computed by crypto/des.
	ecb := func(zmk, value string) []byte {
		k, err := secret.NewTDES(unhex(t, zmk))
		if err != nil {
			t.Fatal(err)
		}
		var out []byte
		for at := 0; at < len(value); at += 16 {
			part, err := k.Encrypt(nil, unhex(t, value[at:at+16]))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, part...)
		}
		return out
	}
	kcv := func(a keys.Algorithm, value string) keys.KCV {
		v, err := keys.CheckClear(a, keys.CheckByZeros, unhex(t, value))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	const doubleValue = "F1799DF10D51EA89A849F22F3DDA7A80"
	for _, c := range []struct {
		name, zmk, value string
		scheme           keys.Scheme
		in               []byte
		as               keys.Attributes
	}{
		{"U, published", "alias/zmk-both", doubleValue, keys.SchemeU, unhex(t, "247078713614BE11F819054C5FFB08FF"), double},
		{"X", "alias/zmk-both", doubleValue, keys.SchemeX, ecb(published, doubleValue), double},
		{"Y under a triple-length key", "alias/zmk-triple", carried3, keys.SchemeY, ecb(kekTDES3, carried3), triple},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := custody.ImportCryptogram{ZMK: alias(c.zmk), Scheme: c.scheme, Cryptogram: c.in, Attributes: c.as, Check: kcv(c.as.Algorithm, c.value), Enabled: true}
			k, class, err := r.ImportCryptogram(t.Context(), admin, "c", q)
			if err != nil || class != audit.CustodyProcess || k.Block.Check != q.Check {
				t.Fatalf("%v, %v", err, class)
			}
			out, err := r.ExportCryptogram(t.Context(), admin, "c", custody.ExportCryptogram{Key: custody.Ref{ID: k.Block.ID}, ZMK: alias(c.zmk), Scheme: c.scheme})
			if err != nil || out.Cryptogram != c.scheme.FormatCryptogram(c.in) || out.Check != q.Check {
				t.Errorf("out again: %v", err)
			}
			before := keyCount(t, r)
			q.Check[2] ^= 1
			if _, _, err := r.ImportCryptogram(t.Context(), admin, "c", q); !errors.Is(err, custody.ErrKeyBlock) || keyCount(t, r) != before {
				t.Errorf("another check value: %v", err)
			}
		})
	}
	// T, of which no published value has a triple-length ZMK: three encryptions
	// by crypto/des, each under the ZMK with its variant in the second part.
	want := ""
	for i, variant := range []byte{0x6A, 0xDE, 0x2B} {
		zmk := unhex(t, kekTDES3)
		zmk[8] ^= variant
		want += strings.ToUpper(hex.EncodeToString(ecb(hex.EncodeToString(zmk), carried3[16*i:16*i+16])))
	}
	r.key(t, "alias/t", triple, carried3, nil)
	if out, err := r.ExportCryptogram(t.Context(), admin, "c", custody.ExportCryptogram{Key: alias("alias/t"), ZMK: alias("alias/zmk-triple"), Scheme: keys.SchemeT}); err != nil || out.Cryptogram != "T"+want {
		t.Errorf("T: %v", err)
	}
	good := custody.ImportCryptogram{ZMK: alias("alias/zmk-both"), Scheme: keys.SchemeU, Cryptogram: unhex(t, "247078713614BE11F819054C5FFB08FF"),
		Attributes: double, Check: kcv(keys.TDES2, doubleValue), Enabled: true}
	for name, change := range map[string]func(*custody.ImportCryptogram){
		"a ZMK that is not named":     func(q *custody.ImportCryptogram) { q.ZMK = alias("alias/kek-tdes") },
		"a key block protection key":  func(q *custody.ImportCryptogram) { q.ZMK = alias("alias/zmk-block") },
		"an AES wrapping key":         func(q *custody.ImportCryptogram) { q.ZMK = alias("alias/kek-aes") },
		"another length":              func(q *custody.ImportCryptogram) { q.Attributes = triple },
		"stronger than the ZMK":       func(q *custody.ImportCryptogram) { q.Attributes, q.Scheme = triple, keys.SchemeT },
		"the other scheme":            func(q *custody.ImportCryptogram) { q.Scheme = keys.SchemeX },
		"attributes that do not go":   func(q *custody.ImportCryptogram) { q.Attributes.Mode = keys.ModeDerive },
		"policy token":                func(q *custody.ImportCryptogram) { q.Tags = map[string]string{"keyd:custody": "token"} },
		"a cryptogram that was cut":   func(q *custody.ImportCryptogram) { q.Cryptogram = q.Cryptogram[:8] },
		"a key that is under another": func(q *custody.ImportCryptogram) { q.ZMK = alias("alias/zmk-triple") },
	} {
		q := good
		change(&q)
		before := keyCount(t, r)
		if _, _, err := r.ImportCryptogram(t.Context(), admin, "c", q); err == nil || keyCount(t, r) != before {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.key(t, "alias/out", double, carried2, nil)
	for name, q := range map[string]custody.ExportCryptogram{
		"a ZMK that is for import only": {Key: alias("alias/out"), ZMK: alias("alias/zmk-in"), Scheme: keys.SchemeU},
		"triple under double":           {Key: alias("alias/t"), ZMK: alias("alias/zmk-both"), Scheme: keys.SchemeT},
		"not exportable":                {Key: alias("alias/kek-tdes"), ZMK: alias("alias/zmk-both"), Scheme: keys.SchemeU},
		"itself":                        {Key: alias("alias/zmk-both"), ZMK: alias("alias/zmk-both"), Scheme: keys.SchemeU},
	} {
		if out, err := r.ExportCryptogram(t.Context(), admin, "c", q); err == nil || out.Cryptogram != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	mismatch := 0
	for _, record := range r.records(t, "sec") {
		if strings.Contains(record, `"reason":"kcv_mismatch"`) {
			mismatch++
		}
	}
	if mismatch < 3 {
		t.Errorf("%d records of another check value, want at least 3", mismatch)
	}
}

// TestImportTokens: their life, and rows of the database that somebody changed.
func TestImportTokens(t *testing.T) {
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	pass := func(d time.Duration) { ahead.Add(int64(d)) }
	r := newExchange(t, func(cfg *custody.Config) { cfg.Clock = now })
	ask := func(reuse bool) custody.ImportParameters {
		p, err := r.ImportParams(t.Context(), admin, "c", custody.ImportParams{Algorithm: "RSA_2048", Reuse: reuse})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := ask(false)
	cert, err := x509.ParseCertificate(first.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.CheckSignatureFrom(first.Chain[0]); err != nil {
		t.Error(err)
	}
	cryptogram, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, cert.PublicKey.(*rsa.PublicKey), unhex(t, carried2), nil)
	if err != nil {
		t.Fatal(err)
	}
	bring := func(token string) error {
		_, _, err := r.ImportOAEP(t.Context(), admin, "c", custody.ImportOAEP{
			Token: token, Hash: crypto.SHA256, Cryptogram: cryptogram, Attributes: attributes(keys.UsagePIN, keys.TDES2, keys.ModeBoth), Enabled: true,
		})
		return err
	}
	if err := bring(first.Token); err != nil {
		t.Error(err)
	}
	if err := bring(first.Token); err != nil {
		t.Errorf("a token serves several keys: %v", err)
	}
	if err := bring("import-token-" + strings.Repeat("0", 32)); !errors.Is(err, custody.ErrRequest) {
		t.Errorf("an unknown token: %v", err)
	}
	other := ask(false)
	if other.Token == first.Token {
		t.Error("the old token was given out for a new one")
	}
	if err := bring(other.Token); !errors.Is(err, custody.ErrKeyBlock) {
		t.Errorf("under another token's key: %v", err)
	}
	pass(22 * 24 * time.Hour)
	if again := ask(true); again.Token != other.Token {
		t.Error("with 8 days left it is given out again")
	}
	pass(48 * time.Hour)
	if again := ask(true); again.Token == other.Token {
		t.Error("with 6 days left it is not given out again")
	}
	pass(7 * 24 * time.Hour)
	if err := r.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	m := hsm.NewManager(r.token)
	if _, err := m.WrappingPair(t.Context(), first.Token); !errors.Is(err, keys.ErrNoKey) {
		t.Errorf("the pair of an expired token is still there: %v", err)
	}
	if err := bring(first.Token); !errors.Is(err, custody.ErrRequest) {
		t.Errorf("an expired token: %v", err)
	}
}

// TestForgedToken: somebody with the database puts a certificate of his own in
// the place of keyd's, so that partners encipher for him. It is not given out.
func TestForgedToken(t *testing.T) {
	r := newExchange(t, nil)
	p, err := r.ImportParams(t.Context(), admin, "c", custody.ImportParams{Algorithm: "RSA_2048"})
	if err != nil {
		t.Fatal(err)
	}
	own, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "keyd " + p.Token},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(20 * 24 * time.Hour),
	}
	forged, err := x509.CreateCertificate(rand.Reader, template, &x509.Certificate{RawSubject: p.Chain[0].RawSubject}, &own.PublicKey, own)
	if err != nil {
		t.Fatal(err)
	}
	r.sql(t, fmt.Sprintf("UPDATE exchange_token SET certificate = x'%x'", forged))
	again, err := r.ImportParams(t.Context(), admin, "c", custody.ImportParams{Algorithm: "RSA_2048", Reuse: true})
	if err != nil || again.Token == p.Token {
		t.Errorf("the forged one was given out: %v", err)
	}
	if _, err := r.WrappingCertificate(t.Context(), admin, "c", p.Token); !errors.Is(err, custody.ErrTampered) {
		t.Errorf("its certificate: %v", err)
	}
	// The issuer's own, replaced.
	ca, err := x509.CreateCertificate(rand.Reader, template, template, &own.PublicKey, own)
	if err != nil {
		t.Fatal(err)
	}
	r.sql(t, fmt.Sprintf("UPDATE issuer SET chain = x'%x'", ca))
	if _, err := r.ImportParams(t.Context(), admin, "c", custody.ImportParams{Algorithm: "RSA_2048"}); !errors.Is(err, custody.ErrTampered) {
		t.Errorf("a foreign issuer: %v", err)
	}
}

// TestIssuingCertificate: a CA outside signs keyd's issuing key, and its chain
// goes out from then on.
func TestIssuingCertificate(t *testing.T) {
	r := newExchange(t, nil)
	der, err := r.SigningRequest(t.Context(), admin, "c", pkix.Name{CommonName: "keyd of Example Acquirer", Country: []string{"CH"}})
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil || request.CheckSignature() != nil || request.Subject.CommonName != "keyd of Example Acquirer" {
		t.Fatalf("the request: %v", err)
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	made := func(name string, parent *x509.Certificate, public any, change func(*x509.Certificate)) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
		if change != nil {
			change(template)
		}
		if parent == nil {
			parent = template
		}
		raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, caKey)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	ca := made("Example CA", nil, &caKey.PublicKey, nil)
	good := made("keyd of Example Acquirer", ca, request.PublicKey, nil)
	for name, chain := range map[string][]*x509.Certificate{
		"none":          nil,
		"of the CA":     {ca},
		"no CA":         {made("leaf", ca, request.PublicKey, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, 0 })},
		"expired":       {made("old", ca, request.PublicKey, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })},
		"another order": {good, good},
	} {
		if err := r.InstallCertificate(t.Context(), admin, "c", chain); !errors.Is(err, custody.ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.InstallCertificate(t.Context(), caller("operator", custody.RoleOperator, "*"), "c", []*x509.Certificate{good, ca}); !errors.Is(err, custody.ErrDenied) {
		t.Errorf("by an operator: %v", err)
	}
	if err := r.InstallCertificate(t.Context(), admin, "c", []*x509.Certificate{good, ca}); err != nil {
		t.Fatal(err)
	}
	p, err := r.ImportParams(t.Context(), admin, "c", custody.ImportParams{Algorithm: "RSA_2048"})
	if err != nil || len(p.Chain) != 2 {
		t.Fatalf("%d certificates, %v", len(p.Chain), err)
	}
	leaf, err := x509.ParseCertificate(p.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(ca)
	between.AddCert(p.Chain[0])
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Errorf("up to the CA outside: %v", err)
	}
}

// TestExchangeNeedsItsParts: without them every operation refuses.
func TestExchangeNeedsItsParts(t *testing.T) {
	r := newRoom(t, func(cfg *custody.Config) { cfg.Exchange = custody.Exchange{} })
	ctx := context.WithoutCancel(t.Context())
	_, _, importErr := r.ImportBlock(ctx, admin, "c", custody.ImportBlock{})
	_, exportErr := r.ExportKey(ctx, admin, "c", custody.ExportKey{})
	_, paramsErr := r.ImportParams(ctx, admin, "c", custody.ImportParams{Algorithm: "RSA_2048"})
	for _, err := range []error{importErr, exportErr, paramsErr} {
		if !errors.Is(err, custody.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	}
}

// TestUnseenImport: an AES key comes in by RSA-OAEP without being seen where the
// module does the hash, and so may have the policy token; elsewhere it is refused.
func TestUnseenImport(t *testing.T) {
	r := newExchange(t, nil)
	p, err := r.ImportParams(t.Context(), admin, "c", custody.ImportParams{Algorithm: "RSA_3072"})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(p.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	cryptogram, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, cert.PublicKey.(*rsa.PublicKey), unhex(t, "66F69CA1D7F33E1B10B8798DDA30361F"), nil)
	if err != nil {
		t.Fatal(err)
	}
	q := custody.ImportOAEP{
		Token: p.Token, Hash: crypto.SHA256, Cryptogram: cryptogram, Attributes: attributes(keys.UsageCMAC, keys.AES128, keys.ModeMAC),
		Enabled: true, Tags: map[string]string{"keyd:custody": "token"},
	}
	k, class, err := r.ImportOAEP(t.Context(), admin, "c", q)
	if os.Getenv(softhsmtest.ModuleVar) == softhsmtest.Softokn().Name {
		if err != nil || class != audit.CustodyToken || k.Block.Check.String() != "34CA99" {
			t.Errorf("unseen: %v, %v", class, err)
		}
		return
	}
	if !errors.Is(err, custody.ErrCustody) {
		t.Errorf("with the policy: %v", err)
	}
	q.Tags = nil
	if k, class, err = r.ImportOAEP(t.Context(), admin, "c", q); err != nil || class != audit.CustodyProcess || k.Block.Check.String() != "34CA99" {
		t.Errorf("without: %v, %v", class, err)
	}
	for _, a := range []keys.Algorithm{keys.AES192, keys.AES256, keys.HMACSHA256} {
		q.Attributes = attributes(keys.UsageCMAC, a, keys.ModeMAC)
		if a.IsHMAC() {
			q.Attributes.Usage = keys.UsageHMAC
		}
		if _, _, err := r.ImportOAEP(t.Context(), admin, "c", q); !errors.Is(err, custody.ErrRequest) {
			t.Errorf("%s under RSA: %v", a, err)
		}
	}
}

// TestForgedPublicKey: a certificate that somebody put into the database vouches
// for nobody.
func TestForgedPublicKey(t *testing.T) {
	r := newExchange(t, nil)
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := func(name string) []byte {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &own.PublicKey, own)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	q := custody.ImportCertificate{Algorithm: "ECC_NIST_P256", Certificate: root("partner"), Enabled: true, Tags: map[string]string{"partner": "a"}}
	k, err := r.ImportCertificate(t.Context(), admin, "c", q)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.PublicKey(t.Context(), admin, "c", custody.OpGetKey, custody.Ref{ID: k.ID}); err != nil || got.Seal != k.Seal {
		t.Fatalf("found: %v", err)
	}
	for name, bad := range map[string]custody.ImportCertificate{
		"another algorithm": {Algorithm: "ECC_NIST_P384", Certificate: q.Certificate},
		"no certificate":    {Algorithm: "ECC_NIST_P256", Certificate: []byte("x")},
		"an unknown policy": {Algorithm: "ECC_NIST_P256", Certificate: q.Certificate, Tags: map[string]string{"keyd:x": "y"}},
	} {
		if _, err := r.ImportCertificate(t.Context(), admin, "c", bad); !errors.Is(err, custody.ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.PublicKey(t.Context(), caller("some", custody.RoleAdmin, "alias/x"), "c", custody.OpGetKey, custody.Ref{ID: k.ID}); !errors.Is(err, custody.ErrDenied) {
		t.Errorf("by a client of some aliases: %v", err)
	}
	r.sql(t, fmt.Sprintf("UPDATE public_key SET certificate = x'%x'", root("somebody else")))
	if _, err := r.PublicKey(t.Context(), admin, "c", custody.OpGetKey, custody.Ref{ID: k.ID}); !errors.Is(err, custody.ErrTampered) {
		t.Errorf("replaced: %v", err)
	}
}
