-- Limits set for single users while Headcount runs.

CREATE TABLE user_limits (
    user_name TEXT NOT NULL PRIMARY KEY,
    -- 0: unlimited.
    max_sessions INTEGER NOT NULL CHECK (max_sessions >= 0),
    set_at INTEGER NOT NULL,
    set_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;
