package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// archiveFormat is the version of the form in which a closed shard is packed.
const archiveFormat = 1

// archiveManifest says what an archive holds. It is stored in canonical form,
// and written last: an archive that has one was verified.
type archiveManifest struct {
	Files  []archiveFile `json:"files"`
	Format int           `json:"format"`
	Log    string        `json:"log"`
	Origin string        `json:"origin"`
	Root   string        `json:"root"`
	Size   uint64        `json:"size"`

	shard Shard
}

// archiveFile is one file of an archive.
type archiveFile struct {
	Bytes  int64  `json:"bytes"`
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// encode returns the canonical form (RFC 8785).
func (m *archiveManifest) encode() []byte {
	b := []byte(`{"files":[`)
	for i, f := range m.Files {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(b, `{"bytes":`...), f.Bytes, 10)
		b = appendString(append(b, `,"name":`...), f.Name)
		b = appendString(append(b, `,"sha256":`...), f.SHA256)
		b = append(b, '}')
	}
	b = strconv.AppendInt(append(b, `],"format":`...), int64(m.Format), 10)
	b = appendString(append(b, `,"log":`...), m.Log)
	b = appendString(append(b, `,"origin":`...), m.Origin)
	b = appendString(append(b, `,"root":`...), m.Root)
	b = strconv.AppendUint(append(b, `,"size":`...), m.Size, 10)
	return append(b, '}')
}

// parseArchiveManifest reads the manifest of an archive: canonical form, and
// exactly the files that an archive of its size has. The error is [ErrCorrupt].
func parseArchiveManifest(b []byte) (*archiveManifest, error) {
	m := &archiveManifest{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return nil, corrupt("L-172", "%s: %w", manifestName, err)
	}
	if !bytes.Equal(m.encode(), b) {
		return nil, corrupt("L-172", "%s is not in canonical form", manifestName)
	}
	var err error
	if m.shard, err = parseShard(m.Log); err != nil || m.shard == 0 || m.Format != archiveFormat || m.Size == 0 || m.Size > maxSize || !isOrigin(m.Origin) {
		return nil, corrupt("L-172", "%s is not that of a month of ops in format %d", manifestName, archiveFormat)
	}
	if root, err := base64.StdEncoding.Strict().DecodeString(m.Root); err != nil || len(root) != hashSize {
		return nil, corrupt("L-172", "%s names no root", manifestName)
	}
	// What the size says of itself is believed only as far as there are files.
	if n := archiveFiles(m.Size); uint64(len(m.Files)) != n {
		return nil, corrupt("L-172", "%s lists %d files; an archive of %d records has %d", manifestName, len(m.Files), m.Size, n)
	}
	want := archiveNames(m.Size)
	for i, f := range m.Files {
		sum, err := hex.DecodeString(f.SHA256)
		if f.Name != want[i] || err != nil || len(sum) != hashSize || f.Bytes < 1 {
			return nil, corrupt("L-172", "%s: file %d is not %s with its size and SHA-256", manifestName, i, want[i])
		}
	}
	return m, nil
}

// zipBundles is how many bundles a zip file of an archive holds.
const zipBundles = 1 << 16

// maxSize bounds what a checkpoint may say of a log's size.
const maxSize = 1<<53 - 1

// archiveSolid are the files of an archive that hold no records, in order.
var archiveSolid = []string{"checkpoint", "pub.pem", "tiles.zip", "vkey"}

// archiveFiles returns how many files an archive has but for its manifest.
func archiveFiles(size uint64) uint64 { return uint64(len(archiveSolid)) + zipsOf(size) }

// archiveNames returns them, in order.
func archiveNames(size uint64) []string {
	names := slices.Clone(archiveSolid)
	for n := range zipsOf(size) {
		names = append(names, entriesName(n))
	}
	return names
}

// isArchiveName reports whether a file is one of them.
func isArchiveName(name string, size uint64) bool {
	number, _ := strings.CutPrefix(name, "entries-")
	number, _ = strings.CutSuffix(number, ".zip")
	n, err := strconv.ParseUint(number, 10, 64)
	return slices.Contains(archiveSolid, name) || err == nil && n < zipsOf(size) && name == entriesName(n)
}

// zipsOf returns how many zip files the bundles of a log of the given size fill.
func zipsOf(size uint64) uint64 { return (bundlesOf(size) + zipBundles - 1) / zipBundles }

func entriesName(n uint64) string { return fmt.Sprintf("entries-%03d.zip", n) }

// bundlesOf returns how many bundles a log of the given size has.
func bundlesOf(size uint64) uint64 { return (size + tileWidth - 1) / tileWidth }
