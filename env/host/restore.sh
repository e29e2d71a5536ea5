#!/usr/bin/env bash
# restore.sh FILE.tar [1]: puts what backup.sh wrote in place of the stack's databases, data sets, models and secrets,
# after asking (1: without), and starts the stack with it. What the stack held before is gone.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
file=${1:-} parts=''
need_file FILE "$file" 'Say which backup: make restore FILE=backup.tar'
case $file in -*) file=./$file ;; esac # no option
trap '[ -z "$parts" ] || rm -rf "$parts"' EXIT
trap 'exit 130' INT TERM
umask 077

parts=$(mktemp -d "${TMPDIR:-/tmp}/tarmac-restore.XXXXXX")
# A name with a colon is a file of this machine too.
tar --extract --force-local --file "$file" --directory "$parts" --no-same-owner 2>/dev/null || refuse "FILE: '$file' is not a backup that 'make backup' wrote, or is cut off."
for name in about env airflow.dump tarmac.dump mlflow.dump datasets.tar mlflow-artifacts.tar; do
    [ -e "$parts/$name" ] || refuse "FILE: '$file' is not a backup that 'make backup' wrote: it lacks $name."
done
"$(dirname "${BASH_SOURCE[0]}")/engine.sh"
# shellcheck source-path=SCRIPTDIR source=stack.sh
. "$(dirname "${BASH_SOURCE[0]}")/stack.sh"
if ! is_on YES "${2:-}"; then
    question="Replace all runs, models, data sets and secrets of the stack \"$TARMAC_PROJECT\" by those of $(tail -n 1 "$parts/about")?"
    confirm "$question" "This replaces all runs, models and data sets: run 'make restore FILE=... YES=1' where there is no terminal." ||
        { say 'Nothing was changed.'; exit 1; }
fi
# Makes the volumes and the images where this machine has none yet.
"$_repo/env/host/up.sh"
# Sessions of the stack as it was are orphaned in the one that comes.
workers=()
[ "${TARMAC_WORKERS:-0}" = 0 ] || workers=(worker)
compose stop --timeout 20 webserver scheduler ${workers[@]+"${workers[@]}"} dag-processor triggerer airflow-cli mlflow
label=label=tarmac.project=$TARMAC_PROJECT
docker ps --all --quiet --filter "$label" | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
docker volume ls --quiet --filter "$label" | xargs --no-run-if-empty docker volume rm >/dev/null

cp "$parts"/env/*.env "$ENV_DIR/"
own_like "$ENV_DIR" "$ENV_DIR"/*.env
for name in notify.toml hosts.toml; do
    [ -e "$parts/env/$name" ] || continue
    cp "$parts/env/$name" "$ENV_DIR/"
    own_like "$ENV_DIR" "$ENV_DIR/$name"
done
# Anew, with the passwords of the backup, which the roles then get.
compose up --detach --wait postgres
as_postgres() { compose exec -T postgres "$@"; }
for name in airflow tarmac mlflow; do
    as_postgres psql --username postgres --quiet --set ON_ERROR_STOP=1 --command "DROP DATABASE IF EXISTS $name WITH (FORCE)"
done
as_postgres psql --username postgres --quiet --set ON_ERROR_STOP=1 --file /docker-entrypoint-initdb.d/10-databases.sql
for name in airflow tarmac mlflow; do
    as_postgres pg_restore --username postgres --dbname "$name" --exit-on-error --single-transaction <"$parts/$name.dump"
done
mapfile -t under_way < <(as_postgres psql --username postgres --dbname airflow --no-align --tuples-only --command \
    "SELECT run_id FROM dag_run WHERE dag_id = 'nlp_model_training' AND state IN ('queued', 'running') ORDER BY id")
for name in datasets mlflow-artifacts uploads; do
    # A backup of a version that knew no uploads.
    [ "$name" != uploads ] || [ -e "$parts/$name.tar" ] || continue
    docker run --rm --interactive --network none --volume "${TARMAC_PROJECT}_$name:/volume" debian:trixie-slim sh -ceu \
        'find /volume -mindepth 1 -delete; tar --extract --numeric-owner --directory /volume' <"$parts/$name.tar"
done
say "Restored the backup of $(tail -n 1 "$parts/about"); starting the stack."
"$_repo/env/host/up.sh"
# What they had trained was in a volume, of which there is no backup.
[ "${#under_way[@]}" = 0 ] || tarmac begin-again -- "${under_way[@]}"
