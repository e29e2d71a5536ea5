-- The tower's ledger (docs/gpus.md). Bytes are whole bytes; every time is this database's.

-- One row: what all admission cycles lock first.
CREATE TABLE tower (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- something was released or changed since the last admission cycle
    dirty boolean NOT NULL DEFAULT true,
    passed_at timestamptz NOT NULL DEFAULT '-infinity',
    -- a waiting session has undertaken to run the next cycle
    claimed_at timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO tower DEFAULT VALUES;

CREATE TABLE device (
    uuid text PRIMARY KEY,
    name text NOT NULL,
    position integer,
    total_bytes bigint NOT NULL CHECK (total_bytes > 0),
    -- what sessions may reserve in all: total less the driver's own part and the headroom
    capacity_bytes bigint NOT NULL CHECK (capacity_bytes >= 0),
    -- kept by a trigger on reservation, never written by hand
    reserved_bytes bigint NOT NULL DEFAULT 0 CHECK (reserved_bytes >= 0),
    external_bytes bigint NOT NULL DEFAULT 0 CHECK (external_bytes >= 0),
    -- why nothing may be placed on it now, quarantine aside; empty: it is usable
    unusable text NOT NULL DEFAULT '',
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT never_over_admitted CHECK (reserved_bytes <= capacity_bytes)
);

CREATE TABLE quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_uuid text NOT NULL REFERENCES device,
    reason text NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    released_at timestamptz,
    released_by text,
    CHECK ((released_at IS NULL) = (released_by IS NULL))
);
CREATE UNIQUE INDEX one_open_quarantine_a_device ON quarantine (device_uuid) WHERE released_at IS NULL;

CREATE SEQUENCE fencing_token;

-- The order in which sessions came. A session keeps its number however often it waits, until it is over.
CREATE TABLE arrival (
    dag_id text NOT NULL,
    run_id text NOT NULL,
    sequence bigint GENERATED ALWAYS AS IDENTITY,
    arrived_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (dag_id, run_id)
);

CREATE TABLE waiting (
    dag_id text NOT NULL,
    run_id text NOT NULL,
    -- the task that waits: the preflight, or a training that is repeated
    task_id text NOT NULL,
    priority integer NOT NULL DEFAULT 0,
    sequence bigint NOT NULL UNIQUE,
    -- null: whole devices
    memory_bytes bigint CHECK (memory_bytes > 0),
    device_count integer NOT NULL CHECK (device_count > 0),
    policy text NOT NULL CHECK (policy IN ('packed', 'spread')),
    rule text NOT NULL,
    estimate text NOT NULL,
    data_bytes bigint NOT NULL,
    signature text NOT NULL,
    enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deadline_at timestamptz NOT NULL,
    -- the heartbeat of the queued session; one without a recent heartbeat is not admitted
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason_code text NOT NULL DEFAULT '',
    reason text NOT NULL DEFAULT '',
    PRIMARY KEY (dag_id, run_id)
);
CREATE INDEX waiting_in_order ON waiting (priority DESC, sequence);
CREATE INDEX waiting_by_need ON waiting (memory_bytes);

CREATE TABLE reservation (
    dag_id text NOT NULL,
    run_id text NOT NULL,
    device_uuid text NOT NULL REFERENCES device,
    bytes bigint NOT NULL CHECK (bytes > 0),
    whole boolean NOT NULL,
    -- the same for all devices of a session; a new one for each attempt that takes it over
    token bigint NOT NULL,
    lease_until timestamptz NOT NULL,
    enqueued_at timestamptz NOT NULL,
    admitted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- when its container was seen to run
    running_at timestamptz,
    used_bytes bigint,
    peak_bytes bigint,
    sequence bigint NOT NULL,
    priority integer NOT NULL,
    rule text NOT NULL,
    data_bytes bigint NOT NULL,
    signature text NOT NULL,
    PRIMARY KEY (dag_id, run_id, device_uuid)
);
CREATE INDEX reservation_by_device ON reservation (device_uuid);
CREATE INDEX reservation_by_lease ON reservation (lease_until);

-- Every admission, for the rule that bounds how often a session is overtaken.
CREATE TABLE admission (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dag_id text NOT NULL,
    run_id text NOT NULL,
    sequence bigint NOT NULL,
    enqueued_at timestamptz NOT NULL,
    admitted_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX admission_by_sequence ON admission (sequence DESC);

-- What every attempt on a device measured.
CREATE TABLE history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dag_id text NOT NULL,
    run_id text NOT NULL,
    -- of the model and its parameters
    signature text NOT NULL,
    data_bytes bigint NOT NULL,
    devices text[] NOT NULL,
    reserved_bytes bigint NOT NULL,
    whole boolean NOT NULL,
    peak_bytes bigint,
    needed_bytes bigint,
    outcome text NOT NULL
        CHECK (outcome IN ('success', 'out_of_memory', 'overrun', 'hung', 'device_lost', 'failed')),
    reason text NOT NULL DEFAULT '',
    sequence bigint NOT NULL,
    seconds double precision,
    ended_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX history_by_signature ON history (signature, id DESC);
CREATE INDEX history_by_run ON history (dag_id, run_id, id);

-- The sum of a device's reservations is kept in its row, where a CHECK holds it to the capacity: two transactions that
-- reserve at once meet at that row, so nothing over-admits, not even code that forgets to lock.
CREATE FUNCTION sum_reservations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE device SET reserved_bytes = reserved_bytes - OLD.bytes WHERE uuid = OLD.device_uuid;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        UPDATE device SET reserved_bytes = reserved_bytes + NEW.bytes WHERE uuid = NEW.device_uuid;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER reservation_is_summed AFTER INSERT OR DELETE OR UPDATE OF bytes, device_uuid ON reservation
    FOR EACH ROW EXECUTE FUNCTION sum_reservations();

-- A device in quarantine takes no new reservation, from any session.
CREATE FUNCTION refuse_quarantined() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM device WHERE uuid = NEW.device_uuid FOR UPDATE;
    IF EXISTS (SELECT FROM quarantine WHERE device_uuid = NEW.device_uuid AND released_at IS NULL) THEN
        RAISE EXCEPTION 'device % is in quarantine', NEW.device_uuid USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER reservation_avoids_quarantine BEFORE INSERT OR UPDATE OF device_uuid ON reservation
    FOR EACH ROW EXECUTE FUNCTION refuse_quarantined();

-- Every release notifies all queued sessions. It locks the tower before any device, as an admission cycle does: in the
-- other order the two would wait for each other.
CREATE FUNCTION announce_release() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE tower SET dirty = true;
    PERFORM pg_notify('tarmac_tower', '');
    RETURN NULL;
END $$;
CREATE TRIGGER reservation_release_is_announced BEFORE DELETE ON reservation
    FOR EACH STATEMENT EXECUTE FUNCTION announce_release();
CREATE TRIGGER quarantine_change_is_announced BEFORE UPDATE ON quarantine
    FOR EACH STATEMENT EXECUTE FUNCTION announce_release();
