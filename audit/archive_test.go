package audit

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

const november = "ops-2026-11"

// archived packs November of a closed log.
func archived(t *testing.T) (log, packed *simFS, r ArchiveReport) {
	t.Helper()
	_, log = closedLog(t, 300)
	packed = newSimFS()
	r, err := writeArchive(log, packed, november, []string{testVkey(t)})
	if err != nil {
		t.Fatal(err)
	}
	return log, packed, r
}

// archiveBad reports whether verification finds something.
func archiveBad(t *testing.T, fsys *simFS) bool {
	t.Helper()
	report, err := verifyArchive(fsys, manifestName, []string{testVkey(t)})
	return err != nil || !report.OK()
}

// TestArchive is L-172: what is packed verifies as it is packed, and says what
// the log said.
func TestArchive(t *testing.T) {
	log, packed, r := archived(t)
	report, err := verifyArchive(packed, manifestName, []string{testVkey(t)})
	if err != nil || !report.OK() || len(report.Logs) != 1 {
		t.Fatal(err, report.Findings)
	}
	whole, err := verify(log, "sim", []string{testVkey(t)}, VerifyOptions{})
	if err != nil || !whole.OK() {
		t.Fatal(err, whole.Findings)
	}
	if whole.Logs[1] != report.Logs[0] || r.LogReport != report.Logs[0] {
		t.Errorf("archive of %+v, log has %+v", report.Logs[0], whole.Logs[1])
	}
	bytes := int64(0)
	for e, err := range (&Reader{log}).Records(november, 0) {
		if err != nil {
			t.Fatal(err)
		}
		bytes += int64(len(e.Raw))
	}
	if bytes != r.Records {
		t.Errorf("%d bytes of records packed, the log has %d", r.Records, bytes)
	}
	for _, name := range log.files() {
		if strings.Contains(name, "zip") {
			t.Errorf("%s was written into the log", name)
		}
	}
}

// TestArchiveRefused is L-172: only a closed shard is packed, into a folder of
// its own, and only when it is whole.
func TestArchiveRefused(t *testing.T) {
	log, packed, _ := archived(t)
	foreign := newSimFS()
	if err := writeDurable(foreign, "notes", []byte("mine")); err != nil {
		t.Fatal(err)
	}
	damaged := log.snapshot()
	if err := damaged.flip("ops/2026-11/tile/entries/000", 5000); err != nil {
		t.Fatal(err)
	}
	pruned := log.snapshot()
	m, err := readManifest(pruned)
	if err != nil {
		t.Fatal(err)
	}
	m.find(202611).MinIndex = 256
	if err := m.write(pruned); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name     string
		from, to *simFS
		log      string
		keys     []string
		want     error
	}{
		{"sec is never closed", log, newSimFS(), "sec", []string{testVkey(t)}, ErrShardOpen},
		{"the current month", log, newSimFS(), "ops-2026-12", []string{testVkey(t)}, ErrShardOpen},
		{"a month that is not there", log, newSimFS(), "ops-2026-10", []string{testVkey(t)}, ErrNotFound},
		{"no log", log, newSimFS(), "opus", []string{testVkey(t)}, ErrFormat},
		{"an archive is there", log, packed, november, []string{testVkey(t)}, ErrExists},
		{"something else is there", log, foreign, november, []string{testVkey(t)}, ErrExists},
		{"no key", log, newSimFS(), november, nil, ErrCorrupt},
		{"damaged", damaged, newSimFS(), november, []string{testVkey(t)}, ErrCorrupt},
		{"pruned", pruned, newSimFS(), november, []string{testVkey(t)}, ErrPruned},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := writeArchive(tt.from, tt.to, tt.log, tt.keys); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if _, err := readFile(tt.to, manifestName, maxManifest); tt.to != packed && err == nil {
				t.Error("an archive was left")
			}
		})
	}
}

// TestArchiveTampered is L-172: a changed byte of any file is found, and a file
// more or less.
func TestArchiveTampered(t *testing.T) {
	_, packed, _ := archived(t)
	for _, name := range packed.files() {
		size := len(packed.names[name].data)
		step := max(1, size/effort(t, 40, 2000))
		for at := 0; at < size; at += step {
			bad := packed.snapshot()
			if err := bad.flip(name, at); err != nil {
				t.Fatal(err)
			}
			if !archiveBad(t, bad) {
				t.Errorf("byte %d of %s", at, name)
			}
		}
		bad := packed.snapshot()
		if err := bad.Remove(name); err != nil {
			t.Fatal(err)
		}
		if !archiveBad(t, bad) {
			t.Errorf("%s is missing", name)
		}
	}
	bad := packed.snapshot()
	if err := writeFile(bad, "entries-001.zip", []byte("more")); err != nil {
		t.Fatal(err)
	}
	if !archiveBad(t, bad) {
		t.Error("a file that is not listed")
	}
	other, err := Vkey("audit.example/n2/sec", testSigner().Public())
	if err != nil {
		t.Fatal(err)
	}
	if report, err := verifyArchive(packed, manifestName, []string{other}); err != nil || report.OK() {
		t.Errorf("verified under the key of another node: %v", err)
	}
}

// TestArchiveForged is L-172: hashes in the manifest that fit a forged file do
// not make it the log's.
func TestArchiveForged(t *testing.T) {
	log, packed, _ := archived(t)
	forged := log.snapshot()
	if err := forged.flip("ops/2026-11/tile/entries/000", 5000); err != nil {
		t.Fatal(err)
	}
	src, l, cp, err := closedShard(forged, november)
	if err != nil {
		t.Fatal(err)
	}
	text, err := readFile(packed, manifestName, maxManifest)
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseArchiveManifest(text)
	if err != nil {
		t.Fatal(err)
	}
	a := &archiver{from: forged, to: packed, src: src, dir: l.Dir, size: cp.Size}
	if err := a.write(); err != nil {
		t.Fatal(err)
	}
	m.Files = a.files
	if err := writeDurable(packed, manifestName, m.encode()); err != nil {
		t.Fatal(err)
	}
	report, err := verifyArchive(packed, manifestName, []string{testVkey(t)})
	if err != nil || report.OK() || report.Findings[0].Rule == "L-172" {
		t.Errorf("%v, %v", err, report.Findings)
	}
}

// TestArchiveCrash is L-172 under L-190: the power goes at each call. What has a
// manifest then verifies, and the next attempt makes the archive.
func TestArchiveCrash(t *testing.T) {
	log, packed, want := archived(t)
	for limit := 1; limit <= packed.ops; limit++ {
		t.Run(fmt.Sprintf("L-190 call %d", limit), func(t *testing.T) {
			to := newSimFS()
			to.limit = limit
			_, err := writeArchive(log, to, november, []string{testVkey(t)})
			if to.cut == nil {
				t.Fatalf("the power did not go: %v", err)
			}
			r := prng(limit)
			for range effort(t, 6, 60) {
				state := to.cut.crash(&r)
				if _, err := readFile(state, manifestName, maxManifest); err == nil {
					if archiveBad(t, state) {
						t.Error("an archive that is not whole has a manifest")
					}
					continue
				}
				got, err := writeArchive(log, state, november, []string{testVkey(t)})
				if err != nil || got != want {
					t.Errorf("the next attempt: %v, %+v", err, got)
				}
			}
		})
	}
}

// TestArchiveLies is L-172: a size in a manifest or in a checkpoint that no log
// reaches costs neither memory nor time.
func TestArchiveLies(t *testing.T) {
	log, packed, _ := archived(t)
	text, err := readFile(packed, manifestName, maxManifest)
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseArchiveManifest(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []uint64{maxSize, maxSize + 1, 1<<64 - 1} {
		m.Size = size
		if err := writeDurable(packed, manifestName, m.encode()); err != nil {
			t.Fatal(err)
		}
		if _, err := verifyArchive(packed, manifestName, []string{testVkey(t)}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("a manifest that names %d records: %v", size, err)
		}
	}
	bad := log.snapshot()
	lie, err := signCheckpoint(Checkpoint{Origin: "audit.example/n1/" + november, Size: maxSize}, testSigner())
	if err != nil {
		t.Fatal(err)
	}
	if err := writeDurable(bad, "ops/2026-11/checkpoint", lie); err != nil {
		t.Fatal(err)
	}
	if _, err := writeArchive(bad, newSimFS(), november, []string{testVkey(t)}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a checkpoint of %d records: %v", uint64(maxSize), err)
	}
}

// unreadableFS cannot read one file behind its first bytes once it was written.
type unreadableFS struct {
	*simFS
	name string
}

type unreadableFile struct{ file }

func (f unreadableFS) Open(name string, flag int) (file, error) {
	h, err := f.simFS.Open(name, flag)
	if err == nil && name == f.name && flag == os.O_RDONLY {
		return unreadableFile{h}, nil
	}
	return h, err
}

func (f unreadableFile) ReadAt(b []byte, off int64) (int, error) { return 0, syscall.EIO }

// TestArchiveUnreadable is L-172 and L-195: what cannot be read back was not
// verified, and is no archive.
func TestArchiveUnreadable(t *testing.T) {
	log, _, _ := archived(t)
	for _, name := range []string{"checkpoint", "tiles.zip", "entries-000.zip"} {
		to := newSimFS()
		if _, err := writeArchive(log, unreadableFS{to, name}, november, []string{testVkey(t)}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := readFile(to, manifestName, maxManifest); err == nil {
			t.Errorf("%s cannot be read, and there is a manifest", name)
		}
	}
	undecided := Report{Logs: []LogReport{{}}, Undecided: []Finding{{"L-141", "x", "input/output error"}}}
	for name, r := range map[string]Report{"undecided": undecided, "no log": {}} {
		if err := r.packed(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseArchiveManifest(f *testing.F) {
	m := &archiveManifest{Format: archiveFormat, Log: november, Origin: "audit.example/n1/" + november, Root: strings.Repeat("A", 43) + "=", Size: 1}
	for _, name := range archiveNames(1) {
		m.Files = append(m.Files, archiveFile{1, name, strings.Repeat("0", 64)})
	}
	f.Add(m.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseArchiveManifest(b)
		if err == nil && string(m.encode()) != string(b) {
			t.Errorf("%q has two forms", b)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
	})
}
