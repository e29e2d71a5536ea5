#!/usr/bin/env bash
# trigger.sh REQUEST.json [0] [KEY]: checks the request, starts a session and follows it; with 0 it prints the run's id
# only. The same request sent again with the same key starts nothing: it gets the session of the first.
# Exits with the run's result: 0 success, 1 failed, 2 bad request, 3 no stack.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ -f "$1" ] || { say "CONFIG: there is no file '$1'."; exit 2; }
# shellcheck source-path=SCRIPTDIR source=stack.sh
. "$(dirname "${BASH_SOURCE[0]}")/stack.sh"

key=()
if [ -n "${3:-}" ]; then key=(--key "$3"); fi
run=$(compose exec -T airflow-cli python -m tarmac.cli trigger ${key[@]+"${key[@]}"} <"$1") || exit $?
if [ "${2:-}" = 0 ]; then
    printf '%s\n' "$run"
    exit 0
fi
say "Started run $run"
terminal=(-T)
if [ -t 0 ] && [ -t 1 ]; then terminal=(); fi
# The interrupt belongs to the command inside, which says how to follow the run again.
trap : INT
compose exec "${terminal[@]}" airflow-cli python -m tarmac.cli follow "$run" || code=$?
if [ "${code:-0}" -eq 130 ] && [ "${#terminal[@]}" -gt 0 ]; then
    say "No longer following; the run goes on. Follow it again: make follow RUN=$run"
fi
exit "${code:-0}"
