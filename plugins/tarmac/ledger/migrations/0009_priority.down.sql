ALTER TABLE arrival DROP COLUMN priority;
