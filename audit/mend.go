package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// dropPartials deletes partial tiles above a checkpoint of size shown in a tree
// of size grown. A crash or a failed sync may have left them torn, nobody was
// shown them, and later ones need not replace them.
func dropPartials(fsys fileSystem, dir string, shown, grown uint64) error {
	for level := bundleLevel; level == bundleLevel || tilesAt(grown, level) > 0; level++ {
		covered := tilesAt(shown, level)
		for n := covered / tileWidth; n <= tilesAt(grown, level)/tileWidth; n++ {
			partials := dir + "/" + tilePath(level, n, 0) + ".p"
			names, err := fsys.ReadDir(partials)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			for _, name := range names {
				width, err := strconv.Atoi(name)
				if err == nil && n*tileWidth+uint64(width) <= covered {
					continue
				}
				if err := fsys.Remove(partials + "/" + name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// clean reports whether the previous process stopped in order.
func (r *recovery) clean() bool { return r.fresh || hasAction(r.lastSec, LogClose) }

// mend makes what a crash left behind safe to continue.
func (r *recovery) mend() error {
	s, fsys := r.scan, r.log.fsys
	if !r.clean() && s.last != 0 {
		if err := r.rewrite(); err != nil {
			return fmt.Errorf("rewriting segment %d: %w", s.last, err)
		}
	}
	if s.foul != 0 {
		if err := r.replaceFoul(); err != nil {
			return fmt.Errorf("replacing segment %d: %w", s.foul, err)
		}
	}
	r.sweep()
	r.leaveKeys()
	names, err := fsys.ReadDir("wal")
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".tmp") {
			if err := fsys.Remove("wal/" + name); err != nil {
				return err
			}
		}
	}
	return nil
}

// leaveKeys leaves the keys as PEM that a crash came before. What it cannot leave
// is missed by nobody who verifies.
func (r *recovery) leaveKeys() {
	for shard, st := range r.shards {
		if st.shown {
			_ = leavePEM(r.log.fsys, shard.dir())
		}
	}
}

// rewrite writes the valid bytes of the last used segment in place and syncs
// them: they may exist only in the page cache (L-31).
func (r *recovery) rewrite() error {
	f, err := r.log.fsys.Open(segmentName(r.scan.last), os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, zeroChunk)
	for at := int64(0); at < r.scan.end; {
		n := min(int64(len(b)), r.scan.end-at)
		if _, err := f.ReadAt(b[:n], at); err != nil {
			return err
		}
		if _, err := f.WriteAt(b[:n], at); err != nil {
			return err
		}
		at += n
	}
	return f.Sync()
}

// replaceFoul keeps a copy of a segment that a crash left half written and puts
// an empty one in its place. What is in it must not stay: frames of a torn
// batch could follow those of the batch that takes its number.
func (r *recovery) replaceFoul() error {
	fsys, name := r.log.fsys, segmentName(r.scan.foul)
	data, err := readFile(fsys, name, maxSegmentSize)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	evidence := name + ".torn-" + hex.EncodeToString(sum[:4])
	if err := writeDurable(fsys, evidence, data[:trailing(data)]); err != nil {
		return err
	}
	return makeSegment(fsys, r.scan.foul, r.scan.size, context.Background().Done())
}
