-- What devices did, and what sessions used of them: one sample a second for an hour, one a minute for 30 days, a session's
-- summary for ever (docs/gpus.md). Every time is this database's.

CREATE TABLE device_sample (
    -- how many seconds the row is about: 1, or 60
    span smallint NOT NULL CHECK (span IN (1, 60)),
    at timestamptz NOT NULL,
    device_uuid text NOT NULL,
    -- null: the driver does not tell. Of a minute: the most memory and heat, the mean of the rest
    used_bytes bigint,
    utilisation real,
    temperature smallint,
    watts real,
    PRIMARY KEY (device_uuid, span, at)
);
CREATE INDEX device_sample_by_age ON device_sample (span, at);

-- Of a session that trains on devices: bytes are those of one device, as they are reserved, the highest.
CREATE TABLE session_sample (
    span smallint NOT NULL CHECK (span IN (1, 60)),
    at timestamptz NOT NULL,
    dag_id text NOT NULL,
    run_id text NOT NULL,
    -- how many samples the row is made of
    samples integer NOT NULL,
    reserved_bytes bigint NOT NULL,
    used_bytes bigint,
    -- of its devices, whoever else trains there: the mean, and the sum
    utilisation real,
    watts real,
    PRIMARY KEY (dag_id, run_id, span, at)
);
CREATE INDEX session_sample_by_age ON session_sample (span, at);

CREATE TABLE session_usage (
    dag_id text NOT NULL,
    run_id text NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    samples integer NOT NULL,
    reserved_bytes bigint NOT NULL,
    peak_bytes bigint,
    -- means
    utilisation real,
    watts real,
    PRIMARY KEY (dag_id, run_id)
);
