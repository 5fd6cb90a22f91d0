-- Limits set for single users while Headcount runs.

CREATE TABLE headcount.user_limits (
    user_name text COLLATE "C" PRIMARY KEY,
    -- 0: unlimited. NULL: taken back; the row stays, so that other replicas hear of it.
    max_sessions bigint CHECK (max_sessions >= 0),
    set_at bigint NOT NULL,
    set_by text NOT NULL,
    change_seq bigint NOT NULL
);

-- What a replica has not seen yet.
CREATE INDEX user_limits_change ON headcount.user_limits (change_seq);
