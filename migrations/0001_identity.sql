-- One row is a person who can log in: a customer of the shop, or one of its staff.
-- A guest has no row: the guest token carries its own proof.
CREATE TABLE users (
    id uuid CONSTRAINT users_pk PRIMARY KEY,
    email text NOT NULL,
    password_hash text NOT NULL,
    role text NOT NULL DEFAULT 'customer',
    -- Raised to make every token issued before worthless: role change, password change, logout everywhere.
    token_epoch integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_role_known CHECK (role IN ('customer', 'staff', 'admin')),
    CONSTRAINT users_email_length CHECK (length(email) BETWEEN 3 AND 254),
    CONSTRAINT users_email_folded CHECK (email = lower(email))
);

CREATE UNIQUE INDEX users_email_unique ON users (email);
