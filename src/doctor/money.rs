//! What must hold of payments, captures and the inbox.

use super::Invariant;

pub(super) const ALL: &[Invariant] = &[
    Invariant {
        name: "paid-once",
        promise: "an order is paid, or was given up afterwards, exactly when one capture was accepted: of its total, unless a person decided otherwise",
        sql: "
            SELECT
                orders.id::text,
                format('%s, total %s %s, accepted %s %s',
                    status, total_minor, orders.currency, accepted.amount_minor, accepted.currency)
            FROM orders
            LEFT JOIN captures AS accepted
                ON accepted.order_id = orders.id AND accepted.fate = 'accepted'
            WHERE (
                    status IN ('paid', 'shipped')
                    OR (
                        status = 'cancelled'
                        AND EXISTS (
                            SELECT FROM order_events
                            WHERE order_events.order_id = orders.id
                                AND kind = 'cancelled_after_payment'
                        )
                    )
                ) <> (accepted.id IS NOT NULL)
                OR accepted.currency <> orders.currency
                OR (
                    accepted.amount_minor <> total_minor
                    AND NOT EXISTS (
                        SELECT FROM order_events
                        WHERE order_events.order_id = orders.id
                            AND kind = 'quarantine_resolved'
                            AND detail ->> 'capture_id' = accepted.id::text
                    )
                )",
    },
    Invariant {
        name: "attempts-ask-for-the-total",
        promise: "every attempt to pay asks for its order's total",
        sql: "
            SELECT
                payments.id::text,
                format('asks for %s %s, the total is %s %s',
                    amount_minor, payments.currency, total_minor, orders.currency)
            FROM payments
            JOIN orders ON orders.id = payments.order_id
            WHERE (amount_minor, payments.currency) <> (total_minor, orders.currency)",
    },
    Invariant {
        name: "one-attempt-under-way",
        promise: "an order has at most one attempt that can still be paid",
        sql: "
            SELECT order_id::text, format('%s attempts', count(*))
            FROM payments
            WHERE state IN ('creating', 'open', 'processing', 'authorized')
            GROUP BY order_id
            HAVING count(*) > 1",
    },
    Invariant {
        name: "captures-have-payments",
        promise: "a payment is captured exactly when money came in for it, and that names the same order, unless a person decided otherwise",
        sql: "
            SELECT payments.id::text, format('%s, %s captures', state, count(captures.id))
            FROM payments
            LEFT JOIN captures ON captures.payment_id = payments.id
            LEFT JOIN LATERAL (
                SELECT true AS by_person
                FROM order_events
                WHERE order_events.order_id = captures.order_id
                    AND order_events.kind = 'quarantine_resolved'
                    AND detail ->> 'capture_id' = captures.id::text
                LIMIT 1
            ) AS decided ON true
            GROUP BY payments.id
            HAVING (state = 'captured' AND count(captures.id) = 0)
                -- What was collected for something else says nothing of the payment.
                OR (state <> 'captured' AND bool_or(
                    reason IS DISTINCT FROM 'foreign_object' AND captures.id IS NOT NULL AND by_person IS NULL
                ))
                OR bool_or(captures.order_id <> payments.order_id AND by_person IS NULL)",
    },
    Invariant {
        name: "money-has-an-end",
        promise: "money that did not pay its order says truly why it must go back or waits for a person",
        sql: "
            SELECT
                captures.id::text,
                format('%s %s at %s: %s, %s; the order is %s',
                    captures.amount_minor, captures.currency, captures.provider, fate, reason, status)
            FROM captures
            JOIN orders ON orders.id = captures.order_id
            JOIN payments ON payments.id = captures.payment_id
            WHERE fate <> 'accepted'
                AND NOT CASE reason
                    WHEN 'already_paid' THEN status IN ('paid', 'shipped', 'cancelled')
                    WHEN 'order_cancelled' THEN
                        status = 'cancelled'
                        -- Other money paid it after all, because a person said so.
                        OR EXISTS (
                            SELECT FROM order_events
                            WHERE order_events.order_id = orders.id AND kind = 'quarantine_resolved'
                        )
                    WHEN 'wrong_amount' THEN
                        captures.amount_minor <> payments.amount_minor
                        -- All of it was sent back at the provider before anybody here heard of it.
                        OR fate = 'refund_due'
                            AND captures.amount_minor <= (
                                SELECT sum(amount_minor)
                                FROM refunds
                                WHERE refunds.capture_id = captures.id AND cause = 'provider'
                            )
                    WHEN 'wrong_currency' THEN captures.currency <> payments.currency
                    -- The stock that was missing then may be back, and what was foreign is of another object.
                    ELSE reason IN ('out_of_stock', 'foreign_object')
                END",
    },
    Invariant {
        name: "refused-money-is-told",
        promise: "money that did not pay its order is on the order's timeline",
        sql: "
            SELECT captures.id::text, format('%s of order %s is %s', captures.provider_ref, captures.order_id, fate)
            FROM captures
            WHERE fate <> 'accepted'
                AND NOT EXISTS (
                    SELECT FROM order_events
                    WHERE order_events.order_id = captures.order_id
                        AND (
                            kind = 'payment_' || fate
                            -- A person refused it.
                            OR (
                                kind = 'payment_quarantined'
                                AND reason IN ('wrong_amount', 'wrong_currency', 'foreign_object')
                            )
                        )
                        AND detail ->> 'payment_id' = captures.payment_id::text
                )",
    },
    Invariant {
        name: "ended-orders-cannot-be-paid",
        promise: "no attempt of an ended or paid order can still be paid after five minutes, unless its withdrawal is under way",
        sql: "
            SELECT payments.id::text, format('%s since %s, order %s is %s', state, updated_at, order_id, status)
            FROM payments
            JOIN orders ON orders.id = payments.order_id
            WHERE (
                    state = 'cancelling'
                    OR (
                        state IN ('creating', 'open', 'processing', 'authorized')
                        AND status <> 'awaiting_payment'
                    )
                )
                AND updated_at < now() - interval '5 minutes'
                AND NOT EXISTS (
                    SELECT FROM job_ledger
                    WHERE dedupe_key = 'cancel-payment:' || payments.id
                        AND job_ledger.state IN ('ready', 'discarded')
                )",
    },
    Invariant {
        name: "set-aside-money-is-collected",
        promise: "money that was authorised for a waiting order is collected within five minutes, or its collection is under way",
        sql: "
            SELECT payments.id::text, format('authorized since %s, order %s', updated_at, order_id)
            FROM payments
            JOIN orders ON orders.id = payments.order_id
            WHERE state = 'authorized'
                AND status = 'awaiting_payment'
                AND updated_at < now() - interval '5 minutes'
                AND NOT EXISTS (
                    SELECT FROM job_ledger
                    WHERE kind = 'checkout.capture-payment'
                        AND payload ->> 'payment_id' = payments.id::text
                        AND job_ledger.state IN ('ready', 'discarded')
                )",
    },
    Invariant {
        name: "deadline-is-extended-once",
        promise: "an order's deadline was extended as often as its timeline says: never or once",
        sql: "
            SELECT orders.id::text, format('extended at %s, %s entries', extended_at, extensions.count)
            FROM orders
            CROSS JOIN LATERAL (
                SELECT count(*)
                FROM order_events
                WHERE order_events.order_id = orders.id AND kind = 'deadline_extended'
            ) AS extensions
            WHERE extensions.count <> CASE WHEN extended_at IS NULL THEN 0 ELSE 1 END",
    },
    Invariant {
        name: "told-money-is-settled",
        promise: "money that a webhook tells of is settled within two minutes, unless its provider is being asked about it",
        sql: "
            SELECT id::text, format('%s %s, received %s', provider, kind, received_at)
            FROM provider_events
            WHERE state = 'new'
                AND kind IN ('payment_intent.succeeded', 'payment.captured', 'order.paid')
                AND received_at < now() - interval '2 minutes'
                AND NOT EXISTS (
                    SELECT FROM job_ledger
                    WHERE state = 'ready' AND dedupe_key = 'review-payment:' || provider_events.id
                )",
    },
    Invariant {
        name: "looks-are-not-overdue",
        promise: "whatever a provider is to be asked about is asked about within a quarter of an hour after its time",
        sql: "
            SELECT subject, format('due since %s', due)
            FROM (
                SELECT id::text AS subject, next_look_at AS due FROM payments
                UNION ALL
                SELECT id::text, next_look_at
                FROM refunds
                WHERE state IN ('requested', 'pending') OR (state = 'succeeded' AND provider = 'razorpay')
                UNION ALL
                SELECT id::text, next_look_at FROM disputes WHERE state = 'open'
            ) AS looks
            WHERE due < now() - interval '15 minutes'",
    },
    Invariant {
        name: "lists-are-read",
        promise: "the lists of a provider that shoppers pay with were read to within the last hour",
        sql: "
            SELECT 'lists of ' || provider, format('read until %s', read_until)
            FROM reconciliation_cursors
            WHERE read_until < now() - interval '1 hour'
                -- One that is new is read from a day before on, which takes minutes, and one that nobody
                -- pays with any more may be gone from the settings.
                AND EXISTS (
                    SELECT FROM payments
                    WHERE payments.provider = reconciliation_cursors.provider
                        AND created_at BETWEEN now() - interval '1 day' AND now() - interval '1 hour'
                )",
    },
    Invariant {
        name: "inbox-is-worked",
        promise: "no webhook is left for a quarter of an hour without a job that works on it",
        sql: "
            SELECT id::text, format('%s %s, received %s', provider, provider_events.kind, received_at)
            FROM provider_events
            WHERE state = 'new'
                AND received_at < now() - interval '15 minutes'
                AND NOT EXISTS (
                    SELECT FROM job_ledger
                    WHERE dedupe_key IN (
                            'settle-event:' || provider_events.id,
                            'review-payment:' || provider_events.id,
                            'review-refund:' || provider_events.id,
                            'review-refunds-of:' || provider_events.id,
                            'review-dispute:' || provider_events.id
                        )
                        AND job_ledger.state = 'ready'
                )",
    },
];

/// Holds what providers say they collected against the captures; `$1` is their list.
pub const PROVIDER_LEDGER: Invariant = Invariant {
    name: "provider-ledger-equals-ours",
    promise: "every capture that a provider lists is recorded with its amount, and no other",
    sql: "
        WITH theirs AS (
            SELECT provider, provider_ref, amount_minor, upper(currency) AS currency, payment_id
            FROM jsonb_to_recordset($1) AS theirs
                (provider text, provider_ref text, amount_minor bigint, currency text, payment_id text)
        )
        SELECT
            provider || ' ' || provider_ref,
            format('theirs %s, ours %s',
                coalesce(theirs.amount_minor || ' ' || theirs.currency, 'nothing'),
                coalesce(captures.amount_minor || ' ' || captures.currency, 'nothing'))
        FROM theirs
        FULL JOIN captures USING (provider, provider_ref)
        WHERE (captures.id IS NULL AND theirs.payment_id IS NOT NULL)
            OR theirs.provider_ref IS NULL
            OR (theirs.amount_minor, theirs.currency) <> (captures.amount_minor, captures.currency)",
};
