package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// secondLMK is what a ceremony would have put together.
const secondLMK = "F0E1D2C3B4A5968778695A4B3C2D1E0F00112233445566778899AABBCCDDEEFF"

// offline opens the node of a stopped daemon in this process, for what a
// ceremony does in it.
func (k *killable) offline(work func(ctx context.Context, n *node)) {
	k.t.Helper()
	ctx := k.t.Context()
	cfg, err := loadConfig(filepath.Join(k.dir, "keyd.toml"))
	if err != nil {
		k.t.Fatal(err)
	}
	n, err := openNode(ctx, cfg, slog.New(slog.NewJSONHandler(io.Discard, nil)), newMetrics())
	if err != nil {
		k.t.Fatal(err)
	}
	work(ctx, n)
	if err := n.close(context.WithoutCancel(ctx)); err != nil {
		k.t.Error(err)
	}
}

// fillKeys adds keys under the first local master key.
func fillKeys(t *testing.T, ctx context.Context, n *node, many int) {
	t.Helper()
	wanted := make([]keys.Wanted, many)
	for i := range wanted {
		wanted[i].Template = keys.Block{
			ID: keys.ID(fmt.Sprintf("%032d", i)), Version: 1, CreatedMs: 1,
			Attributes: keys.Attributes{Usage: keys.UsageData, Algorithm: keys.AES128, Mode: keys.ModeBoth, Exportability: keys.NonExportable},
		}
	}
	made, err := n.manager.GenerateBatch(ctx, wanted)
	if err != nil {
		t.Fatal(err)
	}
	err = n.db.ChangeKeys(ctx, nil, func(ch custody.KeyChange) error {
		for _, k := range made {
			if err := ch.AddKey(custody.KeyRecord{Block: k.Block, State: custody.CreateComplete, Enabled: true, UsageStart: time.Unix(1, 0)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// addSecond does what ends a ceremony.
func addSecond(t *testing.T, ctx context.Context, n *node) {
	t.Helper()
	raw, err := hex.DecodeString(secondLMK)
	if err != nil {
		t.Fatal(err)
	}
	lmk := secret.From(raw)
	defer lmk.Clear()
	who := custody.SystemCaller("ceremony", custody.RoleCustodian)
	now := time.Now()
	people := []audit.Approval{{ID: "custodian-1", Ref: audit.UUID{1, 6: 0x70, 8: 0x80}, At: now}, {ID: "custodian-2", Ref: audit.UUID{2, 6: 0x70, 8: 0x80}, At: now}}
	if g, err := n.custody.AddLMK(ctx, who, "lmk", lmk, people); err != nil || g != 2 {
		t.Fatalf("generation %d, %v; want 2", g, err)
	}
}

// keyd runs a command as a client, and returns what it printed and its exit code.
func (k *killable) keyd(as string, args ...string) (out string, code int) {
	k.t.Helper()
	cmd := keydCommand(k.t.Context(), append(args, "--dev", k.dir, "--as", as)...)
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		k.t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// want runs a command and wants its exit code, and texts in its output.
func (k *killable) want(code int, as string, args []string, texts ...string) string {
	k.t.Helper()
	out, got := k.keyd(as, args...)
	if got != code {
		k.t.Fatalf("keyd %q as %s: exit code %d, want %d\n%s", args, as, got, code, out)
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			k.t.Errorf("keyd %q as %s does not say %q:\n%s", args, as, text, out)
		}
	}
	return out
}

// TestLMKChange changes the local master key of a daemon, which is killed in the
// middle of the re-wrapping, and retires the old one under dual control.
func TestLMKChange(t *testing.T) {
	const many = 5_000
	total := many + len(testKeys())
	k := newKillable(t)
	k.start()
	k.want(exitDone, "auditor", []string{"lmk", "status"}, "in use, new keys")
	k.stop()
	k.edit("dual_control", "true")
	k.offline(func(ctx context.Context, n *node) {
		fillKeys(t, ctx, n, many)
		addSecond(t, ctx, n)
	})
	k.start()
	k.want(exitDone, "operator", []string{"lmk", "status"}, "in use, older keys", fmt.Sprintf("%d ", total))
	k.want(exitFailed, "admin", []string{"lmk", "retire", "1"}, "ConflictException", fmt.Sprintf("%d keys are under", total))
	k.proveBoth()

	k.killRewrapping(total)
	k.start()
	out := k.want(exitDone, "admin", []string{"lmk", "rewrap"}, fmt.Sprintf("done: all %d keys are under local master key 2", total))
	t.Log(tail(out, 200))
	k.want(exitDone, "admin", []string{"lmk", "rewrap"}, "done")
	k.macAs("switch")

	out = k.want(exitFailed, "admin", []string{"lmk", "retire", "1"}, "approval required")
	ref := regexp.MustCompile(`keyd approve ([0-9A-Z]+)`).FindStringSubmatch(out)
	if ref == nil {
		t.Fatalf("no reference to approve: %s", out)
	}
	k.want(exitFailed, "admin", []string{"approve", ref[1], "--yes"})
	k.want(exitDone, "admin-2", []string{"approve", ref[1], "--yes"}, "approved")
	k.want(exitDone, "admin", []string{"lmk", "retire", "1"}, "local master key 1 is destroyed")
	k.want(exitDone, "admin", []string{"lmk", "status"}, "retired")
	k.want(exitFailed, "admin", []string{"lmk", "retire", "1"}, "ConflictException")
	k.macAs("switch")

	// And a start over what is left.
	k.stop()
	k.start()
	k.macAs("switch")
	k.want(exitDone, "operator", []string{"lmk", "status"}, "retired")
	if err := k.verify(t.Context()); err != nil {
		t.Error(err)
	}
	k.stop()
	k.healthy()
}

// proveBoth compares the daemon with itself, and with another answer.
func (k *killable) proveBoth() {
	k.t.Helper()
	out, code := k.alone("lmk", "challenge")
	challenge := strings.TrimSpace(out)
	if code != exitDone || len(challenge) != 64 {
		k.t.Fatalf("keyd lmk challenge: %q", out)
	}
	out = k.want(exitDone, "custodian-1", []string{"lmk", "prove", "--challenge", challenge}, "generation 2", "check value ")
	answer := strings.TrimSpace(out[strings.LastIndex(out, "answer ")+len("answer "):])
	k.want(exitDone, "auditor", []string{"lmk", "verify", "--challenge", challenge, "--answer", answer}, "the same: both sites hold local master key 2")
	k.want(exitVerify, "auditor", []string{"lmk", "verify", "--challenge", challenge, "--answer", answer, "--generation", "1"}, "not the same")
	k.want(exitVerify, "auditor", []string{"lmk", "verify", "--challenge", strings.Repeat("0", 64), "--answer", answer}, "not the same")
	k.want(exitFailed, "auditor", []string{"lmk", "prove", "--challenge", challenge, "--generation", "3"}, "does not hold local master key 3")
	k.want(exitUsage, "auditor", []string{"lmk", "prove", "--challenge", "00"}, "want 64 hexadecimal digits")
	k.want(exitFailed, "switch", []string{"lmk", "prove", "--challenge", challenge}, "AccessDeniedException")
	k.want(exitFailed, "auditor", []string{"lmk", "rewrap"}, "AccessDeniedException")
}

// alone runs a command that talks to no daemon.
func (k *killable) alone(args ...string) (string, int) {
	k.t.Helper()
	cmd := keydCommand(k.t.Context(), args...)
	out, err := cmd.Output()
	if err != nil {
		k.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// killRewrapping kills the daemon once some keys are done and some are not.
func (k *killable) killRewrapping(total int) {
	k.t.Helper()
	cmd := keydCommand(k.t.Context(), "lmk", "rewrap", "--dev", k.dir, "--as", "admin")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	cfg, err := loadConfig(filepath.Join(k.dir, "keyd.toml"))
	if err != nil {
		k.t.Fatal(err)
	}
	db, err := visit(k.t.Context(), cfg)
	if err != nil {
		k.t.Fatal(err)
	}
	defer db.Close()
	done := 0
	k.await("some keys are re-wrapped", 30*time.Second, func() bool {
		counts, err := db.CountByLMK(k.t.Context())
		if err != nil {
			k.t.Fatal(err)
		}
		done = counts[2]
		return done > 0
	})
	k.kill()
	if err := cmd.Wait(); err == nil {
		k.t.Errorf("the command did not notice that the daemon was killed:\n%s", said.String())
	}
	counts, err := db.CountByLMK(k.t.Context())
	if err != nil {
		k.t.Fatal(err)
	}
	if counts[1] == 0 || counts[1]+counts[2] != total {
		k.t.Errorf("after the kill %v, want some of %d under each", counts, total)
	}
	if !strings.Contains(said.String(), "give the command again") {
		k.t.Errorf("the command does not say how to go on:\n%s", said.String())
	}
	k.t.Logf("killed with %v of %d done", counts, total)
}

// macAs uses a key of the development daemon.
func (k *killable) macAs(client string) {
	k.t.Helper()
	flags := doorFlags{Dev: k.dir, As: client}
	d, err := flags.open()
	if err != nil {
		k.t.Fatal(err)
	}
	body := `{"KeyIdentifier":"alias/dev/zak","MessageData":"0011223344556677","GenerationAttributes":{"Algorithm":"ISO9797_ALGORITHM3"}}`
	resp, err := d.client.Post(d.url+"/mac/generate", "application/json", strings.NewReader(body))
	if err != nil {
		k.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		k.t.Errorf("a MAC: %s, %v\n%s", resp.Status, err, text)
	}
}
