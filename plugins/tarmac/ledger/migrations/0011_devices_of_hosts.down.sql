-- GPU sessions train on the stack's own machine only. What is held of a device elsewhere is released.
DELETE FROM reservation r USING reservation d JOIN device ON uuid = d.device_uuid
    WHERE device.host <> 'local' AND r.dag_id = d.dag_id AND r.run_id = d.run_id;
DELETE FROM quarantine USING device WHERE uuid = device_uuid AND host <> 'local';
DELETE FROM device WHERE host <> 'local';
ALTER TABLE waiting DROP COLUMN wanted_host;
DROP TABLE snapshot;
ALTER TABLE device DROP COLUMN host;
