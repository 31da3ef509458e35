package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

type benchFsyncCmd struct {
	Dir      string        `help:"Folder on the disk to measure." default:"." type:"path"`
	Duration time.Duration `help:"Length of the measurement." default:"3s"`
	JSON     bool          `help:"Print JSON." name:"json"`
}

// Run measures the disk alone: what one flush of a write-ahead log costs.
func (c *benchFsyncCmd) Run(p *program) error {
	if c.Duration < 10*time.Millisecond {
		return usageError("want a --duration of 10ms or more")
	}
	dir, err := os.MkdirTemp(c.Dir, "keyd-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	f, err := probeDisk(dir, c.Duration)
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(f)
	}
	_, err = fmt.Fprintf(p.stdout, "%s\nfdatasync of 4 KiB: %s\n", machineAndDisk(dir), f)
	return err
}

// flushes are the times of plain flushes.
type flushes struct {
	N              int
	P50, P99, P999 time.Duration
}

func (f flushes) String() string {
	return fmt.Sprintf("p50 %v, p99 %v, p99.9 %v of %d", round(f.P50), round(f.P99), round(f.P999), f.N)
}

// probeBlock is what a probe writes before each flush, and probeFile the size of
// the file that it goes round in.
const (
	probeBlock = 4096
	probeFile  = 8 << 20
)

// probeDisk times pwrite and fdatasync of blocks in a file that is there already,
// as a segment of the write-ahead log is.
func probeDisk(dir string, length time.Duration) (flushes, error) {
	f, err := os.OpenFile(filepath.Join(dir, "probe"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return flushes{}, err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	if _, err := f.Write(make([]byte, probeFile)); err != nil {
		return flushes{}, err
	}
	if err := f.Sync(); err != nil {
		return flushes{}, err
	}
	block := []byte(strings.Repeat("k", probeBlock))
	var took []time.Duration
	for begin := time.Now(); time.Since(begin) < length; {
		start := time.Now()
		if _, err := f.WriteAt(block, int64(len(took))*probeBlock%probeFile); err != nil {
			return flushes{}, err
		}
		if err := datasync(f); err != nil {
			return flushes{}, err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return flushes{len(took), quantileOf(took, 500), quantileOf(took, 990), quantileOf(took, 999)}, nil
}

func datasync(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// quantileOf returns the value below which so many in a thousand of sorted times lie.
func quantileOf(sorted []time.Duration, permille int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, len(sorted)*permille/1000)]
}

func round(d time.Duration) time.Duration {
	if d < time.Millisecond {
		return d.Round(time.Microsecond)
	}
	return d.Round(10 * time.Microsecond)
}

// diskTypes are the file systems that figures are published for, by the number
// that statfs(2) gives. Of one in memory nothing is published.
var diskTypes = map[int64]string{
	0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x2fc12fc1: "zfs", 0x01021994: memoryDisk, 0x794c7630: "overlayfs", 0x6969: "nfs",
}

const memoryDisk = "tmpfs"

// diskType names the file system of a folder.
func diskType(dir string) string {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return "unknown file system"
	}
	if name, ok := diskTypes[int64(s.Type)]; ok {
		return name
	}
	return fmt.Sprintf("file system 0x%x", s.Type)
}

// machineAndDisk says where a figure was taken (L-209).
func machineAndDisk(dir string) string {
	return fmt.Sprintf("%s, %d processors, kernel %s, %s, %s; load %s",
		processorName(), runtime.NumCPU(), firstLine("/proc/sys/kernel/osrelease"), diskType(dir), runtime.Version(), loadAverage())
}

// processorName is the model of the first processor.
func processorName() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(text)) {
		if name, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return runtime.GOARCH
}

func firstLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}
