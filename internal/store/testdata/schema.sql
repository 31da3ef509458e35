CREATE INDEX alias_key ON alias (key) WHERE key IS NOT NULL;

CREATE INDEX answer_at ON answer (at);

CREATE INDEX approval_asked ON approval (asked);

CREATE UNIQUE INDEX approval_open ON approval (principal, operation, object, body)
	WHERE state IN ('WAITING', 'APPROVED');

CREATE INDEX exchange_token_live ON exchange_token (made) WHERE destroyed = 0;

CREATE INDEX key_due ON key (delete_pending) WHERE state = 'DELETE_PENDING';

CREATE INDEX key_lmk ON key (substr(block, 6, 4));

CREATE INDEX key_timed ON key (id) WHERE enabled = 1
	AND (instr(life, '"retires"') > 0 OR instr(block, CAST('keyd:not-after=' AS BLOB)) > 0);

CREATE INDEX outbox_due ON outbox (next, seq) WHERE acknowledged = 0;

CREATE INDEX outbox_open ON outbox (oid, seq) WHERE acknowledged = 0;

CREATE INDEX reversal_due ON reversal (link, next) WHERE state IN ('QUEUED', 'SENT');

CREATE UNIQUE INDEX reversal_full ON reversal (oid) WHERE full = 1;

CREATE INDEX reversal_oid ON reversal (oid);

CREATE INDEX reversal_terminal ON reversal (tid, built);

CREATE INDEX reversal_work ON reversal (built) WHERE state NOT IN ('CONFIRMED', 'CLOSED') AND case_id = '';

CREATE INDEX txn_approval ON txn (received >> 38, approval) WHERE approval <> '';

CREATE INDEX txn_card ON txn (received >> 38, substr(pan_token, -8)) WHERE pan_token <> '';

CREATE INDEX txn_lookup ON txn (substr(lookup, 1, 8), received);

CREATE UNIQUE INDEX txn_refers ON txn (refers_to)
	WHERE refers_to IS NOT NULL AND state NOT IN ('DECLINED', 'REVERSED', 'REVERSED_UNKNOWN', 'LOCAL_VOID');

CREATE INDEX txn_rrn ON txn (received >> 38, rrn) WHERE rrn <> '';

CREATE INDEX txn_unfinished ON txn (oid) WHERE state IN ('RECEIVED', 'FORWARDED');

CREATE TABLE accepted (
	device  TEXT NOT NULL REFERENCES ksn (device),
	counter INTEGER NOT NULL,
	message BLOB NOT NULL CHECK (length(message) = 32),
	at      INTEGER NOT NULL, row_mac BLOB NOT NULL DEFAULT x'',
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

CREATE TABLE client_role (
	client TEXT PRIMARY KEY CHECK (client <> ''),
	uri    TEXT NOT NULL CHECK (uri <> ''),
	roles  TEXT NOT NULL CHECK (json_valid(roles) AND json_type(roles) = 'array'),
	at     INTEGER NOT NULL CHECK (at > 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE counter (
	name  TEXT PRIMARY KEY CHECK (name <> ''),
	value INTEGER NOT NULL CHECK (value >= 0)
, row_mac BLOB NOT NULL DEFAULT x'') STRICT, WITHOUT ROWID;

CREATE TABLE epoch (
	name   TEXT PRIMARY KEY CHECK (name = 'start'),
	number INTEGER NOT NULL CHECK (number > 0),
	at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE exchange_token (
	token       TEXT PRIMARY KEY CHECK (token GLOB '[ei][xm]port-token-?*' AND length(token) BETWEEN 29 AND 77
		AND substr(token, 14) NOT GLOB '*[^0-9A-Za-z]*'),
	algorithm   TEXT NOT NULL CHECK (algorithm IN ('RSA_2048', 'RSA_3072', 'RSA_4096')),
	certificate BLOB NOT NULL CHECK (length(certificate) BETWEEN 1 AND 16384),
	made        INTEGER NOT NULL,
	expires     INTEGER NOT NULL,
	principal   TEXT NOT NULL CHECK (principal <> ''),
	destroyed   INTEGER NOT NULL DEFAULT 0 -- when its key pair was
) STRICT, WITHOUT ROWID;

CREATE TABLE hook (one INTEGER PRIMARY KEY CHECK (one = 1)) STRICT;

CREATE TABLE issuer (
	key   BLOB PRIMARY KEY CHECK (length(key) = 32),
	chain BLOB NOT NULL CHECK (length(chain) BETWEEN 1 AND 131072)
) STRICT, WITHOUT ROWID;

CREATE TABLE journal (
	name      TEXT PRIMARY KEY CHECK (name = 'journal'),
	id        BLOB NOT NULL CHECK (length(id) = 16),
	sealed    INTEGER NOT NULL, -- since when its rows have MACs; 0 until that is recorded
	ended     INTEGER NOT NULL CHECK (ended IN (0, 1)),
	txns      INTEGER NOT NULL, -- the highest seq
	reversals INTEGER NOT NULL, -- the highest seq
	marks     INTEGER NOT NULL, -- how many devices have a mark
	counted   INTEGER NOT NULL  -- the sum of all marks and counters
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
, row_mac BLOB NOT NULL DEFAULT x'') STRICT, WITHOUT ROWID;

CREATE TABLE ksn_mark (
	bdk     TEXT NOT NULL REFERENCES key (id),
	device  TEXT NOT NULL CHECK (length(device) IN (16, 20)),
	counter INTEGER NOT NULL CHECK (counter BETWEEN 1 AND 4294967295),
	kinds   INTEGER NOT NULL CHECK (kinds BETWEEN 1 AND 7),
	at      INTEGER NOT NULL, row_mac BLOB NOT NULL DEFAULT x'',
	PRIMARY KEY (bdk, device)
) STRICT, WITHOUT ROWID;

CREATE TABLE ksn_request (
	bdk     TEXT NOT NULL,
	device  TEXT NOT NULL,
	counter INTEGER NOT NULL,
	kind    INTEGER NOT NULL CHECK (kind IN (1, 2, 4)),
	request BLOB NOT NULL CHECK (length(request) = 32),
	at      INTEGER NOT NULL, row_mac BLOB NOT NULL DEFAULT x'',
	PRIMARY KEY (bdk, device, counter, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE lmk (
	generation INTEGER PRIMARY KEY CHECK (generation BETWEEN 1 AND 0xFFFFFFFF),
	since      INTEGER NOT NULL CHECK (since > 0),
	retired    INTEGER NOT NULL CHECK (retired >= 0)
) STRICT;

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

CREATE TABLE probe (
	one INTEGER PRIMARY KEY CHECK (one = 1),
	n   INTEGER NOT NULL
) STRICT;

CREATE TABLE public_key (
	id          TEXT PRIMARY KEY CHECK (length(id) = 32 AND id NOT GLOB '*[^0-9a-z]*'),
	algorithm   TEXT NOT NULL CHECK (algorithm <> ''),
	certificate BLOB NOT NULL CHECK (length(certificate) BETWEEN 1 AND 32768),
	authority   TEXT NOT NULL,
	kcv         BLOB NOT NULL CHECK (length(kcv) = 3),
	enabled     INTEGER NOT NULL CHECK (enabled IN (0, 1)),
	made        INTEGER NOT NULL,
	tags        TEXT NOT NULL CHECK (json_valid(tags) AND json_type(tags) = 'object'),
	seal        BLOB NOT NULL CHECK (length(seal) = 32)
) STRICT, WITHOUT ROWID;

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
	closed     INTEGER NOT NULL, granted INTEGER NOT NULL DEFAULT 0 CHECK (granted >= 0), renewed INTEGER NOT NULL DEFAULT 0, case_id TEXT NOT NULL DEFAULT '' CHECK (length(case_id) <= 32), resolved INTEGER NOT NULL DEFAULT 0, row_mac BLOB NOT NULL DEFAULT x'', link TEXT NOT NULL DEFAULT '',
	CHECK (cause <> 'terminal' OR (mti <> '' AND stan <> '' AND raw IS NOT NULL)), -- I-3
	CHECK (full = 1 OR rest > 0) -- I-2
) STRICT;

CREATE TABLE sqlite_sequence(name,seq);

CREATE TABLE "terminal" (
	tid       TEXT PRIMARY KEY CHECK (length(tid) = 8),
	mid       TEXT NOT NULL CHECK (length(mid) = 15),
	scheme    TEXT NOT NULL CHECK (scheme IN ('tdes-dukpt', 'aes-dukpt', 'tmk')),
	bdk       TEXT NOT NULL CHECK (CASE scheme WHEN 'tmk' THEN bdk = ''
		ELSE bdk GLOB 'alias/?*' AND length(bdk) <= 256 END),
	device    TEXT UNIQUE CHECK (CASE scheme WHEN 'tmk' THEN device IS NULL
		ELSE device IS NOT NULL AND device NOT GLOB '*[^0-9A-F]*'
			AND length(device) = CASE scheme WHEN 'tdes-dukpt' THEN 20 ELSE 16 END END),
	mac_bytes INTEGER NOT NULL CHECK (mac_bytes IN (4, 8)),
	disabled  INTEGER NOT NULL CHECK (disabled IN (0, 1)),
	more      TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(more) AND json_type(more) = 'object')
) STRICT, WITHOUT ROWID;

CREATE TABLE terminal_print (
	print TEXT PRIMARY KEY CHECK (length(print) = 32 AND print NOT GLOB '*[^0-9a-f]*'),
	tid   TEXT NOT NULL CHECK (length(tid) = 8),
	key   TEXT NOT NULL CHECK (length(key) = 32)
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
, row_mac BLOB NOT NULL DEFAULT x'', profile TEXT NOT NULL DEFAULT '' CHECK (length(profile) <= 32), up_acquirer TEXT NOT NULL DEFAULT '' CHECK (length(up_acquirer) <= 11)) STRICT;

CREATE TRIGGER accepted_once BEFORE UPDATE OF device, counter, message, at ON accepted
	BEGIN SELECT RAISE(ABORT, 'what was accepted does not change'); END;

CREATE TRIGGER approval_begins BEFORE INSERT ON approval
	WHEN new.state <> 'WAITING'
	BEGIN SELECT RAISE(ABORT, 'a request begins by waiting'); END;

CREATE TRIGGER approval_onward BEFORE UPDATE ON approval
	WHEN NOT (old.state = 'WAITING' AND new.state IN ('APPROVED', 'REJECTED', 'EXPIRED')
		OR old.state = 'APPROVED' AND new.state IN ('REJECTED', 'SPENT', 'EXPIRED'))
	BEGIN SELECT RAISE(ABORT, 'a request that is closed stays closed'); END;

CREATE TRIGGER approval_stays BEFORE DELETE ON approval
	WHEN old.state IN ('WAITING', 'APPROVED')
	BEGIN SELECT RAISE(ABORT, 'an open request is not forgotten'); END;

CREATE TRIGGER approval_written_once BEFORE UPDATE ON approval
	WHEN new.ref <> old.ref OR new.principal <> old.principal OR new.operation <> old.operation
		OR new.object <> old.object OR new.body <> old.body OR new.asker <> old.asker
		OR new.asked <> old.asked OR new.deadline <> old.deadline
	BEGIN SELECT RAISE(ABORT, 'what was asked for does not change'); END;

CREATE TRIGGER counter_rises BEFORE UPDATE OF name, value ON counter
	WHEN new.name <> old.name OR new.value <= old.value
	BEGIN SELECT RAISE(ABORT, 'a counter only rises'); END;

CREATE TRIGGER counter_stays BEFORE DELETE ON counter
	BEGIN SELECT RAISE(ABORT, 'a counter is never forgotten'); END;

CREATE TRIGGER key_lmk_changed BEFORE UPDATE OF block ON key
	WHEN EXISTS (SELECT 1 FROM lmk WHERE retired > 0 AND printf('%08X', generation) = hex(substr(new.block, 6, 4)))
	BEGIN SELECT RAISE(ABORT, 'a key block under a local master key that was retired'); END;

CREATE TRIGGER key_lmk_new BEFORE INSERT ON key
	WHEN EXISTS (SELECT 1 FROM lmk WHERE retired > 0 AND printf('%08X', generation) = hex(substr(new.block, 6, 4)))
	BEGIN SELECT RAISE(ABORT, 'a key block under a local master key that was retired'); END;

CREATE TRIGGER key_use_rises BEFORE UPDATE ON key_use
	WHEN new.id <> old.id OR new.uses < old.uses OR new.reserved < new.uses
	BEGIN SELECT RAISE(ABORT, 'a usage counter only rises'); END;

CREATE TRIGGER key_use_stays BEFORE DELETE ON key_use
	BEGIN SELECT RAISE(ABORT, 'a usage counter is never forgotten'); END;

CREATE TRIGGER ksn_mark_rises BEFORE UPDATE ON ksn_mark
	WHEN new.bdk <> old.bdk OR new.device <> old.device OR new.counter < old.counter
		OR new.counter = old.counter AND new.kinds & old.kinds <> old.kinds
	BEGIN SELECT RAISE(ABORT, 'the counter of a key serial number only rises'); END;

CREATE TRIGGER ksn_mark_stays BEFORE DELETE ON ksn_mark
	BEGIN SELECT RAISE(ABORT, 'the counter of a key serial number is not forgotten'); END;

CREATE TRIGGER ksn_rises BEFORE UPDATE OF device, counter, at ON ksn
	WHEN new.device <> old.device OR new.counter <= old.counter
	BEGIN SELECT RAISE(ABORT, 'a KSN counter only rises'); END;

CREATE TRIGGER ksn_stays BEFORE DELETE ON ksn
	BEGIN SELECT RAISE(ABORT, 'a KSN counter is never forgotten'); END;

CREATE TRIGGER lmk_onward BEFORE UPDATE ON lmk
	WHEN new.generation <> old.generation OR new.since <> old.since OR old.retired > 0
	BEGIN SELECT RAISE(ABORT, 'a generation that was retired stays so'); END;

CREATE TRIGGER lmk_stays BEFORE DELETE ON lmk
	BEGIN SELECT RAISE(ABORT, 'a generation is never forgotten'); END;

CREATE TRIGGER outbox_acknowledged BEFORE UPDATE ON outbox WHEN old.acknowledged <> 0
	BEGIN SELECT RAISE(ABORT, 'an event that was acknowledged stays so'); END;

CREATE TRIGGER outbox_stays BEFORE DELETE ON outbox
	BEGIN SELECT RAISE(ABORT, 'the outbox forgets nothing'); END;

CREATE TRIGGER outbox_written_once BEFORE UPDATE OF seq, rid, oid, kind, n, at, state, up_answer, tries ON outbox
	BEGIN SELECT RAISE(ABORT, 'what an event tells does not change'); END;

CREATE TRIGGER reversal_case_stays BEFORE UPDATE ON reversal
	WHEN old.case_id <> '' AND (new.case_id <> old.case_id OR new.state <> old.state OR new.resolved <> old.resolved)
	BEGIN SELECT RAISE(ABORT, 'a reversal that was closed with a case stays closed'); END;

CREATE TRIGGER reversal_created AFTER INSERT ON reversal
	WHEN new.state = 'QUEUED' AND EXISTS (SELECT 1 FROM hook)
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

CREATE TRIGGER reversal_link_once BEFORE UPDATE OF link ON reversal
	BEGIN SELECT RAISE(ABORT, 'what a reversal says does not change'); END;

CREATE TRIGGER reversal_released AFTER UPDATE OF state ON reversal
	WHEN old.state IN ('WAITING', 'HELD') AND new.state = 'QUEUED' AND EXISTS (SELECT 1 FROM hook)
	BEGIN INSERT INTO outbox (rid, oid, kind, n, at, state, up_answer, tries)
		VALUES (new.rid, new.oid, 'created', 1, new.built, new.state, new.up_answer, new.tries); END;

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

CREATE TRIGGER terminal_print_once BEFORE UPDATE ON terminal_print
	BEGIN SELECT RAISE(ABORT, 'the print of a master key does not change'); END;

CREATE TRIGGER terminal_print_stays BEFORE DELETE ON terminal_print
	BEGIN SELECT RAISE(ABORT, 'the print of a master key is never forgotten'); END;

CREATE TRIGGER txn_profile_once BEFORE UPDATE OF profile ON txn
	BEGIN SELECT RAISE(ABORT, 'what was received does not change'); END;

CREATE TRIGGER txn_refers_once BEFORE UPDATE OF refers_to ON txn
	WHEN new.refers_to IS NOT old.refers_to
	BEGIN SELECT RAISE(ABORT, 'what an original refers to does not change'); END;

CREATE TRIGGER txn_reversed_amount BEFORE UPDATE OF reversed_amount ON txn
	WHEN new.reversed_amount < old.reversed_amount
	BEGIN SELECT RAISE(ABORT, 'a reversed amount only rises'); END;

CREATE TRIGGER txn_stays BEFORE DELETE ON txn
	BEGIN SELECT RAISE(ABORT, 'the journal forgets nothing'); END;

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

CREATE TRIGGER txn_up_acquirer_once BEFORE UPDATE OF up_acquirer ON txn
	BEGIN SELECT RAISE(ABORT, 'what was sent upstream does not change'); END;

CREATE TRIGGER txn_written_once BEFORE UPDATE OF seq, oid, lookup, link, received, mti, card, pan_token,
		processing, amount, sent, stan, time, date, entry, condition, acquirer, tid, mid, currency, emv,
		ksn, mac_key, content, raw, up_stan, up_sent ON txn
	BEGIN SELECT RAISE(ABORT, 'what was received does not change'); END;
