-- A session can end because its client changed.

ALTER TABLE headcount.sessions
    DROP CONSTRAINT sessions_end_reason_check,
    DROP CONSTRAINT sessions_would_end_reason_check,
    ADD CONSTRAINT sessions_end_reason_check CHECK (end_reason IN ('limit', 'logout',
        'idle_timeout', 'absolute_timeout', 'admin', 'self_service', 'password_change', 'replaced',
        'client_changed', 'app')),
    ADD CONSTRAINT sessions_would_end_reason_check CHECK (would_end_reason IN ('limit', 'logout',
        'idle_timeout', 'absolute_timeout', 'admin', 'self_service', 'password_change', 'replaced',
        'client_changed', 'app'));
