package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"hash"
	"io"
	"os"
	"path/filepath"

	"keyd.dev/keyd/audit"
)

// exportFolder is the folder of one log in an export. It remembers the hash of
// what is written there.
type exportFolder struct {
	dir   string
	files map[string]string // name to SHA-256
	made  map[string]bool   // folders
}

func newExportFolder(dir string) *exportFolder {
	return &exportFolder{dir: dir, files: make(map[string]string), made: make(map[string]bool)}
}

// exportSummary is export.json (L-161).
type exportSummary struct {
	Format  string            `json:"format"`
	Filter  string            `json:"filter,omitempty"` // as it was asked for; a copy in tiles is whole
	Log     string            `json:"log"`
	Origin  string            `json:"origin"`
	First   uint64            `json:"first"`
	Last    uint64            `json:"last"`
	Records int64             `json:"records"` // fewer than from first to last where times were asked for
	Size    uint64            `json:"size"`    // of the checkpoint
	Root    string            `json:"root"`
	Files   map[string]string `json:"files"` // SHA-256, hexadecimal
}

// put writes a file as a whole.
func (f *exportFolder) put(name string, data []byte) error {
	return f.stream(name, func(w *bufio.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// stream writes a file by what fill writes.
func (f *exportFolder) stream(name string, fill func(*bufio.Writer) error) error {
	path := filepath.Join(f.dir, filepath.FromSlash(name))
	if parent := filepath.Dir(path); !f.made[parent] {
		if err := os.MkdirAll(parent, 0o750); err != nil {
			return err
		}
		f.made[parent] = true
	}
	sum := sha256.New()
	err := writeNew(path, func(w io.Writer) error { return fillThrough(w, sum, fill) })
	f.files[name] = hex.EncodeToString(sum.Sum(nil))
	return err
}

func fillThrough(w io.Writer, sum hash.Hash, fill func(*bufio.Writer) error) error {
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<16)
	if err := fill(out); err != nil {
		return err
	}
	return out.Flush()
}

// finish writes export.json.
func (f *exportFolder) finish(s exportSummary, snap *audit.Snapshot) error {
	cp := snap.Checkpoint()
	s.Log, s.Origin, s.Size, s.Root = snap.Log(), cp.Origin, cp.Size, base64.StdEncoding.EncodeToString(cp.Root[:])
	s.Files = f.files
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return f.put("export.json", append(text, '\n'))
}
