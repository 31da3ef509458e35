-- What a void, a completion or a refund refers to. At most one at a time has its
-- effect on it, or may have it yet.
CREATE UNIQUE INDEX txn_refers ON txn (refers_to)
	WHERE refers_to IS NOT NULL AND state NOT IN ('DECLINED', 'REVERSED', 'REVERSED_UNKNOWN', 'LOCAL_VOID');
CREATE TRIGGER txn_refers_once BEFORE UPDATE OF refers_to ON txn
	WHEN new.refers_to IS NOT old.refers_to
	BEGIN SELECT RAISE(ABORT, 'what an original refers to does not change'); END;

-- The transitions of an original; there are no others. Reversals section 2.2.
CREATE TRIGGER txn_transition BEFORE UPDATE OF state ON txn
	WHEN new.state <> old.state AND old.state || ' ' || new.state NOT IN (
		'RECEIVED FORWARDED', 'RECEIVED APPROVED', 'RECEIVED DECLINED', 'RECEIVED REVERSAL_PENDING', 'RECEIVED LOCAL_VOID',
		'FORWARDED APPROVED', 'FORWARDED DECLINED', 'FORWARDED REVERSAL_PENDING', 'FORWARDED LOCAL_VOID',
		'APPROVED REVERSAL_PENDING', 'APPROVED REV_HELD', 'APPROVED VOIDED', 'APPROVED COMPLETED',
		'VOIDED APPROVED', 'COMPLETED APPROVED',
		'REVERSAL_PENDING REVERSED', 'REVERSAL_PENDING REVERSED_UNKNOWN', 'REVERSAL_PENDING REV_FAILED',
		'REV_HELD REVERSAL_PENDING', 'REV_HELD APPROVED',
		'REV_FAILED REVERSAL_PENDING')
	BEGIN SELECT RAISE(ABORT, 'the original does not go from one of these states to the other'); END;
