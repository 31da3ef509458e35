package audit

import "errors"

// The errors of this package. All are wrapped with what was being done; match
// them with [errors.Is]. [ReasonOf] gives the reason that a refusal records.
var (
	// ErrUnavailable: the log cannot make records durable; nothing may be done
	// until the node is restarted.
	ErrUnavailable = errors.New("audit: log unavailable")
	// ErrQueueFull: no slots are left for this many records; refuse the request.
	ErrQueueFull = errors.New("audit: queue full")
	// ErrDiskCritical: too little disk space for operations; administration goes on.
	ErrDiskCritical = errors.New("audit: disk space critical")
	// ErrUnsigned: the tail that no checkpoint covers is older than the limit.
	ErrUnsigned = errors.New("audit: unsigned tail too old")
	// ErrClosed: the log, the ticket or the reader was closed.
	ErrClosed = errors.New("audit: closed")
	// ErrLocked: another process holds the directory.
	ErrLocked = errors.New("audit: directory is locked by another process")
	// ErrConfig: an option is unsafe or missing.
	ErrConfig = errors.New("audit: bad configuration")
	// ErrRecord: a record that the catalogue of actions does not allow.
	ErrRecord = errors.New("audit: record not allowed")
	// ErrToken: the tokener failed; the operation must be refused.
	ErrToken = errors.New("audit: tokener failed")
	// ErrCorrupt: the directory was damaged or tampered with.
	ErrCorrupt = errors.New("audit: log damaged")
	// ErrSignature: a checkpoint carries no valid signature of a known key, or
	// the signer made one that does not verify.
	ErrSignature = errors.New("audit: signature not valid")
	// ErrFormat: bytes that are not what their place says they are.
	ErrFormat = errors.New("audit: malformed")
	// ErrNotFound: no such log or record.
	ErrNotFound = errors.New("audit: not found")
	// ErrPruned: the record was pruned on purpose; its hash is still in the tree.
	ErrPruned = errors.New("audit: pruned")
	// ErrShardOpen: the log is not a month that another one followed.
	ErrShardOpen = errors.New("audit: not a closed shard")
	// ErrExists: a file or folder is there already, and is not written over.
	ErrExists = errors.New("audit: exists")
	// ErrRollback: a checkpoint that does not continue one that was seen before.
	ErrRollback = errors.New("audit: rolled back or forked")
	// ErrAnchor: a required anchor cannot be read or is empty, or what an anchor
	// holds is no checkpoint of the log.
	ErrAnchor = errors.New("audit: anchor not usable")
	// ErrUncovered: no checkpoint covers the record yet.
	ErrUncovered = errors.New("audit: not covered by a checkpoint yet")
)

// ReasonOf returns the reason to record for a request that is refused because
// the log returned err.
func ReasonOf(err error) Reason {
	switch {
	case errors.Is(err, ErrQueueFull):
		return ReasonQueueFull
	case errors.Is(err, ErrDiskCritical):
		return ReasonDiskCritical
	case errors.Is(err, ErrUnsigned):
		return ReasonUnsignedLimit
	case errors.Is(err, ErrToken):
		return ReasonHSMUnavailable
	}
	return ReasonLogUnavailable
}
