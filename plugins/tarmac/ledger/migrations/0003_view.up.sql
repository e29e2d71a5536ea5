-- The snapshot of the last admission cycle, of which the reason of each queued session is made (tarmac.admission.reasons);
-- empty: none yet.
ALTER TABLE tower ADD COLUMN view text NOT NULL DEFAULT '';
ALTER TABLE waiting DROP COLUMN reason_code, DROP COLUMN reason;
