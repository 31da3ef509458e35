package audit

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
)

// checkFiles looks at every file in a log's directory: none may be there that
// does not belong, and partial tiles that later ones replaced must be their
// beginning.
func (c *logCheck) checkFiles() {
	c.checkKeyFiles()
	if c.v.manifest.Format == 0 {
		c.checkExport()
	}
	c.walk("", func(path string) {
		// A temporary file is of a write that a crash cut off, or that goes on.
		path, temporary := strings.CutSuffix(path, ".tmp")
		if !strings.HasPrefix(path, "tile/") {
			switch path {
			case "checkpoint", "checkpoint.cosigned", "vkey", "pub.pem":
			default:
				if !c.v.exported[c.log.Dir+"/"+path] {
					c.fail("L-42", c.log.Dir+"/"+path, "unknown file")
				}
			}
			return
		}
		level, n, width, err := parseTilePath(path)
		if err != nil {
			c.fail("L-43", c.log.Dir+"/"+path, "no tile has this path")
			return
		}
		if temporary || below(level, n, width, c.log.MinIndex) {
			return // what was pruned and could not be removed is read by nobody
		}
		if have := widthAt(c.cp.Size, level, n); have != width && have > 0 {
			c.checkOther(path, level, n, width, have)
		}
	})
}

// walk visits the files below a directory of the log.
func (c *logCheck) walk(dir string, visit func(path string)) {
	full := c.log.Dir
	if dir != "" {
		full += "/" + dir
	}
	names, err := c.v.fsys.ReadDir(full)
	if errors.Is(err, fs.ErrNotExist) {
		return // deleted meanwhile
	}
	if err != nil {
		c.fail("L-42", full, "%v", err)
		return
	}
	for _, name := range names {
		path := name
		if dir != "" {
			path = dir + "/" + name
		}
		if strings.HasSuffix(path, "/") {
			c.walk(path[:len(path)-1], visit)
		} else {
			visit(path)
		}
	}
}

// checkOther compares a tile of another width than the checkpoint's tree has:
// an older partial one, or a newer one that no checkpoint covers yet. What both
// hold must be equal.
func (c *logCheck) checkOther(path string, level int, n uint64, width, have int) {
	file := c.log.Dir + "/" + path
	data, err := readFile(c.v.fsys, file, maxTileFile)
	if errors.Is(err, fs.ErrNotExist) {
		return // deleted meanwhile
	}
	if err != nil {
		c.fail("L-141", file, "%v", err)
		return
	}
	src := tiles{c.v.fsys, c.log.Dir, c.cp.Size}
	ours, _, _, err := src.read(level, n)
	if err != nil {
		c.fail("L-141", file, "%v", err)
		return
	}
	if level != bundleLevel {
		common := min(width, have) * hashSize
		if len(data) != width*hashSize || !bytes.Equal(data[:common], ours[:min(common, len(ours))]) {
			c.fail("L-141", file, "differs from the tile of the checkpoint's tree")
		}
		return
	}
	entries, err := splitBundle(data, width)
	if err != nil {
		c.fail("L-141", file, "%v", err)
		return
	}
	common := 0
	for _, e := range entries[:min(width, have)] {
		common += 2 + len(e)
	}
	if common > len(ours) || !bytes.Equal(data[:common], ours[:common]) {
		c.fail("L-141", file, "differs from the bundle of the checkpoint's tree")
	}
}
