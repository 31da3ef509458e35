package audit

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The log is checked by what keyd's authors did not write: Tessera's fsck by its
// wrapper (L-144), openssl (L-143), and the example in Python for auditors, which
// is written from the published format alone (L-142).

// buildFsck builds fsck once for a test; it is cached afterwards.
func buildFsck(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "fsck")
	cmd := exec.Command("go", "build", "-o", bin, "github.com/transparency-dev/tessera/cmd/fsck")
	cmd.Dir = filepath.Join("..", "internal", "oracle")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building fsck, which needs the module proxy or its modules in the cache: %v\n%s", err, out)
	}
	return bin
}

// oracleDir is one log's folder on disk, with the auditor's keys beside it.
type oracleDir struct {
	folder, vkey, pem, origin, fsck string
	size, root                      string // of the checkpoint that the auditor verified
}

// writeOracle puts a log of a simulated file system on disk.
func writeOracle(t *testing.T, s *simFS, dir, fsck string, s2 crypto.Signer, at Checkpoint) oracleDir {
	t.Helper()
	base := t.TempDir()
	o := oracleDir{folder: filepath.Join(base, "log"), vkey: filepath.Join(base, "vkey"), pem: filepath.Join(base, "pem"),
		origin: at.Origin, fsck: fsck, size: strconv.FormatUint(at.Size, 10), root: base64.StdEncoding.EncodeToString(at.Root[:])}
	for _, name := range s.files() {
		if rest, ok := strings.CutPrefix(name, dir+"/"); ok {
			path := filepath.Join(o.folder, filepath.FromSlash(rest))
			if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, s.names[name].data, 0o640); err != nil {
				t.Fatal(err)
			}
		}
	}
	v, err := newVerifier(at.Origin, s2.Public())
	if err != nil {
		t.Fatal(err)
	}
	pem, err := v.pem()
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{o.vkey: v.String() + "\n", o.pem: string(pem)} {
		if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// byFsck reports whether the wrapper proves the log.
func (o oracleDir) byFsck(t *testing.T) bool {
	t.Helper()
	cmd := exec.Command("sh", "../scripts/fsck.sh", o.folder, o.vkey, o.size, o.root)
	cmd.Env = append(os.Environ(), "FSCK="+o.fsck, "FSCK_TIMEOUT=20s")
	return proves(t, cmd)
}

// byPython reports whether the example proves the log, with what the auditor kept.
func (o oracleDir) byPython(t *testing.T) bool {
	t.Helper()
	return proves(t, exec.Command("python3", "../docs/verify_log.py", o.folder, o.origin, o.pem, o.size, o.root))
}

// byOpenSSL reports whether the commands of L-143 prove the checkpoint.
func (o oracleDir) byOpenSSL(t *testing.T, kind byte) bool {
	t.Helper()
	verify := `openssl pkeyutl -verify -pubin -inkey "$2" -rawin -in body -sigfile sig`
	if kind == sigECDSA {
		verify = `openssl dgst -sha256 -verify "$2" -signature sig body`
	}
	script := `set -e
sed '/^$/,$d' "$1" > body
grep '^— ' "$1" | sed -n 1p | cut -d' ' -f3 | base64 -d | tail -c +5 > sig
` + verify
	cmd := exec.Command("sh", "-c", script, "sh", filepath.Join(o.folder, "checkpoint"), o.pem)
	cmd.Dir = t.TempDir()
	return proves(t, cmd)
}

// proves runs a verifier: its success must be said by its exit status.
func proves(t *testing.T, cmd *exec.Cmd) bool {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !asExit(err, &exit) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	if err != nil {
		t.Logf("%s: %s", filepath.Base(cmd.Args[0]), bytes.TrimSpace(out[:min(len(out), 300)]))
	}
	return err == nil
}

func asExit(err error, exit **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError)
	*exit = e
	return ok
}

// signedBy replaces a log's checkpoint by one of another signer.
func signedBy(t *testing.T, s *simFS, dir string, signer crypto.Signer) {
	t.Helper()
	c, err := unverifiedCheckpoint(s.names[dir+"/checkpoint"].data)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := signCheckpoint(c, signer)
	if err != nil {
		t.Fatal(err)
	}
	s.names[dir+"/checkpoint"].data = msg
}

// TestThirdParty is L-143, L-144, L-146 and L-194: each tool proves a good log
// of either kind of key, and finds what is tampered with, except where it cannot;
// then another finds it.
func TestThirdParty(t *testing.T) {
	older, log := closedLog(t, 170)
	fsck := buildFsck(t)
	nist, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const nov, dec = "ops/2026-11", "ops/2026-12"
	at, err := unverifiedCheckpoint(log.names[nov+"/checkpoint"].data)
	if err != nil {
		t.Fatal(err)
	}
	bundle := func(change func([]byte) []byte) func(*simFS) {
		return func(s *simFS) {
			f := s.names[nov+"/tile/entries/000"]
			f.data = change(append([]byte(nil), f.data...))
		}
	}
	file := func(name string, change func([]byte) []byte) func(*simFS) {
		return func(s *simFS) { s.names[name].data = change(append([]byte(nil), s.names[name].data...)) }
	}
	const all = "fsck python verify"
	tests := []struct {
		name   string
		change func(*simFS)
		found  string // by which tools
	}{
		{"good", func(*simFS) {}, ""},
		{"byte in a record", bundle(flipAt(300)), all},
		{"record dropped", bundle(dropEntry), all},
		{"records swapped", bundle(swapEntries), all},
		{"record inserted", bundle(insertEntry), all},
		{"L-145 e: surplus record at the end of a bundle", bundle(func(b []byte) []byte { return appendEntry(b, []byte("{}")) }), "python verify"},
		{"bundle cut short", bundle(func(b []byte) []byte { return b[:len(b)-10] }), all},
		{"tile of level 0 changed", file(nov+"/tile/0/000", flipAt(40)), all},
		{"tile of level 1 changed", file(nov+"/tile/1/000.p/1", flipAt(3)), all},
		{"partial bundle changed", file(partialOf(t, log, nov+"/tile/entries/001.p/"), flipAt(30)), all},
		{"checkpoint of another log", func(s *simFS) { s.names[nov+"/checkpoint"] = s.names[dec+"/checkpoint"] }, all},
		{"root in the checkpoint", file(nov+"/checkpoint", flipAt(bytes.IndexByte(log.names[nov+"/checkpoint"].data, '\n')+8)), all + " openssl"},
		{"truncated", func(s *simFS) { delete(s.names, partialOf(t, log, nov+"/tile/entries/001.p/")) }, all},
		{"L-62 old copy put back", func(s *simFS) { restore(older, nov+"/")(t, s) }, all},
	}
	for _, tt := range tests {
		for _, key := range []struct {
			name   string
			signer crypto.Signer
			kind   byte
		}{{"Ed25519", testSigner(), sigEd25519}, {"ECDSA", nist, sigECDSA}} {
			if key.kind == sigECDSA && tt.found != "" && !strings.Contains(tt.found, "openssl") {
				continue // the kind of key changes nothing here
			}
			t.Run("L-194 "+tt.name+" "+key.name, func(t *testing.T) {
				t.Parallel()
				s := log.snapshot()
				if key.kind == sigECDSA {
					signedBy(t, s, nov, key.signer)
				}
				tt.change(s)
				o := writeOracle(t, s, nov, fsck, key.signer, at)
				want := func(tool string, proved bool) {
					t.Helper()
					if proved == strings.Contains(tt.found, tool) {
						t.Errorf("%s: proved = %v", tool, proved)
					}
				}
				want("fsck", o.byFsck(t))
				want("python", o.byPython(t))
				want("openssl", o.byOpenSSL(t, key.kind))
				if key.kind == sigEd25519 {
					report, err := verify(s, "sim", []string{testVkey(t)}, VerifyOptions{Logs: []string{at.Origin[lastSlash(at.Origin)+1:]}, Since: []Earlier{{Log: "ops-2026-11", Size: at.Size, Root: at.Root}}})
					want("verify", err == nil && report.OK())
				}
			})
		}
	}
	t.Run("L-145 old copy whose own size fsck is told", func(t *testing.T) {
		// It knows no earlier checkpoint: only the size and root that the auditor
		// kept tell, which the wrapper and the others compare.
		s := log.snapshot()
		restore(older, nov+"/")(t, s)
		old, err := unverifiedCheckpoint(s.names[nov+"/checkpoint"].data)
		if err != nil {
			t.Fatal(err)
		}
		if !writeOracle(t, s, nov, fsck, testSigner(), old).byFsck(t) {
			t.Error("fsck does not prove the older log, which is good in itself")
		}
	})
}

// insertEntry puts a copy of a record in; the last one falls out of the bundle.
func insertEntry(b []byte) []byte {
	entries, err := splitBundle(b, tileWidth)
	if err != nil {
		panic(err)
	}
	var out []byte
	for i, e := range entries[:tileWidth-1] {
		out = appendEntry(out, e)
		if i == deletedEntry {
			out = appendEntry(out, e)
		}
	}
	return out
}

// plainLog makes a log of the records of the published vectors.
func plainLog(t *testing.T, size int) (*simFS, Checkpoint) {
	t.Helper()
	s := newSimFS()
	tr := newTree(s, 0, "audit.example/n1/sec")
	for i := range size {
		tr.add(fmt.Appendf(nil, `{"seq":%d,"v":1}`, i))
	}
	tr.partials()
	if err := tr.flush(); err != nil {
		t.Fatal(err)
	}
	msg, err := signCheckpoint(tr.checkpoint(), testSigner())
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFile(s, "sec/checkpoint", msg); err != nil {
		t.Fatal(err)
	}
	return s, tr.checkpoint()
}

// TestThirdPartySizes is L-192: own tree, fsck and the example agree.
func TestThirdPartySizes(t *testing.T) {
	fsck := buildFsck(t)
	for _, size := range []int{1, 2, 3, 255, 256, 257, 65_535, 65_536, 65_537} {
		if size > 1000 && underRace {
			continue
		}
		t.Run(fmt.Sprintf("L-192 %d", size), func(t *testing.T) {
			t.Parallel()
			s, at := plainLog(t, size)
			o := writeOracle(t, s, "sec", fsck, testSigner(), at)
			if !o.byFsck(t) || !o.byPython(t) {
				t.Error("not proved")
			}
		})
	}
}

// TestFsckHangs is L-145 b: with as many bad tiles as it has workers fsck does
// not end by itself; the wrapper makes a failure of it.
func TestFsckHangs(t *testing.T) {
	const tiles = 140 // 64 workers, and a queue of 64
	s, at := plainLog(t, tiles*tileWidth)
	o := writeOracle(t, s, "sec", buildFsck(t), testSigner(), at)
	for n := range uint64(tiles) {
		path := filepath.Join(o.folder, filepath.FromSlash(tilePath(0, n, 0)))
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[7] ^= 1
		if err := os.WriteFile(path, data, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh", "../scripts/fsck.sh", o.folder, o.vkey, o.size, o.root)
	cmd.Env = append(os.Environ(), "FSCK="+o.fsck, "FSCK_TIMEOUT=3s")
	if proves(t, cmd) {
		t.Error("140 changed tiles were not found")
	}
}

// TestExampleIsShort: the example for auditors has at most 60 lines and imports
// nothing but the standard library.
func TestExampleIsShort(t *testing.T) {
	text, err := os.ReadFile("../docs/verify_log.py")
	if err != nil {
		t.Fatal(err)
	}
	if lines := bytes.Count(text, []byte("\n")); lines > 60 {
		t.Errorf("%d lines, 60 are promised", lines)
	}
	if !bytes.Contains(text, []byte("\nimport base64, hashlib, json, pathlib, subprocess, sys, tempfile\n")) || bytes.Count(text, []byte("import ")) != 1 {
		t.Error("imports something else than it did")
	}
}
