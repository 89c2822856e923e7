-- The legal moves of a payment. `payments::state` holds the same table as a function; a test compares them.
CREATE TABLE payment_transitions (
    from_state text NOT NULL,
    to_state text NOT NULL,
    CONSTRAINT payment_transitions_pk PRIMARY KEY (from_state, to_state)
);

INSERT INTO payment_transitions (from_state, to_state) VALUES
    ('creating', 'open'),
    ('creating', 'processing'),
    ('creating', 'authorized'),
    ('creating', 'captured'),
    ('creating', 'cancelling'),
    ('creating', 'cancelled'),
    ('creating', 'rejected'),
    ('open', 'processing'),
    ('open', 'authorized'),
    ('open', 'captured'),
    ('open', 'cancelling'),
    ('open', 'cancelled'),
    ('processing', 'open'),
    ('processing', 'authorized'),
    ('processing', 'captured'),
    ('processing', 'cancelling'),
    ('processing', 'cancelled'),
    ('authorized', 'captured'),
    ('authorized', 'cancelling'),
    ('authorized', 'cancelled'),
    ('cancelling', 'captured'),
    ('cancelling', 'cancelled'),
    ('cancelled', 'captured'),
    ('rejected', 'captured');

-- One row is one attempt to pay one order with one provider. It is committed before the provider is
-- asked for anything, and the keys of all those requests derive from it.
CREATE TABLE payments (
    id uuid CONSTRAINT payments_pk PRIMARY KEY,
    order_id uuid NOT NULL CONSTRAINT payments_order_fk REFERENCES orders,
    provider text NOT NULL,
    -- Whether the provider moves real money for it.
    livemode boolean NOT NULL,
    state text NOT NULL DEFAULT 'creating',
    -- What the provider is asked to collect: the order's total.
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    -- Which of its keys the provider was last asked with. A new key follows only a definite failure
    -- after which the provider was searched and had nothing.
    key_generation integer NOT NULL DEFAULT 1,
    -- The provider's name for it (`pi_…`, `order_…`), once it is known.
    provider_ref text,
    -- Why the provider's last try to collect was declined, in its words.
    last_decline text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT payments_provider_known CHECK (provider IN ('stripe', 'razorpay')),
    CONSTRAINT payments_state_known CHECK (
        state IN ('creating', 'open', 'processing', 'authorized', 'cancelling', 'captured', 'cancelled', 'rejected')
    ),
    CONSTRAINT payments_amount_positive CHECK (amount_minor > 0),
    CONSTRAINT payments_currency_shape CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT payments_open_is_known CHECK (
        state NOT IN ('open', 'processing', 'authorized') OR provider_ref IS NOT NULL
    )
);

-- Shoppers with two tabs, two providers or a nervous finger still have one attempt under way.
CREATE UNIQUE INDEX payments_one_open_per_order ON payments (order_id)
    WHERE state IN ('creating', 'open', 'processing', 'authorized');
CREATE INDEX payments_by_order ON payments (order_id);
CREATE UNIQUE INDEX payments_provider_ref_unique ON payments (provider, provider_ref);
CREATE INDEX payments_unfinished ON payments (created_at)
    WHERE state IN ('creating', 'open', 'processing', 'authorized', 'cancelling');

CREATE FUNCTION check_payment_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM payment_transitions WHERE from_state = OLD.state AND to_state = NEW.state
    ) THEN
        RAISE EXCEPTION 'payment % cannot go from % to %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'payments_transition_legal';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER payments_transition_legal BEFORE UPDATE OF state ON payments
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION check_payment_transition();

-- One row is money that a provider collected for us, whatever became of the order. It is keyed by the
-- provider's name for the money, so that two kinds of news of it are one row.
CREATE TABLE captures (
    id uuid CONSTRAINT captures_pk PRIMARY KEY,
    payment_id uuid NOT NULL CONSTRAINT captures_payment_fk REFERENCES payments,
    order_id uuid NOT NULL CONSTRAINT captures_order_fk REFERENCES orders,
    provider text NOT NULL,
    -- `pi_…` or `pay_…`.
    provider_ref text NOT NULL,
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    -- accepted: it paid the order. refund_due: it must go back in full. quarantined: a person decides.
    fate text NOT NULL,
    -- Why it did not pay the order.
    reason text,
    captured_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT captures_fate_known CHECK (fate IN ('accepted', 'refund_due', 'quarantined')),
    CONSTRAINT captures_reason_known CHECK (
        reason IN ('out_of_stock', 'order_cancelled', 'already_paid', 'wrong_amount', 'wrong_currency', 'foreign_object')
    ),
    CONSTRAINT captures_refused_has_reason CHECK ((fate = 'accepted') = (reason IS NULL)),
    CONSTRAINT captures_amount_range CHECK (amount_minor >= 0)
);

CREATE UNIQUE INDEX captures_provider_ref_unique ON captures (provider, provider_ref);
-- An order is paid once.
CREATE UNIQUE INDEX captures_one_accepted_per_order ON captures (order_id) WHERE fate = 'accepted';
CREATE INDEX captures_by_order ON captures (order_id);
CREATE INDEX captures_not_accepted ON captures (captured_at) WHERE fate <> 'accepted';

-- The inbox: one row is one webhook with a good signature, as it came.
CREATE TABLE provider_events (
    id uuid CONSTRAINT provider_events_pk PRIMARY KEY,
    provider text NOT NULL,
    event_id text NOT NULL,
    body_sha256 bytea NOT NULL,
    -- The provider's name of what happened; empty where the body could not be read.
    kind text NOT NULL,
    -- Empty once the event is done or ignored.
    raw bytea NOT NULL,
    state text NOT NULL DEFAULT 'new',
    -- Why it was ignored or parked.
    reason text,
    received_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CONSTRAINT provider_events_provider_known CHECK (provider IN ('stripe', 'razorpay')),
    CONSTRAINT provider_events_state_known CHECK (state IN ('new', 'done', 'ignored', 'parked')),
    CONSTRAINT provider_events_finished CHECK ((state = 'new') = (finished_at IS NULL)),
    CONSTRAINT provider_events_reason CHECK (state NOT IN ('ignored', 'parked') OR reason IS NOT NULL),
    CONSTRAINT provider_events_sha256_length CHECK (octet_length(body_sha256) = 32)
);

CREATE UNIQUE INDEX provider_events_event_id_unique ON provider_events (provider, event_id);
-- Razorpay's signature does not cover the event's id: the same body under another id is the same event.
CREATE UNIQUE INDEX provider_events_razorpay_body_unique ON provider_events (body_sha256) WHERE provider = 'razorpay';
CREATE INDEX provider_events_parked ON provider_events (id) WHERE state = 'parked';
CREATE INDEX provider_events_finished ON provider_events (finished_at) WHERE state IN ('done', 'ignored');
CREATE INDEX provider_events_new ON provider_events (received_at) WHERE state = 'new';
