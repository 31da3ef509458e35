package audit

import (
	"errors"
	"fmt"
	"io/fs"
)

// Published returns a file that a log's directory shows to readers: the
// manifest, which is manifest.json of the log "", and of a log its checkpoint,
// vkey, pub.pem and the tiles of L-43. The file's name is made from what the
// path says and never taken from it, so that no path leads elsewhere. Errors:
// [ErrFormat] for another path, [ErrNotFound].
func (r *Reader) Published(log, path string) ([]byte, error) {
	name, limit, err := publishedName(log, path)
	if err != nil {
		return nil, err
	}
	b, err := readFile(r.fsys, name, limit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return b, nil
}

// publishedName returns the name of a published file, and how large it may be.
func publishedName(log, path string) (name string, limit int64, err error) {
	if log == "" && path == manifestName {
		return manifestName, maxManifest, nil
	}
	shard, err := parseShard(log)
	if err != nil {
		return "", 0, err
	}
	switch path {
	case "checkpoint", "vkey", "pub.pem":
		return shard.dir() + "/" + path, 1 << 16, nil
	}
	level, n, width, err := parseTilePath(path)
	if err != nil {
		return "", 0, err
	}
	return shard.dir() + "/" + tilePath(level, n, width), maxTileFile, nil
}
