-- A paid order is given up by giving its money back.
INSERT INTO order_transitions (from_status, to_status) VALUES ('paid', 'cancelled');

ALTER TABLE stock_ledger
    DROP CONSTRAINT stock_ledger_cause_known,
    ADD CONSTRAINT stock_ledger_cause_known CHECK (
        cause IN (
            'receipt', 'correction', 'order_placed', 'order_cancelled', 'order_expired', 'hold_taken', 'order_paid',
            'order_refunded'
        )
    );

-- The legal moves of a refund. `payments::refunds` holds the same table as a function; a test compares them.
CREATE TABLE refund_transitions (
    from_state text NOT NULL,
    to_state text NOT NULL,
    CONSTRAINT refund_transitions_pk PRIMARY KEY (from_state, to_state)
);

INSERT INTO refund_transitions (from_state, to_state) VALUES
    ('requested', 'pending'),
    ('requested', 'succeeded'),
    ('requested', 'failed'),
    ('pending', 'succeeded'),
    ('pending', 'failed'),
    -- A bank may send money back that was thought to have arrived.
    ('succeeded', 'failed');

-- One row is money that goes back to a shopper: a part of one capture, or all of it. It is committed
-- before the provider is asked, and the key of that request is its id.
CREATE TABLE refunds (
    id uuid CONSTRAINT refunds_pk PRIMARY KEY,
    capture_id uuid NOT NULL CONSTRAINT refunds_capture_fk REFERENCES captures,
    order_id uuid NOT NULL CONSTRAINT refunds_order_fk REFERENCES orders,
    provider text NOT NULL,
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    state text NOT NULL DEFAULT 'requested',
    -- surplus: the money could not be kept. cancelled: the order was given up. staff: a person decided.
    -- provider: it was made in the provider's dashboard.
    cause text NOT NULL,
    -- Why, in the words of the member of staff.
    reason text,
    requested_by uuid,
    -- The provider's name for it, once it is known.
    provider_ref text,
    -- Why it failed, in the provider's words.
    failure text,
    -- When the provider is asked next how it stands, and how often it was asked.
    next_look_at timestamptz DEFAULT now() + interval '2 minutes',
    looks integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT refunds_provider_known CHECK (provider IN ('stripe', 'razorpay')),
    CONSTRAINT refunds_state_known CHECK (state IN ('requested', 'pending', 'succeeded', 'failed')),
    CONSTRAINT refunds_cause_known CHECK (cause IN ('surplus', 'cancelled', 'staff', 'provider')),
    CONSTRAINT refunds_staff_is_named CHECK (cause <> 'staff' OR (requested_by IS NOT NULL AND reason IS NOT NULL)),
    CONSTRAINT refunds_amount_positive CHECK (amount_minor > 0),
    CONSTRAINT refunds_currency_shape CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT refunds_made_is_known CHECK (state NOT IN ('pending', 'succeeded') OR provider_ref IS NOT NULL)
);

CREATE UNIQUE INDEX refunds_provider_ref_unique ON refunds (provider, provider_ref);
CREATE INDEX refunds_by_capture ON refunds (capture_id);
CREATE INDEX refunds_by_order ON refunds (order_id);
-- Razorpay lists refunds by when they were made: that one came back later is only seen by looking.
CREATE INDEX refunds_to_look_at ON refunds (next_look_at)
    WHERE state IN ('requested', 'pending') OR (state = 'succeeded' AND provider = 'razorpay');

CREATE FUNCTION check_refund_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM refund_transitions WHERE from_state = OLD.state AND to_state = NEW.state
    ) THEN
        RAISE EXCEPTION 'refund % cannot go from % to %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'refunds_transition_legal';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER refunds_transition_legal BEFORE UPDATE OF state ON refunds
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION check_refund_transition();

-- Units of a refunded order that a member of staff put back on sale; a unit goes back once.
CREATE TABLE restocks (
    order_id uuid NOT NULL CONSTRAINT restocks_order_fk REFERENCES orders,
    refund_id uuid NOT NULL CONSTRAINT restocks_refund_fk REFERENCES refunds,
    variant_id uuid NOT NULL,
    quantity bigint NOT NULL,
    CONSTRAINT restocks_pk PRIMARY KEY (refund_id, variant_id),
    CONSTRAINT restocks_quantity_positive CHECK (quantity > 0)
);

CREATE INDEX restocks_by_order ON restocks (order_id);

-- One row is a shopper's claim against a capture, brought by their bank.
CREATE TABLE disputes (
    id uuid CONSTRAINT disputes_pk PRIMARY KEY,
    capture_id uuid NOT NULL CONSTRAINT disputes_capture_fk REFERENCES captures,
    order_id uuid NOT NULL CONSTRAINT disputes_order_fk REFERENCES orders,
    provider text NOT NULL,
    provider_ref text NOT NULL,
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    state text NOT NULL,
    -- The provider's words for where it stands, and for what is claimed.
    status text NOT NULL,
    reason text,
    -- How often its provider has told how it stands: an answer to a question that was asked before the
    -- last one was written counts for nothing.
    told integer NOT NULL DEFAULT 1,
    -- When the provider is asked next how it stands: weeks pass until a bank decides.
    next_look_at timestamptz DEFAULT now() + interval '6 hours',
    opened_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT disputes_provider_known CHECK (provider IN ('stripe', 'razorpay')),
    CONSTRAINT disputes_state_known CHECK (state IN ('open', 'won', 'lost', 'closed')),
    CONSTRAINT disputes_amount_range CHECK (amount_minor >= 0)
);

CREATE UNIQUE INDEX disputes_provider_ref_unique ON disputes (provider, provider_ref);
CREATE INDEX disputes_by_capture ON disputes (capture_id);
CREATE INDEX disputes_by_order ON disputes (order_id);
CREATE INDEX disputes_to_look_at ON disputes (next_look_at) WHERE state = 'open';

-- One row is something that a person has to look at. It stays open until somebody closes it, or until
-- what it tells of is over.
CREATE TABLE findings (
    id uuid CONSTRAINT findings_pk PRIMARY KEY,
    kind text NOT NULL,
    -- What it is about: the id of a capture, refund, dispute or webhook, or a provider's name for one.
    subject text NOT NULL,
    order_id uuid CONSTRAINT findings_order_fk REFERENCES orders,
    detail jsonb NOT NULL DEFAULT '{}',
    opened_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz,
    -- Nobody, where it was over by itself.
    closed_by uuid,
    note text,
    CONSTRAINT findings_kind_known CHECK (
        kind IN ('quarantined', 'refund_failed', 'refund_withheld', 'disputed', 'parked_webhook', 'unknown_money')
    ),
    CONSTRAINT findings_closed_by_person_has_note CHECK (closed_by IS NULL OR (closed_at IS NOT NULL AND note IS NOT NULL))
);

CREATE UNIQUE INDEX findings_one_open ON findings (kind, subject) WHERE closed_at IS NULL;
CREATE INDEX findings_open ON findings (opened_at) WHERE closed_at IS NULL;

-- One row is one thing that a member of staff did. Never changed or removed.
CREATE TABLE audit_log (
    id uuid CONSTRAINT audit_log_pk PRIMARY KEY,
    actor_id uuid NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    before jsonb,
    after jsonb,
    request_id text,
    recorded_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX audit_log_by_subject ON audit_log (subject, recorded_at);

CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- When the provider is asked next how an attempt stands, and how often it was asked. Razorpay's
-- cancelled ones are asked for, too: money may be set aside for them for days.
ALTER TABLE payments
    ADD COLUMN next_look_at timestamptz DEFAULT now() + interval '2 minutes',
    ADD COLUMN looks integer NOT NULL DEFAULT 0;

CREATE INDEX payments_to_look_at ON payments (next_look_at) WHERE next_look_at IS NOT NULL;

-- How far a provider's own lists were read. Whoever reads them moves the time of the next reading first,
-- so that nobody else does.
CREATE TABLE reconciliation_cursors (
    provider text CONSTRAINT reconciliation_cursors_pk PRIMARY KEY,
    read_until timestamptz NOT NULL,
    next_read_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT reconciliation_cursors_provider_known CHECK (provider IN ('stripe', 'razorpay'))
);

-- One row is one reading of a provider's lists.
CREATE TABLE reconciliation_runs (
    id uuid CONSTRAINT reconciliation_runs_pk PRIMARY KEY,
    provider text NOT NULL,
    read_from timestamptz NOT NULL,
    read_until timestamptz NOT NULL,
    -- What the provider listed, and how much of it nobody had told us.
    listed integer NOT NULL,
    found integer NOT NULL,
    finished_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT reconciliation_runs_provider_known CHECK (provider IN ('stripe', 'razorpay'))
);

CREATE INDEX reconciliation_runs_newest ON reconciliation_runs (finished_at DESC);
