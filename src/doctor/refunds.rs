//! What must hold of money that goes back, of claims to it, and of what people have to look at.

use super::Invariant;

pub(super) const ALL: &[Invariant] = &[
    Invariant {
        name: "refunds-fit-their-capture",
        promise: "what providers made of a capture's refunds, and what we asked for, each come to no more than the capture",
        sql: "
            SELECT
                captures.id::text,
                format('captured %s, made %s, asked for %s', captures.amount_minor, made, asked)
            FROM captures
            JOIN (
                SELECT
                    capture_id,
                    -- One in the provider's dashboard may come between our asking and its refusal.
                    coalesce(sum(amount_minor) FILTER (WHERE state IN ('pending', 'succeeded')), 0) AS made,
                    coalesce(sum(amount_minor) FILTER (WHERE state <> 'failed' AND cause <> 'provider'), 0)
                        AS asked
                FROM refunds
                GROUP BY capture_id
            ) AS sums ON sums.capture_id = captures.id
            WHERE greatest(made, asked) > captures.amount_minor",
    },
    Invariant {
        name: "refunds-are-of-their-capture",
        promise: "a refund and a dispute name the order and the provider of their capture, a refund its currency, too",
        sql: "
            WITH claims AS (
                SELECT id, capture_id, order_id, provider, currency FROM refunds
                UNION ALL
                SELECT id, capture_id, order_id, provider, NULL FROM disputes
            )
            SELECT
                claims.id::text,
                format('%s %s of order %s, capture %s %s of order %s',
                    claims.provider, claims.currency, claims.order_id,
                    captures.provider, captures.currency, captures.order_id)
            FROM claims
            JOIN captures ON captures.id = claims.capture_id
            WHERE (claims.order_id, claims.provider) <> (captures.order_id, captures.provider)
                OR claims.currency <> captures.currency",
    },
    Invariant {
        name: "due-money-goes-back",
        promise: "money that is due back, or whose order was given up after it was paid, went back, is on its way, or somebody was told why not",
        sql: "
            SELECT
                captures.id::text,
                format('%s of %s on its way back, %s of order %s',
                    coalesce(live.amount_minor, 0), captures.amount_minor, fate, captures.order_id)
            FROM captures
            JOIN orders ON orders.id = captures.order_id
            LEFT JOIN (
                SELECT capture_id, sum(amount_minor) AS amount_minor
                FROM refunds
                WHERE state <> 'failed'
                GROUP BY capture_id
            ) AS live ON live.capture_id = captures.id
            WHERE (fate = 'refund_due' OR (fate = 'accepted' AND status = 'cancelled'))
                AND coalesce(live.amount_minor, 0) < captures.amount_minor
                AND NOT EXISTS (
                    SELECT FROM refunds
                    JOIN findings ON findings.subject = refunds.id::text AND kind = 'refund_failed'
                    WHERE refunds.capture_id = captures.id
                        -- Whoever closed it has seen to the money.
                        AND (closed_at IS NULL OR closed_by IS NOT NULL)
                )",
    },
    Invariant {
        name: "refunds-are-told",
        promise: "every refund and every success of one is on the order's timeline, and its mail was promised",
        sql: "
            SELECT refunds.id::text, format('%s of order %s is %s, no %s', amount_minor, order_id, state, missing)
            FROM refunds
            CROSS JOIN LATERAL (
                SELECT 'entry of its beginning' AS missing
                WHERE NOT EXISTS (
                    SELECT FROM order_events
                    WHERE order_events.order_id = refunds.order_id
                        AND kind IN ('refund_requested', 'payment_refund_due', 'refund_succeeded')
                )
                UNION ALL
                SELECT 'entry of its success'
                WHERE state = 'succeeded'
                    AND NOT EXISTS (
                        SELECT FROM order_events
                        WHERE order_events.order_id = refunds.order_id
                            AND kind = 'refund_succeeded'
                            AND detail ->> 'refund_id' = refunds.id::text
                    )
                UNION ALL
                SELECT 'mail'
                WHERE state = 'succeeded'
                    AND updated_at > now() - interval '1 day'
                    AND NOT EXISTS (
                        SELECT FROM job_ledger WHERE dedupe_key = 'refund-made:' || refunds.id
                    )
            ) AS lack",
    },
    Invariant {
        name: "restocks-are-of-sold-units",
        promise: "no more units of an order went back on sale than it had",
        sql: "
            SELECT back.order_id::text, format('variant %s: %s of %s', variant_id, back.quantity, holds.quantity)
            FROM (
                SELECT order_id, variant_id, sum(quantity) AS quantity
                FROM restocks
                GROUP BY order_id, variant_id
            ) AS back
            LEFT JOIN holds USING (order_id, variant_id)
            WHERE back.quantity > coalesce(holds.quantity, 0)",
    },
    Invariant {
        name: "quarantine-is-seen",
        promise: "money is quarantined exactly as long as a finding tells people so",
        sql: "
            WITH told AS (
                SELECT subject FROM findings WHERE kind = 'quarantined' AND closed_at IS NULL
            ), waiting AS (
                SELECT id::text AS subject FROM captures WHERE fate = 'quarantined'
            )
            SELECT
                subject,
                CASE WHEN told.subject IS NULL THEN 'no finding is open' ELSE 'nothing to decide' END
            FROM waiting
            FULL JOIN told USING (subject)
            WHERE waiting.subject IS NULL OR told.subject IS NULL",
    },
    Invariant {
        name: "disputes-are-seen",
        promise: "an open dispute has a finding, unless somebody closed it, and no finding tells of one that is over",
        sql: "
            SELECT provider_ref, format('of order %s: %s, no finding', order_id, state)
            FROM disputes
            WHERE state = 'open'
                AND NOT EXISTS (
                    SELECT FROM findings
                    WHERE kind = 'disputed'
                        AND subject = disputes.provider_ref
                        AND (closed_at IS NULL OR closed_by IS NOT NULL)
                )
            UNION ALL
            SELECT subject, 'the dispute is over, or there was none'
            FROM findings
            WHERE kind = 'disputed'
                AND closed_at IS NULL
                AND NOT EXISTS (
                    SELECT FROM disputes WHERE provider_ref = subject AND state = 'open'
                )",
    },
    Invariant {
        name: "decisions-are-signed",
        promise: "what members of staff decided about money is in the audit log",
        sql: "
            WITH decided AS (
                SELECT id, 'order:' || order_id AS subject, 'refundOrder' AS action, requested_by AS actor_id
                FROM refunds
                WHERE cause = 'staff'
                UNION ALL
                SELECT id, 'finding:' || id, 'closeFinding', closed_by
                FROM findings
                WHERE closed_by IS NOT NULL
            )
            SELECT decided.id::text, format('%s of %s by %s', action, subject, actor_id)
            FROM decided
            WHERE NOT EXISTS (
                SELECT FROM audit_log
                WHERE audit_log.subject = decided.subject
                    AND audit_log.action = decided.action
                    AND audit_log.actor_id = decided.actor_id
            )
            -- Both end in a decision about the money itself.
            AND NOT EXISTS (
                SELECT FROM audit_log
                LEFT JOIN refunds ON refunds.id = decided.id
                LEFT JOIN findings ON findings.id = decided.id AND findings.kind = 'quarantined'
                WHERE audit_log.action = 'resolveQuarantined'
                    AND audit_log.actor_id = decided.actor_id
                    AND audit_log.subject
                        = 'capture:' || coalesce(refunds.capture_id::text, findings.subject)
            )",
    },
];

/// Holds what providers say they sent back against the refunds; `$1` is their list.
pub const PROVIDER_REFUNDS: Invariant = Invariant {
    name: "provider-refunds-equal-ours",
    promise: "every refund of our money that a provider lists is recorded with its amount, failed where it failed, and no other was made",
    sql: "
        WITH theirs AS (
            SELECT provider, provider_ref, payment_ref, amount_minor, state = 'failed' AS failed
            FROM jsonb_to_recordset($1) AS theirs
                (provider text, provider_ref text, payment_ref text, amount_minor bigint, state text)
        ), ours AS (
            SELECT provider, provider_ref, amount_minor, state = 'failed' AS failed
            FROM refunds
            WHERE provider_ref IS NOT NULL
        )
        SELECT
            provider || ' ' || provider_ref,
            format('theirs %s, ours %s',
                coalesce(theirs.amount_minor || CASE WHEN theirs.failed THEN ' failed' ELSE '' END, 'nothing'),
                coalesce(ours.amount_minor || CASE WHEN ours.failed THEN ' failed' ELSE '' END, 'nothing'))
        FROM theirs
        FULL JOIN ours USING (provider, provider_ref)
        WHERE (theirs.amount_minor, theirs.failed) IS DISTINCT FROM (ours.amount_minor, ours.failed)
            AND (
                theirs.provider_ref IS NULL
                OR ours.provider_ref IS NOT NULL
                -- Somebody else sends money back over the same account.
                OR EXISTS (
                    SELECT FROM captures
                    WHERE captures.provider = theirs.provider
                        AND captures.provider_ref = theirs.payment_ref
                )
            )",
};
