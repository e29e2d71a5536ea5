-- Machines that are started when a session needs them (docs/decisions/0033). A row is written before the provider is
-- called, so that a machine which costs money is known whatever crashes; it is kept, for what was spent.
CREATE TABLE machine (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- the kind's, and the number: the host's name. It is never used twice
    name text NOT NULL UNIQUE GENERATED ALWAYS AS (kind || '-' || number::text) STORED,
    kind text NOT NULL,
    price_per_hour double precision NOT NULL CHECK (price_per_hour >= 0),
    state text NOT NULL DEFAULT 'starting' CHECK (state IN ('starting', 'ready', 'ending', 'ended')),
    intended_at timestamptz NOT NULL,
    -- it is ended then, at the latest
    until_at timestamptz NOT NULL,
    ready_at timestamptz,
    ending_at timestamptz,
    ended_at timestamptz,
    -- when the provider listed it last
    listed_at timestamptz,
    -- since when no session holds anything of it
    idle_at timestamptz,
    -- what the provider said of it
    provider_id text NOT NULL DEFAULT '',
    url text NOT NULL DEFAULT '',
    host_key text NOT NULL DEFAULT '',
    -- it did not become a host
    failed boolean NOT NULL DEFAULT false,
    trouble text NOT NULL DEFAULT '',
    CHECK ((state = 'ended') = (ended_at IS NOT NULL))
);
CREATE INDEX machine_live ON machine (kind) WHERE state <> 'ended';

-- The kinds that env/hosts.toml declares, for what says why a session waits.
CREATE TABLE machine_kind (
    name text PRIMARY KEY,
    -- what a machine offers to sessions: as declared, and less where one of them had less
    gpus integer NOT NULL,
    gpu_bytes bigint NOT NULL,
    memory_bytes bigint NOT NULL,
    millicpus integer NOT NULL,
    -- why its provider makes none now; ''
    barred text NOT NULL DEFAULT '',
    -- why none is started for the sake of number or money; ''
    says text NOT NULL DEFAULT ''
);
