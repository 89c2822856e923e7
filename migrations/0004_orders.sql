-- The legal moves of an order. `orders::status` holds the same table as a function; a test compares them.
CREATE TABLE order_transitions (
    from_status text NOT NULL,
    to_status text NOT NULL,
    CONSTRAINT order_transitions_pk PRIMARY KEY (from_status, to_status)
);

INSERT INTO order_transitions (from_status, to_status) VALUES
    ('awaiting_payment', 'cancelled'),
    ('awaiting_payment', 'expired'),
    ('awaiting_payment', 'paid'),
    ('expired', 'paid'),
    ('cancelled', 'paid');

-- One row is one acknowledged order. Amounts are minor units of `currency`.
CREATE TABLE orders (
    id uuid CONSTRAINT orders_pk PRIMARY KEY,
    number text NOT NULL,
    -- The customer or the guest who placed it.
    owner_id uuid NOT NULL,
    status text NOT NULL DEFAULT 'awaiting_payment',
    email text NOT NULL,
    shipping_address jsonb NOT NULL,
    currency text NOT NULL,
    subtotal_minor bigint NOT NULL,
    discount_minor bigint NOT NULL DEFAULT 0,
    shipping_minor bigint NOT NULL DEFAULT 0,
    tax_minor bigint NOT NULL DEFAULT 0,
    total_minor bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    placed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT orders_status_known CHECK (status IN ('awaiting_payment', 'cancelled', 'expired', 'paid')),
    CONSTRAINT orders_currency_shape CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT orders_expires_on_whole_second CHECK (expires_at = date_trunc('second', expires_at)),
    CONSTRAINT orders_amounts_range CHECK (
        subtotal_minor >= 0 AND shipping_minor >= 0 AND tax_minor >= 0
        AND discount_minor BETWEEN 0 AND subtotal_minor
    ),
    CONSTRAINT orders_total_adds_up CHECK (
        total_minor = subtotal_minor - discount_minor + shipping_minor + tax_minor
    )
);

CREATE UNIQUE INDEX orders_number_unique ON orders (number);
CREATE INDEX orders_by_owner ON orders (owner_id, id DESC);
CREATE INDEX orders_by_deadline ON orders (expires_at) WHERE status = 'awaiting_payment';

CREATE FUNCTION check_order_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM order_transitions WHERE from_status = OLD.status AND to_status = NEW.status
    ) THEN
        RAISE EXCEPTION 'order % cannot go from % to %', OLD.id, OLD.status, NEW.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'orders_transition_legal';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER orders_transition_legal BEFORE UPDATE OF status ON orders
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION check_order_transition();

-- One row is what an order says of one variant, with the price and the names of that moment.
CREATE TABLE order_lines (
    order_id uuid NOT NULL CONSTRAINT order_lines_order_fk REFERENCES orders,
    position integer NOT NULL,
    variant_id uuid NOT NULL,
    sku text NOT NULL,
    title text NOT NULL,
    quantity bigint NOT NULL,
    unit_price_minor bigint NOT NULL,
    CONSTRAINT order_lines_pk PRIMARY KEY (order_id, position),
    CONSTRAINT order_lines_quantity_positive CHECK (quantity > 0),
    CONSTRAINT order_lines_price_range CHECK (unit_price_minor >= 0)
);

-- One row is one thing that happened to an order: its timeline. Never changed or removed.
CREATE TABLE order_events (
    order_id uuid NOT NULL CONSTRAINT order_events_order_fk REFERENCES orders,
    -- Counts an order's events from 1; two writers of one order cannot both take the same.
    sequence integer NOT NULL,
    kind text NOT NULL,
    -- The status after the event.
    status text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}',
    recorded_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT order_events_pk PRIMARY KEY (order_id, sequence)
);

CREATE TRIGGER order_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON order_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
