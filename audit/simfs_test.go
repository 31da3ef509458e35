package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
)

const simSector = 512

var errPowerCut = errors.New("power cut")

// simFS is the crash simulator of L-190: files in memory, of which any subset
// of the sectors and directory entries that no sync covered survives a crash.
// It also fails on demand (L-195).
type simFS struct {
	mu    sync.Mutex
	names map[string]*simFile // "dir/" entries have a nil file
	kept  map[string]*simFile // what a crash cannot take
	ops   int                 // mutating calls so far
	limit int                 // the power goes at this call; 0 never
	cut   *simFS              // the state at the power cut
	fault func(op, name string) error
	log   []string // mutating calls, when trace is on
	trace bool
	free  int64
	total int64
}

type simFile struct {
	data  []byte
	kept  []byte // synced
	dirty map[int]bool
	gone  map[int]bool // sectors that a failed sync marked clean: no later one writes them
}

func newSimFS() *simFS {
	return &simFS{names: map[string]*simFile{}, kept: map[string]*simFile{}, free: 50, total: 100}
}

// step counts a mutating call. mu is held.
func (s *simFS) step(op, name string) error {
	if s.trace {
		s.log = append(s.log, op+" "+name)
	}
	if s.fault != nil {
		if err := s.fault(op, name); err != nil {
			return err
		}
	}
	if s.cut != nil {
		return errPowerCut
	}
	s.ops++
	return nil
}

// calls returns how many mutating calls there were so far.
func (s *simFS) calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ops
}

// after cuts the power when it is time. mu is held.
func (s *simFS) after() error {
	if s.limit == 0 || s.ops < s.limit {
		return nil
	}
	s.cut = s.snapshot()
	return errPowerCut
}

// now returns a copy of what a log that runs has written so far.
func (s *simFS) now() *simFS {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot()
}

// snapshot returns a copy. mu is held, or nobody writes any more.
func (s *simFS) snapshot() *simFS {
	c := newSimFS()
	copies := map[*simFile]*simFile{nil: nil}
	clone := func(f *simFile) *simFile {
		if _, ok := copies[f]; !ok {
			d := &simFile{data: slices.Clone(f.data), kept: slices.Clone(f.kept), dirty: map[int]bool{}}
			for k := range f.dirty {
				d.dirty[k] = true
			}
			d.gone = maps.Clone(f.gone)
			copies[f] = d
		}
		return copies[f]
	}
	for n, f := range s.names {
		c.names[n] = clone(f)
	}
	for n, f := range s.kept {
		c.kept[n] = clone(f)
	}
	return c
}

// crash returns a state that the disk may be in after the power went.
func (s *simFS) crash(r *prng) *simFS {
	s = s.snapshot()
	out := newSimFS()
	all := map[string]bool{}
	for n := range s.names {
		all[n] = true
	}
	for n := range s.kept {
		all[n] = true
	}
	names := make([]string, 0, len(all))
	for n := range all {
		names = append(names, n)
	}
	sort.Strings(names)
	mode := r.below(4) // nothing, everything, or a random part of what was not synced
	survives := func() bool { return mode == 1 || mode > 1 && r.below(2) == 1 }
	decided := map[*simFile]*simFile{nil: nil}
	for _, n := range names {
		f, ok := s.kept[n]
		if g, now := s.names[n]; now != ok || g != f {
			if survives() {
				f, ok = g, now
			}
		}
		if !ok || !out.parentThere(n) {
			continue
		}
		if _, done := decided[f]; !done {
			decided[f] = f.crash(survives)
		}
		out.names[n], out.kept[n] = decided[f], decided[f]
	}
	return out
}

func (s *simFS) parentThere(name string) bool {
	p := parent(strings.TrimSuffix(name, "/"))
	if p == "." {
		return true
	}
	_, ok := s.names[p+"/"]
	return ok
}

func (f *simFile) crash(survives func() bool) *simFile {
	data := slices.Clone(f.kept)
	if len(f.data) != len(f.kept) && survives() {
		if len(f.data) < len(data) {
			data = data[:len(f.data)]
		} else {
			data = append(data, make([]byte, len(f.data)-len(data))...)
		}
	}
	sectors := make([]int, 0, len(f.dirty))
	for i := range f.dirty {
		sectors = append(sectors, i)
	}
	sort.Ints(sectors)
	for _, i := range sectors {
		at := i * simSector
		if survives() && at < len(data) && at < len(f.data) {
			copy(data[at:min(at+simSector, len(data))], f.data[at:min(at+simSector, len(f.data))])
		}
	}
	return &simFile{data: data, kept: slices.Clone(data), dirty: map[int]bool{}}
}

func notExist(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist} }

func (s *simFS) Open(name string, flag int) (file, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.names[name]
	if !ok || f == nil {
		if flag&os.O_CREATE == 0 || !s.parentThere(name) {
			return nil, notExist("open", name)
		}
		if err := s.step("create", name); err != nil {
			return nil, err
		}
		f = &simFile{dirty: map[int]bool{}}
		s.names[name] = f
		if err := s.after(); err != nil {
			return nil, err
		}
	}
	if flag&os.O_TRUNC != 0 && len(f.data) > 0 {
		if err := s.step("truncate", name); err != nil {
			return nil, err
		}
		f.data, f.gone = nil, nil
		if err := s.after(); err != nil {
			return nil, err
		}
	}
	return &simHandle{s, name, f}, nil
}

func (s *simFS) Mkdir(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.names[name+"/"]; ok {
		return nil
	}
	if !s.parentThere(name) {
		return notExist("mkdir", name)
	}
	if err := s.step("mkdir", name); err != nil {
		return err
	}
	s.names[name+"/"] = nil
	return s.after()
}

func (s *simFS) Rename(from, to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.names[from]
	if !ok {
		return notExist("rename", from)
	}
	if err := s.step("rename", to); err != nil {
		return err
	}
	delete(s.names, from)
	s.names[to] = f
	return s.after()
}

func (s *simFS) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.names[name]; !ok {
		if _, ok = s.names[name+"/"]; !ok {
			return notExist("remove", name)
		}
		name += "/"
	}
	if err := s.step("remove", name); err != nil {
		return err
	}
	delete(s.names, name)
	return s.after()
}

func (s *simFS) ReadDir(name string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	prefix := name + "/"
	if name == "." {
		prefix = ""
	} else if _, ok := s.names[prefix]; !ok {
		return nil, notExist("readdir", name)
	}
	var names []string
	for n := range s.names {
		rest, ok := strings.CutPrefix(n, prefix)
		if ok && rest != "" && !strings.Contains(strings.TrimSuffix(rest, "/"), "/") {
			names = append(names, rest)
		}
	}
	sort.Strings(names)
	return names, nil
}

func (s *simFS) SyncDir(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.step("syncdir", name); err != nil {
		return err
	}
	in := func(n string) bool { return parent(strings.TrimSuffix(n, "/")) == name }
	for n := range s.kept {
		if _, ok := s.names[n]; in(n) && !ok {
			delete(s.kept, n)
		}
	}
	for n, f := range s.names {
		if in(n) {
			s.kept[n] = f
		}
	}
	return s.after()
}

func (s *simFS) SyncFS([]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.step("syncfs", ""); err != nil {
		for _, f := range s.names {
			if f != nil {
				f.forget()
			}
		}
		return err
	}
	clear(s.kept)
	for n, f := range s.names {
		s.kept[n] = f
		if f != nil {
			f.keep()
		}
	}
	return s.after()
}

func (s *simFS) Free() (free, total int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free, s.total, nil
}

func (s *simFS) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

func (f *simFile) keep() {
	if len(f.dirty) == 0 && len(f.gone) == 0 && len(f.kept) == len(f.data) {
		return // as a disk, which is not written what it has
	}
	data := slices.Clone(f.data)
	for i := range f.gone {
		at, end := min(i*simSector, len(data)), min((i+1)*simSector, len(data))
		clear(data[at:end])
		if at < len(f.kept) {
			copy(data[at:end], f.kept[at:])
		}
	}
	f.kept = data
	clear(f.dirty)
}

// forget is what a failed sync does: what was not written counts as written, and
// is read from memory until it is lost.
func (f *simFile) forget() {
	if f.gone == nil {
		f.gone = map[int]bool{}
	}
	for i := range f.dirty {
		f.gone[i] = true
	}
	clear(f.dirty)
}

type simHandle struct {
	s    *simFS
	name string
	f    *simFile
}

func (h *simHandle) ReadAt(b []byte, off int64) (int, error) {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	if off >= int64(len(h.f.data)) {
		return 0, io.EOF
	}
	n := copy(b, h.f.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (h *simHandle) WriteAt(b []byte, off int64) (int, error) {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	if err := h.s.step("write", h.name); err != nil {
		return 0, err
	}
	end := int(off) + len(b)
	if end > len(h.f.data) {
		h.f.data = append(h.f.data, make([]byte, end-len(h.f.data))...)
	}
	copy(h.f.data[off:], b)
	for i := int(off) / simSector; i*simSector < end; i++ {
		h.f.dirty[i] = true
		delete(h.f.gone, i)
	}
	return len(b), h.s.after()
}

func (h *simHandle) sync(op string) error {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	if err := h.s.step(op, h.name); err != nil {
		h.f.forget()
		return err
	}
	h.f.keep()
	return h.s.after()
}

func (h *simHandle) Sync() error     { return h.sync("fsync") }
func (h *simHandle) Datasync() error { return h.sync("fdatasync") }
func (h *simHandle) Close() error    { return nil }

func (h *simHandle) Size() (int64, error) {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	return int64(len(h.f.data)), nil
}

// flip changes a byte of a file behind the log's back.
func (s *simFS) flip(name string, at int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.names[name]
	if f == nil || at >= len(f.data) {
		return fmt.Errorf("%s has no byte %d", name, at)
	}
	f.data = slices.Clone(f.data)
	f.data[at] ^= 0x01
	f.dirty[at/simSector] = true
	return nil
}
