-- Sessions, their keys, and how cookies were set. Times are milliseconds since the Unix epoch.
-- Tokens are never here: a key is a 16-byte keyed hash, or the id of a signed lineage.

CREATE TABLE sessions (
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    -- NULL: a login whose user name could not be found.
    user_name TEXT,
    created_at INTEGER NOT NULL,
    renewed_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    login_seq INTEGER NOT NULL UNIQUE,
    change_seq INTEGER NOT NULL,
    client_address TEXT,
    user_agent TEXT,
    ended_at INTEGER,
    end_reason TEXT CHECK (end_reason IN ('limit', 'logout', 'idle_timeout', 'absolute_timeout',
        'admin', 'self_service', 'password_change', 'replaced', 'app')),
    ended_by TEXT,
    by_session BLOB,
    would_end_at INTEGER,
    would_end_reason TEXT CHECK (would_end_reason IN ('limit', 'logout', 'idle_timeout',
        'absolute_timeout', 'admin', 'self_service', 'password_change', 'replaced', 'app')),
    would_ended_by TEXT,
    would_by_session BLOB,
    -- 1: may still have keys. An ended session whose keys are forgotten need not be loaded.
    keyed INTEGER NOT NULL DEFAULT 1 CHECK (keyed IN (0, 1)),
    -- 1: no longer history; the row stays, without its client, only for its keys.
    hidden INTEGER NOT NULL DEFAULT 0 CHECK (hidden IN (0, 1)),
    CHECK ((ended_at IS NULL) = (end_reason IS NULL)),
    CHECK ((would_end_at IS NULL) = (would_end_reason IS NULL))
) STRICT;

-- A decision reads the live sessions of one user.
CREATE INDEX sessions_live ON sessions (user_name, login_seq) WHERE ended_at IS NULL;
-- The history of one user, for listings and for history.keep_per_user.
CREATE INDEX sessions_history ON sessions (user_name, login_seq)
    WHERE ended_at IS NOT NULL AND hidden = 0;
-- What each step of pruning looks for, oldest first.
CREATE INDEX sessions_history_age ON sessions (ended_at) WHERE ended_at IS NOT NULL AND hidden = 0;
CREATE INDEX sessions_keyed_age ON sessions (ended_at) WHERE ended_at IS NOT NULL AND keyed = 1;
CREATE INDEX sessions_spent ON sessions (id) WHERE hidden = 1 AND keyed = 0;
CREATE INDEX sessions_would_end ON sessions (would_end_at)
    WHERE ended_at IS NULL AND would_end_at IS NOT NULL;

CREATE TABLE session_keys (
    key BLOB NOT NULL PRIMARY KEY CHECK (length(key) = 16),
    exact BLOB NOT NULL CHECK (length(exact) = 16),
    session BLOB NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    key_use TEXT NOT NULL CHECK (key_use IN ('bearer', 'superseded', 'fenced')),
    since INTEGER NOT NULL,
    -- 1: came with a rotation after the login; only so many are kept per session.
    late INTEGER NOT NULL DEFAULT 0 CHECK (late IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE INDEX session_keys_session ON session_keys (session, late, since);

CREATE TABLE cookie_shapes (
    name TEXT NOT NULL,
    domain TEXT NOT NULL,
    path TEXT NOT NULL,
    attributes TEXT NOT NULL,
    PRIMARY KEY (name, domain, path)
) STRICT, WITHOUT ROWID;

-- Counters that must go on from where they were even after their rows are pruned.
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO meta (name, value) VALUES ('login_seq', 0), ('change_seq', 0), ('pings', 0);
