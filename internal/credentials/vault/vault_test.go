package vault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyd.dev/keyd/internal/credentials/vault"
)

// TestEnvironment holds the list of refused variables against the source of the
// API library, so that a new version with a new variable is noticed.
func TestEnvironment(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/hashicorp/vault/api").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "*.go"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	read := make(map[string]bool)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`"(VAULT_[A-Z_]+)"`).FindAllStringSubmatch(string(text), -1) {
			read[name[1]] = true
		}
	}
	if len(read) < 20 {
		t.Fatalf("only %d variables found in the library", len(read))
	}
	for name := range read {
		t.Run("C-09 "+name, func(t *testing.T) {
			t.Setenv(name, "canary")
			err := vault.CheckEnvironment()
			if !errors.Is(err, vault.ErrEnvironment) || !strings.Contains(err.Error(), name) {
				t.Errorf("error %v, want ErrEnvironment that names it", err)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Error("the error repeats the value")
			}
			if _, err := vault.New(vault.Config{}); !errors.Is(err, vault.ErrEnvironment) {
				t.Errorf("New: %v, want ErrEnvironment", err)
			}
		})
	}
	t.Run("C-09 a variable of a Kubernetes service named vault is not the library's", func(t *testing.T) {
		t.Setenv("VAULT_SERVICE_HOST", "10.0.0.1")
		if err := vault.CheckEnvironment(); err != nil {
			t.Errorf("refused: %v", err)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	for name, cfg := range map[string]vault.Config{
		"C-09 plain HTTP":                     {Address: "http://vault:8200", CA: ca, Log: quiet},
		"C-09 a path in the address":          {Address: "https://vault:8200/v1", CA: ca, Log: quiet},
		"C-09 no CA":                          {Address: "https://vault:8200", Log: quiet},
		"C-09 a CA file without certificate":  {Address: "https://vault:8200", CA: ca, Log: quiet},
		"C-09 a method that is not known":     {Address: "https://vault:8200", CA: ca, Log: quiet, Login: vault.Login{Method: "userpass"}},
		"C-09 certificate without a file":     {Address: "https://vault:8200", CA: ca, Log: quiet, Login: vault.Login{Method: vault.MethodCertificate}},
		"C-09 AppRole without a secret id":    {Address: "https://vault:8200", CA: ca, Log: quiet, Login: vault.Login{Method: vault.MethodAppRole, Role: "r", RoleID: "i"}},
		"C-09 Kubernetes without a role":      {Address: "https://vault:8200", CA: ca, Log: quiet, Login: vault.Login{Method: vault.MethodKubernetes}},
		"C-09 token_file without a file":      {Address: "https://vault:8200", CA: ca, Log: quiet, Login: vault.Login{Method: vault.MethodTokenFile}},
		"C-09 no log that would hear of loss": {Address: "https://vault:8200", CA: ca},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := vault.New(cfg); !errors.Is(err, vault.ErrConfig) {
				t.Errorf("error %v, want ErrConfig", err)
			}
		})
	}
}

// TestPatiently: how long a start waits, by what went wrong (C-10).
func TestPatiently(t *testing.T) {
	tests := []struct {
		name        string
		err         error
		first, most time.Duration // of the waits, before the jitter
	}{
		{"C-10 no route", vault.ErrUnreachable, time.Second, time.Minute},
		{"C-10 sealed", vault.ErrSealed, time.Second, time.Minute},
		{"C-10 Vault fails", vault.ErrFault, time.Second, time.Minute},
		{"C-10 403 is not hammered", vault.ErrDenied, 10 * time.Minute, 10 * time.Minute},
		{"C-10 404 is not hammered", vault.ErrNotFound, 10 * time.Minute, 10 * time.Minute},
		{"C-10 a stolen token is not hammered", vault.ErrUnwrapped, 10 * time.Minute, 10 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const tries = 12
				var waits []time.Duration
				n := 0
				begin := time.Now()
				err := vault.Patiently(t.Context(), make(chan struct{}), func(_ error, wait time.Duration) { waits = append(waits, wait) }, func(context.Context) error {
					if n++; n > tries {
						return nil
					}
					return fmt.Errorf("asking: %w", tt.err)
				})
				if err != nil || len(waits) != tries {
					t.Fatalf("%d waits, %v", len(waits), err)
				}
				var sum time.Duration
				for i, wait := range waits {
					sum += wait
					if within := wait <= tt.most && wait >= tt.first*4/5; !within {
						t.Errorf("wait %d: %v, want %v to %v", i, wait, tt.first*4/5, tt.most)
					}
				}
				if waits[0] > tt.first || waits[tries-1] < tt.most*4/5 {
					t.Errorf("first %v, last %v; want %v and %v", waits[0], waits[tries-1], tt.first, tt.most)
				}
				if got := time.Since(begin); got != sum {
					t.Errorf("it waited %v, and said %v", got, sum)
				}
			})
		})
	}
	t.Run("C-10 a signal ends the wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			wake, tries := make(chan struct{}, 1), 0
			begin := time.Now()
			err := vault.Patiently(t.Context(), wake, func(error, time.Duration) { wake <- struct{}{} }, func(context.Context) error {
				if tries++; tries == 3 {
					return nil
				}
				return vault.ErrDenied
			})
			if err != nil || time.Since(begin) != 0 {
				t.Errorf("%v after %v", err, time.Since(begin))
			}
		})
	})
	t.Run("C-10 the end of the process ends the wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			err := vault.Patiently(ctx, make(chan struct{}), func(error, time.Duration) { cancel() }, func(context.Context) error { return vault.ErrSealed })
			if !errors.Is(err, vault.ErrSealed) {
				t.Errorf("error %v, want the last one", err)
			}
		})
	})
	t.Run("C-10 what is not Vault's is not tried again", func(t *testing.T) {
		err := vault.Patiently(t.Context(), make(chan struct{}), func(error, time.Duration) { t.Error("it waits") }, func(context.Context) error { return os.ErrNotExist })
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("error %v", err)
		}
	})
}
