-- One row is one login of a user: what a chain of refresh tokens, each the successor of the last, and
-- the access tokens made from them belong to.
CREATE TABLE sessions (
    id uuid CONSTRAINT sessions_pk PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT sessions_user_fk REFERENCES users (id) ON DELETE CASCADE,
    -- What the client last called itself, cut; shown to the user, so that they know the session again.
    user_agent text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- When a refresh token was last used.
    last_used_at timestamptz NOT NULL DEFAULT now(),
    -- The session is over from then on: moved on by each use, and back by whoever ends it.
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    revoked_for text,
    CONSTRAINT sessions_user_agent_length CHECK (length(user_agent) <= 200),
    CONSTRAINT sessions_revoked_for_known CHECK (revoked_for IN (
        'logged_out', 'logged_out_everywhere', 'revoked', 'password_changed', 'token_reused', 'too_many'
    )),
    CONSTRAINT sessions_revoked_has_reason CHECK ((revoked_at IS NULL) = (revoked_for IS NULL)),
    CONSTRAINT sessions_revoked_is_over CHECK (expires_at <= revoked_at)
);

CREATE INDEX sessions_of_user ON sessions (user_id, last_used_at DESC);
CREATE INDEX sessions_expires_at ON sessions (expires_at);

-- One row is one refresh token that was handed out. The token itself is nowhere.
CREATE TABLE refresh_tokens (
    -- SHA-256 of the token: of 32 random bytes, so that nothing is gained by salt or by many rounds.
    hash bytea CONSTRAINT refresh_tokens_pk PRIMARY KEY,
    session_id uuid NOT NULL
        CONSTRAINT refresh_tokens_session_fk REFERENCES sessions (id) ON DELETE CASCADE,
    issued_at timestamptz NOT NULL DEFAULT now(),
    -- A token is used once. Kept for a month, to notice who uses it again.
    used_at timestamptz,
    CONSTRAINT refresh_tokens_hash_length CHECK (length(hash) = 32)
);

-- A session has one token that was not used yet, whoever races whom.
CREATE UNIQUE INDEX refresh_tokens_unused_unique ON refresh_tokens (session_id) WHERE used_at IS NULL;
CREATE INDEX refresh_tokens_of_session ON refresh_tokens (session_id, used_at);
CREATE INDEX refresh_tokens_used_at ON refresh_tokens (used_at) WHERE used_at IS NOT NULL;
