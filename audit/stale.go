package audit

import (
	"strings"
	"time"
)

// sweepStale deletes, once and a minute after the start, the partial tiles of
// full ones that a previous process left: it knew when they may go, and ended
// before (L-46). Full tiles and their partial ones are written no more, so it
// needs no turn beside the integrator.
func (g *integrator) sweepStale(covered map[Shard]uint64) {
	minute := time.NewTimer(partialAge)
	defer minute.Stop()
	select {
	case <-minute.C:
	case <-g.stop:
		return
	}
	for shard, size := range covered {
		g.sweepPartials(shard.dir(), "tile", size)
	}
}

// covered returns how much of each log is under a published checkpoint.
func (r *recovery) covered() map[Shard]uint64 {
	sizes := map[Shard]uint64{}
	for shard, st := range r.shards {
		sizes[shard] = st.cp.Size
	}
	return sizes
}

// sweepPartials does so below one folder of a log, of which a published
// checkpoint covers size records.
func (g *integrator) sweepPartials(dir, path string, size uint64) {
	names, err := g.fsys.ReadDir(dir + "/" + path)
	if err != nil {
		return // a log without tiles, or one whose files are pruned meanwhile
	}
	for _, name := range names {
		select {
		case <-g.stop:
			return
		default:
		}
		folder, ok := strings.CutSuffix(path+"/"+name, "/")
		if !ok {
			continue
		}
		full, partial := strings.CutSuffix(folder, ".p")
		if !partial {
			g.sweepPartials(dir, folder, size)
			continue
		}
		if level, n, _, err := parseTilePath(full); err == nil && widthAt(size, level, n) == tileWidth {
			removeTree(g.fsys, dir+"/"+folder)
		}
	}
}
