-- Generations of the local master key: since when keyd knows of each, and when
-- it was retired.
CREATE TABLE lmk (
	generation INTEGER PRIMARY KEY CHECK (generation BETWEEN 1 AND 0xFFFFFFFF),
	since      INTEGER NOT NULL CHECK (since > 0),
	retired    INTEGER NOT NULL CHECK (retired >= 0)
) STRICT;
CREATE TRIGGER lmk_stays BEFORE DELETE ON lmk
	BEGIN SELECT RAISE(ABORT, 'a generation is never forgotten'); END;
CREATE TRIGGER lmk_onward BEFORE UPDATE ON lmk
	WHEN new.generation <> old.generation OR new.since <> old.since OR old.retired > 0
	BEGIN SELECT RAISE(ABORT, 'a generation that was retired stays so'); END;

-- The generation of a key block: bytes 6 to 9, which can be compared as they stand.
CREATE INDEX key_lmk ON key (substr(block, 6, 4));
CREATE TRIGGER key_lmk_new BEFORE INSERT ON key
	WHEN EXISTS (SELECT 1 FROM lmk WHERE retired > 0 AND printf('%08X', generation) = hex(substr(new.block, 6, 4)))
	BEGIN SELECT RAISE(ABORT, 'a key block under a local master key that was retired'); END;
CREATE TRIGGER key_lmk_changed BEFORE UPDATE OF block ON key
	WHEN EXISTS (SELECT 1 FROM lmk WHERE retired > 0 AND printf('%08X', generation) = hex(substr(new.block, 6, 4)))
	BEGIN SELECT RAISE(ABORT, 'a key block under a local master key that was retired'); END;
