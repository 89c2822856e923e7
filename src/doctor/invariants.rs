use super::Invariant;

pub(super) const ALL: &[Invariant] = &[
    Invariant {
        name: "stock-equals-ledger",
        promise: "a variant's counters equal the sums of its ledger",
        sql: "
            WITH moved AS (
                SELECT variant_id, to_account AS account, quantity FROM stock_ledger
                UNION ALL
                SELECT variant_id, from_account, -quantity FROM stock_ledger
            ), sums AS (
                SELECT
                    variant_id,
                    coalesce(sum(quantity) FILTER (WHERE account IN ('available', 'held')), 0) AS on_hand,
                    coalesce(sum(quantity) FILTER (WHERE account = 'held'), 0) AS reserved
                FROM moved
                GROUP BY variant_id
            )
            SELECT
                variant_id::text,
                format('counters %s/%s, ledger %s/%s (on hand/reserved)',
                    stock.on_hand, stock.reserved, sums.on_hand, sums.reserved)
            FROM stock
            FULL JOIN sums USING (variant_id)
            WHERE coalesce(stock.on_hand, 0) <> coalesce(sums.on_hand, 0)
                OR coalesce(stock.reserved, 0) <> coalesce(sums.reserved, 0)",
    },
    Invariant {
        name: "reserved-equals-holds",
        promise: "a variant's reserved units are the sum of its held holds",
        sql: "
            SELECT stock.variant_id::text, format('reserved %s, held %s', stock.reserved, held.quantity)
            FROM stock
            CROSS JOIN LATERAL (
                SELECT coalesce(sum(quantity), 0) AS quantity
                FROM holds
                WHERE holds.variant_id = stock.variant_id AND holds.state = 'held'
            ) AS held
            WHERE stock.reserved <> held.quantity",
    },
    Invariant {
        name: "never-oversold",
        promise: "no variant has more units reserved than on hand",
        sql: "
            SELECT variant_id::text, format('on hand %s, reserved %s', on_hand, reserved)
            FROM stock
            WHERE reserved < 0 OR reserved > on_hand",
    },
    Invariant {
        name: "lines-are-held",
        promise: "an order has one hold per variant, over the sum of its lines, with the order's deadline",
        sql: "
            WITH wanted AS (
                SELECT order_id, variant_id, sum(quantity) AS quantity
                FROM order_lines
                GROUP BY order_id, variant_id
            )
            SELECT
                coalesce(wanted.order_id, holds.order_id)::text,
                format('variant %s: lines %s, hold %s, deadlines %s and %s',
                    coalesce(wanted.variant_id, holds.variant_id), wanted.quantity, holds.quantity,
                    orders.expires_at, holds.expires_at)
            FROM wanted
            FULL JOIN holds USING (order_id, variant_id)
            LEFT JOIN orders ON orders.id = coalesce(wanted.order_id, holds.order_id)
            WHERE wanted.quantity IS DISTINCT FROM holds.quantity
                OR orders.expires_at IS DISTINCT FROM holds.expires_at",
    },
    Invariant {
        name: "holds-follow-status",
        promise: "an ended order holds nothing, a paid one has every unit sold, a waiting one has none released or sold",
        sql: "
            SELECT orders.id::text, format('%s, yet variant %s is %s', status, variant_id, state)
            FROM orders
            JOIN holds ON holds.order_id = orders.id
            WHERE NOT CASE status
                WHEN 'awaiting_payment' THEN state IN ('held', 'taken')
                WHEN 'paid' THEN state = 'sold'
                WHEN 'shipped' THEN state = 'sold'
                ELSE state IN ('released', 'taken')
            END",
    },
    Invariant {
        name: "order-ledger-balances",
        promise: "what the ledger moved into hold, out of hold and to sold for an order is what its holds and restocks say",
        sql: "
            WITH moved AS (
                SELECT
                    cause_id AS order_id,
                    variant_id,
                    sum(CASE WHEN to_account = 'held' THEN quantity ELSE 0 END) AS came,
                    sum(CASE WHEN from_account = 'held' THEN quantity ELSE 0 END) AS went,
                    -- Units that are held again after the deadline go from available to sold directly.
                    sum(CASE WHEN to_account = 'sold' THEN quantity ELSE 0 END)
                        - sum(CASE WHEN from_account = 'sold' THEN quantity ELSE 0 END) AS sold
                FROM stock_ledger
                WHERE cause LIKE 'order\\_%' OR cause = 'hold_taken'
                GROUP BY cause_id, variant_id
            ), restocked AS (
                SELECT order_id, variant_id, sum(quantity) AS quantity
                FROM restocks
                GROUP BY order_id, variant_id
            )
            SELECT
                coalesce(holds.order_id, moved.order_id)::text,
                format('variant %s: hold of %s is %s, the ledger has %s in, %s out and %s sold',
                    coalesce(holds.variant_id, moved.variant_id), holds.quantity, holds.state,
                    moved.came, moved.went, moved.sold)
            FROM holds
            FULL JOIN moved USING (order_id, variant_id)
            LEFT JOIN restocked USING (order_id, variant_id)
            WHERE (moved.came - moved.went) IS DISTINCT FROM
                CASE WHEN holds.state = 'held' THEN holds.quantity ELSE 0 END
                OR moved.sold IS DISTINCT FROM
                    CASE holds.state
                        WHEN 'sold' THEN holds.quantity - coalesce(restocked.quantity, 0)
                        ELSE 0
                    END",
    },
    Invariant {
        name: "totals-add-up",
        promise: "an order has lines, and its subtotal is their sum",
        sql: "
            SELECT orders.id::text, format('subtotal %s, lines %s', subtotal_minor, lines.sum)
            FROM orders
            LEFT JOIN (
                SELECT order_id, sum(quantity * unit_price_minor) AS sum
                FROM order_lines
                GROUP BY order_id
            ) AS lines ON lines.order_id = orders.id
            WHERE lines.sum IS DISTINCT FROM subtotal_minor",
    },
    Invariant {
        name: "timeline-is-a-path",
        promise: "an order's timeline begins with its placing, takes legal steps and ends where the order stands",
        sql: "
            WITH steps AS (
                SELECT
                    order_id, sequence, status,
                    lag(status) OVER timeline AS status_before,
                    row_number() OVER timeline AS place,
                    lead(status) OVER timeline IS NULL AS is_last
                FROM order_events
                WINDOW timeline AS (PARTITION BY order_id ORDER BY sequence)
            )
            SELECT
                coalesce(steps.order_id, orders.id)::text,
                format('entry %s: from %s to %s, the order is %s', sequence, status_before, steps.status, orders.status)
            FROM steps
            FULL JOIN orders ON orders.id = steps.order_id
            WHERE steps.order_id IS NULL
                OR orders.id IS NULL
                OR sequence <> place
                OR (place = 1 AND steps.status <> 'awaiting_payment')
                OR (is_last AND steps.status <> orders.status)
                OR (place > 1 AND steps.status <> status_before AND NOT EXISTS (
                    SELECT FROM order_transitions
                    WHERE from_status = status_before AND to_status = steps.status
                ))",
    },
    Invariant {
        name: "one-key-one-order",
        promise: "every checkout key has its order, and every order of the last day has one key",
        sql: "
            SELECT coalesce(orders.id, keys.subject_id)::text, format('%s keys', count(keys.key))
            FROM (SELECT * FROM idempotency_keys WHERE operation = 'placeOrder') AS keys
            FULL JOIN orders ON orders.id = keys.subject_id
            WHERE orders.id IS NULL OR orders.placed_at > now() - interval '1 day'
            GROUP BY orders.id, keys.subject_id
            HAVING orders.id IS NULL OR count(keys.key) <> 1",
    },
    Invariant {
        name: "follow-up-is-promised",
        promise: "what happened to orders in the last day has its mails promised",
        sql: "
            SELECT orders.id::text, format('%s, no job %s', status, mails.key)
            FROM orders
            LEFT JOIN captures ON captures.order_id = orders.id AND fate = 'accepted'
            CROSS JOIN LATERAL (
                VALUES
                    ('order-received:' || orders.id, placed_at),
                    ('reservation-expired:' || orders.id, CASE WHEN status = 'expired' THEN placed_at END),
                    ('order-confirmed:' || orders.id, captured_at)
            ) AS mails (key, happened_at)
            WHERE happened_at > now() - interval '1 day'
                AND NOT EXISTS (SELECT FROM job_ledger WHERE dedupe_key = mails.key)",
    },
    Invariant {
        name: "done-mails-were-sent",
        promise: "a mail job that is done has a delivery that a mail server took, unless nobody is to get the mail any more",
        sql: "
            SELECT job_ledger.id::text, format('%s for %s', kind, split_part(dedupe_key, ':', 2))
            FROM job_ledger
            LEFT JOIN orders ON orders.id = (payload ->> 'order_id')::uuid
            LEFT JOIN deliveries
                ON deliveries.cause_id::text = split_part(dedupe_key, ':', 2)
                AND deliveries.template = split_part(dedupe_key, ':', 1)
            WHERE lane = 'mail'
                AND job_ledger.state = 'done'
                AND deliveries.sent_at IS NULL
                -- Whoever can no longer pay is not asked to try again, and whoever got nothing back is not
                -- told so; no delivery is left half done.
                AND NOT (
                    kind = 'notifications.send-payment-failed'
                    AND deliveries.cause_id IS NULL
                    AND orders.status <> 'awaiting_payment'
                )
                AND NOT (
                    kind = 'notifications.send-refund-made'
                    AND deliveries.cause_id IS NULL
                    AND EXISTS (
                        SELECT FROM refunds
                        WHERE refunds.id = (payload ->> 'refund_id')::uuid AND refunds.state = 'failed'
                    )
                )
                -- An order that names nobody any more has nobody to be told.
                AND NOT (deliveries.cause_id IS NULL AND orders.erased_at IS NOT NULL)
                -- An account that is gone has nobody to be told.
                AND NOT (
                    deliveries.cause_id IS NULL
                    AND payload ? 'user_id'
                    AND NOT EXISTS (
                        SELECT FROM users WHERE users.id = (payload ->> 'user_id')::uuid
                    )
                )
                -- What an account's mail says is decided when it is sent, and a request that has run out
                -- gets none.
                AND NOT (
                    payload ? 'request_id'
                    AND NOT EXISTS (
                        SELECT
                        FROM deliveries AS unsent
                        WHERE unsent.cause_id = (payload ->> 'request_id')::uuid
                            AND unsent.sent_at IS NULL
                    )
                )",
    },
    Invariant {
        name: "deadlines-are-kept",
        promise: "no order waits for its payment five minutes after its deadline",
        sql: "
            SELECT id::text, format('deadline %s', expires_at)
            FROM orders
            WHERE status = 'awaiting_payment' AND expires_at < now() - interval '5 minutes'",
    },
    Invariant {
        name: "work-is-not-stuck",
        promise: "no job is due for a quarter of an hour without an attempt under way",
        sql: "
            SELECT id::text, format('%s, due %s, %s attempts, last error %s', kind, run_at, attempts, last_error)
            FROM job_ledger
            WHERE state = 'ready'
                AND run_at < now() - interval '15 minutes'
                AND (lease_until IS NULL OR lease_until < now())",
    },
];
