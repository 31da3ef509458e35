package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// onSmallDisk moves a stopped daemon's audit log to a file system of its own of so
// many MiB, which is full when it is full.
func onSmallDisk(t *testing.T, k *killable, mib string) error {
	t.Helper()
	dir := filepath.Join(k.dir, "audit")
	kept := filepath.Join(k.base, "audit.kept")
	if err := os.CopyFS(kept, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+mib+"m,mode=0700"); err != nil {
		return err
	}
	t.Cleanup(func() {
		if k.proc != nil {
			k.kill()
		}
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
	if err := os.CopyFS(dir, os.DirFS(kept)); err != nil {
		t.Fatal(err)
	}
	return nil
}

// fill writes a file until its disk has no room left.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; size /= 2 {
		for err == nil {
			_, err = f.Write(make([]byte, size))
		}
		err = nil
	}
}

// TestAuditDiskFull is L-133, L-134 and L-195 on a daemon at work: the file system
// of its audit log is full to the last byte. Sales get 96 and the API an error, sec
// still records what happens, nothing that was answered is lost; with room again
// the node serves by itself, and a restart needs no help.
func TestAuditDiskFull(t *testing.T) {
	s := newPowered(t, nil)
	s.k.stop()
	if err := onSmallDisk(t, s.k, "64"); err != nil {
		unmountable(t, err)
		return
	}
	s.k.start()
	s.k.linked()
	s.dial(t)
	defer func() { s.link.Close() }()
	s.wants(t, "00")
	said, before := len(s.k.output()), len(s.answered)
	ballast := filepath.Join(s.k.dir, "audit", "ballast")
	fill(t, ballast)
	s.k.await("the disk is critical", time.Minute, func() bool { return !s.auditReady() })
	s.closed(t, "disk_critical")
	if text := s.k.output()[said:]; !strings.Contains(text, `"code":"disk_critical"`) {
		t.Errorf("standard error does not tell of it:\n%s", tail(text, 3000))
	}
	s.answered = s.answered[:before] // what was refused is in no journal
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	s.k.await("there is room again", time.Minute, s.auditReady)
	s.k.linked()
	s.wants(t, "00")
	s.logHas(t, "log.disk", 2) // L-133: the beginning and the end
	if err := s.k.verify(t.Context()); err != nil {
		t.Error(err)
	}
	s.k.stop()
	s.again(t)
	s.k.stop()
	s.issuer.stop()
	s.k.healthy()
}
