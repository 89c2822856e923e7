-- One row is a key whose request had its effect (an order placed, a receipt booked): whoever repeats
-- the request gets the same answer. A refusal leaves no row, so its key is free for a corrected request.
CREATE TABLE idempotency_keys (
    owner_id uuid NOT NULL,
    operation text NOT NULL,
    key text NOT NULL,
    -- SHA-256 of the request: the same key with another request is an error of the caller.
    fingerprint bytea NOT NULL,
    -- The order or receipt that the request made.
    subject_id uuid NOT NULL,
    -- The part of the answer that cannot change.
    answer jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_keys_pk PRIMARY KEY (owner_id, operation, key),
    CONSTRAINT idempotency_keys_fingerprint_length CHECK (octet_length(fingerprint) = 32)
);

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
