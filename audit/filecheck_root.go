package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"slices"
	"strings"
)

// indexDir holds what is derived from the records to find them faster. It is
// never an authority, and says by itself when it does not fit.
const indexDir = "index"

const maxKeyFile = 4096

// checkRoot looks at what lies in the directory beside the logs: each file there
// is known, and says what it must say.
func (v *verification) checkRoot() {
	v.each(".", func(name string) {
		switch name {
		case manifestName, "wal/", "sec/", "ops/", "state/", indexDir + "/":
		case "lock":
			v.checkText(name, "")
		default:
			if name != manifestName+".tmp" {
				v.fail("L-42", name, "unknown file")
			}
		}
	})
	v.each("state", func(name string) {
		file := "state/" + name
		switch {
		case file == poisonMarker:
			v.checkText(file, poisonText)
		case file == sealedMarker:
			v.checkText(file, sealedText)
		case !v.isNext(strings.TrimSuffix(file, ".tmp")) && file != poisonMarker+".tmp":
			v.fail("L-42", file, "unknown file")
		}
	})
	v.each("wal", func(name string) {
		segment, sum, torn := strings.Cut(name, ".torn-")
		if _, ok := parseSegmentName(strings.TrimSuffix(segment, ".tmp")); !ok {
			v.fail("L-23", "wal/"+name, "unknown file")
		} else if torn && !strings.HasSuffix(sum, ".tmp") {
			v.checkTorn("wal/"+name, sum)
		}
	})
}

// isNext reports whether a file notes what is about to be signed for a log.
func (v *verification) isNext(file string) bool {
	notes := func(m *manifest) bool {
		return slices.ContainsFunc(m.Logs, func(l manifestLog) bool { return file == nextName(l.shard) })
	}
	return notes(v.manifest) || v.nowListed(notes)
}

// each visits the names in a folder, which need not be there.
func (v *verification) each(dir string, visit func(name string)) {
	names, err := v.fsys.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		v.fail("L-42", dir, "%v", err)
	}
	for _, name := range names {
		visit(name)
	}
}

func (v *verification) checkText(file, want string) {
	b, err := readFile(v.fsys, file, maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return // removed meanwhile
	}
	if err != nil || string(b) != want {
		v.fail("L-42", file, "holds something else than keyd writes there")
	}
}

// checkTorn compares what was kept of a torn segment with the hash in its name,
// which is that of the segment with its zero bytes.
func (v *verification) checkTorn(file, want string) {
	data, err := readFile(v.fsys, file, maxSegmentSize)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		v.fail("L-30", file, "%v", err)
		return
	}
	h := sha256.New()
	h.Write(data)
	if v.scanned != nil && v.scanned.size > int64(len(data)) {
		h.Write(make([]byte, v.scanned.size-int64(len(data))))
	}
	if hex.EncodeToString(h.Sum(nil)[:4]) != want {
		v.fail("L-30", file, "is not what was kept as evidence of a torn segment")
	}
}

// checkKeyFiles looks at the public key that is kept with a log for convenience:
// it must be one, for this log, and the same in both forms. Whether it is the
// log's only the caller's keys can say.
func (c *logCheck) checkKeyFiles() {
	file := c.log.Dir + "/vkey"
	text, err := readFile(c.v.fsys, file, maxKeyFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.fail("L-42", file, "%v", err)
		return
	}
	var pems [][]byte
	for line := range strings.Lines(string(text)) {
		key, ended := strings.CutSuffix(line, "\n")
		k, err := parseVkey(key)
		if err != nil || !ended || k.name != c.cp.Origin {
			c.fail("L-42", file, "is no verification key of %s", c.cp.Origin)
			return
		}
		pem, err := k.pem()
		if err != nil {
			c.fail("L-42", file, "%v", err)
			return
		}
		pems = append(pems, pem)
	}
	if err == nil && len(pems) == 0 {
		c.fail("L-42", file, "holds no key")
	}
	c.checkPEM(pems)
}

func (c *logCheck) checkPEM(keys [][]byte) {
	file := c.log.Dir + "/pub.pem"
	text, err := readFile(c.v.fsys, file, maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		c.fail("L-42", file, "%v", err)
		return
	}
	for _, key := range keys {
		if bytes.Equal(text, key) || bytes.Equal(text, bytes.Join(keys, nil)) {
			return
		}
	}
	c.fail("L-42", file, "is not the key that the file vkey beside it holds")
}
