CREATE INDEX alias_key ON alias (key) WHERE key IS NOT NULL;

CREATE INDEX answer_at ON answer (at);

CREATE INDEX reversal_due ON reversal (next) WHERE state IN ('QUEUED', 'SENT');

CREATE UNIQUE INDEX reversal_full ON reversal (oid) WHERE full = 1;

CREATE INDEX reversal_oid ON reversal (oid);

CREATE INDEX txn_approval ON txn (approval, received) WHERE approval <> '';

CREATE INDEX txn_card ON txn (pan_token, amount, received) WHERE pan_token <> '';

CREATE INDEX txn_lookup ON txn (lookup, received);

CREATE INDEX txn_rrn ON txn (rrn, received) WHERE rrn <> '';

CREATE INDEX txn_unfinished ON txn (oid) WHERE state IN ('RECEIVED', 'FORWARDED');

CREATE TABLE accepted (
	device  TEXT NOT NULL REFERENCES ksn (device),
	counter INTEGER NOT NULL,
	message BLOB NOT NULL CHECK (length(message) = 32),
	at      INTEGER NOT NULL,
	PRIMARY KEY (device, counter)
) STRICT, WITHOUT ROWID;

CREATE TABLE alias (
	name TEXT PRIMARY KEY CHECK (name GLOB 'alias/?*' AND length(name) <= 256
		AND substr(name, 7) NOT GLOB '*[^0-9A-Za-z/_-]*'),
	key  TEXT REFERENCES key (id)
) STRICT, WITHOUT ROWID;

CREATE TABLE answer (
	principal  TEXT NOT NULL CHECK (principal <> ''),
	invocation TEXT NOT NULL CHECK (invocation <> '' AND length(invocation) <= 256),
	operation  TEXT NOT NULL CHECK (operation <> ''),
	body       BLOB NOT NULL CHECK (length(body) = 32),
	answer     BLOB NOT NULL,
	at         INTEGER NOT NULL,
	PRIMARY KEY (principal, invocation)
) STRICT, WITHOUT ROWID;

CREATE TABLE counter (
	name  TEXT PRIMARY KEY CHECK (name <> ''),
	value INTEGER NOT NULL CHECK (value >= 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE epoch (
	name   TEXT PRIMARY KEY CHECK (name = 'start'),
	number INTEGER NOT NULL CHECK (number > 0),
	at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE key (
	id             TEXT PRIMARY KEY CHECK (length(id) = 32 AND id NOT GLOB '*[^0-9a-z]*'),
	block          BLOB NOT NULL CHECK (length(block) BETWEEN 64 AND 8192),
	state          TEXT NOT NULL CHECK (state IN
		('CREATE_IN_PROGRESS', 'CREATE_COMPLETE', 'DELETE_PENDING', 'DELETE_COMPLETE')),
	enabled        INTEGER NOT NULL CHECK (enabled IN (0, 1)),
	usage_start    INTEGER NOT NULL,
	usage_stop     INTEGER NOT NULL,
	delete_pending INTEGER NOT NULL,
	deleted        INTEGER NOT NULL,
	tags           TEXT NOT NULL CHECK (json_valid(tags) AND json_type(tags) = 'object'), life TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(life) AND json_type(life) = 'object'),
	CHECK (state = 'CREATE_COMPLETE' OR enabled = 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE key_use (
	id          TEXT PRIMARY KEY REFERENCES key (id),
	uses        INTEGER NOT NULL CHECK (uses >= 0),
	reserved    INTEGER NOT NULL CHECK (reserved >= 0),
	first       INTEGER NOT NULL,
	last        INTEGER NOT NULL,
	warned_uses INTEGER NOT NULL CHECK (warned_uses >= 0),
	warned_time INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE ksn (
	device  TEXT PRIMARY KEY CHECK (length(device) IN (16, 20) AND device NOT GLOB '*[^0-9A-F]*'),
	counter INTEGER NOT NULL CHECK (counter BETWEEN 1 AND 0xFFFFFFFF),
	at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE probe (
	one INTEGER PRIMARY KEY CHECK (one = 1),
	n   INTEGER NOT NULL
) STRICT;

CREATE TABLE reversal (
	seq        INTEGER PRIMARY KEY,
	rid        BLOB NOT NULL UNIQUE CHECK (length(rid) = 32),
	oid        BLOB NOT NULL REFERENCES txn (oid),
	cause      TEXT NOT NULL CHECK (cause IN
		('terminal', 'timeout', 'bad_answer', 'link_lost', 'restart', 'undelivered')), -- I-3
	full       INTEGER NOT NULL CHECK (full IN (0, 1)),
	rest       INTEGER NOT NULL,
	mti        TEXT NOT NULL,
	stan       TEXT NOT NULL,
	tid        TEXT NOT NULL CHECK (tid <> ''),
	ksn        TEXT NOT NULL CHECK (length(ksn) <= 24),
	raw        BLOB CHECK (length(raw) = 32),
	built      INTEGER NOT NULL CHECK (built > 0),
	up_stan    TEXT NOT NULL,
	up_sent    TEXT NOT NULL,
	-- written once up to here
	answer     TEXT NOT NULL,
	rrn        TEXT NOT NULL,
	approval   TEXT NOT NULL,
	content    BLOB CHECK (length(content) = 32),
	state      TEXT NOT NULL CHECK (state IN
		('WAITING', 'QUEUED', 'SENT', 'CONFIRMED', 'CLOSED', 'FAILED', 'HELD', 'PARKED')),
	reason     TEXT NOT NULL,
	tries      INTEGER NOT NULL CHECK (tries >= 0),
	declines   INTEGER NOT NULL CHECK (declines >= 0),
	errors     INTEGER NOT NULL CHECK (errors >= 0),
	next       INTEGER NOT NULL,
	first_sent INTEGER NOT NULL,
	last_sent  INTEGER NOT NULL,
	answered   INTEGER NOT NULL,
	up_answer  TEXT NOT NULL,
	closed     INTEGER NOT NULL,
	CHECK (cause <> 'terminal' OR (mti <> '' AND stan <> '' AND raw IS NOT NULL)), -- I-3
	CHECK (full = 1 OR rest > 0) -- I-2
) STRICT;

CREATE TABLE terminal (
	tid       TEXT PRIMARY KEY CHECK (length(tid) = 8),
	mid       TEXT NOT NULL CHECK (length(mid) = 15),
	scheme    TEXT NOT NULL CHECK (scheme IN ('tdes-dukpt', 'aes-dukpt')),
	bdk       TEXT NOT NULL CHECK (bdk GLOB 'alias/?*' AND length(bdk) <= 256),
	device    TEXT NOT NULL UNIQUE CHECK (device NOT GLOB '*[^0-9A-F]*'
		AND length(device) = CASE scheme WHEN 'tdes-dukpt' THEN 20 ELSE 16 END),
	mac_bytes INTEGER NOT NULL CHECK (mac_bytes IN (4, 8)),
	disabled  INTEGER NOT NULL CHECK (disabled IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE TABLE txn (
	seq        INTEGER PRIMARY KEY,
	oid        BLOB NOT NULL UNIQUE CHECK (length(oid) = 32),
	lookup     BLOB NOT NULL CHECK (length(lookup) = 32),
	link       TEXT NOT NULL,
	received   INTEGER NOT NULL CHECK (received > 0),
	mti        TEXT NOT NULL CHECK (length(mti) = 4),
	card       BLOB NOT NULL CHECK (length(card) <= 64),
	pan_token  TEXT NOT NULL CHECK (length(pan_token) <= 64),
	processing TEXT NOT NULL,
	amount     INTEGER NOT NULL CHECK (amount >= 0),
	sent       TEXT NOT NULL,
	stan       TEXT NOT NULL,
	time       TEXT NOT NULL,
	date       TEXT NOT NULL,
	entry      TEXT NOT NULL,
	condition  TEXT NOT NULL,
	acquirer   TEXT NOT NULL,
	tid        TEXT NOT NULL CHECK (tid <> ''),
	mid        TEXT NOT NULL,
	currency   TEXT NOT NULL,
	emv        BLOB CHECK (length(emv) <= 255),
	ksn        TEXT NOT NULL CHECK (length(ksn) <= 24),
	mac_key    TEXT NOT NULL CHECK (mac_key <> ''), -- I-3
	content    BLOB NOT NULL CHECK (length(content) = 32),
	raw        BLOB NOT NULL CHECK (length(raw) = 32),
	up_stan    TEXT NOT NULL,
	up_sent    TEXT NOT NULL,
	-- written once up to here
	state      TEXT NOT NULL CHECK (state IN ('RECEIVED', 'FORWARDED', 'APPROVED', 'DECLINED', 'UNKNOWN',
		'REVERSAL_PENDING', 'REVERSED', 'REVERSED_UNKNOWN', 'REV_FAILED', 'REV_HELD', 'LOCAL_VOID',
		'VOIDED', 'COMPLETED', 'TOMBSTONE')),
	rrn        TEXT NOT NULL,
	approval   TEXT NOT NULL,
	answer     TEXT NOT NULL,
	late       TEXT NOT NULL,
	issuer_emv BLOB CHECK (length(issuer_emv) <= 255),
	reverse_on_completion INTEGER NOT NULL CHECK (reverse_on_completion IN (0, 1)),
	batch_closed          INTEGER NOT NULL CHECK (batch_closed IN (0, 1)),
	refunded              INTEGER NOT NULL CHECK (refunded IN (0, 1)),
	reversed_amount       INTEGER NOT NULL CHECK (reversed_amount BETWEEN 0 AND amount), -- I-2
	refers_to  BLOB CHECK (length(refers_to) = 32),
	finished   INTEGER NOT NULL
) STRICT;

CREATE TRIGGER accepted_once BEFORE UPDATE ON accepted
	BEGIN SELECT RAISE(ABORT, 'what was accepted does not change'); END;

CREATE TRIGGER counter_rises BEFORE UPDATE ON counter
	WHEN new.name <> old.name OR new.value <= old.value
	BEGIN SELECT RAISE(ABORT, 'a counter only rises'); END;

CREATE TRIGGER counter_stays BEFORE DELETE ON counter
	BEGIN SELECT RAISE(ABORT, 'a counter is never forgotten'); END;

CREATE TRIGGER key_use_rises BEFORE UPDATE ON key_use
	WHEN new.id <> old.id OR new.uses < old.uses OR new.reserved < old.reserved
	BEGIN SELECT RAISE(ABORT, 'a usage counter only rises'); END;

CREATE TRIGGER key_use_stays BEFORE DELETE ON key_use
	BEGIN SELECT RAISE(ABORT, 'a usage counter is never forgotten'); END;

CREATE TRIGGER ksn_rises BEFORE UPDATE ON ksn
	WHEN new.device <> old.device OR new.counter <= old.counter
	BEGIN SELECT RAISE(ABORT, 'a KSN counter only rises'); END;

CREATE TRIGGER ksn_stays BEFORE DELETE ON ksn
	BEGIN SELECT RAISE(ABORT, 'a KSN counter is never forgotten'); END;

CREATE TRIGGER reversal_stays BEFORE DELETE ON reversal
	BEGIN SELECT RAISE(ABORT, 'the journal forgets nothing'); END;

CREATE TRIGGER reversal_sum BEFORE INSERT ON reversal -- I-2
	WHEN (new.full = 1 AND EXISTS (SELECT 1 FROM reversal WHERE oid = new.oid AND full = 0))
	  OR (new.full = 0 AND EXISTS (SELECT 1 FROM reversal WHERE oid = new.oid AND (full = 1 OR rest <= new.rest)))
	  OR (new.full = 0 AND EXISTS (SELECT 1 FROM txn WHERE oid = new.oid AND amount <= new.rest))
	BEGIN SELECT RAISE(ABORT, 'more would be reversed than the amount of the original'); END;

CREATE TRIGGER reversal_written_once BEFORE UPDATE OF seq, rid, oid, cause, full, rest, mti, stan, tid, ksn,
		raw, built, up_stan, up_sent ON reversal
	BEGIN SELECT RAISE(ABORT, 'what a reversal says does not change'); END;

CREATE TRIGGER txn_final BEFORE UPDATE OF state ON txn
	WHEN old.state IN ('DECLINED', 'REVERSED', 'REVERSED_UNKNOWN', 'LOCAL_VOID', 'TOMBSTONE') AND new.state <> old.state
	BEGIN SELECT RAISE(ABORT, 'the state is final'); END;

CREATE TRIGGER txn_reversed_amount BEFORE UPDATE OF reversed_amount ON txn
	WHEN new.reversed_amount < old.reversed_amount
	BEGIN SELECT RAISE(ABORT, 'a reversed amount only rises'); END;

CREATE TRIGGER txn_stays BEFORE DELETE ON txn
	BEGIN SELECT RAISE(ABORT, 'the journal forgets nothing'); END;

CREATE TRIGGER txn_written_once BEFORE UPDATE OF seq, oid, lookup, link, received, mti, card, pan_token,
		processing, amount, sent, stan, time, date, entry, condition, acquirer, tid, mid, currency, emv,
		ksn, mac_key, content, raw, up_stan, up_sent ON txn
	BEGIN SELECT RAISE(ABORT, 'what was received does not change'); END;
