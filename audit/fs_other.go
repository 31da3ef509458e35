//go:build !linux

package audit

import "os"

// Datasync makes the contents durable.
func (f osFile) Datasync() error { return f.Sync() }

// SyncFS makes the files in written and their directories durable.
func (d osFS) SyncFS(written []string) error { return d.syncEach(written) }

func (d osFS) syncBy(_ *os.File, written []string) error { return d.syncEach(written) }
