-- What operators do to a reversal that was given up: how many tries no longer
-- count, and the case with which it was closed for good.
ALTER TABLE reversal ADD COLUMN granted INTEGER NOT NULL DEFAULT 0 CHECK (granted >= 0);
ALTER TABLE reversal ADD COLUMN renewed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE reversal ADD COLUMN case_id TEXT NOT NULL DEFAULT '' CHECK (length(case_id) <= 32);
ALTER TABLE reversal ADD COLUMN resolved INTEGER NOT NULL DEFAULT 0;
CREATE TRIGGER reversal_case_stays BEFORE UPDATE ON reversal
	WHEN old.case_id <> '' AND (new.case_id <> old.case_id OR new.state <> old.state OR new.resolved <> old.resolved)
	BEGIN SELECT RAISE(ABORT, 'a reversal that was closed with a case stays closed'); END;

-- What operators look for: work that is open, and the reversals of a terminal.
CREATE INDEX reversal_work ON reversal (built) WHERE state NOT IN ('CONFIRMED', 'CLOSED') AND case_id = '';
CREATE INDEX reversal_terminal ON reversal (tid, built);

-- What the receiver of the hook is told of reversals. Each row is written by the
-- change that it tells of, by the rules below, so that no path can forget it and
-- none tells of what did not happen. A row of hook is there while one is
-- configured.
CREATE TABLE hook (one INTEGER PRIMARY KEY CHECK (one = 1)) STRICT;

CREATE TABLE outbox (
	seq       INTEGER PRIMARY KEY AUTOINCREMENT,
	rid       BLOB NOT NULL REFERENCES reversal (rid),
	oid       BLOB NOT NULL REFERENCES txn (oid),
	kind      TEXT NOT NULL CHECK (kind IN ('created', 'done', 'failed')),
	n         INTEGER NOT NULL CHECK (n > 0),
	at        INTEGER NOT NULL,
	state     TEXT NOT NULL,
	up_answer TEXT NOT NULL,
	tries     INTEGER NOT NULL,
	-- written once up to here
	sent         INTEGER NOT NULL DEFAULT 0,
	next         INTEGER NOT NULL DEFAULT 0,
	acknowledged INTEGER NOT NULL DEFAULT 0,
	UNIQUE (rid, kind, n)
) STRICT;
CREATE INDEX outbox_open ON outbox (oid, seq) WHERE acknowledged = 0;
CREATE INDEX outbox_due ON outbox (next, seq) WHERE acknowledged = 0;
CREATE TRIGGER outbox_written_once BEFORE UPDATE OF seq, rid, oid, kind, n, at, state, up_answer, tries ON outbox
	BEGIN SELECT RAISE(ABORT, 'what an event tells does not change'); END;
CREATE TRIGGER outbox_acknowledged BEFORE UPDATE ON outbox WHEN old.acknowledged <> 0
	BEGIN SELECT RAISE(ABORT, 'an event that was acknowledged stays so'); END;
CREATE TRIGGER outbox_stays BEFORE DELETE ON outbox
	BEGIN SELECT RAISE(ABORT, 'the outbox forgets nothing'); END;

CREATE TRIGGER reversal_created AFTER INSERT ON reversal
	WHEN new.state = 'QUEUED' AND EXISTS (SELECT 1 FROM hook)
	BEGIN INSERT INTO outbox (rid, oid, kind, n, at, state, up_answer, tries)
		VALUES (new.rid, new.oid, 'created', 1, new.built, new.state, new.up_answer, new.tries); END;
CREATE TRIGGER reversal_released AFTER UPDATE OF state ON reversal
	WHEN old.state IN ('WAITING', 'HELD') AND new.state = 'QUEUED' AND EXISTS (SELECT 1 FROM hook)
	BEGIN INSERT INTO outbox (rid, oid, kind, n, at, state, up_answer, tries)
		VALUES (new.rid, new.oid, 'created', 1, new.built, new.state, new.up_answer, new.tries); END;
CREATE TRIGGER reversal_done AFTER UPDATE OF state ON reversal
	WHEN old.state <> 'CONFIRMED' AND new.state = 'CONFIRMED' AND EXISTS (SELECT 1 FROM hook)
	BEGIN INSERT INTO outbox (rid, oid, kind, n, at, state, up_answer, tries)
		VALUES (new.rid, new.oid, 'done', 1, new.closed, new.state, new.up_answer, new.tries); END;
CREATE TRIGGER reversal_failed AFTER UPDATE OF state ON reversal
	WHEN old.state <> new.state AND new.state IN ('FAILED', 'PARKED') AND EXISTS (SELECT 1 FROM hook)
	BEGIN INSERT INTO outbox (rid, oid, kind, n, at, state, up_answer, tries)
		VALUES (new.rid, new.oid, 'failed',
			1 + (SELECT count(*) FROM outbox WHERE rid = new.rid AND kind = 'failed'),
			new.closed, new.state, new.up_answer, new.tries); END;
