#!/usr/bin/env bash
# backup.sh FILE.tar: writes the stack's databases, data sets, models, uploaded DAG files and secrets into one private file.
# The stack runs on.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
file=${1:-} parts=''
need FILE "$file" 'Say where to: make backup FILE=backup.tar'
case $file in -*) file=./$file ;; esac # no option
[ ! -e "$file" ] || refuse "FILE: '$file' is there already; a backup overwrites nothing."
# shellcheck source-path=SCRIPTDIR source=stack.sh
. "$(dirname "${BASH_SOURCE[0]}")/stack.sh"
ensure_up
trap 'leave_nothing_of "The backup" "$parts" "$file.part"' EXIT
trap 'exit 130' INT TERM
umask 077
parts=$(mktemp -d "$file.XXXXXX" 2>/dev/null) || refuse "FILE: you cannot write into the folder of '$file'. Name a file in a folder that is there and yours."

mkdir "$parts/env"
for name in "$ENV_DIR"/*.env "$ENV_DIR"/notify.toml "$ENV_DIR"/hosts.toml; do
    [ -e "$name" ] || continue
    # Ports and the project's name belong to the machine, not to what is saved.
    if [ "${name##*/}" != stack.env ]; then cp "$name" "$parts/env/"; fi
done
# Databases first: what they name is in the volumes by then, and is never changed there.
for name in airflow tarmac mlflow; do
    compose exec -T postgres pg_dump --username postgres --format custom "$name" >"$parts/$name.dump"
done
for name in datasets mlflow-artifacts uploads; do
    docker run --rm --network none --volume "${TARMAC_PROJECT}_$name:/volume:ro" debian:trixie-slim \
        tar --create --numeric-owner --directory /volume . >"$parts/$name.tar"
done
printf 'tarmac backup 1\n%s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$parts/about"
# A name with a colon is a file of this machine too.
tar --create --force-local --file "$file.part" --directory "$parts" about env airflow.dump tarmac.dump mlflow.dump datasets.tar mlflow-artifacts.tar uploads.tar
mv "$file.part" "$file"
say "Saved databases, data sets, models and secrets to $file ($(du -h "$file" | cut -f1)). Keep it private."
