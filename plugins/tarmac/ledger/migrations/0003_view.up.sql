-- What the last pass over the queue saw, from which each who waits makes its reason (tarmac.admission.reasons); empty: none yet.
ALTER TABLE tower ADD COLUMN view text NOT NULL DEFAULT '';
ALTER TABLE waiting DROP COLUMN reason_code, DROP COLUMN reason;
