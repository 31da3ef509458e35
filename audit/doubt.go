package audit

import (
	"fmt"
)

// startAnew forgets what was made of the trees since the published checkpoints,
// after a sync of their tiles failed: it may have marked dirty pages clean, so
// that a later sync would vouch for tiles that are on no disk (L-22, L-53). The
// frames of all of it are still in the write-ahead log (L-33), from which it is
// made and written once more.
func (g *integrator) startAnew() error {
	trees := map[Shard]*tree{}
	undone := uint64(0)
	for shard, old := range g.trees {
		t := newTree(g.fsys, shard, old.origin)
		if c, ok := g.lastPublished(shard); ok {
			var err error
			if t, err = loadTree(g.fsys, shard, old.origin, c.Size); err != nil {
				return fmt.Errorf("starting anew from the checkpoint of %s: %w", old.origin, err)
			}
			if t.root() != c.Root {
				return corrupt("L-61(d)", "the tiles of %s do not have the root of its checkpoint of size %d", old.origin, c.Size)
			}
			t.covered = c.Size
		}
		if err := dropPartials(g.fsys, old.dir, t.size, old.size); err != nil {
			return fmt.Errorf("starting anew from the checkpoint of %s: %w", old.origin, err)
		}
		undone += old.size - t.size
		trees[shard] = t
	}
	g.mu.Lock()
	queue := g.queue
	g.queue, g.queued, g.lost = nil, 0, true
	g.mu.Unlock()
	for _, b := range queue {
		b.free()
	}
	if len(g.segments) > 0 {
		g.cursor = walPos{g.segments[0].seg, headerSize}
	}
	g.trees, g.segments, g.doubt = trees, nil, false
	g.progress.merged.Add(-undone)
	return nil
}
