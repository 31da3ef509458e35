-- What a key's life cycle knows beside its state, as JSON.
ALTER TABLE key ADD COLUMN life TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(life) AND json_type(life) = 'object');

-- What keys were used for. It changes with each use and stands in no register.
CREATE TABLE key_use (
	id          TEXT PRIMARY KEY REFERENCES key (id),
	uses        INTEGER NOT NULL CHECK (uses >= 0),
	reserved    INTEGER NOT NULL CHECK (reserved >= 0),
	first       INTEGER NOT NULL,
	last        INTEGER NOT NULL,
	warned_uses INTEGER NOT NULL CHECK (warned_uses >= 0),
	warned_time INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER key_use_rises BEFORE UPDATE ON key_use
	WHEN new.id <> old.id OR new.uses < old.uses OR new.reserved < old.reserved
	BEGIN SELECT RAISE(ABORT, 'a usage counter only rises'); END;
CREATE TRIGGER key_use_stays BEFORE DELETE ON key_use
	BEGIN SELECT RAISE(ABORT, 'a usage counter is never forgotten'); END;

-- Counts the starts of the daemon, so that an older copy of the database differs
-- from the one that the token knows even where no key was changed since.
CREATE TABLE epoch (
	name   TEXT PRIMARY KEY CHECK (name = 'start'),
	number INTEGER NOT NULL CHECK (number > 0),
	at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
