-- To which upstream a reversal goes: that of its original. Empty in one of
-- before, which is found by its original.
ALTER TABLE reversal ADD COLUMN link TEXT NOT NULL DEFAULT '';
CREATE TRIGGER reversal_link_once BEFORE UPDATE OF link ON reversal
	BEGIN SELECT RAISE(ABORT, 'what a reversal says does not change'); END;
DROP INDEX reversal_due;
CREATE INDEX reversal_due ON reversal (link, next) WHERE state IN ('QUEUED', 'SENT');

-- DE 32 of the message that keyd sent upstream, where that is not the terminal's.
ALTER TABLE txn ADD COLUMN up_acquirer TEXT NOT NULL DEFAULT '' CHECK (length(up_acquirer) <= 11);
CREATE TRIGGER txn_up_acquirer_once BEFORE UPDATE OF up_acquirer ON txn
	BEGIN SELECT RAISE(ABORT, 'what was sent upstream does not change'); END;
