package audit

import (
	"archive/zip"
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
)

// ArchiveReport says what an archive of a closed shard holds.
type ArchiveReport struct {
	LogReport
	Records int64 // bytes of the records
	Packed  int64 // bytes of the archive's files
	SHA256  Hash  // of the archive's manifest, which names the hash of each file
}

// WriteArchive packs a closed shard of the log in dir into the folder to: the
// final checkpoint, the keys beside it, the tiles, and the records in gzip
// bundles (L-172). The packed form is verified under the vkeys, as [Verify]
// does, before its manifest is written: a folder with a manifest is an archive
// that was whole. An attempt that was cut off has none and is begun again.
//
// Errors: [ErrShardOpen] for sec and the current month, [ErrPruned] for a shard
// of which records are missing on purpose, [ErrExists] for a folder that holds
// an archive or something else, [ErrNotFound], [ErrFormat], [ErrCorrupt],
// [ErrSignature].
func WriteArchive(dir, log, to string, vkeys []string) (ArchiveReport, error) {
	if err := os.MkdirAll(to, 0o750); err != nil {
		return ArchiveReport{}, fmt.Errorf("archiving %s: %w", log, err)
	}
	r, err := writeArchive(osFS(dir), osFS(to), log, vkeys)
	if err != nil {
		return r, fmt.Errorf("archiving %s of %s: %w", log, dir, err)
	}
	return r, nil
}

func writeArchive(from, to fileSystem, log string, vkeys []string) (ArchiveReport, error) {
	src, l, cp, err := closedShard(from, log)
	if err != nil {
		return ArchiveReport{}, err
	}
	if err := clearAttempt(to, cp.Size); err != nil {
		return ArchiveReport{}, err
	}
	a := &archiver{from: from, to: to, src: src, dir: l.Dir, size: cp.Size}
	if err := a.write(); err != nil {
		return ArchiveReport{}, err
	}
	m := &archiveManifest{
		Files: a.files, Format: archiveFormat, Log: log, Origin: cp.Origin,
		Root: base64.StdEncoding.EncodeToString(cp.Root[:]), Size: cp.Size, shard: l.shard,
	}
	text := m.encode()
	if err := writeTemp(to, manifestName, text, true); err != nil {
		return ArchiveReport{}, fmt.Errorf("writing %s: %w", manifestName, err)
	}
	report, err := verifyArchive(to, manifestName+".tmp", vkeys)
	if err != nil {
		return ArchiveReport{}, err
	}
	if err := report.packed(); err != nil {
		return ArchiveReport{}, err
	}
	if err := errors.Join(to.Rename(manifestName+".tmp", manifestName), to.SyncDir(".")); err != nil {
		return ArchiveReport{}, fmt.Errorf("writing %s: %w", manifestName, err)
	}
	return ArchiveReport{report.Logs[0], a.records, a.packed + int64(len(text)), sha256.Sum256(text)}, nil
}

// packed returns why an archive with this report is not one that may be kept.
func (r Report) packed() error {
	switch {
	case r.Failed > 0:
		f := r.Findings[0]
		return corrupt(f.Rule, "%s: %s; %d checks of what was packed failed", f.Where, f.Detail, r.Failed)
	case len(r.Undecided) > 0:
		f := r.Undecided[0]
		return corrupt(f.Rule, "%s: %s; what was packed cannot be checked", f.Where, f.Detail)
	case len(r.Logs) != 1:
		return corrupt("L-172", "what was packed holds %d logs", len(r.Logs))
	}
	return nil
}

// closedShard returns the tiles and the final checkpoint of a closed shard.
func closedShard(fsys fileSystem, log string) (*tiles, *manifestLog, Checkpoint, error) {
	m, err := readManifest(fsys)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %s; only a log's folder with its manifest says which shards are closed", ErrNotFound, manifestName)
	}
	if err != nil {
		return nil, nil, Checkpoint{}, err
	}
	shard, err := parseShard(log)
	if err != nil {
		return nil, nil, Checkpoint{}, err
	}
	l := m.find(shard)
	switch {
	case l == nil:
		return nil, nil, Checkpoint{}, fmt.Errorf("%w: log %s", ErrNotFound, log)
	case l.State != stateClosed:
		return nil, nil, Checkpoint{}, fmt.Errorf("%w: %s", ErrShardOpen, log)
	case l.MinIndex > 0:
		return nil, nil, Checkpoint{}, fmt.Errorf("%w: the records of %s before %d", ErrPruned, log, l.MinIndex)
	}
	msg, err := readFile(fsys, l.Dir+"/checkpoint", 1<<16)
	if err != nil {
		return nil, nil, Checkpoint{}, fmt.Errorf("reading the checkpoint of %s: %w", log, missing(err))
	}
	cp, err := unverifiedCheckpoint(msg)
	if err != nil {
		return nil, nil, Checkpoint{}, fmt.Errorf("%s/checkpoint: %w", l.Dir, err)
	}
	return &tiles{fsys: fsys, dir: l.Dir, size: cp.Size}, l, cp, nil
}

// clearAttempt removes what an attempt left that was cut off. Anything else in
// the folder is not touched, and nothing is written beside it.
func clearAttempt(to fileSystem, size uint64) error {
	names, err := to.ReadDir(".")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing the folder of the archive: %w", err)
	}
	for _, name := range names {
		if name != manifestName+".tmp" && !isArchiveName(name, size) {
			return fmt.Errorf("%w: the folder holds %s; name an empty one", ErrExists, name)
		}
	}
	for _, name := range names {
		if err := to.Remove(name); err != nil {
			return fmt.Errorf("removing what a cut-off attempt left: %w", err)
		}
	}
	return nil
}

// archiver writes the files of one archive.
type archiver struct {
	from, to fileSystem
	src      *tiles
	dir      string
	size     uint64
	files    []archiveFile
	records  int64
	packed   int64
	gz       *gzip.Writer
}

// write writes all files but the manifest and makes them durable.
func (a *archiver) write() error {
	for _, name := range archiveSolid {
		var err error
		if name == "tiles.zip" {
			err = a.file(name, a.hashTiles)
		} else {
			err = a.file(name, func(w io.Writer) error { return a.copyFile(w, name) })
		}
		if err != nil {
			return err
		}
	}
	a.gz, _ = gzip.NewWriterLevel(nil, gzip.BestCompression) // the level is one
	for first := uint64(0); first < bundlesOf(a.size); first += zipBundles {
		err := a.file(entriesName(first/zipBundles), func(w io.Writer) error { return a.bundles(w, first) })
		if err != nil {
			return err
		}
	}
	return a.to.SyncDir(".")
}

// file writes one file through its hash and makes its contents durable.
func (a *archiver) file(name string, fill func(io.Writer) error) error {
	f, err := a.to.Open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	out := &measured{w: io.NewOffsetWriter(f, 0), sum: sha256.New()}
	buffer := bufio.NewWriterSize(out, 1<<18)
	err = fill(buffer)
	if err == nil {
		err = buffer.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	a.packed += out.n
	a.files = append(a.files, archiveFile{out.n, name, hex.EncodeToString(out.sum.Sum(nil))})
	return nil
}

// measured counts and hashes what is written.
type measured struct {
	w   io.Writer
	sum hash.Hash
	n   int64
}

func (m *measured) Write(b []byte) (int, error) {
	n, err := m.w.Write(b)
	m.sum.Write(b[:n])
	m.n += int64(n)
	return n, err
}

func (a *archiver) copyFile(w io.Writer, name string) error {
	b, err := readFile(a.from, a.dir+"/"+name, 1<<16)
	if err != nil {
		return missing(err)
	}
	_, err = w.Write(b)
	return err
}

// hashTiles writes the tiles of the final tree.
func (a *archiver) hashTiles(w io.Writer) error {
	z := zip.NewWriter(w)
	for level := 0; tilesAt(a.size, level) > 0; level++ {
		for n := range (tilesAt(a.size, level) + tileWidth - 1) / tileWidth {
			hs, err := a.src.hashes(level, n)
			if err != nil {
				return missing(err)
			}
			if err := addStored(z, tilePath(level, n, len(hs)), joinHashes(hs)); err != nil {
				return err
			}
		}
	}
	return z.Close()
}

// bundles writes the gzip bundles from one on that belong into its zip file.
func (a *archiver) bundles(w io.Writer, first uint64) error {
	z := zip.NewWriter(w)
	var raw, packed []byte
	for n := first; n < min(first+zipBundles, bundlesOf(a.size)); n++ {
		entries, err := a.src.entries(n)
		if err != nil {
			return missing(err)
		}
		raw = raw[:0]
		for _, e := range entries {
			raw = appendEntry(raw, e)
			a.records += int64(len(e))
		}
		out := sliceWriter{packed[:0]}
		a.gz.Reset(&out)
		if _, err := a.gz.Write(raw); err != nil {
			return err
		}
		if err := a.gz.Close(); err != nil {
			return err
		}
		packed = out.b
		if err := addStored(z, tilePath(bundleLevel, n, len(entries))+".gz", packed); err != nil {
			return err
		}
	}
	return z.Close()
}

// sliceWriter appends what is written.
type sliceWriter struct{ b []byte }

func (s *sliceWriter) Write(b []byte) (int, error) {
	s.b = append(s.b, b...)
	return len(b), nil
}

// addStored adds a file to a zip file as it is.
func addStored(z *zip.Writer, name string, data []byte) error {
	w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

// Closed returns the final checkpoint of a closed shard, unverified. Errors:
// [ErrShardOpen], [ErrPruned], [ErrNotFound], [ErrFormat], [ErrCorrupt].
func (r *Reader) Closed(log string) (Checkpoint, error) {
	_, _, cp, err := closedShard(r.fsys, log)
	return cp, err
}
