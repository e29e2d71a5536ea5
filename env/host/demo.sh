#!/usr/bin/env bash
# Stores the WNUT17 data sets, trains the named-entity model of examples/ner-wnut17.json and shows the result.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=stack.sh
. "$(dirname "${BASH_SOURCE[0]}")/stack.sh"
cd "$_repo"
request=${1:-examples/ner-wnut17.json}
say ''
say "Demo: a named-entity model trained on WNUT17 ($request)"
for file in examples/wnut17.train.jsonl examples/wnut17.dev.jsonl examples/tiny.jsonl; do
    tarmac dataset --quiet <"$file" >/dev/null
done
env/host/trigger.sh "$request" <&7 || code=$?
if [ "${code:-0}" -eq 0 ]; then
    say "  look     http://localhost:${TARMAC_WEB_PORT:-8081} (login above) for the run, http://localhost:${TARMAC_MLFLOW_PORT:-5000}/#/models?workflowType=machine_learning for the model"
fi
exit "${code:-0}"
