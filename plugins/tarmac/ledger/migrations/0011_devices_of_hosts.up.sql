-- GPUs of other machines (docs/decisions/0026): whose each device is, and what a host's agent told last.
ALTER TABLE device ADD COLUMN host text NOT NULL DEFAULT 'local';

-- The latest snapshot of each other machine; its devices are unavailable when it is too old.
CREATE TABLE snapshot (
    host text PRIMARY KEY REFERENCES host ON DELETE CASCADE,
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    body text NOT NULL
);

-- The host that the request names; '': any.
ALTER TABLE waiting ADD COLUMN wanted_host text NOT NULL DEFAULT '';
