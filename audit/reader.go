package audit

import "iter"

// Reader reads a log's directory, or a copy of it, without a lock and without
// the daemon. It is safe for concurrent use. It checks form, not signatures:
// see [Verify] and [CheckProof].
type Reader struct {
	dir string
}

// Entry is a durable record.
type Entry struct {
	Log     string // sec or ops-yyyy-mm
	Seq     uint64
	Raw     []byte // the record's bytes, exactly as hashed; JSON without newline
	Covered bool   // whether the current checkpoint covers it
}

// OpenReader opens a directory for reading. Errors: [ErrNotFound], [ErrFormat].
func OpenReader(dir string) (*Reader, error) { return nil, ErrNotFound }

// Logs returns the names of the logs, sec first, then the months of ops in order.
func (r *Reader) Logs() ([]string, error) { return nil, ErrNotFound }

// Size returns how many records a checkpoint covers and how many are durable.
func (r *Reader) Size(log string) (covered, durable uint64, err error) { return 0, 0, ErrNotFound }

// Get returns a record's bytes. Errors: [ErrNotFound], [ErrPruned], [ErrFormat].
func (r *Reader) Get(log string, seq uint64) ([]byte, error) { return nil, ErrNotFound }

// Records yields the durable records of a log from a seq on, in order, also
// those that are only in the write-ahead log. After an error it ends.
func (r *Reader) Records(log string, from uint64) iter.Seq2[Entry, error] { return nil }

// Checkpoint returns a log's current signed checkpoint. The error is [ErrNotFound].
func (r *Reader) Checkpoint(log string) ([]byte, error) { return nil, ErrNotFound }

// Prove returns a .tlog-proof (C2SP tlog-proof v1) of a record under the
// current checkpoint, which must be of the given size; size 0 takes whatever
// is current. Errors: [ErrUncovered], [ErrNotFound], [ErrPruned].
func (r *Reader) Prove(log string, seq, size uint64) ([]byte, error) { return nil, ErrNotFound }
