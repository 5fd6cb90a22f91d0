-- Sessions that are kept for their keys only, of one user: for export and erasure.

CREATE INDEX sessions_hidden ON headcount.sessions (user_name, login_seq)
    WHERE ended_at IS NOT NULL AND hidden;
