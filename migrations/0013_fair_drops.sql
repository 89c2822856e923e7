-- When a variant can be bought, and how many of it one customer may have.
ALTER TABLE variants
    -- The sale's window: from `opens_at` on, and before `closes_at`. Null is no bound.
    ADD COLUMN opens_at timestamptz,
    ADD COLUMN closes_at timestamptz,
    -- Units a customer; null is no limit. Only customers with an account can buy what has a limit.
    ADD COLUMN purchase_limit bigint,
    -- How long a purchase counts, in seconds; null is for ever.
    ADD COLUMN purchase_window_seconds bigint,
    -- Since when all of this holds: the doctor judges no order by rules that came after it.
    ADD COLUMN sale_set_at timestamptz NOT NULL DEFAULT now(),
    ADD CONSTRAINT variants_window_opens_first CHECK (opens_at < closes_at),
    ADD CONSTRAINT variants_purchase_limit_range CHECK (purchase_limit BETWEEN 1 AND 10000),
    ADD CONSTRAINT variants_purchase_window_range CHECK (purchase_window_seconds BETWEEN 60 AND 31622400),
    ADD CONSTRAINT variants_window_has_limit CHECK (purchase_window_seconds IS NULL OR purchase_limit IS NOT NULL);

-- Who the account is to purchase limits: SHA-256 of the e-mail address that it was opened with. It
-- stays when the address is changed, so that nobody begins again by that.
ALTER TABLE users ADD COLUMN customer_key bytea;

UPDATE users SET customer_key = sha256(convert_to(email, 'UTF8'));

ALTER TABLE users
    ALTER COLUMN customer_key SET NOT NULL,
    ADD CONSTRAINT users_customer_key_length CHECK (octet_length(customer_key) = 32);

-- The key of the account that placed the order, null for a guest. It outlives the account, so that
-- whoever erases theirs and opens another does not begin again.
ALTER TABLE holds
    ADD COLUMN customer_key bytea,
    ADD CONSTRAINT holds_customer_key_length CHECK (octet_length(customer_key) = 32);

UPDATE holds
SET customer_key = users.customer_key
FROM orders
JOIN users ON users.id = orders.owner_id
WHERE orders.id = holds.order_id;

-- What a customer has of a variant, counted under its stock row lock.
CREATE INDEX holds_kept_by_customer ON holds (variant_id, customer_key)
    WHERE customer_key IS NOT NULL AND state IN ('held', 'sold');

-- What a caller has not paid yet, counted for every checkout.
CREATE INDEX orders_open_by_owner ON orders (owner_id, expires_at) WHERE status = 'awaiting_payment';
