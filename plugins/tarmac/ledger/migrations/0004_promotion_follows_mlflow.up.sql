-- What the history of promotions knows of MLflow, so that what a person does there has the effect that they expect: a
-- deleted version or model ends what the history says of it, a new model of the same name starts anew, and an alias that
-- was set there is a step like any other (docs/decisions/0014-promotion.md).
ALTER TABLE promoted_model
    -- when MLflow made the registered model that the history is of, in milliseconds since 1970; null: not known
    ADD COLUMN created_ms bigint CHECK (created_ms > 0),
    -- where the alias production was when a step last read or set it; null: nowhere
    ADD COLUMN alias_version integer CHECK (alias_version > 0);

-- An alias that is not where the last step led is taken for one that this step did not move any more.
UPDATE promoted_model SET alias_version = last.from_version
    FROM (SELECT DISTINCT ON (model) model, from_version FROM promotion ORDER BY model, id DESC) AS last
    WHERE last.model = promoted_model.model;

ALTER TABLE promotion
    DROP CONSTRAINT promotion_kind_check,
    ADD CONSTRAINT promotion_kind_check
        CHECK (kind IN ('rule', 'person', 'rollback', 'mlflow', 'version_deleted', 'model_deleted')),
    -- A model that is deleted while nothing of it is in production ends its history, too.
    DROP CONSTRAINT promotion_check,
    ADD CONSTRAINT promotion_check CHECK (from_version IS DISTINCT FROM to_version OR kind = 'model_deleted');
