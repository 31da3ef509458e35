package main

import (
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// roomEvery is how long what a disk said is believed.
const roomEvery = time.Second

// diskRoom says whether disks have more than a part of their space free.
type diskRoom struct {
	percent int
	dirs    []string
	clock   func() time.Time

	mu    sync.Mutex
	asked time.Time
	ok    bool
}

// saleRoom says whether there is room for new sales on the disks of the audit
// log and of the database. It is above the mark of the log, below which
// nothing is recorded and so nothing done: between the two, reversals have what
// is left.
func (d *daemon) saleRoom() func() bool {
	r := &diskRoom{
		percent: d.cfg.Switch.SaleDiskPct,
		dirs:    []string{d.cfg.Audit.Dir, filepath.Dir(d.cfg.Store.Path)},
		clock:   d.cfg.now,
	}
	return r.enough
}

// enough asks the disks at most once a second. A disk that does not say counts as
// one with room: its first write that fails is refused by itself.
func (r *diskRoom) enough() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock()
	if !r.asked.IsZero() && now.Sub(r.asked) < roomEvery && !now.Before(r.asked) {
		return r.ok
	}
	r.asked, r.ok = now, true
	for _, dir := range r.dirs {
		free, total, ok := diskSpace(dir)
		if ok && total > 0 && free < total/100*uint64(r.percent) {
			r.ok = false
		}
	}
	return r.ok
}

// diskSpace is what the disk of a folder has free for keyd's user, and in all,
// in bytes.
func diskSpace(dir string) (free, total uint64, ok bool) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil || s.Bsize <= 0 {
		return 0, 0, false
	}
	return uint64(s.Bavail) * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), true
}
