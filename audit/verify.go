package audit

import "time"

// VerifyOptions narrows a verification. The zero value checks everything.
type VerifyOptions struct {
	// Logs are the logs to check, by name; none means all.
	Logs []string
	// Since are earlier checkpoints, signed or at least trusted by the caller,
	// that must be prefixes of the logs they name.
	Since []Earlier
	// Now bounds nothing; zero means time.Now. It stands in the report.
	Now time.Time
}

// Earlier is a size and root that somebody kept.
type Earlier struct {
	Log  string
	Size uint64
	Root Hash
}

// Report is the result of a verification.
type Report struct {
	Logs     []LogReport
	Findings []Finding // empty when everything was proved
}

// LogReport is what was proved of one log.
type LogReport struct {
	Log, Origin string
	Size        uint64 // covered by the checkpoint
	Durable     uint64 // with the records that only the write-ahead log has
	Root        Hash
}

// Finding is one failed check.
type Finding struct {
	Rule   string // L-nn
	Where  string // file, or <log>:<seq>
	Detail string
}

// OK reports whether every check passed.
func (r Report) OK() bool { return len(r.Findings) == 0 && len(r.Logs) > 0 }

// Verify checks a log's directory, or a copy of it, strictly: signatures under
// the given vkeys, every entry, tile and root, the form and order of the
// records, what they say of each other, and the write-ahead log. Every log
// needs a vkey for its origin. What it found wrong is in the report; the
// error is for a directory that cannot be read.
func Verify(dir string, vkeys []string, o VerifyOptions) (Report, error) {
	return Report{}, ErrNotFound
}
