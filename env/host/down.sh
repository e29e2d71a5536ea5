#!/usr/bin/env bash
# Stops the stack and keeps its data. Trainings that run go on; says which.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=stack.sh
. "$(dirname "${BASH_SOURCE[0]}")/stack.sh"
name_machines
compose --profile build down --remove-orphans
training=$(docker ps --filter "label=tarmac.project=$TARMAC_PROJECT" --filter label=tarmac.run --format '{{.Label "tarmac.run"}} ({{.Label "tarmac.task"}})')
if [ -n "$training" ]; then
    say "The stack is stopped; these go on, and 'make up' picks them up again:"
    printf '%s\n' "$training" | sed 's/^/  /' >&2
fi
