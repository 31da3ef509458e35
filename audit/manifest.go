package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

const (
	manifestName   = "manifest.json"
	manifestFormat = 1
	maxManifest    = 1 << 20
)

// The states of a log in the manifest.
const (
	stateOpen   = "open"
	stateClosed = "closed" // a shard that another month followed
)

// manifest says what a directory holds. It is stored in canonical form, so that
// there is one manifest for one content.
type manifest struct {
	Format int           `json:"format"`
	Logs   []manifestLog `json:"logs"`
	Node   string        `json:"node"`
	Site   string        `json:"site"`
	WALID  string        `json:"wal_id"`

	name string // of the node in origins: with its generation after a fork
}

type manifestLog struct {
	Dir      string `json:"dir"`
	Log      string `json:"log"`
	MinIndex uint64 `json:"min_index"`
	Origin   string `json:"origin"`
	State    string `json:"state"`

	shard Shard
}

// encode returns the canonical form (RFC 8785).
func (m *manifest) encode() []byte {
	b := []byte(`{"format":`)
	b = strconv.AppendInt(b, int64(m.Format), 10)
	b = append(b, `,"logs":[`...)
	for i, l := range m.Logs {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(b, `{"dir":`...), l.Dir)
		b = appendString(append(b, `,"log":`...), l.Log)
		b = strconv.AppendUint(append(b, `,"min_index":`...), l.MinIndex, 10)
		b = appendString(append(b, `,"origin":`...), l.Origin)
		b = appendString(append(b, `,"state":`...), l.State)
		b = append(b, '}')
	}
	b = appendString(append(b, `],"node":`...), m.Node)
	b = appendString(append(b, `,"site":`...), m.Site)
	b = appendString(append(b, `,"wal_id":`...), m.WALID)
	return append(b, '}')
}

// parseManifest reads a manifest and checks that it is one that this package
// writes. The error is [ErrCorrupt].
func parseManifest(b []byte) (*manifest, error) {
	m := &manifest{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return nil, corrupt("L-61(a)", "%s: %w", manifestName, err)
	}
	if !bytes.Equal(m.encode(), b) {
		return nil, corrupt("L-61(a)", "%s is not in canonical form", manifestName)
	}
	if m.Format != manifestFormat || !isNodeName(m.Site) || !isNodeName(m.Node) || !all(m.WALID, classLower, 32, 32) || len(m.Logs) == 0 {
		return nil, corrupt("L-61(a)", "%s has format %d; need format %d, a site, a node, a WAL id and logs", manifestName, m.Format, manifestFormat)
	}
	first, _ := cutPrefix(m.Logs[0].Origin, "audit."+m.Site+"/")
	m.name, _, _ = strings.Cut(first, "/")
	if _, err := generation(m.Node, m.name); err != nil {
		return nil, corrupt("L-61(a)", "%s: origin %q: %w", manifestName, m.Logs[0].Origin, err)
	}
	for i := range m.Logs {
		l := &m.Logs[i]
		shard, err := parseShard(l.Log)
		ok := err == nil && l.Dir == shard.dir() && l.Origin == origin(m.Site, m.name, shard) && (l.State == stateOpen || l.State == stateClosed)
		if !ok || (shard == 0) != (i == 0) || i > 0 && shard <= m.Logs[i-1].shard {
			return nil, corrupt("L-61(a)", "%s: log %q does not belong to this node, or stands in the wrong place", manifestName, l.Log)
		}
		if l.State == stateClosed && (i == 0 || i == len(m.Logs)-1) {
			return nil, corrupt("L-61(a)", "%s: log %q cannot be %s", manifestName, l.Log, l.State)
		}
		l.shard = shard
	}
	return m, nil
}

// readManifest reads a directory's manifest; fs.ErrNotExist when there is none.
func readManifest(fsys fileSystem) (*manifest, error) {
	b, err := readFile(fsys, manifestName, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", manifestName, err)
	}
	return parseManifest(b)
}

func (m *manifest) write(fsys fileSystem) error {
	if err := writeDurable(fsys, manifestName, m.encode()); err != nil {
		return fmt.Errorf("writing %s: %w", manifestName, err)
	}
	return nil
}

// find returns the entry of a log; nil when it is not listed.
func (m *manifest) find(shard Shard) *manifestLog {
	for i := range m.Logs {
		if m.Logs[i].shard == shard {
			return &m.Logs[i]
		}
	}
	return nil
}

// list adds an open log.
func (m *manifest) list(shard Shard) {
	m.Logs = append(m.Logs, manifestLog{
		Dir: shard.dir(), Log: shard.logName(), Origin: origin(m.Site, m.name, shard), State: stateOpen, shard: shard,
	})
}

// checkDirs compares the log directories with the list.
func (m *manifest) checkDirs(fsys fileSystem) error {
	dirs, err := logDirs(fsys)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		known := false
		for i := range m.Logs {
			known = known || m.Logs[i].Dir == dir
		}
		if !known {
			return corrupt("L-61(a)", "directory %s is not in %s", dir, manifestName)
		}
	}
	return nil
}

// logDirs returns the directories of logs that are there.
func logDirs(fsys fileSystem) ([]string, error) {
	var dirs []string
	if names, err := fsys.ReadDir("sec"); err == nil && len(names) > 0 {
		dirs = append(dirs, "sec")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing logs: %w", err)
	}
	names, err := fsys.ReadDir("ops")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing logs: %w", err)
	}
	for _, name := range names {
		if name[len(name)-1] == '/' {
			name = name[:len(name)-1]
		}
		dirs = append(dirs, "ops/"+name)
	}
	return dirs, nil
}
