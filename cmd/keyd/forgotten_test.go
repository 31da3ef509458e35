//go:build linux

package main

import (
	"bytes"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPINBlocksAreForgotten is C-14 on a running daemon: after sales with a PIN,
// of which every one was deciphered and enciphered anew, no clear PIN block is in
// its memory, in no form. The issuer is another process: it has the PIN.
func TestPINBlocksAreForgotten(t *testing.T) {
	if os.Getuid() != 0 {
		t.Logf("NOT TESTED: the memory of a process that is not dumpable is for root to read")
		return
	}
	const sales, pan = 20, "4111111111111111"
	dir := t.TempDir()
	program, folder := programFor(t, dir, "keyd"), filepath.Join(dir, "d")
	d := startStranger(t, nil, dir, program, "dev", "--no-sim", "--dir", folder)
	issuer := exec.Command(program, "sim", "issuer", "--dir", folder)
	if err := issuer.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = issuer.Process.Signal(os.Interrupt)
		_ = issuer.Wait()
	}()
	poll(t, "the link to the issuer", func() bool {
		out, err := exec.Command(program, "doctor", "--config", filepath.Join(folder, "keyd.toml"), "--ready").Output()
		return err == nil && strings.Contains(string(out), `"upstream":{"ok":true`)
	})
	for range sales {
		out, err := exec.Command(program, "sim", "pos", "sale", "--dir", folder, "--pan", pan, "--amount", "1000").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "approved") {
			t.Fatalf("a sale: %v\n%s\n%s", err, out, d.said())
		}
	}
	// ISO 9564-1 format 0: length and digits, and then these and the PAN's last
	// twelve digits without the check digit.
	field := append([]byte{byte(len(testPIN))}, bytes.Repeat([]byte{0xFF}, 7)...)
	digits, err := hex.DecodeString(testPIN)
	if err != nil {
		t.Fatal(err)
	}
	copy(field[1:], digits)
	account, err := hex.DecodeString("0000" + pan[len(pan)-13:len(pan)-1])
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 8)
	for i := range block {
		block[i] = field[i] ^ account[i]
	}
	var all []needle
	for name, secret := range map[string][]byte{"PIN field": field, "PIN block": block} {
		text := hex.EncodeToString(secret)
		all = append(all, needle{name, secret}, needle{name + ", lower hex", []byte(text)}, needle{name + ", upper hex", []byte(strings.ToUpper(text))})
	}
	if err := searchMemory(d.pid, all); err != nil {
		t.Errorf("C-14 %v", err)
	}
}
