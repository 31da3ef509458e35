package audit

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"
	"strings"
)

// VerifyArchive checks an archive that [WriteArchive] made, as it is packed:
// the hash of each file, and all that [Verify] checks of a log. Nothing is
// unpacked to disk. since are earlier sizes and roots that the log must begin
// with. What it found wrong is in the report; the error is for a folder that is
// no archive, or a vkey that is none: [ErrNotFound], [ErrFormat], [ErrCorrupt].
func VerifyArchive(dir string, vkeys []string, since ...Earlier) (Report, error) {
	r, err := verifyArchive(osFS(dir), manifestName, vkeys, since...)
	if err != nil {
		return r, fmt.Errorf("verifying the archive %s: %w", dir, err)
	}
	return r, nil
}

func verifyArchive(fsys fileSystem, manifest string, vkeys []string, since ...Earlier) (Report, error) {
	text, err := readFile(fsys, manifest, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return Report{}, fmt.Errorf("%w: %s, which is written when an archive is whole", ErrNotFound, manifestName)
	}
	if err != nil {
		return Report{}, fmt.Errorf("reading %s: %w", manifestName, err)
	}
	m, err := parseArchiveManifest(text)
	if err != nil {
		return Report{}, err
	}
	var report Report
	fail := func(where, format string, args ...any) {
		report.Failed++
		report.Findings = append(report.Findings, Finding{"L-172", where, fmt.Sprintf(format, args...)})
	}
	for _, f := range m.Files {
		if err := f.check(fsys); err != nil {
			fail(f.Name, "%v", err)
		}
	}
	names, err := fsys.ReadDir(".")
	if err != nil {
		return Report{}, fmt.Errorf("listing the archive: %w", err)
	}
	for _, name := range names {
		if name != manifest && !m.lists(name) {
			fail(name, "is not listed in %s", manifestName)
		}
	}
	if report.Failed > 0 {
		return report, nil
	}
	packed, err := openArchive(fsys, m)
	if err != nil {
		fail("zip", "%v", err)
		return report, nil
	}
	defer packed.close()
	if report, err = verify(packed, m.Log, vkeys, VerifyOptions{Logs: []string{m.Log}, Since: since}); err != nil {
		return report, err
	}
	for _, l := range report.Logs {
		if l.Origin != m.Origin || l.Size != m.Size || base64.StdEncoding.EncodeToString(l.Root[:]) != m.Root {
			fail(manifestName, "names another origin, size or root than the checkpoint")
		}
	}
	return report, nil
}

// lists reports whether the manifest lists a file.
func (m *archiveManifest) lists(name string) bool {
	for _, f := range m.Files {
		if f.Name == name {
			return true
		}
	}
	return false
}

// check compares a file with what the manifest says of it.
func (f *archiveFile) check(fsys fileSystem) error {
	file, err := fsys.Open(f.Name, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(file, 0, size)); err != nil {
		return err
	}
	if size != f.Bytes || hex.EncodeToString(sum.Sum(nil)) != f.SHA256 {
		return fmt.Errorf("%w: size or SHA-256 is not that of %s", ErrCorrupt, manifestName)
	}
	return nil
}

// archiveFS shows an archive as the log's folder that it was packed from. It is
// read only.
type archiveFS struct {
	under fileSystem
	dir   string // of the log
	open  []file
	tiles map[string]*zip.File
	dirs  map[string][]string // names in each folder
}

// openArchive reads the lists of the zip files.
func openArchive(fsys fileSystem, m *archiveManifest) (*archiveFS, error) {
	a := &archiveFS{under: fsys, dir: m.shard.dir(), tiles: map[string]*zip.File{}, dirs: map[string][]string{}}
	for _, f := range m.Files {
		if !strings.HasSuffix(f.Name, ".zip") {
			a.list(a.dir + "/" + f.Name)
			continue
		}
		if err := a.index(f.Name); err != nil {
			a.close()
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	for dir := range a.dirs {
		sort.Strings(a.dirs[dir])
	}
	return a, nil
}

// index lists what a zip file holds.
func (a *archiveFS) index(name string) error {
	f, err := a.under.Open(name, os.O_RDONLY)
	if err != nil {
		return err
	}
	a.open = append(a.open, f)
	size, err := f.Size()
	if err != nil {
		return err
	}
	z, err := zip.NewReader(f, size)
	if err != nil {
		return err
	}
	for _, e := range z.File {
		path, bundle := strings.CutSuffix(e.Name, ".gz")
		level, _, _, err := parseTilePath(path)
		if err != nil || bundle != (level == bundleLevel) || bundle != strings.HasPrefix(name, "entries-") || e.Method != zip.Store {
			return fmt.Errorf("%w: holds %q", ErrFormat, e.Name)
		}
		path = a.dir + "/" + path
		if a.tiles[path] != nil {
			return fmt.Errorf("%w: holds %q twice", ErrFormat, e.Name)
		}
		a.tiles[path] = e
		a.list(path)
	}
	return nil
}

// list enters a file in its folder, and new folders in theirs.
func (a *archiveFS) list(path string) { a.enter(path, "") }

func (a *archiveFS) enter(path, slash string) {
	dir := parent(path)
	_, known := a.dirs[dir]
	a.dirs[dir] = append(a.dirs[dir], strings.TrimPrefix(path, dir+"/")+slash)
	if !known && dir != "." {
		a.enter(dir, "/")
	}
}

func (a *archiveFS) close() {
	for _, f := range a.open {
		_ = f.Close() // read only
	}
}

// Open returns a file's bytes, unpacked in memory.
func (a *archiveFS) Open(name string, flag int) (file, error) {
	if flag != os.O_RDONLY {
		return nil, fs.ErrPermission
	}
	if e := a.tiles[name]; e != nil {
		b, err := unpack(e)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return memory{bytes.NewReader(b)}, nil
	}
	rest, ok := cutPrefix(name, a.dir+"/")
	if !ok || strings.Contains(rest, "/") {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return a.under.Open(rest, flag)
}

// unpack reads a tile or a bundle, which is never larger than one that the log
// writes.
func unpack(e *zip.File) ([]byte, error) {
	stored, err := e.Open()
	if err != nil {
		return nil, err
	}
	defer stored.Close()
	from := io.Reader(stored)
	if strings.HasSuffix(e.Name, ".gz") {
		unzipped, err := gzip.NewReader(stored)
		if err != nil {
			return nil, err
		}
		from = unzipped
	}
	b, err := io.ReadAll(io.LimitReader(from, maxTileFile+1))
	if err == nil && len(b) > maxTileFile {
		err = fmt.Errorf("%w: more than %d bytes", ErrFormat, maxTileFile)
	}
	return b, err
}

func (a *archiveFS) ReadDir(name string) ([]string, error) {
	names, ok := a.dirs[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return names, nil
}

func (a *archiveFS) Mkdir(string) error          { return fs.ErrPermission }
func (a *archiveFS) Rename(_, _ string) error    { return fs.ErrPermission }
func (a *archiveFS) Remove(string) error         { return fs.ErrPermission }
func (a *archiveFS) SyncDir(string) error        { return fs.ErrPermission }
func (a *archiveFS) SyncFS([]string) error       { return fs.ErrPermission }
func (a *archiveFS) Free() (_, _ int64, _ error) { return 0, 0, fs.ErrPermission }

func (a *archiveFS) Lock(string) (io.Closer, error) { return nil, fs.ErrPermission }

// memory is a file that was unpacked.
type memory struct{ *bytes.Reader }

func (m memory) Size() (int64, error)                   { return m.Reader.Size(), nil }
func (m memory) WriteAt(_ []byte, _ int64) (int, error) { return 0, fs.ErrPermission }
func (m memory) Close() error                           { return nil }
func (m memory) Sync() error                            { return fs.ErrPermission }
func (m memory) Datasync() error                        { return fs.ErrPermission }
