#!/usr/bin/env bash
# Removes the stack with its volumes (runs, models, data sets) and generated secrets, after asking. With 1 it does not ask.
# Settings stay.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=stack.sh
. "$(dirname "${BASH_SOURCE[0]}")/stack.sh"

if ! is_on YES "${1:-}"; then
    confirm "Remove the stack \"$TARMAC_PROJECT\" with all its runs, models, data sets and generated secrets?" \
        "This removes all runs, models and data sets: run 'make clean YES=1' where there is no terminal." ||
        { say 'Nothing was removed.'; exit 1; }
fi
name_machines
# Containers and volumes of sessions are not Compose's: they carry our label. What makes them is stopped first.
compose stop
label=label=tarmac.project=$TARMAC_PROJECT
docker ps --all --quiet --filter "$label" | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
compose --profile build down --volumes --remove-orphans
docker volume ls --quiet --filter "$label" | xargs --no-run-if-empty docker volume rm >/dev/null
# What a person wrote stays. Without the name and the ports of its stack, the next `make up` here would be another stack's.
for name in "$ENV_DIR"/*.env; do
    case ${name##*/} in stack.env | providers.env) ;; *) rm -f "$name" ;; esac
done
rm -rf "$ENV_DIR/.passwords"
say 'The stack, its data and its generated secrets are gone. The images stay: docker image ls "tarmac/*"'
say "Your settings stay, in $ENV_DIR: stack.env, trainers/, hosts.toml, providers/, and notify.toml and providers.env, which hold secrets of yours."
