#!/usr/bin/env bash
# trigger.sh REQUEST.json [FOLLOW [KEY]]: checks the request, starts a session and follows it; FOLLOW is 1 or empty, or 0
# to print the run's id only. The same request sent again with the same key starts nothing: it gets the session of the
# first. Exits with the run's result: 0 success, 1 failed, 2 bad request, 3 no stack.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
end_with_reader "$0" "$@"
request=${1:-} follow=${2:-1}
need_file CONFIG "$request" 'Say which request to send: make trigger CONFIG=examples/ner-wnut17.json'
if is_on FOLLOW "$follow"; then follow=yes; else follow=no; fi
# shellcheck source-path=SCRIPTDIR source=stack.sh
. "$(dirname "${BASH_SOURCE[0]}")/stack.sh"
ensure_up

# A key that is given and empty is one that was meant and is missing: the command refuses it.
run=$(tarmac trigger ${3+--key="$3"} <"$request") || exit $?
if [ "$follow" = no ]; then
    printf '%s\n' "$run"
    exit 0
fi
follow_run "$run"
