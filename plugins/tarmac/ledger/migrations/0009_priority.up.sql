-- The priority that a person gave a session that was queued already; null: the request's. It outlives its place in the
-- queue, which is written anew when the session waits again.
ALTER TABLE arrival ADD COLUMN priority integer CHECK (priority BETWEEN -100 AND 100);
