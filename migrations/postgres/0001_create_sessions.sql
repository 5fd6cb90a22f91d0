-- The same meaning as SQLite's tables. Times are milliseconds since the Unix epoch. Tokens are never
-- here: a key is a 16-byte keyed hash, or the id of a signed lineage.

-- One row. Whoever changes sessions or keys updates it first, and so holds it until the commit:
-- changes become visible in the order of their numbers, and no number is ever missing.
CREATE TABLE headcount.meta (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- Whose sessions these are: replicas with another app or another key would not know each other's.
    app text NOT NULL,
    key_check bytea NOT NULL,
    login_seq bigint NOT NULL DEFAULT 0,
    change_seq bigint NOT NULL DEFAULT 0
);

-- A write for the health check, apart from the row that everybody waits for.
CREATE TABLE headcount.pings (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    pings bigint NOT NULL DEFAULT 0
);
INSERT INTO headcount.pings DEFAULT VALUES;

CREATE TABLE headcount.sessions (
    id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
    -- NULL: a login whose user name could not be found.
    user_name text COLLATE "C",
    created_at bigint NOT NULL,
    renewed_at bigint NOT NULL,
    last_seen_at bigint NOT NULL,
    login_seq bigint NOT NULL UNIQUE,
    change_seq bigint NOT NULL,
    client_address text,
    user_agent text,
    ended_at bigint,
    end_reason text CHECK (end_reason IN ('limit', 'logout', 'idle_timeout', 'absolute_timeout',
        'admin', 'self_service', 'password_change', 'replaced', 'app')),
    ended_by text,
    by_session bytea,
    would_end_at bigint,
    would_end_reason text CHECK (would_end_reason IN ('limit', 'logout', 'idle_timeout',
        'absolute_timeout', 'admin', 'self_service', 'password_change', 'replaced', 'app')),
    would_ended_by text,
    would_by_session bytea,
    -- May still have keys. An ended session whose keys are forgotten need not be loaded.
    keyed boolean NOT NULL DEFAULT true,
    -- No longer history; the row stays, without its client, only for its keys.
    hidden boolean NOT NULL DEFAULT false,
    -- By the server's clock: replicas measure by it how late they learn of it.
    changed_at bigint NOT NULL,
    CHECK ((ended_at IS NULL) = (end_reason IS NULL)),
    CHECK ((would_end_at IS NULL) = (would_end_reason IS NULL))
);

-- A decision reads the live sessions of one user.
CREATE INDEX sessions_live ON headcount.sessions (user_name, login_seq) WHERE ended_at IS NULL;
-- The history of one user, for listings and for history.keep_per_user.
CREATE INDEX sessions_history ON headcount.sessions (user_name, login_seq)
    WHERE ended_at IS NOT NULL AND NOT hidden;
-- What each step of pruning looks for, oldest first.
CREATE INDEX sessions_history_age ON headcount.sessions (ended_at)
    WHERE ended_at IS NOT NULL AND NOT hidden;
CREATE INDEX sessions_keyed_age ON headcount.sessions (ended_at)
    WHERE ended_at IS NOT NULL AND keyed;
CREATE INDEX sessions_spent ON headcount.sessions (id) WHERE hidden AND NOT keyed;
CREATE INDEX sessions_would_end ON headcount.sessions (would_end_at)
    WHERE ended_at IS NULL AND would_end_at IS NOT NULL;
-- What a replica has not seen yet.
CREATE INDEX sessions_change ON headcount.sessions (change_seq);

CREATE TABLE headcount.session_keys (
    key bytea PRIMARY KEY CHECK (octet_length(key) = 16),
    exact bytea NOT NULL CHECK (octet_length(exact) = 16),
    session bytea NOT NULL REFERENCES headcount.sessions (id) ON DELETE CASCADE,
    key_use text NOT NULL CHECK (key_use IN ('bearer', 'superseded', 'fenced')),
    since bigint NOT NULL,
    -- Came with a rotation after the login; only so many are kept per session.
    late boolean NOT NULL DEFAULT false,
    change_seq bigint NOT NULL
);

CREATE INDEX session_keys_session ON headcount.session_keys (session, late, since);
CREATE INDEX session_keys_change ON headcount.session_keys (change_seq);

-- Keys that pruning has dropped lately, so that other replicas drop them too.
CREATE TABLE headcount.dropped_keys (
    key bytea NOT NULL,
    change_seq bigint NOT NULL,
    dropped_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX dropped_keys_change ON headcount.dropped_keys (change_seq);
CREATE INDEX dropped_keys_age ON headcount.dropped_keys (dropped_at);

CREATE TABLE headcount.cookie_shapes (
    name text NOT NULL,
    domain text NOT NULL,
    path text NOT NULL,
    attributes text NOT NULL,
    PRIMARY KEY (name, domain, path)
);

-- Who follows the changes, how far, and until when that can be relied on.
CREATE TABLE headcount.replicas (
    id bytea PRIMARY KEY,
    node text NOT NULL,
    applied_seq bigint NOT NULL,
    lease_until timestamptz NOT NULL
);

-- Takes the locks of `users`, and of those whose sessions `ids` are, in one order for everybody; then
-- reads their live sessions. Each statement of a volatile function has a snapshot of its own: the
-- last one sees what the holders of the locks before have committed.
CREATE FUNCTION headcount.lock_live(users text[], ids bytea[]) RETURNS SETOF headcount.sessions
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    lock bigint;
BEGIN
    FOR lock IN
        SELECT hashtextextended(name, 4865616463) FROM unnest(users) AS u(name)
        UNION SELECT hashtextextended(coalesce(user_name, encode(id, 'hex')), 4865616463)
            FROM headcount.sessions WHERE id = ANY (ids)
        ORDER BY 1
    LOOP
        PERFORM pg_advisory_xact_lock(lock);
    END LOOP;
    RETURN QUERY SELECT * FROM headcount.sessions WHERE user_name = ANY (users) AND ended_at IS NULL
        UNION SELECT * FROM headcount.sessions WHERE id = ANY (ids) AND ended_at IS NULL;
END
$$;
