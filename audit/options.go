package audit

import (
	"crypto"
	"fmt"
	"time"
)

// Options configures a [Log]. Site and Node are needed; zero values of the
// others stand for the defaults.
type Options struct {
	// Site and Node name this node; both match [a-z0-9.-]{1,63} and are fixed
	// when the directory is made.
	Site, Node string
	// Build is the program's version, "+" and its revision.
	Build string
	// Cfg is the SHA-256 of the active configuration; see [Log.SetCfg].
	Cfg Hash

	// SegmentSize is the size of a WAL segment in bytes, 8 to 256 MiB and a
	// whole number of MiB; fixed when the directory is made. Default 64 MiB.
	// A directory holds at least four segments.
	SegmentSize int64
	// CheckpointInterval is the time between checkpoints, at least 100 ms.
	// Default 1 s.
	CheckpointInterval time.Duration
	// UnsignedLimit is the age of the unsigned tail above which [Log.Ready]
	// and [Log.Reserve] refuse, at most 1 h. Default 5 min.
	UnsignedLimit time.Duration

	// Previous is the checkpoint key before this one, while it still signs
	// too; nil outside of a rotation's overlap.
	Previous crypto.Signer
	// Retired lists the public keys that signed before: checkpoints of months
	// that ended meanwhile verify under them.
	Retired []crypto.PublicKey
	// Accept lists public keys besides the signer's and Previous's under
	// which the checkpoints found in the directory may verify: a key that was
	// lost has no overlap. Three at most. [Open] records the loss, has the logs
	// that go on signed anew, and refuses keys that no checkpoint needs. L-57.
	Accept []crypto.PublicKey

	// Fork begins a generation after others, of which it names the last known
	// trees ([LastKnown]); only for a new directory.
	Fork []Tree

	// Tokener makes the keyed tokens of PANs and messages. Without one,
	// [Log.PAN] and [Log.MsgTok] fail.
	Tokener Tokener
	// PreviousTokener makes tokens under the key before, during its overlap.
	PreviousTokener Tokener
	// PANFirst8 keeps 8 instead of 6 leading digits of PANs of 16 and more.
	PANFirst8 bool

	// Clock is the wall clock; default time.Now. It is safe for concurrent use.
	Clock func() time.Time
	// TimeSource names the configured source of time: ntp:pool-a, ptp, none.
	TimeSource string
	// TimeQuality reports whether the clock is synchronised and its estimated
	// error in microseconds; default: what the kernel says. It is safe for
	// concurrent use.
	TimeQuality func() (sync bool, errMicros int64)

	// Alarm is told of each alarm, with its cause. It must not block and is
	// safe for concurrent use. Nil drops alarms; records of them remain.
	Alarm func(Alarm, error)

	// Synced is told of each flush of the write-ahead log: how long the disk
	// took, and of how many records. It must not block and is called from one
	// goroutine. Nil is told nothing.
	Synced func(took time.Duration, records int)

	// Published is told of each signed checkpoint once it is the current one,
	// by the name of its log: sec or ops-yyyy-mm. It must not block, must not
	// keep or change the bytes, and is called from one goroutine. Nil is told
	// nothing. L-53 (8).
	Published func(log string, checkpoint []byte)

	// Anchors keep checkpoints elsewhere; their names differ. [Open] compares the
	// log with each of them, and each is updated at most once a minute. Nothing
	// waits for an anchor but Open and [Log.Close], 10 s each at most. L-61 (g),
	// L-62.
	Anchors []AnchorConfig

	// Disk sets the watermarks for free space.
	Disk DiskLimits

	fsys fileSystem // nil for the operating system's; another may have small segments
}

// DiskLimits are the watermarks for free disk space. Of a percentage and a
// number of bytes the stricter wins; zero stands for the default.
type DiskLimits struct {
	WarnPercent     int // default 20
	CriticalPercent int // default 10
	ClearPercent    int // free space that ends the critical state; default 12
	WarnBytes       int64
	CriticalBytes   int64
}

// The defaults of [Options].
const (
	defaultSegmentSize        = 64 << 20
	minSegmentSize            = 8 << 20
	maxSegmentSize            = 256 << 20
	defaultCheckpointInterval = time.Second
	defaultUnsignedLimit      = 5 * time.Minute
)

// withDefaults returns o with its defaults filled in. The error is [ErrConfig].
func (o Options) withDefaults() (Options, error) {
	if o.SegmentSize == 0 {
		o.SegmentSize = defaultSegmentSize
	}
	if o.CheckpointInterval == 0 {
		o.CheckpointInterval = defaultCheckpointInterval
	}
	if o.UnsignedLimit == 0 {
		o.UnsignedLimit = defaultUnsignedLimit
	}
	if o.TimeSource == "" {
		o.TimeSource = "none"
	}
	if o.Build == "" {
		o.Build = "unknown"
	}
	if o.TimeQuality == nil {
		o.TimeQuality = kernelTimeQuality
	}
	if o.Published == nil {
		o.Published = func(string, []byte) {}
	}
	if o.Alarm == nil {
		o.Alarm = func(Alarm, error) {}
	}
	var err error
	o.Disk, err = o.Disk.withDefaults()
	if err != nil {
		return o, err
	}
	return o, o.check()
}

func (o *Options) check() error {
	switch {
	case !isNodeName(o.Site), !isNodeName(o.Node):
		return fmt.Errorf("%w: site %q and node %q must match [a-z0-9.-]{1,63}", ErrConfig, o.Site, o.Node)
	case len(origin(o.Site, o.Node, 202601)) > 120:
		return fmt.Errorf("%w: site %q and node %q together are too long for an origin", ErrConfig, o.Site, o.Node)
	case o.fsys == nil && (o.SegmentSize < minSegmentSize || o.SegmentSize > maxSegmentSize || o.SegmentSize%(1<<20) != 0):
		return fmt.Errorf("%w: segment size %d must be 8 to 256 whole MiB", ErrConfig, o.SegmentSize)
	case o.fsys == nil && o.CheckpointInterval < 100*time.Millisecond:
		return fmt.Errorf("%w: checkpoint interval %v is below 100ms", ErrConfig, o.CheckpointInterval)
	case o.UnsignedLimit < 0 || o.UnsignedLimit > time.Hour:
		return fmt.Errorf("%w: unsigned limit %v is above 1h", ErrConfig, o.UnsignedLimit)
	case !isID(o.Build) || !isID(o.TimeSource):
		return fmt.Errorf("%w: build %q and time source %q must be identifiers", ErrConfig, o.Build, o.TimeSource)
	case scan(o.Build) != 0 || scan(o.TimeSource) != 0 || scan(o.Node) != 0 || scan(o.Site) != 0:
		return fmt.Errorf("%w: site, node, build and time source must not look like a PAN or a key", ErrConfig)
	}
	if len(o.Accept) >= maxVkeys {
		return fmt.Errorf("%w: %d lost keys, more than a record names", ErrConfig, len(o.Accept))
	}
	names := map[string]bool{}
	for _, a := range o.Anchors {
		if a.Anchor == nil || a.Anchor.Name() == "" || !isID(anchorCorr(a.Anchor.Name())) || scan(a.Anchor.Name()) != 0 || names[a.Anchor.Name()] {
			return fmt.Errorf("%w: each anchor needs a short identifier of its own as name", ErrConfig)
		}
		names[a.Anchor.Name()] = true
	}
	return nil
}

func (d DiskLimits) withDefaults() (DiskLimits, error) {
	if d.WarnPercent == 0 {
		d.WarnPercent = 20
	}
	if d.CriticalPercent == 0 {
		d.CriticalPercent = 10
	}
	if d.ClearPercent == 0 {
		d.ClearPercent = d.CriticalPercent + 2
	}
	ok := 0 < d.CriticalPercent && d.CriticalPercent <= d.ClearPercent && d.ClearPercent <= 100 &&
		d.CriticalPercent <= d.WarnPercent && d.WarnPercent <= 100 && d.CriticalBytes >= 0 && d.WarnBytes >= d.CriticalBytes
	if !ok {
		return d, fmt.Errorf("%w: disk limits need 0 < critical ≤ clear ≤ 100 and critical ≤ warn ≤ 100, and warn bytes not below critical bytes", ErrConfig)
	}
	return d, nil
}

// isNodeName reports whether s may name a site or a node in an origin.
func isNodeName(s string) bool {
	if len(s) == 0 || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	return true
}
