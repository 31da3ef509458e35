package main

import (
	"context"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"testing"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/sim"
)

// TestCutLog is A-02.T3 of `keyd sim fraud`: a record is taken from where a
// checkpoint covers it, and not from what a write leaves behind beside it, of
// which nothing is proved.
func TestCutLog(t *testing.T) {
	dir := t.TempDir()
	dev := &devReport{AuditDir: filepath.Join(dir, "log"), AuditVkey: filepath.Join(dir, "audit.vkey")}
	if err := os.Mkdir(dev.AuditDir, 0o750); err != nil {
		t.Fatal(err)
	}
	log, err := audit.Open(dev.AuditDir, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), audit.Options{
		Site: "dev.example", Node: "n1", SegmentSize: 8 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	vkey, err := os.ReadFile(filepath.Join(dev.AuditDir, "sec", "vkey"))
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := firstBundle(dev.AuditDir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{dev.AuditVkey: vkey, filepath.Join(filepath.Dir(bundle), "99.tmp"): text} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tries := 0
	lab := &fraudLab{dev: dev, FraudConfig: sim.FraudConfig{Settled: func(done func() (bool, error)) error {
		for {
			tries++
			if ok, err := done(); ok || err != nil || tries > 2 {
				return err
			}
		}
	}}}
	var found sim.Finding
	if err := lab.cutLog(t.Context(), &found); err != nil || tries != 1 || len(found.Seen) != 1 {
		t.Errorf("%v after %d copies; seen: %q", err, tries, found.Seen)
	}
}
