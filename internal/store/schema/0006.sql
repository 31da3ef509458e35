-- Exchange of keys with the outside. Nothing here is trusted by itself: the
-- certificates are signed by a key of the token, public keys carry its seal.

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
CREATE INDEX exchange_token_live ON exchange_token (made) WHERE destroyed = 0;

-- The certificates of issuing keys, by the SHA-256 of the public key: its own
-- first, DER one behind the other.
CREATE TABLE issuer (
	key   BLOB PRIMARY KEY CHECK (length(key) = 32),
	chain BLOB NOT NULL CHECK (length(chain) BETWEEN 1 AND 131072)
) STRICT, WITHOUT ROWID;

-- Public keys from outside.
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
