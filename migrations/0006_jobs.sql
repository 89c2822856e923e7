-- One row is one piece of work that was promised in the transaction of its cause. Redis only carries
-- wake-ups for these rows; what is true is here.
CREATE TABLE job_ledger (
    id uuid CONSTRAINT job_ledger_pk PRIMARY KEY,
    kind text NOT NULL,
    lane text NOT NULL,
    -- { "v": 1, … }: ids, never personal data.
    payload jsonb NOT NULL,
    -- At most one row per effect, for as long as the row is kept.
    dedupe_key text,
    state text NOT NULL DEFAULT 'ready',
    -- Not to be started before.
    run_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    -- How many claims in a row ended without a verdict: the worker died, or lost the database.
    losses integer NOT NULL DEFAULT 0,
    -- A worker has it until then; after that anyone may claim it again.
    lease_until timestamptz,
    -- How often a wake-up was sent, and when the next is due if nothing has happened by then.
    pushes integer NOT NULL DEFAULT 0,
    next_push_at timestamptz NOT NULL,
    last_error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CONSTRAINT job_ledger_state_known CHECK (state IN ('ready', 'done', 'dead', 'discarded')),
    CONSTRAINT job_ledger_finished CHECK ((state = 'ready') = (finished_at IS NULL)),
    CONSTRAINT job_ledger_dead_has_reason
        CHECK (state NOT IN ('dead', 'discarded') OR last_error IS NOT NULL)
);

CREATE UNIQUE INDEX job_ledger_dedupe_key_unique ON job_ledger (dedupe_key);
CREATE INDEX job_ledger_to_push ON job_ledger (next_push_at) WHERE state = 'ready';
CREATE INDEX job_ledger_ready ON job_ledger (lane, run_at) WHERE state = 'ready';
CREATE INDEX job_ledger_finished_at ON job_ledger (finished_at) WHERE state <> 'ready';
CREATE INDEX job_ledger_dead ON job_ledger (id) WHERE state = 'dead';
