-- The older schema has no sessions on a host: their trainings go on without a reservation, as they did before.
DELETE FROM reservation WHERE device_uuid IS NULL;
DELETE FROM waiting WHERE device_count = 0;
DELETE FROM admission WHERE on_host;
DELETE FROM history WHERE host IS NOT NULL AND devices = '{}';

DROP TRIGGER reservation_release_is_announced ON reservation;
DROP TRIGGER reservation_release_locks_the_tower ON reservation;
DROP FUNCTION announce_released, lock_tower;
CREATE TRIGGER reservation_release_is_announced BEFORE DELETE ON reservation
    FOR EACH STATEMENT EXECUTE FUNCTION announce_release();

DROP TRIGGER reservation_is_summed ON reservation;
CREATE OR REPLACE FUNCTION sum_reservations() RETURNS trigger LANGUAGE plpgsql AS $$
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

ALTER TABLE history DROP COLUMN host;
CREATE INDEX admission_by_sequence ON admission (sequence DESC);
DROP INDEX admission_on_host_by_sequence, admission_on_device_by_sequence;
ALTER TABLE admission DROP COLUMN on_host;
ALTER TABLE reservation
    DROP CONSTRAINT reservation_key,
    DROP COLUMN host,
    DROP COLUMN millicpus,
    DROP COLUMN beside,
    ALTER COLUMN device_uuid SET NOT NULL,
    ADD CONSTRAINT reservation_pkey PRIMARY KEY (dag_id, run_id, device_uuid);
DROP INDEX waiting_for_a_host;
ALTER TABLE waiting
    DROP CONSTRAINT waiting_device_count_check,
    DROP COLUMN host_bytes,
    DROP COLUMN millicpus,
    ADD CONSTRAINT waiting_device_count_check CHECK (device_count > 0);
ALTER TABLE tower
    DROP COLUMN host_dirty, DROP COLUMN host_passed_at, DROP COLUMN host_claimed_at, DROP COLUMN host_view;
DROP TABLE host;
