package ceremony_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"keyd.dev/keyd/internal/ceremony"
	"keyd.dev/keyd/internal/secret"
)

func TestSeal(t *testing.T) {
	for name, c := range map[string]struct {
		as   func(*string, *string, *int, *bool)
		good bool
	}{
		"the same place":    {func(*string, *string, *int, *bool) {}, true},
		"another ceremony":  {func(id *string, _ *string, _ *int, _ *bool) { *id = "other" }, false},
		"another custodian": {func(_ *string, who *string, _ *int, _ *bool) { *who = "b" }, false},
		"another number":    {func(_, _ *string, n *int, _ *bool) { *n = 2 }, false},
		"the other way":     {func(_, _ *string, _ *int, in *bool) { *in = false }, false},
		"names that run together": {func(id, who *string, _ *int, _ *bool) {
			*id, *who = "cer", "1a"
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			value := secret.From([]byte("0123456789abcdef"))
			got, err := ceremony.SealRound(value, "cer1", "a", 1, true, c.as)
			if c.good != (err == nil) || err != nil && !errors.Is(err, ceremony.ErrSeal) {
				t.Fatal(err)
			}
			if c.good && !got.Equal(value) {
				t.Error("another value came out")
			}
		})
	}
}

// TestForget: C-14, the private key of a ceremony is overwritten. It fails when
// crypto/ecdh keeps its key in another way than forget knows.
func TestForget(t *testing.T) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ceremony.PrivateOf(key), key.Bytes()) {
		t.Fatal("C-14 the library's copy of a private key is not where it was looked for")
	}
	before, after, err := ceremony.Forgotten()
	if err != nil {
		t.Fatal(err)
	}
	if len(before) != 32 || bytes.Equal(before, make([]byte, 32)) || !bytes.Equal(after, make([]byte, 32)) {
		t.Error("C-14 the private key is still there")
	}
}

func TestAgeFile(t *testing.T) {
	dir := t.TempDir()
	own, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	post, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	identities := filepath.Join(dir, "identities")
	if err := os.WriteFile(identities, []byte("# mine\n"+own.String()+"\n\n"+post.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	value := secret.From([]byte("0123456789abcdef"))
	for name, to := range map[string]string{"x25519": own.Recipient().String(), "post-quantum": post.Recipient().String()} {
		path := filepath.Join(dir, name)
		if err := ceremony.SaveComponent(path, to, value); err != nil {
			t.Fatal(err)
		}
		if err := ceremony.SaveComponent(path, to, value); !errors.Is(err, ceremony.ErrExists) {
			t.Errorf("%s: a second time: %v", name, err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
		got, err := ceremony.LoadComponent(path, identities)
		if err != nil || !got.Equal(value) {
			t.Errorf("%s: another value came back: %v", name, err)
		}
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct{ file, identities string }{
		"no file":       {filepath.Join(dir, "none"), identities},
		"no identities": {filepath.Join(dir, "x25519"), filepath.Join(dir, "none")},
		"empty":         {filepath.Join(dir, "x25519"), write("empty", "# nothing\n")},
		"no identity":   {filepath.Join(dir, "x25519"), write("words", "hello\n")},
		"another's":     {filepath.Join(dir, "x25519"), write("other", "AGE-SECRET-KEY-1FJHPRWCT7VVD69M6CEXMDVFFKPCVC57526U6H56NRFSQ0FG3HTKQVQYS2R\n")},
		"a bad plugin":  {filepath.Join(dir, "x25519"), write("plugin", "AGE-PLUGIN-NONE-1\n")},
		"no age file":   {write("plain", "0123456789ABCDEF"), identities},
		"too large":     {write("large", strings.Repeat("x", 1<<17)), identities},
	} {
		if _, err := ceremony.LoadComponent(c.file, c.identities); !errors.Is(err, ceremony.ErrComponent) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add([]byte(`{"id":"x","sealed":"AAAA"}`))
	f.Add([]byte(`{} {}`))
	f.Add([]byte(`{"unknown":1}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if err := ceremony.ReadRequest(body, 1<<10); err != nil && !errors.Is(err, ceremony.ErrRequest) {
			t.Error(err)
		}
	})
}

func FuzzReadTranscript(f *testing.F) {
	f.Add([]byte(`{"transcript":{},"vkey":"x","signature":""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, _, err := ceremony.ReadTranscript(text, ""); err != nil && !errors.Is(err, ceremony.ErrTranscript) {
			t.Error(err)
		}
	})
}
