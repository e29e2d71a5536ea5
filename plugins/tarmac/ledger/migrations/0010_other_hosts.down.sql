-- Only the stack's own machine trains. A session that holds something of another one loses its reservation.
DELETE FROM reservation WHERE host IN (SELECT name FROM host WHERE url <> '');
DELETE FROM host WHERE url <> '';
ALTER TABLE host
    DROP COLUMN url, DROP COLUMN host_key, DROP COLUMN engine_id, DROP COLUMN draining, DROP COLUMN answered_at,
    DROP COLUMN trouble;
