-- What people are told: the outbox of tarmac.notify. Every time is this database's.

-- One row a fact, such as the end of one session. A fact that is found again is not told again.
CREATE TABLE notice (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fact text NOT NULL UNIQUE CHECK (fact <> ''),
    kind text NOT NULL CHECK (kind <> ''),
    title text NOT NULL CHECK (title <> ''),
    body text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX notice_by_age ON notice (made_at);

-- One row for each target that a notice goes to. It is open until it was sent or given up.
CREATE TABLE delivery (
    notice_id bigint NOT NULL REFERENCES notice ON DELETE CASCADE,
    target text NOT NULL CHECK (target <> ''),
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_at timestamptz NOT NULL DEFAULT '-infinity',
    -- why the last attempt failed
    problem text NOT NULL DEFAULT '',
    -- the same for all notices of one message
    sent_at timestamptz,
    given_up_at timestamptz,
    PRIMARY KEY (notice_id, target),
    CHECK (sent_at IS NULL OR given_up_at IS NULL)
);
CREATE INDEX delivery_open ON delivery (target, notice_id) WHERE sent_at IS NULL AND given_up_at IS NULL;
CREATE INDEX delivery_sent ON delivery (target, sent_at DESC) WHERE sent_at IS NOT NULL;

-- Since when people are told: what was before is not.
CREATE TABLE notifier (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    told_from timestamptz NOT NULL DEFAULT clock_timestamp()
);
