-- The rules on states without lists: SQLite makes a table of a list each time it
-- is looked at, which took as long as the writing. No state of the end has a way
-- out, so that this one also says what txn_final said.
DROP TRIGGER txn_final;
DROP TRIGGER txn_transition;
CREATE TRIGGER txn_transition BEFORE UPDATE OF state ON txn
	WHEN NOT (new.state = old.state
		OR (old.state = 'FORWARDED' OR old.state = 'RECEIVED') AND (new.state = 'APPROVED' OR new.state = 'DECLINED'
			OR new.state = 'REVERSAL_PENDING' OR new.state = 'LOCAL_VOID')
		OR old.state = 'RECEIVED' AND new.state = 'FORWARDED'
		OR old.state = 'APPROVED' AND (new.state = 'REVERSAL_PENDING' OR new.state = 'REV_HELD'
			OR new.state = 'VOIDED' OR new.state = 'COMPLETED')
		OR (old.state = 'VOIDED' OR old.state = 'COMPLETED') AND new.state = 'APPROVED'
		OR old.state = 'REVERSAL_PENDING' AND (new.state = 'REVERSED' OR new.state = 'REVERSED_UNKNOWN'
			OR new.state = 'REV_FAILED')
		OR old.state = 'REV_HELD' AND (new.state = 'REVERSAL_PENDING' OR new.state = 'APPROVED')
		OR old.state = 'REV_FAILED' AND new.state = 'REVERSAL_PENDING')
	BEGIN SELECT RAISE(ABORT, 'the original does not go from one of these states to the other'); END;

-- An original is looked for by its key in eight bytes of it, of which few have
-- the same.
DROP INDEX txn_lookup;
CREATE INDEX txn_lookup ON txn (substr(lookup, 1, 8), received);

-- What the alarm about another terminal's original looks for (D-12). Each is
-- ordered by spans of 275 seconds first: a new row then goes where the last ones
-- are, however large the journal is, and the alarm, which is rare, looks into
-- each span of the look-back.
DROP INDEX txn_rrn;
DROP INDEX txn_approval;
DROP INDEX txn_card;
CREATE INDEX txn_rrn ON txn (received >> 38, rrn) WHERE rrn <> '';
CREATE INDEX txn_approval ON txn (received >> 38, approval) WHERE approval <> '';
CREATE INDEX txn_card ON txn (received >> 38, substr(pan_token, -8)) WHERE pan_token <> '';
