package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"sort"
	"strings"
)

const (
	exportName = "export.json"
	maxExport  = 1 << 28
	maxListed  = 1 << 30
)

// exportList is what an exported copy says of itself (L-161).
type exportList struct {
	Format  string            `json:"format"`
	Log     string            `json:"log"`
	Origin  string            `json:"origin"`
	First   uint64            `json:"first"`
	Last    uint64            `json:"last"`
	Records uint64            `json:"records"`
	Size    uint64            `json:"size"`
	Root    string            `json:"root"`
	Files   map[string]string `json:"files"`
}

// checkExport compares an exported copy with its list, where there is one. The
// list is not signed: what it says of the log must be what the checkpoint says.
func (c *logCheck) checkExport() {
	file := c.log.Dir + "/" + exportName
	text, err := readFile(c.v.fsys, file, maxExport)
	if errors.Is(err, fs.ErrNotExist) {
		return // a copy made by other means
	}
	if err != nil {
		c.fail("L-161", file, "%v", err)
		return
	}
	var list exportList
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		c.fail("L-161", file, "%v", err)
		return
	}
	c.v.exported[file] = true
	if list.Format != "tiles" || list.Log != c.log.Log || list.Origin != c.cp.Origin || list.Size != c.cp.Size || list.Root != base64.StdEncoding.EncodeToString(c.cp.Root[:]) ||
		list.First != 0 || list.Records != c.cp.Size || list.Last+1 != c.cp.Size {
		c.fail("L-161", file, "says something else of the log than its checkpoint")
	}
	c.checkListed(&list)
}

// checkListed compares the files of a copy with the hashes in its list.
func (c *logCheck) checkListed(list *exportList) {
	names := make([]string, 0, len(list.Files))
	for name := range list.Files {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		file := c.log.Dir + "/" + name
		if !fs.ValidPath(name) {
			c.fail("L-161", exportName, "lists %q, which is no file of the copy", name)
			continue
		}
		data, err := readFile(c.v.fsys, file, maxListed)
		sum := sha256.Sum256(data)
		switch {
		case err != nil:
			c.fail("L-161", file, "%v", err)
		case hex.EncodeToString(sum[:]) != list.Files[name]:
			c.fail("L-161", file, "has not the hash that %s lists", exportName)
		}
	}
	c.walk("", func(path string) {
		if _, listed := list.Files[path]; !listed && path != exportName && !strings.HasSuffix(path, ".tmp") {
			c.fail("L-161", c.log.Dir+"/"+path, "is not listed in %s", exportName)
		}
	})
}
