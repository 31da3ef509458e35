-- What key serial numbers were used for under guarded base derivation keys: the
-- highest counter of each device, and the kinds of use seen with it as bits (PIN
-- 1, MAC 2, data 4). A counter only rises, and a kind of use stays.
CREATE TABLE ksn_mark (
	bdk     TEXT NOT NULL REFERENCES key (id),
	device  TEXT NOT NULL CHECK (length(device) IN (16, 20)),
	counter INTEGER NOT NULL CHECK (counter BETWEEN 1 AND 4294967295),
	kinds   INTEGER NOT NULL CHECK (kinds BETWEEN 1 AND 7),
	at      INTEGER NOT NULL,
	PRIMARY KEY (bdk, device)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER ksn_mark_rises BEFORE UPDATE ON ksn_mark
	WHEN new.bdk <> old.bdk OR new.device <> old.device OR new.counter < old.counter
		OR new.counter = old.counter AND new.kinds & old.kinds <> old.kinds
	BEGIN SELECT RAISE(ABORT, 'the counter of a key serial number only rises'); END;

CREATE TRIGGER ksn_mark_stays BEFORE DELETE ON ksn_mark
	BEGIN SELECT RAISE(ABORT, 'the counter of a key serial number is not forgotten'); END;

-- By which request each of the last uses was, so that a repeat of it is known.
CREATE TABLE ksn_request (
	bdk     TEXT NOT NULL,
	device  TEXT NOT NULL,
	counter INTEGER NOT NULL,
	kind    INTEGER NOT NULL CHECK (kind IN (1, 2, 4)),
	request BLOB NOT NULL CHECK (length(request) = 32),
	at      INTEGER NOT NULL,
	PRIMARY KEY (bdk, device, counter, kind)
) STRICT, WITHOUT ROWID;
