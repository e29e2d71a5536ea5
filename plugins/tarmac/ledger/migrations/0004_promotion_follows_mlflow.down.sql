-- The older schema has no word for what happened in MLflow: these steps become a person's, and `why` says what it was.
ALTER TABLE promotion DISABLE TRIGGER promotion_is_append_only;
DELETE FROM promotion WHERE from_version IS NOT DISTINCT FROM to_version;
UPDATE promotion SET kind = 'person' WHERE kind IN ('mlflow', 'version_deleted', 'model_deleted');
ALTER TABLE promotion ENABLE TRIGGER promotion_is_append_only;

ALTER TABLE promotion
    DROP CONSTRAINT promotion_kind_check,
    ADD CONSTRAINT promotion_kind_check CHECK (kind IN ('rule', 'person', 'rollback')),
    DROP CONSTRAINT promotion_check,
    ADD CONSTRAINT promotion_check CHECK (from_version IS DISTINCT FROM to_version);
ALTER TABLE promoted_model DROP COLUMN created_ms, DROP COLUMN alias_version;
