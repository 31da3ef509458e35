package audit

import "maps"

// catchUp takes the logs on to the checkpoints that a node published while they
// were verified: the segments behind those that were read first may be gone by
// now (L-33). It reports whether there was one.
func (v *verification) catchUp() (grew bool) {
	for i := range v.manifest.Logs {
		if c := v.logs[v.manifest.Logs[i].shard]; c != nil && c.found == 0 {
			grew = c.catchUp() || grew
		}
	}
	return grew
}

func (c *logCheck) catchUp() bool {
	v, file := c.v, c.log.Dir+"/checkpoint"
	msg, err := readFile(v.fsys, file, 1<<16)
	if err != nil {
		return false // it is as it was, or finish says what it lacks
	}
	if same, err := unverifiedCheckpoint(msg); err == nil && same == c.cp {
		return false
	}
	failed := v.report.Failed
	cp, ok := v.signed(c.log, file, msg)
	if c.found += v.report.Failed - failed; !ok {
		return false
	}
	if cp.Origin != c.cp.Origin || cp.Size <= c.cp.Size {
		c.fail("L-54", file, "size %d of %s after size %d of %s", cp.Size, cp.Origin, c.cp.Size, c.cp.Origin)
		return false
	}
	c.boot, c.mono, c.intents = c.saved.boot, c.saved.mono, maps.Clone(c.saved.intents)
	c.cp, c.unsigned = cp, false
	src := &tiles{v.fsys, c.log.Dir, cp.Size}
	for n := c.tree.size / tileWidth; n < bundlesOf(cp.Size) && c.found < maxRunFindings; n++ {
		r := readBundle(src, n)
		if r.err != nil {
			c.fail("L-141", c.log.Dir+"/"+tilePath(bundleLevel, n, widthAt(cp.Size, bundleLevel, n)), "%v", r.err)
			return false
		}
		c.bundle(n, &r)
	}
	c.checkRoots()
	if c.tree.root() != cp.Root {
		c.fail("L-141", file, "the entries do not have its root")
	}
	c.tree.partials()
	c.compareTiles()
	c.saved = runState{c.boot, c.mono, maps.Clone(c.intents)}
	v.checkNext(c.log, cp)
	return true
}
