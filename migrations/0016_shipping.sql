-- What is under way to the shopper is no longer the shopper's to give up.
INSERT INTO order_transitions (from_status, to_status) VALUES ('paid', 'shipped');

ALTER TABLE orders
    DROP CONSTRAINT orders_status_known,
    ADD CONSTRAINT orders_status_known CHECK (
        status IN ('awaiting_payment', 'cancelled', 'expired', 'paid', 'shipped')
    );
