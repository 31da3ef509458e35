package audit

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Remains is what is left of a log that was lost, for a fork (L-66).
type Remains struct {
	Dir         string             // its directory, whole, damaged or an old copy; "" when none is left
	Checkpoints [][]byte           // of its logs, that were kept elsewhere
	Vkeys       []string           // under which they must verify,
	Keys        []crypto.PublicKey // or of the node, for all of its origins
}

// forkTrees is how many trees a record of a fork names.
const forkTrees = 32

// LastKnown returns the last known size and root of each log of what is left,
// sec first: of the verified checkpoints of one log the largest. What does not
// verify is left out; two that say different things of one size are refused.
// Errors: [ErrNotFound] when nothing verifies, [ErrCorrupt], [ErrFormat].
func LastKnown(r Remains) ([]Tree, error) {
	keys, err := parseKeyring(r.Vkeys)
	if err != nil {
		return nil, err
	}
	found := slices.Clip(r.Checkpoints) // the caller's stay as they are
	if r.Dir != "" {
		dirs, err := logDirs(osFS(r.Dir))
		if err != nil {
			return nil, fmt.Errorf("looking at what is left in %s: %w", r.Dir, err)
		}
		for _, dir := range dirs {
			if msg, err := readFile(osFS(r.Dir), dir+"/checkpoint", 1<<16); err == nil {
				found = append(found, msg)
			}
		}
	}
	last := map[string]Checkpoint{}
	for _, msg := range found {
		c, err := r.verified(keys, msg)
		if err != nil {
			continue
		}
		old, ok := last[c.Origin]
		if ok && old.Size == c.Size && old.Root != c.Root {
			return nil, corrupt("L-54", "two checkpoints of size %d of %s have different roots", c.Size, c.Origin)
		}
		if !ok || c.Size > old.Size {
			last[c.Origin] = c
		}
	}
	return treesOf(last)
}

// verified opens a checkpoint under the keys.
func (r *Remains) verified(keys keyring, msg []byte) (Checkpoint, error) {
	c, err := keys.open(msg)
	if err == nil {
		return c, nil
	}
	if c, err = unverifiedCheckpoint(msg); err != nil {
		return c, err
	}
	known, err := verifiers(c.Origin, r.Keys)
	if err != nil {
		return c, err
	}
	return openCheckpoint(msg, known...)
}

// treesOf returns checkpoints as records name them, in the order of the logs.
func treesOf(last map[string]Checkpoint) ([]Tree, error) {
	var trees []Tree
	for _, c := range last {
		shard, err := parseShard(c.Origin[lastSlash(c.Origin)+1:])
		if err != nil {
			return nil, err
		}
		trees = append(trees, treeOf(c, shard))
	}
	if len(trees) == 0 {
		return nil, fmt.Errorf("%w: no checkpoint that verifies", ErrNotFound)
	}
	slices.SortFunc(trees, func(a, b Tree) int {
		if (a.Log == "sec") != (b.Log == "sec") {
			return strings.Compare(b.Log, a.Log) // sec before the months
		}
		return strings.Compare(a.Log, b.Log)
	})
	return trees, nil
}

// generation reads which generation of a node a name in origins is for: the
// node's own is the first. The error is [ErrFormat].
func generation(node, name string) (int, error) {
	if name == node {
		return 1, nil
	}
	rest, ok := strings.CutPrefix(name, node+"-g")
	n, err := strconv.Atoi(rest)
	if !ok || err != nil || n < 2 || strconv.Itoa(n) != rest {
		return 0, fmt.Errorf("%w: %q is no generation of node %q", ErrFormat, name, node)
	}
	return n, nil
}

// nextGeneration returns the name in origins of the generation after those that trees
// are of. The error is [ErrConfig] when they are of another node.
func nextGeneration(site, node string, trees []Tree) (string, error) {
	newest := 0
	for _, t := range trees {
		rest, ok := strings.CutPrefix(t.Origin, "audit."+site+"/")
		name, _, more := strings.Cut(rest, "/")
		n, err := generation(node, name)
		if !ok || !more || err != nil {
			return "", fmt.Errorf("%w: %s is no log of site %s, node %s", ErrConfig, t.Origin, site, node)
		}
		newest = max(newest, n)
	}
	return node + "-g" + strconv.Itoa(newest+1), nil
}

// sealedMarker is left in a directory in whose place a fork began another.
const (
	sealedMarker = "state/sealed"
	sealedText   = "another generation took the place of this log\n"
)

// Seal makes a directory, or what is left of it, one in which no log is opened
// again, and its files read only. It may be done again. The error is [ErrLocked]
// while a node runs there.
func Seal(dir string) (err error) {
	fsys := osFS(dir)
	if refuseSealed(fsys) == nil {
		lock, busy := fsys.Lock("lock")
		if busy != nil {
			return fmt.Errorf("sealing %s: %w", dir, busy)
		}
		defer func() { err = errors.Join(err, lock.Close()) }()
	}
	if err := errors.Join(fsys.Mkdir("state"), writeDurable(fsys, sealedMarker, []byte(sealedText))); err != nil {
		return fmt.Errorf("sealing %s: %w", dir, err)
	}
	if err := readOnly(dir); err != nil {
		return fmt.Errorf("sealing %s: %w", dir, err)
	}
	return nil
}

// readOnly takes the right to write from every file below dir. A link that
// somebody put there does not lead it out of dir.
func readOnly(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return root.Chmod(path, info.Mode().Perm()&^0o222)
	})
}

// refuseSealed refuses a directory in whose place a fork began another.
func refuseSealed(fsys fileSystem) error {
	_, err := readFile(fsys, sealedMarker, maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", sealedMarker, err)
	}
	return fmt.Errorf("%w: L-66: the directory is sealed; a fork began another generation", ErrConfig)
}

// begun returns the first records of a new log: that it is open, and when it is
// a generation after others, which logs they were.
func (l *Log) begun() []Record {
	if len(l.o.Fork) == 0 {
		return []Record{{Action: LogOpen, Trees: []Tree{{Log: "sec", Origin: l.origin(0)}}, Vkeys: l.vkeys(0)}}
	}
	rs := []Record{{Action: LogOpen, Trees: l.o.Fork[:min(len(l.o.Fork), forkTrees)], Vkeys: l.vkeys(0)}}
	for trees := range slices.Chunk(l.o.Fork, forkTrees) {
		rs = append(rs, Record{Action: LogFork, Trees: trees})
	}
	return rs
}
