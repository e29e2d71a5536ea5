-- Cores and memory of hosts, which trainings on the CPU reserve (docs/decisions/0018). Cores are counted in thousandths.
CREATE TABLE host (
    name text PRIMARY KEY CHECK (name <> ''),
    total_bytes bigint NOT NULL CHECK (total_bytes > 0),
    total_millicpus integer NOT NULL CHECK (total_millicpus > 0),
    -- what sessions may reserve in all: total less the headroom
    capacity_bytes bigint NOT NULL CHECK (capacity_bytes >= 0),
    capacity_millicpus integer NOT NULL CHECK (capacity_millicpus >= 0),
    -- kept by a trigger on reservation, never written by hand
    reserved_bytes bigint NOT NULL DEFAULT 0 CHECK (reserved_bytes >= 0),
    reserved_millicpus integer NOT NULL DEFAULT 0 CHECK (reserved_millicpus >= 0),
    -- what containers of GPU sessions may take, which wait for none of it; kept by the same trigger
    beside_bytes bigint NOT NULL DEFAULT 0 CHECK (beside_bytes >= 0),
    beside_millicpus integer NOT NULL DEFAULT 0 CHECK (beside_millicpus >= 0),
    measured_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT host_never_over_admitted
        CHECK (reserved_bytes <= capacity_bytes AND reserved_millicpus <= capacity_millicpus)
);

-- The admission cycle of CPU sessions, as the columns without `host_` are for that of GPU sessions.
ALTER TABLE tower
    ADD COLUMN host_dirty boolean NOT NULL DEFAULT true,
    ADD COLUMN host_passed_at timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN host_claimed_at timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN host_view text NOT NULL DEFAULT '';

-- A CPU session needs no device. What it needs of a host, and what a GPU session's container may take there.
ALTER TABLE waiting
    ADD COLUMN host_bytes bigint NOT NULL DEFAULT 0 CHECK (host_bytes >= 0),
    ADD COLUMN millicpus integer NOT NULL DEFAULT 0 CHECK (millicpus >= 0),
    DROP CONSTRAINT waiting_device_count_check,
    ADD CONSTRAINT waiting_device_count_check CHECK (device_count > 0 OR (device_count = 0 AND host_bytes > 0));
CREATE INDEX waiting_for_a_host ON waiting (priority DESC, sequence) WHERE device_count = 0;

-- A row is of a device or of a host: a CPU session has one of a host, a GPU session one of each device and one of a host.
ALTER TABLE reservation
    DROP CONSTRAINT reservation_pkey,
    ALTER COLUMN device_uuid DROP NOT NULL,
    ADD COLUMN host text REFERENCES host,
    ADD COLUMN millicpus integer NOT NULL DEFAULT 0 CHECK (millicpus >= 0),
    -- counted beside the reservations: of a GPU session, which does not wait for it
    ADD COLUMN beside boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT of_a_device_or_a_host CHECK ((device_uuid IS NULL) <> (host IS NULL)),
    ADD CONSTRAINT reservation_key UNIQUE NULLS NOT DISTINCT (dag_id, run_id, device_uuid);
CREATE INDEX reservation_by_host ON reservation (host) WHERE host IS NOT NULL;

ALTER TABLE admission ADD COLUMN on_host boolean NOT NULL DEFAULT false;
CREATE INDEX admission_on_host_by_sequence ON admission (sequence DESC) WHERE on_host;
CREATE INDEX admission_on_device_by_sequence ON admission (sequence DESC) WHERE NOT on_host;
DROP INDEX admission_by_sequence;

ALTER TABLE history ADD COLUMN host text;

CREATE OR REPLACE FUNCTION sum_reservations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        IF OLD.device_uuid IS NOT NULL THEN
            UPDATE device SET reserved_bytes = reserved_bytes - OLD.bytes WHERE uuid = OLD.device_uuid;
        ELSIF OLD.beside THEN
            UPDATE host SET beside_bytes = beside_bytes - OLD.bytes, beside_millicpus = beside_millicpus - OLD.millicpus
                WHERE name = OLD.host;
        ELSE
            UPDATE host SET reserved_bytes = reserved_bytes - OLD.bytes,
                reserved_millicpus = reserved_millicpus - OLD.millicpus WHERE name = OLD.host;
        END IF;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        IF NEW.device_uuid IS NOT NULL THEN
            UPDATE device SET reserved_bytes = reserved_bytes + NEW.bytes WHERE uuid = NEW.device_uuid;
        ELSIF NEW.beside THEN
            UPDATE host SET beside_bytes = beside_bytes + NEW.bytes, beside_millicpus = beside_millicpus + NEW.millicpus
                WHERE name = NEW.host;
        ELSE
            UPDATE host SET reserved_bytes = reserved_bytes + NEW.bytes,
                reserved_millicpus = reserved_millicpus + NEW.millicpus WHERE name = NEW.host;
        END IF;
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER reservation_is_summed ON reservation;
CREATE TRIGGER reservation_is_summed
    AFTER INSERT OR DELETE OR UPDATE OF bytes, device_uuid, host, millicpus, beside ON reservation
    FOR EACH ROW EXECUTE FUNCTION sum_reservations();

-- A release locks the tower before it comes to any device or host, as a cycle does. What was released is known after it:
-- a release of a host wakes nobody who waits for a device.
DROP TRIGGER reservation_release_is_announced ON reservation;
CREATE FUNCTION lock_tower() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM tower FOR UPDATE;
    RETURN NULL;
END $$;
CREATE TRIGGER reservation_release_locks_the_tower BEFORE DELETE ON reservation
    FOR EACH STATEMENT EXECUTE FUNCTION lock_tower();
CREATE FUNCTION announce_released() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM released WHERE device_uuid IS NOT NULL) THEN
        UPDATE tower SET dirty = true, host_dirty = true;
        PERFORM pg_notify('tarmac_tower', '');
    ELSIF EXISTS (SELECT FROM released) THEN
        UPDATE tower SET host_dirty = true;
        PERFORM pg_notify('tarmac_tower', 'host');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER reservation_release_is_announced AFTER DELETE ON reservation
    REFERENCING OLD TABLE AS released FOR EACH STATEMENT EXECUTE FUNCTION announce_released();
