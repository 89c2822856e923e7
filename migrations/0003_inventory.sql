-- One row is the stock of one variant. `on_hand` excludes units that are sold and not yet shipped;
-- `reserved` is the part of it that held orders keep. What is left is available.
CREATE TABLE stock (
    variant_id uuid CONSTRAINT stock_pk PRIMARY KEY CONSTRAINT stock_variant_fk REFERENCES variants,
    on_hand bigint NOT NULL DEFAULT 0,
    reserved bigint NOT NULL DEFAULT 0,
    CONSTRAINT stock_reserved_within_on_hand CHECK (0 <= reserved AND reserved <= on_hand)
);

-- The counters of a hot variant are rewritten thousands of times a second: room on the page keeps
-- those updates heap-only, and an eager vacuum keeps the chain of dead versions short.
ALTER TABLE stock SET (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- One row is what an order keeps of one variant. It changes state only while the variant's stock row is locked.
CREATE TABLE holds (
    order_id uuid NOT NULL,
    variant_id uuid NOT NULL CONSTRAINT holds_stock_fk REFERENCES stock,
    quantity bigint NOT NULL,
    state text NOT NULL DEFAULT 'held',
    expires_at timestamptz NOT NULL,
    CONSTRAINT holds_pk PRIMARY KEY (order_id, variant_id),
    CONSTRAINT holds_quantity_positive CHECK (quantity > 0),
    CONSTRAINT holds_state_known CHECK (state IN ('held', 'sold', 'released', 'taken'))
);

-- Taking over and counting look only at holds that still hold something.
CREATE INDEX holds_held_by_variant ON holds (variant_id, expires_at) WHERE state = 'held';

-- One row is one movement of units between two accounts. Rows are never changed or removed; per variant
-- the sums equal the counters in `stock`, in every snapshot:
-- on_hand = available + held, reserved = held.
CREATE TABLE stock_ledger (
    id uuid CONSTRAINT stock_ledger_pk PRIMARY KEY,
    variant_id uuid NOT NULL,
    from_account text NOT NULL,
    to_account text NOT NULL,
    quantity bigint NOT NULL,
    cause text NOT NULL,
    -- The order, receipt or correction that moved the units.
    cause_id uuid NOT NULL,
    actor_id uuid,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT stock_ledger_quantity_positive CHECK (quantity > 0),
    CONSTRAINT stock_ledger_accounts_known CHECK (
        from_account IN ('supplier', 'available', 'held', 'sold', 'written_off')
        AND to_account IN ('supplier', 'available', 'held', 'sold', 'written_off')
        AND from_account <> to_account
    ),
    CONSTRAINT stock_ledger_cause_known CHECK (
        cause IN ('receipt', 'correction', 'order_placed', 'order_cancelled', 'order_expired', 'hold_taken', 'order_paid')
    )
);

CREATE INDEX stock_ledger_by_variant ON stock_ledger (variant_id, recorded_at);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER stock_ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON stock_ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
