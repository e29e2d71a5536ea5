DROP TABLE history, admission, reservation, waiting, quarantine, device, tower;
DROP SEQUENCE arrival, fencing_token;
DROP FUNCTION sum_reservations, refuse_quarantined, announce_release;
