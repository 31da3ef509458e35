package siem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// File is a receiver that is a file: one message a line. It may be moved away at
// any time, as logrotate does with "create" or without; a new one is begun at the
// next message. It implements [Target].
type File struct {
	path string
}

// NewFile returns the receiver for a path, which is absolute. The error is
// [ErrConfig].
func NewFile(path string) (*File, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%w: %q is not the whole path of a file", ErrConfig, path)
	}
	return &File{path}, nil
}

// Frame implements [Target].
func (t *File) Frame(dst, message []byte) []byte { return append(append(dst, message...), '\n') }

// Open implements [Target].
func (t *File) Open(context.Context) (Session, error) {
	s := &fileSession{path: t.path}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("opening the file of the sink: %w", err)
	}
	return s, nil
}

// fileSession is the open file.
type fileSession struct {
	path    string
	f       *os.File
	written uint64
	synced  uint64
}

// open opens the file to append, and ends a line of which a crash left a part: it
// is sent again whole.
func (s *fileSession) open() error {
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	if err := mendTail(f); err != nil {
		return errors.Join(err, f.Close())
	}
	s.f = f
	return syncFolder(filepath.Dir(s.path))
}

func mendTail(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is not a regular file", ErrConfig, f.Name())
	}
	last := make([]byte, 1)
	if info.Size() == 0 {
		return nil
	}
	if _, err := f.ReadAt(last, info.Size()-1); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	_, err = f.Write([]byte{'\n'})
	return err
}

// Write implements [Session].
func (s *fileSession) Write(_ context.Context, lines []byte) error {
	if err := s.follow(); err != nil {
		return fmt.Errorf("following the file of the sink: %w", err)
	}
	if _, err := s.f.Write(lines); err != nil {
		return fmt.Errorf("writing the file of the sink: %w", err)
	}
	s.written += uint64(len(lines))
	return nil
}

// follow begins a new file when this one was moved or removed.
func (s *fileSession) follow() error {
	now, err := os.Stat(s.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	held, herr := s.f.Stat()
	if herr != nil {
		return herr
	}
	if err == nil && os.SameFile(now, held) {
		return nil
	}
	if err := errors.Join(s.f.Sync(), s.f.Close()); err != nil {
		return err
	}
	return s.open()
}

// Settle implements [Session]: what is on the disk need not be written again.
func (s *fileSession) Settle() (taken, settled uint64, err error) {
	if s.synced < s.written {
		if err := s.f.Sync(); err != nil {
			return s.synced, s.synced, fmt.Errorf("syncing the file of the sink: %w", err)
		}
		s.synced = s.written
	}
	return s.synced, s.synced, nil
}

// Sent implements [Session].
func (s *fileSession) Sent() uint64 { return s.written }

// Broken implements [Session]: a file tells by an error.
func (s *fileSession) Broken() <-chan struct{} { return nil }

// Abort implements [Session].
func (s *fileSession) Abort() error { return s.f.Close() }

// Close implements [Session].
func (s *fileSession) Close(context.Context) (complete bool, err error) {
	_, _, err = s.Settle()
	err = errors.Join(err, s.f.Close())
	return err == nil, err
}
