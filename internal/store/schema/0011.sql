-- A MAC on each row of the journal, the queue, KSN marks and counters: see
-- seal.go. An empty one is that of a row of before, until the first daemon with
-- this schema has made it; from then on such a row is a changed one.
ALTER TABLE txn ADD COLUMN row_mac BLOB NOT NULL DEFAULT x'';
ALTER TABLE reversal ADD COLUMN row_mac BLOB NOT NULL DEFAULT x'';
ALTER TABLE ksn ADD COLUMN row_mac BLOB NOT NULL DEFAULT x'';
ALTER TABLE accepted ADD COLUMN row_mac BLOB NOT NULL DEFAULT x'';
ALTER TABLE counter ADD COLUMN row_mac BLOB NOT NULL DEFAULT x'';
ALTER TABLE ksn_mark ADD COLUMN row_mac BLOB NOT NULL DEFAULT x'';
ALTER TABLE ksn_request ADD COLUMN row_mac BLOB NOT NULL DEFAULT x'';

-- As before, but for the MAC of a row that stays as it is.
DROP TRIGGER ksn_rises;
CREATE TRIGGER ksn_rises BEFORE UPDATE OF device, counter, at ON ksn
	WHEN new.device <> old.device OR new.counter <= old.counter
	BEGIN SELECT RAISE(ABORT, 'a KSN counter only rises'); END;
DROP TRIGGER accepted_once;
CREATE TRIGGER accepted_once BEFORE UPDATE OF device, counter, message, at ON accepted
	BEGIN SELECT RAISE(ABORT, 'what was accepted does not change'); END;
DROP TRIGGER counter_rises;
CREATE TRIGGER counter_rises BEFORE UPDATE OF name, value ON counter
	WHEN new.name <> old.name OR new.value <= old.value
	BEGIN SELECT RAISE(ABORT, 'a counter only rises'); END;

-- Which journal it is, and what it held at the last start, or end in order.
-- Registered: the token knows it.
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
