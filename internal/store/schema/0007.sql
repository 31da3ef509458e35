-- What is reserved of a limited key's uses and was not used is given back when
-- the daemon ends in order; it never falls below what was used.
DROP TRIGGER key_use_rises;
CREATE TRIGGER key_use_rises BEFORE UPDATE ON key_use
	WHEN new.id <> old.id OR new.uses < old.uses OR new.reserved < new.uses
	BEGIN SELECT RAISE(ABORT, 'a usage counter only rises'); END;

-- What the sweeper looks for.
CREATE INDEX key_due ON key (delete_pending) WHERE state = 'DELETE_PENDING';
CREATE INDEX key_timed ON key (id) WHERE enabled = 1
	AND (instr(life, '"retires"') > 0 OR instr(block, CAST('keyd:not-after=' AS BLOB)) > 0);
