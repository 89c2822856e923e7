use super::Invariant;

/// A slice of orders takes less than ten seconds, so one that was placed later knew the rules.
pub(super) const ALL: &[Invariant] = &[
    Invariant {
        name: "purchase-limits-are-kept",
        promise: "no customer holds or bought more of a variant than its limit, since there is one and within its window",
        sql: "
            WITH kept AS (
                SELECT
                    holds.variant_id, holds.customer_key, orders.id AS order_id, orders.placed_at,
                    holds.quantity - coalesce(restocked.quantity, 0) AS quantity,
                    variants.purchase_limit, variants.purchase_window_seconds
                FROM holds
                JOIN orders ON orders.id = holds.order_id
                JOIN variants ON variants.id = holds.variant_id
                LEFT JOIN (
                    SELECT order_id, variant_id, sum(quantity) AS quantity
                    FROM restocks
                    GROUP BY order_id, variant_id
                ) AS restocked USING (order_id, variant_id)
                WHERE holds.state IN ('held', 'sold')
                    AND holds.customer_key IS NOT NULL
                    AND variants.purchase_limit IS NOT NULL
                    AND orders.placed_at > variants.sale_set_at + interval '10 seconds'
            )
            SELECT
                last.order_id::text,
                format('variant %s: the customer has %s of at most %s', last.variant_id,
                    sum(kept.quantity), last.purchase_limit)
            FROM kept AS last
            JOIN kept
                ON kept.variant_id = last.variant_id
                AND kept.customer_key = last.customer_key
                AND kept.placed_at <= last.placed_at
                AND (
                    last.purchase_window_seconds IS NULL
                    OR kept.placed_at > last.placed_at - last.purchase_window_seconds * interval '1 second'
                )
            GROUP BY last.order_id, last.variant_id, last.purchase_limit
            HAVING sum(kept.quantity) > last.purchase_limit",
    },
    Invariant {
        name: "limited-goods-have-customers",
        promise: "what is limited to some units a customer is not kept by anybody without an account",
        sql: "
            SELECT holds.order_id::text, format('variant %s, %s units', holds.variant_id, holds.quantity)
            FROM holds
            JOIN orders ON orders.id = holds.order_id
            JOIN variants ON variants.id = holds.variant_id
            WHERE holds.state IN ('held', 'sold')
                AND holds.customer_key IS NULL
                AND variants.purchase_limit IS NOT NULL
                AND orders.placed_at > variants.sale_set_at + interval '10 seconds'",
    },
    Invariant {
        name: "sales-keep-their-hours",
        promise: "no order was placed before the sale of one of its variants opened, or after it closed",
        sql: "
            SELECT orders.id::text, format('placed %s, variant %s sold from %s to %s', orders.placed_at,
                variants.id, variants.opens_at, variants.closes_at)
            FROM order_lines
            JOIN orders ON orders.id = order_lines.order_id
            JOIN variants ON variants.id = order_lines.variant_id
            WHERE orders.placed_at > variants.sale_set_at + interval '10 seconds'
                AND (orders.placed_at < variants.opens_at OR orders.placed_at >= variants.closes_at)",
    },
];
