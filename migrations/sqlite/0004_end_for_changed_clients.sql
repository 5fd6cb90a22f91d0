-- A session can end because its client changed. SQLite changes no CHECK: the tables are copied, keys
-- first dropped, so that no key goes with a session's old row.

CREATE TABLE sessions_copy (
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
        'admin', 'self_service', 'password_change', 'replaced', 'client_changed', 'app')),
    ended_by TEXT,
    by_session BLOB,
    would_end_at INTEGER,
    would_end_reason TEXT CHECK (would_end_reason IN ('limit', 'logout', 'idle_timeout',
        'absolute_timeout', 'admin', 'self_service', 'password_change', 'replaced',
        'client_changed', 'app')),
    would_ended_by TEXT,
    would_by_session BLOB,
    -- 1: may still have keys. An ended session whose keys are forgotten need not be loaded.
    keyed INTEGER NOT NULL DEFAULT 1 CHECK (keyed IN (0, 1)),
    -- 1: no longer history; the row stays, without its client, only for its keys.
    hidden INTEGER NOT NULL DEFAULT 0 CHECK (hidden IN (0, 1)),
    CHECK ((ended_at IS NULL) = (end_reason IS NULL)),
    CHECK ((would_end_at IS NULL) = (would_end_reason IS NULL))
) STRICT;

INSERT INTO sessions_copy (id, user_name, created_at, renewed_at, last_seen_at, login_seq, change_seq,
    client_address, user_agent, ended_at, end_reason, ended_by, by_session, would_end_at,
    would_end_reason, would_ended_by, would_by_session, keyed, hidden)
SELECT id, user_name, created_at, renewed_at, last_seen_at, login_seq, change_seq,
    client_address, user_agent, ended_at, end_reason, ended_by, by_session, would_end_at,
    would_end_reason, would_ended_by, would_by_session, keyed, hidden FROM sessions;

CREATE TABLE session_keys_copy (
    key BLOB NOT NULL PRIMARY KEY CHECK (length(key) = 16),
    exact BLOB NOT NULL CHECK (length(exact) = 16),
    session BLOB NOT NULL REFERENCES sessions_copy (id) ON DELETE CASCADE,
    key_use TEXT NOT NULL CHECK (key_use IN ('bearer', 'superseded', 'fenced')),
    since INTEGER NOT NULL,
    -- 1: came with a rotation after the login; only so many are kept per session.
    late INTEGER NOT NULL DEFAULT 0 CHECK (late IN (0, 1))
) STRICT, WITHOUT ROWID;

INSERT INTO session_keys_copy (key, exact, session, key_use, since, late)
SELECT key, exact, session, key_use, since, late FROM session_keys;

DROP TABLE session_keys;
DROP TABLE sessions;
-- What refers to them follows.
ALTER TABLE sessions_copy RENAME TO sessions;
ALTER TABLE session_keys_copy RENAME TO session_keys;

CREATE INDEX sessions_live ON sessions (user_name, login_seq) WHERE ended_at IS NULL;
CREATE INDEX sessions_history ON sessions (user_name, login_seq)
    WHERE ended_at IS NOT NULL AND hidden = 0;
CREATE INDEX sessions_hidden ON sessions (user_name, login_seq)
    WHERE ended_at IS NOT NULL AND hidden = 1;
CREATE INDEX sessions_history_age ON sessions (ended_at) WHERE ended_at IS NOT NULL AND hidden = 0;
CREATE INDEX sessions_keyed_age ON sessions (ended_at) WHERE ended_at IS NOT NULL AND keyed = 1;
CREATE INDEX sessions_spent ON sessions (id) WHERE hidden = 1 AND keyed = 0;
CREATE INDEX sessions_would_end ON sessions (would_end_at)
    WHERE ended_at IS NULL AND would_end_at IS NOT NULL;
CREATE INDEX session_keys_session ON session_keys (session, late, since);
