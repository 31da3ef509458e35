package credentials

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyd.dev/keyd/internal/secret"
)

const goodPIN = "1234-canary-5678"

func writePIN(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func readSource(t *testing.T, source string, allowEnv bool) (secret.Bytes, error) {
	t.Helper()
	s, err := ParsePINSource(source, allowEnv)
	if err != nil {
		t.Fatalf("ParsePINSource(%q): %v", source, err)
	}
	return s.Read(t.Context(), nil)
}

func TestPINFile(t *testing.T) {
	file := func(text string, mode os.FileMode) func(*testing.T) string {
		return func(t *testing.T) string { return writePIN(t, text, mode) }
	}
	tests := []struct {
		name string
		path func(*testing.T) string
		want string // "" when it must fail
		err  error
	}{
		{"C-01 plain", file(goodPIN, 0o600), goodPIN, nil},
		{"C-01 read-only", file(goodPIN, 0o400), goodPIN, nil},
		{"C-01 one newline is cut", file(goodPIN+"\n", 0o600), goodPIN, nil},
		{"C-01 only one newline is cut", file(goodPIN+"\n\n", 0o600), goodPIN + "\n", nil},
		{"C-01 spaces stay", file(" "+goodPIN+" ", 0o600), " " + goodPIN + " ", nil},
		{"C-01 256 bytes", file(strings.Repeat("9", 256), 0o600), strings.Repeat("9", 256), nil},
		{"C-01 256 bytes and a newline", file(strings.Repeat("9", 256)+"\n", 0o600), strings.Repeat("9", 256), nil},
		{"C-01 257 bytes", file(strings.Repeat("9", 257), 0o600), "", ErrNoPIN},
		{"C-01 258 bytes", file(strings.Repeat("9", 258), 0o600), "", ErrNoPIN},
		{"C-01 empty", file("", 0o600), "", ErrNoPIN},
		{"C-01 newline alone", file("\n", 0o600), "", ErrNoPIN},
		{"C-01 group may read", file(goodPIN, 0o640), "", ErrUnsafe},
		{"C-01 others may read", file(goodPIN, 0o604), "", ErrUnsafe},
		{"C-01 group may write", file(goodPIN, 0o620), "", ErrUnsafe},
		{"C-01 others may execute", file(goodPIN, 0o601), "", ErrUnsafe},
		{"C-01 absent", func(t *testing.T) string { return filepath.Join(t.TempDir(), "none") }, "", os.ErrNotExist},
		{"C-01 directory", func(t *testing.T) string { return t.TempDir() }, "", ErrUnsafe},
		{"C-01 symbolic link", func(t *testing.T) string {
			path := writePIN(t, goodPIN, 0o600)
			if err := os.Symlink(path, path+".link"); err != nil {
				t.Fatal(err)
			}
			return path + ".link"
		}, "", ErrUnsafe},
		{"C-01 second hard link", func(t *testing.T) string {
			path := writePIN(t, goodPIN, 0o600)
			if err := os.Link(path, path+".twin"); err != nil {
				t.Fatal(err)
			}
			return path
		}, "", ErrUnsafe},
		{"C-01 another owner", func(t *testing.T) string {
			path := writePIN(t, goodPIN, 0o600)
			if os.Geteuid() != 0 {
				// Only root can give a file away; /etc/passwd belongs to root
				// and is open to all, which is refused as well.
				return "/etc/passwd"
			}
			if err := os.Chown(path, 4711, 4711); err != nil {
				t.Fatal(err)
			}
			return path
		}, "", ErrUnsafe},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readSource(t, "file:"+tt.path(t), false)
			checkPIN(t, got, err, tt.want, tt.err)
		})
	}
}

func checkPIN(t *testing.T, got secret.Bytes, err error, want string, wantErr error) {
	t.Helper()
	if !errors.Is(err, wantErr) {
		t.Fatalf("error = %v, want %v", err, wantErr)
	}
	if err != nil && strings.Contains(err.Error(), "canary") {
		t.Fatal("the error repeats the PIN")
	}
	if !got.Equal(secret.From([]byte(want))) {
		t.Fatalf("the PIN has %d bytes and is not the %d bytes wanted", got.Len(), len(want))
	}
}

func TestPINSystemd(t *testing.T) {
	path := writePIN(t, goodPIN+"\n", 0o400)
	t.Run("C-01 the credential's folder is named", func(t *testing.T) {
		t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(path))
		got, err := readSource(t, "systemd:pin", false)
		checkPIN(t, got, err, goodPIN, nil)
	})
	t.Run("C-01 not started by systemd", func(t *testing.T) {
		t.Setenv("CREDENTIALS_DIRECTORY", "")
		got, err := readSource(t, "systemd:pin", false)
		checkPIN(t, got, err, "", ErrNoPIN)
	})
}

func TestPINEnvironment(t *testing.T) {
	t.Run("C-01 read once and unset", func(t *testing.T) {
		t.Setenv("KEYD_TEST_PIN", goodPIN)
		got, err := readSource(t, "env:KEYD_TEST_PIN", true)
		checkPIN(t, got, err, goodPIN, nil)
		if _, still := os.LookupEnv("KEYD_TEST_PIN"); still {
			t.Error("the variable is still set")
		}
	})
	t.Run("C-01 not set", func(t *testing.T) {
		got, err := readSource(t, "env:KEYD_TEST_PIN_NOT_SET", true)
		checkPIN(t, got, err, "", ErrNoPIN)
	})
}

func TestPINCommand(t *testing.T) {
	tests := []struct {
		name, source, want string
		err                error
	}{
		{"C-01 output is the PIN", `command:["/bin/echo","` + goodPIN + `"]`, goodPIN, nil},
		{"C-01 no shell", `command:["/bin/echo","$HOME;canary"]`, "$HOME;canary", nil},
		{"C-01 failure", `command:["/bin/false"]`, "", ErrNoPIN},
		{"C-01 no output", `command:["/bin/true"]`, "", ErrNoPIN},
		{"C-01 too much output", `command:["/bin/echo","` + strings.Repeat("9", 300) + `"]`, "", ErrNoPIN},
		{"C-01 absent program", `command:["/nowhere/program"]`, "", ErrNoPIN},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readSource(t, tt.source, false)
			checkPIN(t, got, err, tt.want, tt.err)
		})
	}
}

func TestParsePINSource(t *testing.T) {
	bad := []struct {
		name, text string
		allowEnv   bool
	}{
		{"C-01 empty", "", false},
		{"C-01 a PIN instead of a source", "canary1234", false},
		{"C-01 relative file", "file:pin", false},
		{"C-01 credential with a path", "systemd:../pin", false},
		{"C-01 Vault without a field", "vault:secret/keyd/token", false},
		{"C-01 Vault without a path", "vault:secret#pin", false},
		{"C-01 Vault without a mount", "vault:/keyd#pin", false},
		{"C-01 Vault with an empty field", "vault:secret/keyd#", false},
		{"C-01 Vault with a query", "vault:secret/keyd?version=1#pin", false},
		{"C-01 wrapped token at a relative path", "vault-wrapped:pin", false},
		{"C-01 credential without a name", "systemd:", false},
		{"C-01 env not permitted", "env:PIN", false},
		{"C-01 env without a name", "env:", true},
		{"C-01 tty with an argument", "tty:/dev/tty1", false},
		{"C-01 command as a line", "command:/bin/echo 1234", false},
		{"C-01 command relative", `command:["echo"]`, false},
		{"C-01 command empty", `command:[]`, false},
		{"C-01 unknown kind", "http://canary", false},
	}
	for _, tt := range bad {
		t.Run(tt.name, func(t *testing.T) {
			s, err := ParsePINSource(tt.text, tt.allowEnv)
			if !errors.Is(err, ErrSource) {
				t.Fatalf("ParsePINSource = %v, %v; want ErrSource", s, err)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Error("the error repeats what may be a PIN")
			}
		})
	}
	good := []string{"file:/run/pin", "systemd:token-pin", "tty", "env:PIN", `command:["/bin/echo","x"]`, "vault:secret/keyd/token#pin", "vault-wrapped:/run/pin"}
	for _, text := range good {
		s, err := ParsePINSource(text, true)
		if err != nil || s.String() != text {
			t.Errorf("ParsePINSource(%q) = %v, %v", text, s, err)
		}
	}
	var none PINSource
	if _, err := none.Read(t.Context(), nil); !errors.Is(err, ErrSource) {
		t.Errorf("the zero source: %v, want ErrSource", err)
	}
}
