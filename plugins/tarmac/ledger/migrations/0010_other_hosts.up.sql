-- Other machines that train (docs/decisions/0024): how each is reached, and whether it answers.
ALTER TABLE host
    -- '' for the machine of the stack
    ADD COLUMN url text NOT NULL DEFAULT '',
    -- the pinned key, as a line of known_hosts without its first word
    ADD COLUMN host_key text NOT NULL DEFAULT '',
    ADD COLUMN engine_id text NOT NULL DEFAULT '',
    -- it takes no new session
    ADD COLUMN draining boolean NOT NULL DEFAULT false,
    ADD COLUMN answered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- why it did not answer when it was asked last; '': it did
    ADD COLUMN trouble text NOT NULL DEFAULT '';
