-- Terminals with a master key have no base derivation key and no device; the
-- rest of what is known of a terminal is JSON.
CREATE TABLE terminal_next (
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
INSERT INTO terminal_next (tid, mid, scheme, bdk, device, mac_bytes, disabled)
	SELECT tid, mid, scheme, bdk, device, mac_bytes, disabled FROM terminal;
DROP TABLE terminal;
ALTER TABLE terminal_next RENAME TO terminal;

-- Which terminal has a master key of which value: an HMAC by a key of the token
-- over what the master key makes of fixed blocks. A print is never forgotten, so
-- that no later terminal gets the key of an earlier one.
CREATE TABLE terminal_print (
	print TEXT PRIMARY KEY CHECK (length(print) = 32 AND print NOT GLOB '*[^0-9a-f]*'),
	tid   TEXT NOT NULL CHECK (length(tid) = 8),
	key   TEXT NOT NULL CHECK (length(key) = 32)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER terminal_print_stays BEFORE DELETE ON terminal_print
	BEGIN SELECT RAISE(ABORT, 'the print of a master key is never forgotten'); END;
CREATE TRIGGER terminal_print_once BEFORE UPDATE ON terminal_print
	BEGIN SELECT RAISE(ABORT, 'the print of a master key does not change'); END;
