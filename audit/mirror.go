package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"
)

// Publisher gives the files that a log's directory shows to readers, as
// [Reader.Published] does, in the order of paths; nil stands for one that is
// not there. It is called by one goroutine at a time.
type Publisher interface {
	Published(ctx context.Context, log string, paths []string) ([][]byte, error)
}

// Mirrored is what a run of [Mirror] did to one log.
type Mirrored struct {
	Log        string
	Had, Size  uint64 // covered by the checkpoint before and after
	Files      int    // fetched
	Bytes      int64
	KeyChanged bool // the vkey beside the log is not the one from before; it proves nothing, but somebody should know
}

// mirrorBatch is how many files are asked for at a time.
const mirrorBatch = 32

// Mirror brings a copy of a log's directory up to date, and makes it where there
// is none. It needs no trust in who publishes: a tile or bundle is written only
// when it belongs to the tree of the checkpoint that it was fetched for, and a
// checkpoint replaces another only when its tree begins with the other's. What
// it cannot tell is whose checkpoint that is: [Verify] does, with vkeys.
//
// An interrupted run goes on where it was. Nobody else may write the copy at the
// same time: [ErrLocked]. A checkpoint that does not continue what the copy has
// is [ErrRollback]: the copy stays as it was, and the foreign checkpoint is kept
// below refused/. Files that do not fit their tree are [ErrCorrupt], those that
// are withheld [ErrNotFound]. A copy that ends inside of what was pruned since
// cannot be continued: [ErrPruned]; an archive of the log shows that it goes on
// from there ([VerifyArchive]).
func Mirror(ctx context.Context, dir string, src Publisher) (_ []Mirrored, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the copy: %w", err)
	}
	m := &mirror{ctx: ctx, fsys: newHeldFS(dir), src: src}
	lock, err := m.fsys.Lock("lock")
	if err != nil {
		return nil, fmt.Errorf("bringing the copy up to date: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	text, err := m.one("", manifestName)
	if err != nil {
		return nil, err
	}
	list, err := parseManifest(text)
	if err != nil {
		return nil, err
	}
	var all []Mirrored
	for i := range list.Logs {
		one, err := m.log(&list.Logs[i])
		if err != nil {
			return all, fmt.Errorf("copying %s: %w", list.Logs[i].Log, err)
		}
		all = append(all, one)
	}
	return all, m.missing(list)
}

// mirror is one run of [Mirror].
type mirror struct {
	ctx  context.Context
	fsys fileSystem
	src  Publisher
	done Mirrored // of the log that is being copied
}

// fetch asks for files, nil for those that are not there.
func (m *mirror) fetch(log string, paths []string) ([][]byte, error) {
	files, err := m.src.Published(m.ctx, log, paths)
	if err != nil {
		return nil, err
	}
	if len(files) != len(paths) {
		return nil, fmt.Errorf("%w: %d files where %d were asked for", ErrFormat, len(files), len(paths))
	}
	for _, f := range files {
		if f != nil {
			m.done.Files++
			m.done.Bytes += int64(len(f))
		}
	}
	return files, nil
}

// one asks for a file that must be there.
func (m *mirror) one(log, path string) ([]byte, error) {
	files, err := m.fetch(log, []string{path})
	if err != nil {
		return nil, err
	}
	if files[0] == nil {
		return nil, fmt.Errorf("%w: %s %s is not published", ErrNotFound, log, path)
	}
	return files[0], nil
}

// missing refuses a list without a log that the copy has: a list only grows.
func (m *mirror) missing(list *manifest) error {
	dirs, err := logDirs(m.fsys)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		known := false
		for i := range list.Logs {
			known = known || list.Logs[i].Dir == dir
		}
		if !known {
			return fmt.Errorf("%w: L-61(a): %s is in the copy and no longer published", ErrRollback, dir)
		}
	}
	return nil
}

// log brings one log up to date.
func (m *mirror) log(l *manifestLog) (Mirrored, error) {
	m.done = Mirrored{Log: l.Log}
	had, hadText, err := m.held(l.Dir + "/checkpoint")
	if err != nil {
		return m.done, err
	}
	m.done.Had, m.done.Size = had.Size, had.Size
	files, err := m.fetch(l.Log, []string{"checkpoint"})
	if err != nil {
		return m.done, err
	}
	text := files[0]
	if text == nil && hadText == nil {
		return m.done, nil // nothing is signed yet
	}
	if text == nil {
		return m.done, fmt.Errorf("%w: L-54: the checkpoint is no longer published; the copy has one of size %d", ErrRollback, had.Size)
	}
	now, err := unverifiedCheckpoint(text)
	if err != nil {
		return m.done, fmt.Errorf("checkpoint: %w", err)
	}
	if now.Origin != l.Origin {
		return m.done, corrupt("L-61(c)", "checkpoint of %s in the place of %s", now.Origin, l.Origin)
	}
	if l.MinIndex > now.Size {
		return m.done, corrupt("L-174", "%s names %d as the first index of a log of %d records", manifestName, l.MinIndex, now.Size)
	}
	if bytes.Equal(text, hadText) {
		return m.done, nil
	}
	return m.done, m.advance(l, had, now, text)
}

// held reads a checkpoint of the copy; without one it is that of an empty log.
func (m *mirror) held(name string) (Checkpoint, []byte, error) {
	text, err := readFile(m.fsys, name, 1<<16)
	if errors.Is(err, fs.ErrNotExist) {
		return Checkpoint{Root: emptyRoot}, nil, nil
	}
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("reading %s: %w", name, err)
	}
	c, err := unverifiedCheckpoint(text)
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("%s of the copy: %w", name, err)
	}
	return c, text, nil
}

// advance takes the copy of a log from one checkpoint to the next. What a run
// before this one was on its way to binds as well: some of its tiles are there.
func (m *mirror) advance(l *manifestLog, had, now Checkpoint, text []byte) error {
	pending := "pending/" + l.Log
	begun, _, err := m.held(pending)
	if err != nil {
		return err
	}
	tree := newRemoteTree(m, l, now)
	for _, was := range []Checkpoint{had, begun} {
		if err := tree.continues(was); err != nil {
			return m.refused(err, l.Log, text)
		}
	}
	if err := m.mkdirs("pending"); err != nil {
		return err
	}
	if err := writeDurable(m.fsys, pending, text); err != nil {
		return fmt.Errorf("writing %s: %w", pending, err)
	}
	if err := tree.copy(had.Size); err != nil {
		return err
	}
	if had.Size < l.MinIndex {
		if err := writeFile(m.fsys, leastName(l.Log), strconv.AppendUint(nil, l.MinIndex, 10)); err != nil {
			return fmt.Errorf("writing %s: %w", leastName(l.Log), err)
		}
	}
	if err := m.publish(l, text, tree.written); err != nil {
		return err
	}
	m.done.Size = now.Size
	return m.tidy(l, had.Size, now.Size)
}

// refused keeps the checkpoint when err speaks against who published it, and not
// of a line that is down or of a range that was pruned.
func (m *mirror) refused(err error, log string, text []byte) error {
	for _, sign := range []error{ErrRollback, ErrCorrupt, ErrFormat, ErrNotFound} {
		if errors.Is(err, sign) {
			return errors.Join(err, m.refuse(log, text))
		}
	}
	return err
}

// refuse keeps a checkpoint that does not continue what the copy has.
func (m *mirror) refuse(log string, text []byte) error {
	if err := m.mkdirs("refused"); err != nil {
		return err
	}
	name := "refused/" + log + "." + strconv.FormatInt(time.Now().UnixNano(), 10)
	if err := writeDurable(m.fsys, name, text); err != nil {
		return fmt.Errorf("keeping the checkpoint that was refused: %w", err)
	}
	return nil
}

// publish makes all that was written durable, then lets the checkpoint hold.
func (m *mirror) publish(l *manifestLog, text []byte, written []string) error {
	if err := m.mkdirs(l.Dir); err != nil {
		return err
	}
	keys, err := m.fetch(l.Log, []string{"vkey", "pub.pem"})
	if err != nil {
		return err
	}
	for i, name := range []string{l.Dir + "/vkey", l.Dir + "/pub.pem"} {
		was, err := readFile(m.fsys, name, 1<<16)
		if keys[i] == nil || bytes.Equal(was, keys[i]) {
			continue
		}
		m.done.KeyChanged = m.done.KeyChanged || err == nil
		if err := writeFile(m.fsys, name, keys[i]); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	if err := m.fsys.SyncFS(written); err != nil {
		return fmt.Errorf("making the copy durable: %w", err)
	}
	if err := writeDurable(m.fsys, l.Dir+"/checkpoint", text); err != nil {
		return fmt.Errorf("writing %s/checkpoint: %w", l.Dir, err)
	}
	return nil
}

// tidy removes the partial tiles of the checkpoint before the last one: a
// command that reads the copy may still look at the last.
func (m *mirror) tidy(l *manifestLog, had, now uint64) error {
	name := "pending/" + l.Log + ".before"
	text, err := readFile(m.fsys, name, 64)
	before, bad := strconv.ParseUint(string(text), 10, 63)
	if err == nil && bad == nil {
		for _, p := range partialPaths(before) {
			if p.width == widthAt(had, p.level, p.n) || p.width == widthAt(now, p.level, p.n) {
				continue
			}
			err := m.fsys.Remove(l.Dir + "/" + tilePath(p.level, p.n, p.width))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("removing an old partial tile: %w", err)
			}
		}
	}
	if err := writeFile(m.fsys, name, strconv.AppendUint(nil, had, 10)); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

// mkdirs makes a directory of the copy and those above it.
func (m *mirror) mkdirs(dir string) error {
	if dir == "." {
		return nil
	}
	if err := m.mkdirs(parent(dir)); err != nil {
		return err
	}
	if err := m.fsys.Mkdir(dir); err != nil {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	return nil
}

// leastName is the file in which a copy says below which index it has no
// records of a log, since they were pruned before it was made. It is no more
// than what the manifest of a node says: [Verify] wants the log.prune for it.
func leastName(log string) string { return "pending/" + log + ".least" }

// copiedFrom returns what [leastName] says; without it, 0.
func copiedFrom(fsys fileSystem, log string) uint64 {
	text, err := readFile(fsys, leastName(log), 32)
	if err != nil {
		return 0
	}
	least, err := strconv.ParseUint(string(text), 10, 63)
	if err != nil {
		return 0
	}
	return least
}
