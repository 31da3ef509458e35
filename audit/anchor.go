package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// Anchor keeps the newest checkpoint of each log out of reach of who can change
// the log's own directory, so that an older copy of it is found (L-62).
// Implementations are safe for concurrent use.
type Anchor interface {
	// Name names the anchor in errors and alarms.
	Name() string
	// Load returns the checkpoint that was stored last for an origin.
	// [ErrNotFound] says that the anchor can be read and holds none;
	// [ErrFormat], that what it holds is no checkpoint; every other error, that
	// it cannot be read.
	Load(ctx context.Context, origin string) (checkpoint []byte, err error)
	// Store keeps a checkpoint in place of an older one of its origin. It
	// returns once the checkpoint is durable, and keeps no reference to it.
	Store(ctx context.Context, checkpoint []byte) error
}

// AnchorConfig is an anchor of a log. A required one that cannot be read, or
// holds nothing of a log that has been signed, refuses the start; any other
// raises the alarm anchor_unreachable.
type AnchorConfig struct {
	Anchor   Anchor
	Required bool
}

// The times of anchors.
const (
	anchorInterval = time.Minute      // between two updates of an anchor, at least
	anchorWait     = 10 * time.Second // for an answer, before it counts as unreachable
)

// anchored is what an anchor holds.
type anchored struct {
	checkpoints [][]byte // one for each origin that was asked for; nil where it has none
	err         error    // it cannot be read
}

// ask reads what an anchor has of each origin, in a goroutine: it may hang for
// ever, as the file system of a server that is away does.
func ask(ctx context.Context, a Anchor, origins []string) <-chan anchored {
	answer := make(chan anchored, 1)
	go func() {
		var held anchored
		for _, origin := range origins {
			msg, err := a.Load(ctx, origin)
			switch {
			case errors.Is(err, ErrNotFound):
				msg = nil
			case err != nil:
				answer <- anchored{err: err}
				return
			}
			held.checkpoints = append(held.checkpoints, msg)
		}
		answer <- held
	}()
	return answer
}

// checkAnchors compares the log with what its anchors keep (L-61 g). All are
// asked at once. Only the origins of the manifest count: those that a fork gave
// up are no concern of this log.
func (r *recovery) checkAnchors() error {
	ctx, cancel := context.WithTimeout(context.Background(), anchorWait)
	defer cancel()
	var origins []string
	for i := range r.manifest.Logs {
		origins = append(origins, r.manifest.Logs[i].Origin)
	}
	var answers []<-chan anchored
	for _, a := range r.log.o.Anchors {
		answers = append(answers, ask(ctx, a.Anchor, origins))
	}
	for i, a := range r.log.o.Anchors {
		var held anchored
		select {
		case held = <-answers[i]:
		case <-ctx.Done():
			held.err = ctx.Err()
		}
		if err := r.checkAnchor(a, held); err != nil {
			return err
		}
	}
	return nil
}

// checkAnchor compares the log with what one anchor holds.
func (r *recovery) checkAnchor(a AnchorConfig, held anchored) error {
	name := a.Anchor.Name()
	if errors.Is(held.err, ErrFormat) {
		return fmt.Errorf("%w: L-61(g): anchor %s: %w", ErrAnchor, name, held.err)
	}
	away := held.err
	if away == nil {
		for i, msg := range held.checkpoints {
			if msg == nil {
				continue
			}
			if err := r.compareAnchor(name, &r.manifest.Logs[i], msg); err != nil {
				return err
			}
		}
		if sec := r.shards[0]; held.checkpoints[0] == nil && sec != nil && sec.shown {
			away = fmt.Errorf("%w: it holds no checkpoint of %s: it is new, or not what it was (not mounted, say)", ErrNotFound, r.manifest.Logs[0].Origin)
		}
	}
	switch {
	case away != nil && a.Required:
		return fmt.Errorf("%w: L-62: anchor %s is required: %w", ErrAnchor, name, away)
	case away != nil:
		r.anchorsAway[name] = away
	}
	return nil
}

// compareAnchor checks that a log goes on from a checkpoint of it.
func (r *recovery) compareAnchor(name string, l *manifestLog, msg []byte) error {
	lost := r.lost
	c, err := r.verifyOld(msg, l.Origin)
	r.lost = lost // an anchor may lag behind a change of keys
	if err != nil {
		return fmt.Errorf("%w: L-61(g): the checkpoint of %s in anchor %s: %w", ErrAnchor, l.Log, name, err)
	}
	size := r.size(l.shard)
	if c.Size > size {
		return corrupt("L-61(g)", "%w: anchor %s has size %d of %s, which has %d records here: an older copy was put back", ErrRollback, name, c.Size, l.Log, size)
	}
	root, err := (&tiles{r.log.fsys, l.Dir, size}).rootAt(c.Size)
	if l.MinIndex > 0 && errors.Is(err, fs.ErrNotExist) {
		return nil // its tiles are pruned; verify compares what is left
	}
	if err != nil {
		return corrupt("L-61(g)", "root of %s at size %d: %w", l.Log, c.Size, err)
	}
	if root != c.Root {
		return corrupt("L-61(g)", "%w: %s has another root at size %d than anchor %s", ErrRollback, l.Log, c.Size, name)
	}
	return nil
}

// anchorAlarm is that of an anchor that does not answer.
func anchorAlarm() Alarm { return Alarm{"anchor_unreachable", LevelWarn} }

// awayRecord says in the log which anchor does not answer.
func awayRecord(name string, err error) Record {
	r := Record{Action: SysAlarm, Outcome: OutcomeError, Reason: ReasonInternal, Corr: anchorCorr(name), Alarm: anchorAlarm()}
	if errors.Is(err, context.DeadlineExceeded) {
		r.Reason = ReasonTimeout
	}
	return r
}

func anchorCorr(name string) string { return "anchor." + name }
