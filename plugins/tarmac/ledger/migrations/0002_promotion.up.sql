-- Which version of each model is in production, and how it came there (docs/models.md). Every time is this database's.

-- One row a model: what every move of its alias locks first.
CREATE TABLE promoted_model (model text PRIMARY KEY CHECK (model <> ''));

-- Append-only. A model's last row says what is in production now.
CREATE TABLE promotion (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model text NOT NULL REFERENCES promoted_model,
    kind text NOT NULL CHECK (kind IN ('rule', 'person', 'rollback')),
    -- null: nothing was in production before, nothing is afterwards
    from_version integer CHECK (from_version > 0),
    to_version integer CHECK (to_version > 0),
    who text NOT NULL CHECK (who <> ''),
    why text NOT NULL CHECK (why <> ''),
    -- what a rule compared, on one evaluation set
    score_name text,
    from_score double precision,
    to_score double precision,
    margin double precision,
    evaluation_set text,
    -- given by the trigger below, whatever a statement says
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (from_version IS DISTINCT FROM to_version),
    CHECK (kind <> 'rule' OR (score_name IS NOT NULL AND to_score IS NOT NULL AND evaluation_set IS NOT NULL)),
    UNIQUE (model, at)
);
CREATE INDEX promotion_by_model ON promotion (model, id DESC);

-- Each step starts where the one before it ended, and is later: two at once meet at the model's row.
CREATE FUNCTION continue_promotions() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last promotion;
BEGIN
    PERFORM FROM promoted_model WHERE model = NEW.model FOR UPDATE;
    SELECT * INTO last FROM promotion WHERE model = NEW.model ORDER BY id DESC LIMIT 1;
    IF NEW.from_version IS DISTINCT FROM last.to_version THEN
        RAISE EXCEPTION 'version % of % is in production, not %', last.to_version, NEW.model, NEW.from_version
            USING ERRCODE = 'check_violation';
    END IF;
    NEW.at := greatest(clock_timestamp(), last.at + interval '1 microsecond');
    RETURN NEW;
END $$;
CREATE TRIGGER promotion_continues BEFORE INSERT ON promotion
    FOR EACH ROW EXECUTE FUNCTION continue_promotions();

CREATE FUNCTION refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER promotion_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON promotion
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting();
