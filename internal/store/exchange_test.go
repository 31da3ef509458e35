package store

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

func anImportToken(name string, made time.Time) custody.ImportToken {
	return custody.ImportToken{
		Token: name, Algorithm: "RSA_3072", Certificate: []byte("certificate of " + name), Made: made, Expires: made.Add(time.Hour), Principal: "admin",
	}
}

func exchangeOnce(invocation string) *custody.Once {
	return &custody.Once{Principal: "admin", Invocation: invocation, Operation: custody.OpImportParams, Answer: []byte(`{}`), At: time.Now()}
}

// TestImportTokens: the newest first, and those that are ended not at all.
func TestImportTokens(t *testing.T) {
	db := open(t)
	made := time.Unix(1_767_225_600, 250_000_000).UTC()
	first, second := anImportToken("import-token-0123456789abcdef", made), anImportToken("export-token-0123456789abcdef", made.Add(time.Second))
	allSet(t, first)
	if err := db.AddImportToken(t.Context(), first, exchangeOnce("one")); err != nil {
		t.Fatal(err)
	}
	if err := db.AddImportToken(t.Context(), second, exchangeOnce("one")); !errors.Is(err, custody.ErrRepeated) {
		t.Errorf("the same invocation: %v", err)
	}
	if err := db.AddImportToken(t.Context(), first, nil); !errors.Is(err, ErrExists) {
		t.Errorf("the same token: %v", err)
	}
	if err := db.AddImportToken(t.Context(), second, nil); err != nil {
		t.Fatal(err)
	}
	got, err := db.ImportTokens(t.Context())
	if diff := cmp.Diff([]custody.ImportToken{second, first}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if err := db.EndImportToken(t.Context(), second.Token, made); err != nil {
		t.Fatal(err)
	}
	got, err = db.ImportTokens(t.Context())
	if diff := cmp.Diff([]custody.ImportToken{first}, got); err != nil || diff != "" {
		t.Errorf("after an end: %v %s", err, diff)
	}
	bad := anImportToken("token", made)
	if err := db.AddImportToken(t.Context(), bad, nil); !errors.Is(err, ErrRule) {
		t.Errorf("another form of token: %v", err)
	}
}

func TestIssuerChain(t *testing.T) {
	db := open(t)
	if chain, err := db.IssuerChain(t.Context(), [32]byte{1}); err != nil || chain != nil {
		t.Errorf("none: %q, %v", chain, err)
	}
	for _, want := range []string{"self-signed", "of a CA"} {
		if err := db.SetIssuerChain(t.Context(), [32]byte{1}, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if chain, err := db.IssuerChain(t.Context(), [32]byte{1}); err != nil || string(chain) != want {
			t.Errorf("%q, %v, want %q", chain, err, want)
		}
	}
}

func TestPublicKey(t *testing.T) {
	db := open(t)
	want := custody.PublicKey{
		ID: keyID(1), Algorithm: "ECC_NIST_P256", Certificate: []byte("certificate"), Authority: keyID(2), Check: keys.KCV{1, 2, 3},
		Enabled: true, Made: time.Unix(1_767_225_600, 250_000_000).UTC(), Tags: map[string]string{"partner": "a"}, Seal: [32]byte{7},
	}
	allSet(t, want)
	if err := db.AddPublicKey(t.Context(), want, exchangeOnce("one")); err != nil {
		t.Fatal(err)
	}
	got, err := db.PublicKey(t.Context(), want.ID)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if _, err := db.PublicKey(t.Context(), keyID(3)); !errors.Is(err, custody.ErrNoKey) {
		t.Errorf("none: %v", err)
	}
	want.ID = keyID(4)
	if err := db.AddPublicKey(t.Context(), want, exchangeOnce("one")); !errors.Is(err, custody.ErrRepeated) {
		t.Errorf("the same invocation: %v", err)
	}
	bare := custody.PublicKey{ID: keyID(5), Algorithm: "RSA_2048", Certificate: []byte("root"), Made: want.Made}
	if err := db.AddPublicKey(t.Context(), bare, nil); err != nil {
		t.Fatal(err)
	}
	got, err = db.PublicKey(t.Context(), bare.ID)
	if diff := cmp.Diff(bare, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}
