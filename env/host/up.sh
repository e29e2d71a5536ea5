#!/usr/bin/env bash
# Brings the stack up: an engine, Compose, secrets, images, services; waits until all of them answer and prints where.
# Harmless when everything runs already.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

repo=$(root_of_repo)
cd "$repo"
log=''
# A build in the background does not get the terminal's interrupt.
tidy() {
    local left
    left=$(jobs -p)
    [ -z "$left" ] || kill "$left" 2>/dev/null || true
    [ -z "$log" ] || rm -f "$log"
}
trap tidy EXIT
# The interrupt may come while the output goes into the log.
exec 3>&2
trap 'say "Interrupted. '"'make up'"' goes on from here." 2>&3; exit 130' INT TERM
started=$SECONDS

"$repo/env/host/engine.sh"
"$repo/env/host/secrets.sh" "${TARMAC_ENV_DIR:-}"
# shellcheck source-path=SCRIPTDIR source=stack.sh
. "$repo/env/host/stack.sh"
[ ! -e "$ENV_DIR/.passwords/databases" ] || die "a change of passwords was interrupted: 'make passwords YES=1' ends it and \
starts the stack."
log=$(mktemp "${TMPDIR:-/tmp}/tarmac-up.XXXXXX")

# Prints a service's state: "running", "healthy", "exited 1", or nothing.
state_of() { compose ps --all --format '{{.State}} {{.ExitCode}}' "$1" 2>/dev/null | head -n 1; }

# Asks a service's own health check now, rather than wait for the engine to do so.
answers() {
    case $1 in
    postgres) compose exec -T postgres pg_isready --host=127.0.0.1 --quiet ;;
    mlflow) compose exec -T mlflow python3 -S -c "import urllib.request as u; u.urlopen('http://127.0.0.1:5000/health', timeout=5)" ;;
    webserver) check webserver http://127.0.0.1:8080/api/v2/version ;;
    scheduler) check scheduler http://127.0.0.1:8974/health ;;
    airflow-cli) compose exec -T airflow-cli true ;;
    broker) compose exec -T broker valkey-cli -e ping ;;
    worker) workers_take_tasks ;;
    *) check "$1" process "$1" ;;
    esac >/dev/null 2>&1
}
# Each worker tells Airflow's database when it takes tasks.
workers_take_tasks() {
    local count
    count=$(compose exec -T postgres psql --username postgres --no-align --tuples-only --command \
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'tarmac-worker %'") && [ "$count" -ge "$TARMAC_WORKERS" ]
}
check() { compose exec -T "$1" python3 -S /opt/airflow/plugins/tarmac/healthcheck.py "${@:2}"; }

# For TARMAC_BUILD=no: dies unless all of our images are here, and says which is missing.
want_images() {
    local name image missing=''
    for name in airflow mlflow "$TRAINER_VARIANT"; do
        image=${TARMAC_REGISTRY:-tarmac}/$name:${TARMAC_TAG:-latest}
        docker image inspect "$image" >/dev/null 2>&1 || missing="$missing $image"
    done
    if [ "${TARMAC_TRANSFORMERS:-no}" = yes ] && ! docker image inspect "$(transformers_image)" >/dev/null 2>&1; then
        missing="$missing $(transformers_image)"
    fi
    [ -z "$missing" ] || die "TARMAC_BUILD is no, and this machine lacks:$missing. Bring them (docker save ... | docker \
load), or set TARMAC_BUILD=yes."
}

build_images() {
    "$repo/env/host/images.sh"
    case ${TARMAC_BUILD:-yes} in
    yes) ;;
    no)
        want_images
        return
        ;;
    *) die "TARMAC_BUILD is '$TARMAC_BUILD', must be yes or no." ;;
    esac
    local fresh=''
    images_are_here || fresh=1
    [ -z "$fresh" ] || say "Building the images (airflow, mlflow, $TRAINER_VARIANT); the first time takes a few minutes ..."
    # shellcheck disable=SC2119 # all images
    compose_build >"$log" 2>&1 &
    local build=$! seen=''
    while kill -0 "$build" 2>/dev/null; do
        sleep 1
        # What the build is at, every fifteen seconds.
        if [ -n "$fresh" ] && [ $(((SECONDS - started) % 15)) -eq 0 ] && [ "$seen" != "$SECONDS" ]; then
            seen=$SECONDS
            say "  $((SECONDS - started)) s: $(sed -n 's/^#[0-9]* \(\[.*\]\) .*/\1/p' "$log" | tail -n 1 | cut -c1-100)"
        fi
    done
    if ! wait "$build"; then
        show_end_of "$log" 30
        die "an image could not be built; the end of the log is above. If it speaks of certificates, set \
TARMAC_CA_BUNDLE to your proxy's CA bundle; if of the network, check that containers reach the package index."
    fi
    [ -z "$fresh" ] || say "  images built after $((SECONDS - started)) s"
}

# The volume `files` only names a folder of this machine; when that is another one now (the clone was moved, the setting
# changed), the volume is made anew. It holds no data of its own.
point_files_volume() {
    local volume=${TARMAC_PROJECT}_files device
    device=$(docker volume inspect --format '{{.Options.device}}' "$volume" 2>/dev/null) || return 0
    [ "$device" != "$TARMAC_FILES_DIR" ] || return 0
    [ -d "$TARMAC_FILES_DIR" ] || die "TARMAC_FILES_DIR: there is no folder '$TARMAC_FILES_DIR'."
    # What could not be removed keeps the volume, which is said below.
    compose rm --stop --force scheduler airflow-cli >/dev/null 2>&1 || true
    docker volume rm "$volume" >/dev/null ||
        die "file:// URLs read $device; to change that to $TARMAC_FILES_DIR, wait until no session fetches data."
}

# Compose gives a container that is to take another's place a name of its own, until that is removed. Where it was ended
# in between, it would fail the next time, over that name. Such a container was never started.
remove_half_made() {
    local found
    found=$(docker ps --all --quiet --filter "label=com.docker.compose.project=$TARMAC_PROJECT" --filter status=created \
        --filter 'name=^/?[0-9a-f]{12}_')
    # shellcheck disable=SC2086 # ids
    [ -z "$found" ] || docker rm $found >/dev/null
}

start_services() {
    local try
    say 'Starting the services ...'
    remove_half_made
    for try in 1 2 3; do
        if compose up --detach --remove-orphans >"$log" 2>&1; then return; fi
        # A container went away between Compose's listing it and its coming to it (a removal was still under way): the
        # next call lists anew.
        grep -qi 'no such container\|removal of container .* is already in progress\|is marked for removal' "$log" || break
        [ "$try" -eq 3 ] || say "A container of this stack was removed meanwhile; starting the services again ..."
    done
    show_end_of "$log"
    case $(state_of airflow-init) in
    'exited 0' | '') ;;
    exited*)
        compose logs --no-log-prefix --tail 15 airflow-init >"$log" 2>&1
        sed 's/^/  | /' "$log" >&2
        if grep -q 'password authentication failed' "$log"; then
            die "airflow-init failed: env/postgres.env no longer matches the database. Restore that file from a backup. Only if \
there is none: 'make clean' removes all data, and the next 'make up' starts anew."
        fi
        die "airflow-init failed; its last lines above say why."
        ;;
    esac
    if grep -q 'port is already allocated\|address already in use' "$log"; then
        die "a port is taken: set TARMAC_WEB_PORT or TARMAC_MLFLOW_PORT in env/stack.env to free ones and run 'make up' again."
    fi
    if [ "$try" -eq 3 ]; then
        die "another command removes containers of this stack, such as 'make down': run 'make up' again when it has ended."
    fi
    die "the services could not be started; Compose's last lines are above."
}

# An engine that could not start a container again, since its disk was full, lists it as running ever after.
start_what_is_only_listed() {
    local container
    for container in $(compose ps --quiet); do
        if [ "$(docker inspect --format '{{.State.Running}}' "$container")" != true ]; then
            docker start "$container" >/dev/null
        fi
    done
}

# Waits until every service answers; one line for each as it does.
wait_until_ready() {
    local left=(postgres mlflow webserver scheduler dag-processor triggerer airflow-cli) still service
    # The broker first: a worker waits for it.
    [ "${TARMAC_WORKERS:-0}" = 0 ] || left+=(broker worker)
    local deadline=$((SECONDS + 240))
    while :; do
        still=()
        for service in "${left[@]}"; do
            if answers "$service"; then
                say "  ready: $service ($((SECONDS - started)) s)"
            else
                still+=("$service")
            fi
        done
        [ "${#still[@]}" -gt 0 ] || break
        left=("${still[@]}")
        if [ "$SECONDS" -gt "$deadline" ]; then
            compose logs --tail 10 "${left[@]}" 2>&1 | sed 's/^/  | /' >&2
            die "not ready after 4 minutes: ${left[*]}. Their last lines are above; 'make logs' shows all."
        fi
        sleep 1
    done
    until compose exec -T airflow-cli python -m tarmac.cli ready >"$log" 2>&1; do
        if [ "$SECONDS" -gt "$deadline" ]; then
            show_end_of "$log"
            die "the stack answers, but the DAG or the page is not there yet; 'make logs' shows why."
        fi
        sleep 1
    done
}

# Before anything is started: with a wrong file no message would be sent, and nothing would say so.
check_notify() {
    [ -n "$TARMAC_NOTIFY" ] || return 0
    docker run --rm --network none --read-only --env TARMAC_NOTIFY --env PYTHONPATH=/opt/airflow/plugins \
        --volume "$repo/plugins:/opt/airflow/plugins:ro" --entrypoint /opt/venv/bin/python \
        "${TARMAC_REGISTRY:-tarmac}/airflow:${TARMAC_TAG:-latest}" -m tarmac.cli notify-test --check >"$log" 2>&1 && return
    show_end_of "$log"
    die "env/notify.toml is wrong, as it says above: mend it, or move it away to send no messages (docs/notifications.md)."
}

# So with the kinds of machines: none would be started.
check_kinds() {
    [ -n "$TARMAC_HOST_KINDS" ] || return 0
    docker run --rm --network none --read-only --env TARMAC_HOST_KINDS --env TARMAC_PROVIDER_ENV \
        --env PYTHONPATH=/opt/airflow/plugins --volume "$repo/plugins:/opt/airflow/plugins:ro" \
        --entrypoint /opt/venv/bin/python \
        "${TARMAC_REGISTRY:-tarmac}/airflow:${TARMAC_TAG:-latest}" -m tarmac.cli hosts-check --file >"$log" 2>&1 && return
    show_end_of "$log"
    die "env/hosts.toml or env/providers.env is wrong, as it says above: mend it, or move env/hosts.toml away to start no machines (docs/hosts.md)."
}

# So with a setting: the services would be stopped, and could not start.
check_settings() {
    compose run --rm --no-deps -T airflow-cli python -m tarmac.cli settings-check >"$log" 2>&1 && return
    show_end_of "$log" 3
    die "a setting in env/stack.env is wrong, as it says above: mend it and run 'make up' again. No service was changed."
}

build_images
check_settings
check_notify
check_kinds
# The socket's group as the containers see it: with an engine in a virtual machine it is not this machine's.
TARMAC_DOCKER_GID=$(docker run --rm --network none --volume "${TARMAC_DOCKER_SOCKET:-/var/run/docker.sock}:/socket:ro" \
    --entrypoint stat debian:trixie-slim --format %g /socket)
export TARMAC_DOCKER_GID
point_files_volume
start_services
start_what_is_only_listed
wait_until_ready
# A change of passwords that was interrupted after its end has ended now.
[ ! -e "$ENV_DIR/.passwords/placed" ] || rm -rf "$ENV_DIR/.passwords"
login=$(sed -n 's/^TARMAC_UI_USER=//p' "$ENV_DIR/login.env") password=$(sed -n 's/^TARMAC_UI_PASSWORD=//p' "$ENV_DIR/login.env")
say ''
say "Tarmac is up after $((SECONDS - started)) s."
say "  Airflow  http://localhost:${TARMAC_WEB_PORT:-8081}   login $login / $password"
# MLflow opens among its tools for language models, unless the address says otherwise.
say "  MLflow   http://localhost:${TARMAC_MLFLOW_PORT:-5000}/#/models?workflowType=machine_learning   login $(sed -n 's/^MLFLOW_TRACKING_USERNAME=//p' "$ENV_DIR/registry.env") /" \
    "$(sed -n 's/^MLFLOW_TRACKING_PASSWORD=//p' "$ENV_DIR/registry.env")"
say "  GPU      $GPU_STATE"
