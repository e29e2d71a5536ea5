#!/usr/bin/env bash
# A machine with two fake GPUs, for tests: a container with an engine of its own, which passes the GPUs on to its
# containers. What runs on it cannot tell it from a machine with an NVIDIA driver and container toolkit, but for CUDA.
#
#   machine.sh start             builds the images if needed, starts the machine, waits for its engine
#   machine.sh load [IMAGE...]   copies images of this engine to it; IMAGE=NAME gives one another name there.
#                                Without images: those that a stack needs, under the tag `test`
#   machine.sh run COMMAND...    runs a command on it, in this repository
#   machine.sh stop              removes it with all that is on it
#
# TARMAC_MACHINE names it (default: tarmac-machine-$TARMAC_TEST_ID, or tarmac-machine-dev). It has no network.
# TARMAC_MACHINE_DISK gives its engine a disk of so many GiB, which can be filled; without, it shares this machine's.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/../../../env/host source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../../env/host/lib.sh"
repo=$(root_of_repo)
machine=${TARMAC_MACHINE:-tarmac-machine-${TARMAC_TEST_ID:-dev}}
label=tarmac.project=tarmac-machine-${TARMAC_TEST_ID:-dev}
tag=${TARMAC_TAG:-test}
gpus=${TARMAC_MACHINE_GPUS:-2}
disk=${TARMAC_MACHINE_DISK:-}
log=''
trap '[ -z "$log" ] || rm -f "$log"' EXIT

# Builds image $1 with the Dockerfile of tests/fakes/$2 on image $3.
build() {
    docker image inspect "$3" >/dev/null 2>&1 || die "there is no image $3 to build $1 on; 'make test-gpu' builds it."
    if ! docker build --build-arg "BASE=$3" --tag "$1" --file "$repo/tests/fakes/$2/Dockerfile" "$repo/tests/fakes" \
        >"$log" 2>&1; then
        show_end_of "$log" 30
        die "the image $1 could not be built; the end of the log is above."
    fi
}

is_running() { [ "$(docker container inspect --format '{{.State.Running}}' "$machine" 2>/dev/null)" = true ]; }

engine_answers() { docker exec "$machine" docker version >/dev/null 2>&1; }

start() {
    if is_running; then
        say "The machine $machine runs already."
        return
    fi
    log=$(mktemp "${TMPDIR:-/tmp}/tarmac-machine.XXXXXX")
    build "tarmac/trainer-fake:$tag" trainer "tarmac/trainer:$tag"
    build "tarmac/machine:$tag" machine "${TARMAC_MACHINE_BASE:-tarmac/test:$tag}"
    stop
    docker volume create --label "$label" "$machine" >/dev/null
    local storage=/var/lib/docker
    [ -z "$disk" ] || storage=/disk
    # Not --privileged: not every host has all capabilities to give, and an engine does not need CAP_SYS_RESOURCE.
    # No network: nothing that a test needs is out there. A private cgroup namespace: paths begin at the machine.
    docker run --detach --name "$machine" --hostname "$machine" --label "$label" --init --network none \
        --cap-add ALL --cap-drop SYS_RESOURCE --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
        --security-opt label=disable --security-opt systempaths=unconfined --device-cgroup-rule 'a *:* rwm' \
        --cgroupns private --tmpfs /run --tmpfs /tmp:exec \
        --volume "$machine:$storage" --volume "$repo:$repo" --workdir "$repo" \
        "tarmac/machine:$tag" "$repo/tests/fakes/machine/boot.sh" "$gpus" "$disk" >/dev/null
    local deadline=$((SECONDS + 240))
    until engine_answers; do
        if ! is_running || [ "$SECONDS" -gt "$deadline" ]; then
            docker logs "$machine" >"$log" 2>&1 || true
            show_end_of "$log" 30
            die "the engine of $machine does not answer; its last lines are above."
        fi
        sleep 0.2
    done
    say "The machine $machine runs: $(docker exec "$machine" nvidia-smi --list-gpus | wc -l) GPUs, Docker Engine" \
        "$(docker exec "$machine" docker version --format '{{.Server.Version}}')."
}

# The id of image $2 on this engine, or with "$1" = there on the machine's; nothing where it is missing.
id_of() {
    local where=()
    if [ "$1" = there ]; then where=(docker exec "$machine"); fi
    ${where[@]+"${where[@]}"} docker image inspect --format '{{.Id}}' "$2" 2>/dev/null || true
}

load() {
    if [ $# -eq 0 ]; then
        set -- debian:trixie-slim postgres:17-trixie "tarmac/airflow:$tag" "tarmac/mlflow:$tag" \
            "tarmac/trainer-fake:$tag=tarmac/trainer:$tag" "tarmac/trainer-fake:$tag=tarmac/trainer-cuda:$tag"
    fi
    local started=$SECONDS image id missing=() bytes=0
    for image in "$@"; do
        image=${image%%=*}
        id=$(id_of here "$image")
        [ -n "$id" ] || die "there is no image $image to load; 'make test-gpu' builds what the tests need."
        case " ${missing[*]-} " in *" $image "*) continue ;; esac
        [ "$id" != "$(id_of there "$image")" ] || continue
        missing+=("$image")
        bytes=$((bytes + $(docker image inspect --format '{{.Size}}' "$image")))
    done
    if [ "${#missing[@]}" -gt 0 ]; then
        docker save "${missing[@]}" | docker exec --interactive "$machine" docker load --quiet >/dev/null
        say "Loaded ${missing[*]} ($((bytes / 1000000)) MB) in $((SECONDS - started)) s."
    fi
    for image in "$@"; do
        if [ "${image%%=*}" != "${image#*=}" ]; then
            docker exec "$machine" docker tag "${image%%=*}" "${image#*=}"
        fi
    done
}

run() {
    local options=()
    if [ -t 0 ] && [ -t 1 ]; then options=(--interactive --tty); fi
    exec docker exec ${options[@]+"${options[@]}"} --env CI --env TARMAC_KEEP --env "TARMAC_TEST_ID=${TARMAC_TEST_ID:-dev}" \
        --env "TARMAC_TAG=$tag" --env TARMAC_BUILD=no --env "PYTHONPATH=$repo/plugins:$repo/tests:$repo/tests/bench:$repo/tests/tools" "$machine" "$@"
}

stop() {
    docker rm --force --volumes "$machine" >/dev/null 2>&1 || true
    docker volume rm --force "$machine" >/dev/null
}

what=${1:-}
shift || true
case $what in
start | load | run | stop) "$what" "$@" ;;
*) die "machine.sh knows start, load, run and stop, not '$what'." ;;
esac
