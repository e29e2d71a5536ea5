#!/usr/bin/env bash
# Measures the running stack: what the pipeline adds to its containers, and what it takes when idle. ROUNDS=5 sessions.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/../../env/host source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../env/host/lib.sh"
# shellcheck source-path=SCRIPTDIR/../../env/host source=stack.sh
. "$(root_of_repo)/env/host/stack.sh"
ensure_up
cd "$_repo"
reference=$(compose exec -T airflow-cli python -m tarmac.cli dataset --quiet <examples/tiny.jsonl)
# In the scheduler's container: it has the engine's socket, the registry's credentials and the libraries.
compose exec -T --env "BENCH_ROUNDS=${ROUNDS:-5}" --env "BENCH_DATASET=$reference" \
    --env "BENCH_USER=$(sed -n 's/^TARMAC_UI_USER=//p' "$ENV_DIR/login.env")" \
    --env "BENCH_PASSWORD=$(sed -n 's/^TARMAC_UI_PASSWORD=//p' "$ENV_DIR/login.env")" \
    scheduler python - <tests/bench/bench_pipeline.py
