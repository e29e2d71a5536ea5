DROP TABLE history, admission, reservation, waiting, arrival, quarantine, device, tower;
DROP SEQUENCE fencing_token;
DROP FUNCTION sum_reservations, refuse_quarantined, announce_release;
