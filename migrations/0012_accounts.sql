ALTER TABLE users
    ADD COLUMN display_name text,
    ADD CONSTRAINT users_display_name_length CHECK (length(display_name) BETWEEN 1 AND 100);

-- One row is an address that a user has kept for later orders; an order copies it and never looks back.
CREATE TABLE addresses (
    id uuid CONSTRAINT addresses_pk PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT addresses_user_fk REFERENCES users ON DELETE CASCADE,
    -- As in `orders.shipping_address`.
    address jsonb NOT NULL,
    is_default boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX addresses_by_user ON addresses (user_id, id);
CREATE UNIQUE INDEX addresses_one_default ON addresses (user_id) WHERE is_default;

-- One row is something that was asked for and that only the owner of an e-mail address may do: a mail goes
-- there, with a token that proves it. The row says nothing about whether the address has an account.
CREATE TABLE account_requests (
    id uuid CONSTRAINT account_requests_pk PRIMARY KEY,
    kind text NOT NULL,
    email text NOT NULL,
    -- What the account's password would be.
    password_hash text,
    -- Whose address would change to `email`.
    user_id uuid CONSTRAINT account_requests_user_fk REFERENCES users ON DELETE CASCADE,
    requested_at timestamptz NOT NULL DEFAULT now(),
    -- Done, or made pointless by another one that was done.
    used_at timestamptz,
    -- The address that the user had until the change was done, so that a mail can tell it.
    email_before text,
    CONSTRAINT account_requests_kind_known CHECK (kind IN ('registration', 'password_reset', 'email_change')),
    CONSTRAINT account_requests_registration_has_password CHECK ((kind = 'registration') = (password_hash IS NOT NULL)),
    CONSTRAINT account_requests_change_has_user CHECK ((kind = 'email_change') = (user_id IS NOT NULL)),
    CONSTRAINT account_requests_email_folded CHECK (email = lower(email))
);

CREATE INDEX account_requests_by_email ON account_requests (email, requested_at);
CREATE INDEX account_requests_by_age ON account_requests (requested_at);
CREATE INDEX account_requests_by_user ON account_requests (user_id) WHERE user_id IS NOT NULL;

-- One row is a token that was sent by mail for a request. Each mail has its own; any of them will do. A mail
-- that brings none is counted by one that nobody knows.
CREATE TABLE account_tokens (
    token_sha256 bytea CONSTRAINT account_tokens_pk PRIMARY KEY,
    request_id uuid NOT NULL CONSTRAINT account_tokens_request_fk REFERENCES account_requests ON DELETE CASCADE,
    expires_at timestamptz NOT NULL,
    CONSTRAINT account_tokens_sha256_length CHECK (octet_length(token_sha256) = 32)
);

CREATE INDEX account_tokens_by_request ON account_tokens (request_id);

-- One row is an account that its owner had erased: whoever placed or was given an order by this id is to
-- be taken out of it. Goes when no such order is left.
CREATE TABLE erased_accounts (
    user_id uuid CONSTRAINT erased_accounts_pk PRIMARY KEY,
    erased_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX erased_accounts_by_age ON erased_accounts (erased_at);

ALTER TABLE orders
    -- The user to whom a guest's order belongs, too: the mail address was shown to be theirs. Also one
    -- who has left, while the order waits to be erased.
    ADD COLUMN adopted_by uuid,
    -- When the shopper's name, address and e-mail address were taken out of it; the country stays, for the
    -- tax that was due there.
    ADD COLUMN erased_at timestamptz,
    ADD CONSTRAINT orders_erased_names_nobody CHECK (
        erased_at IS NULL
        OR (email = 'erased@erased.invalid' AND shipping_address - 'country' = '{}'::jsonb)
    );

CREATE INDEX orders_by_adopter ON orders (adopted_by, id DESC) WHERE adopted_by IS NOT NULL;
CREATE INDEX orders_by_email ON orders (email, id) WHERE erased_at IS NULL;

CREATE INDEX deliveries_by_recipient ON deliveries (recipient);
CREATE INDEX deliveries_by_age ON deliveries (template, created_at);
