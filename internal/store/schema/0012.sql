-- The profile of terminals by which an original came (reversals section 3.1).
-- Empty: one of before, when a daemon had one profile.
ALTER TABLE txn ADD COLUMN profile TEXT NOT NULL DEFAULT '' CHECK (length(profile) <= 32);
CREATE TRIGGER txn_profile_once BEFORE UPDATE OF profile ON txn
	BEGIN SELECT RAISE(ABORT, 'what was received does not change'); END;
