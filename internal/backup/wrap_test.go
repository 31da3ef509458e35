package backup_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"filippo.io/age"

	"keyd.dev/keyd/internal/backup"
)

// mirror is a transit engine that turns bytes around, for the form of the file.
type mirror struct{}

func (mirror) Name() string { return "transit/keyd-backup" }

func (mirror) Wrap(_ context.Context, fileKey []byte) (string, error) {
	return "vault:v1:" + string(turned(fileKey)), nil
}

var errForeign = errors.New("not of this engine")

func (mirror) Unwrap(_ context.Context, wrapped string) ([]byte, error) {
	text, ok := strings.CutPrefix(wrapped, "vault:v1:")
	if !ok {
		return nil, errForeign
	}
	return turned([]byte(text)), nil
}

func turned(b []byte) []byte {
	out := bytes.Clone(b)
	for i := range out {
		out[i] = b[len(b)-1-i]
	}
	return out
}

func identity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	must(t, err)
	return id
}

func TestWrap(t *testing.T) {
	alice, bob := identity(t), identity(t)
	inside := write(t, plain{})
	var file bytes.Buffer
	w, err := backup.Around(t.Context(), &file, &backup.Wrap{Transit: mirror{}, Custodians: []age.Recipient{alice.Recipient()}})
	must(t, err)
	_, err = w.Write(inside)
	must(t, errors.Join(err, w.Close()))

	find := func(name string) (backup.Transit, error) {
		if name != "transit/keyd-backup" {
			t.Errorf("the file names the key %q", name)
		}
		return mirror{}, nil
	}
	for _, tt := range []struct {
		name string
		with backup.Opener
		err  error
	}{
		{"C-11 by Vault", backup.Opener{Transit: find}, nil},
		{"C-11 by a custodian", backup.Opener{Held: []age.Identity{alice}}, nil},
		{"C-11 by another custodian", backup.Opener{Held: []age.Identity{bob}}, backup.ErrWrapped},
		{"C-11 by another custodian, with Vault at hand", backup.Opener{Held: []age.Identity{bob}, Transit: find}, backup.ErrWrapped},
		{"C-11 by nobody", backup.Opener{}, backup.ErrWrapped},
		{"C-11 by a Vault that refuses", backup.Opener{Transit: func(string) (backup.Transit, error) { return nil, errForeign }}, errForeign},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := backup.Open(t.Context(), bytes.NewReader(file.Bytes()), tt.with)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, inside) {
				t.Errorf("%d bytes, want the %d that were wrapped: %v", len(got), len(inside), err)
			}
		})
	}
	t.Run("C-11 every damaged byte is found", func(t *testing.T) {
		for at := 0; at < file.Len(); at += 1 + file.Len()/199 {
			bad := bytes.Clone(file.Bytes())
			bad[at] ^= 0x20
			r, err := backup.Open(t.Context(), bytes.NewReader(bad), backup.Opener{Transit: find})
			if err == nil {
				_, _, err = readFrom(r)
			}
			if err == nil {
				t.Errorf("byte %d changed: it opens all the same", at)
			}
		}
	})
	t.Run("a file without a second wrap passes", func(t *testing.T) {
		r, err := backup.Open(t.Context(), bytes.NewReader(inside), backup.Opener{})
		must(t, err)
		if _, _, err := readFrom(r); err != nil {
			t.Error(err)
		}
	})
}

// readFrom reads a backup that no token sealed.
func readFrom(r io.Reader) (*collector, backup.End, error) {
	c := new(collector)
	b, err := backup.NewReader(r, plain{})
	if err != nil {
		return c, backup.End{}, err
	}
	end, err := b.All(c)
	return c, end, err
}

// FuzzOpen: whatever the file holds, taking the wrap off ends with a reader or
// an error.
func FuzzOpen(f *testing.F) {
	f.Add([]byte("age-encryption.org/v1\n-> keyd-transit transit/k\nAAAA\n--- AAAA\n"))
	f.Add([]byte("age-encryption.org/v1\n-> keyd-transit a b\n\n--- \n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := backup.Open(t.Context(), bytes.NewReader(file), backup.Opener{Transit: func(string) (backup.Transit, error) { return mirror{}, nil }})
		if err == nil {
			_, _ = io.Copy(io.Discard, r)
		}
	})
}
