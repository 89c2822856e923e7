-- One row is one e-mail that one cause asks for: at most one per cause and template.
CREATE TABLE deliveries (
    cause_id uuid NOT NULL,
    template text NOT NULL,
    -- Fixed for the effect, so that a repeat after a crash can be recognised by mail servers.
    message_id text NOT NULL,
    recipient text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- The mail server accepted it.
    sent_at timestamptz,
    CONSTRAINT deliveries_pk PRIMARY KEY (cause_id, template)
);
