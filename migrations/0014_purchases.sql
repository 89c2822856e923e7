-- What counts against a purchase limit: units that are held or sold, and were not put back on sale after
-- a refund.
CREATE VIEW purchases AS
SELECT
    holds.variant_id,
    holds.customer_key,
    orders.placed_at,
    holds.quantity - coalesce((
        SELECT sum(restocks.quantity)
        FROM restocks
        WHERE restocks.order_id = holds.order_id AND restocks.variant_id = holds.variant_id
    ), 0) AS units
FROM holds
JOIN orders ON orders.id = holds.order_id
WHERE holds.customer_key IS NOT NULL AND holds.state IN ('held', 'sold');
