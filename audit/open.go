package audit

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Open opens the log in dir, or makes a new one in an empty or absent dir, and
// holds it alone until Close. The signer's public key is Ed25519 or ECDSA
// P-256; it signs nothing but checkpoints.
//
// The log is recovered and checked before Open returns, and the start is
// recorded; it refuses a log whose check failed. Errors: [ErrLocked],
// [ErrConfig], [ErrCorrupt], [ErrRollback] with it when an anchor has another or
// a later state, [ErrAnchor], [ErrSignature], [ErrUnavailable].
func Open(dir string, signer crypto.Signer, o Options) (*Log, error) {
	l, err := openLog(dir, signer, o)
	if err != nil {
		return nil, fmt.Errorf("opening the audit log in %s: %w", dir, err)
	}
	return l, nil
}

func openLog(dir string, signer crypto.Signer, o Options) (*Log, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if signer == nil {
		return nil, fmt.Errorf("%w: no signer", ErrConfig)
	}
	l := &Log{o: o, fsys: o.fsys, started: time.Now(), signers: []crypto.Signer{signer}}
	if o.Previous != nil {
		l.signers = append(l.signers, o.Previous)
	}
	for _, s := range l.signers {
		if err := selfTest(s); err != nil {
			return nil, err
		}
	}
	if l.fsys == nil {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return nil, err
		}
		l.fsys = newHeldFS(dir)
	}
	if l.lock, err = l.fsys.Lock("lock"); err != nil {
		return nil, err
	}
	if err := l.start(); err != nil {
		return nil, errors.Join(err, l.lock.Close())
	}
	return l, nil
}

// start recovers the log, starts its goroutines and records the start.
func (l *Log) start() error {
	m, err := l.openManifest()
	if err != nil {
		return err
	}
	l.name = m.name
	r := &recovery{log: l, manifest: m, shards: map[Shard]*shardState{}, anchorsAway: map[string]error{}}
	if err := r.run(); err != nil {
		return err
	}
	l.identify()
	l.slots.idle = make(chan struct{})
	l.watch = watch{log: l, stop: make(chan struct{}), wall: l.now().wall, mono: time.Now(), crossed: time.Now()}
	l.anchors = newAnchoring(l, r.anchorsAway)
	l.tiles = r.integrator()
	l.wal = r.writer()
	l.secNext = r.size(0)
	if l.ops = m.Logs[len(m.Logs)-1].shard; l.ops != 0 {
		l.opsNext = r.size(l.ops)
	}
	covered := r.covered()
	l.wal.run()
	l.tiles.group.Go(l.tiles.run)
	l.tiles.group.Go(func() { l.tiles.sweepStale(covered) })
	if err := r.record(); err != nil {
		return errors.Join(err, l.abort())
	}
	l.watch.group.Go(l.watch.run)
	l.anchors.run()
	return nil
}

// abort ends the goroutines of a log that could not record its start.
func (l *Log) abort() error {
	err := l.wal.close()
	close(l.tiles.stop)
	l.tiles.group.Wait()
	return err
}

// identify sets what records say of this process.
func (l *Log) identify() {
	who := &identity{node: l.o.Node, build: l.o.Build, timeSource: l.o.TimeSource, cfg: [8]byte(l.o.Cfg[:8])}
	_, _ = rand.Read(who.boot[:]) // never fails; it ends the process instead
	l.who.Store(who)
	sync, errUS := l.o.TimeQuality()
	l.quality.Store(&timeQuality{sync, errUS})
}

// openManifest reads the manifest, or makes a new directory.
func (l *Log) openManifest() (*manifest, error) {
	if err := refuseSealed(l.fsys); err != nil {
		return nil, err
	}
	m, err := readManifest(l.fsys)
	if errors.Is(err, fs.ErrNotExist) {
		return l.create()
	}
	if err != nil {
		return nil, err
	}
	if len(l.o.Fork) > 0 {
		return nil, fmt.Errorf("%w: L-66: a fork begins in an empty directory, and this one holds a log", ErrConfig)
	}
	if m.Site != l.o.Site || m.Node != l.o.Node {
		return nil, fmt.Errorf("%w: the directory belongs to site %s, node %s; configured are %s, %s", ErrConfig, m.Site, m.Node, l.o.Site, l.o.Node)
	}
	return m, m.checkDirs(l.fsys)
}

// create makes a new directory. The manifest comes last; what an interrupted
// attempt left behind holds no record and goes.
func (l *Log) create() (*manifest, error) {
	dirs, err := logDirs(l.fsys)
	if err != nil {
		return nil, err
	}
	scan, err := scanWAL(l.fsys, nil)
	if err != nil || scan.last != 0 || scan.foul != 0 || len(dirs) > 0 {
		return nil, corrupt("L-61(a)", "there is a log but no %s", manifestName)
	}
	for _, dir := range []string{"wal", "state", "sec", "ops"} {
		if err := l.fsys.Mkdir(dir); err != nil {
			return nil, err
		}
	}
	names, err := l.fsys.ReadDir("wal")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := l.fsys.Remove("wal/" + name); err != nil {
			return nil, err
		}
	}
	if err := makeSegment(l.fsys, 1, l.o.SegmentSize, context.Background().Done()); err != nil {
		return nil, err
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails; it ends the process instead
	m := &manifest{Format: manifestFormat, Node: l.o.Node, Site: l.o.Site, WALID: hex.EncodeToString(id[:]), name: l.o.Node}
	if len(l.o.Fork) > 0 {
		if m.name, err = nextGeneration(l.o.Site, l.o.Node, l.o.Fork); err != nil {
			return nil, err
		}
	}
	m.list(0)
	return m, m.write(l.fsys)
}
