-- Requests that need a second person. They are registered, so that nobody
-- approves with a pen in the database; the rules here keep a closed one closed.
CREATE TABLE approval (
	ref       TEXT PRIMARY KEY CHECK (length(ref) = 10 AND ref NOT GLOB '*[^0-9A-HJKMNP-TV-Z]*'),
	principal TEXT NOT NULL CHECK (principal <> ''),
	operation TEXT NOT NULL CHECK (operation <> ''),
	object    TEXT NOT NULL CHECK (length(object) <= 500),
	body      BLOB NOT NULL CHECK (length(body) = 32),
	asker     TEXT NOT NULL CHECK (json_valid(asker)),
	asked     INTEGER NOT NULL CHECK (asked > 0),
	deadline  INTEGER NOT NULL CHECK (deadline > asked),
	-- written once up to here
	state     TEXT NOT NULL CHECK (state IN ('WAITING', 'APPROVED', 'REJECTED', 'SPENT', 'EXPIRED')),
	second    TEXT NOT NULL CHECK (json_valid(second)),
	decided   INTEGER NOT NULL,
	until     INTEGER NOT NULL,
	record    BLOB NOT NULL CHECK (length(record) = 16)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX approval_open ON approval (principal, operation, object, body)
	WHERE state IN ('WAITING', 'APPROVED');
CREATE INDEX approval_asked ON approval (asked);
CREATE TRIGGER approval_written_once BEFORE UPDATE ON approval
	WHEN new.ref <> old.ref OR new.principal <> old.principal OR new.operation <> old.operation
		OR new.object <> old.object OR new.body <> old.body OR new.asker <> old.asker
		OR new.asked <> old.asked OR new.deadline <> old.deadline
	BEGIN SELECT RAISE(ABORT, 'what was asked for does not change'); END;
CREATE TRIGGER approval_onward BEFORE UPDATE ON approval
	WHEN NOT (old.state = 'WAITING' AND new.state IN ('APPROVED', 'REJECTED', 'EXPIRED')
		OR old.state = 'APPROVED' AND new.state IN ('REJECTED', 'SPENT', 'EXPIRED'))
	BEGIN SELECT RAISE(ABORT, 'a request that is closed stays closed'); END;
CREATE TRIGGER approval_begins BEFORE INSERT ON approval
	WHEN new.state <> 'WAITING'
	BEGIN SELECT RAISE(ABORT, 'a request begins by waiting'); END;
CREATE TRIGGER approval_stays BEFORE DELETE ON approval
	WHEN old.state IN ('WAITING', 'APPROVED')
	BEGIN SELECT RAISE(ABORT, 'an open request is not forgotten'); END;

-- Roles of a configured client that were changed since, in place of those of
-- the configuration. Registered.
CREATE TABLE client_role (
	client TEXT PRIMARY KEY CHECK (client <> ''),
	uri    TEXT NOT NULL CHECK (uri <> ''),
	roles  TEXT NOT NULL CHECK (json_valid(roles) AND json_type(roles) = 'array'),
	at     INTEGER NOT NULL CHECK (at > 0)
) STRICT, WITHOUT ROWID;
