#!/usr/bin/env bash
# run.sh all|gpu|faults|unit|build-trainer|chaos|bench-admission|bench-handover|bench-quality|sbom|audit|lint|types [arguments]:
# runs checks in the test image, so that the host needs Docker only.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/../env/host source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../env/host/lib.sh"
repo=$(root_of_repo)
cd "$repo"
what=${1:-all}
shift || true

env/host/engine.sh
# Images under a tag of their own: a running stack keeps the ones it has. Another TARMAC_TEST_TAG for each of several
# clones that are tested on one engine at once.
stack_tag=${TARMAC_TAG:-latest}
export TARMAC_TAG=${TARMAC_TEST_TAG:-test} TARMAC_TEST_ID=$$
scratch=$(mktemp -d "${TMPDIR:-/tmp}/tarmac-test.XXXXXX")
runner=tarmac-test-runner-$$
# Removes what tests that were interrupted left: everything that carries the label of their stacks.
clean_up() {
    docker rm --force "$runner" "$runner-faults" >/dev/null 2>&1 || true
    if [ -n "${faults:-}" ]; then
        say "Faults, as far as they came"
        cat "$scratch/faults"
    fi
    local project label
    for project in tarmac-{e2e,security,it,machine}-$$ tarmac-{e2e,machine}-$$f; do
        for label in "com.docker.compose.project=$project" "tarmac.project=$project" "tarmac.test=$project"; do
            docker ps --all --quiet --filter "label=$label" | xargs -r docker rm --force --volumes >/dev/null || true
            docker volume ls --quiet --filter "label=$label" | xargs -r docker volume rm >/dev/null || true
            docker network ls --quiet --filter "label=$label" | xargs -r docker network rm >/dev/null || true
        done
    done
    local suffix
    for suffix in upgrade clock; do
        docker images --format '{{.Repository}}:{{.Tag}}' "tarmac/*:$TARMAC_TAG-$suffix" | xargs -r docker rmi >/dev/null || true
    done
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT TERM
cp env/*.env.example "$scratch"
export TARMAC_ENV_DIR=$scratch
# shellcheck source-path=SCRIPTDIR/../env/host source=stack.sh
. env/host/stack.sh
# GPUs are fake ones here, also on a machine that has some: the trainer is built without CUDA.
_compose_files=(--file compose.yaml --file tests/compose.test.yaml)

build() {
    if ! compose_build "$@" >"$scratch/log" 2>&1; then
        show_end_of "$scratch/log" 40
        die "the test images could not be built; the end of the log is above."
    fi
}
say "Preparing the test images (the first time takes a few minutes) ..."
env/host/images.sh
case $what in
all) build ;;
gpu | chaos | faults | bench-handover) build airflow-init mlflow trainer test ;;
bench-quality | build-trainer) build trainer-test ;;
*) build test ;;
esac

# Runs a command in the test image: the repository at its own path, the engine's socket, the host's network.
in_test_image() {
    docker run --rm --name "$runner" --init --network host \
        --volume "$repo:$repo" --volume "${TARMAC_DOCKER_SOCKET:-/var/run/docker.sock}:/var/run/docker.sock" \
        --workdir "$repo" --env CI --env TARMAC_TAG --env TARMAC_TEST_ID --env TARMAC_SCREENSHOTS --env "PYTHONPATH=$repo/plugins:$repo/tests:$repo/tests/bench:$repo/tests/tools" --tmpfs /tmp:exec \
        "tarmac/test:$TARMAC_TAG" "$@" </dev/null &
    wait $!
}

fault_tests() { in_test_image pytest -p no:cacheprovider tests/faults "$@"; }
# The faults wait for most of their time: they run in the background, as stacks of another name, and what they print is
# kept until `show_faults`.
start_faults() {
    runner=$runner-faults TARMAC_TEST_ID=$$f fault_tests "$@" >"$scratch/faults" 2>&1 &
    faults=$!
}
show_faults() {
    local code=0
    say "Faults"
    wait "$faults" || code=$?
    faults=''
    cat "$scratch/faults"
    return "$code"
}

# Runs a command on a machine that has an engine and two GPUs of its own.
on_machine() {
    local machine=tests/fakes/machine/machine.sh
    "$machine" start
    "$machine" load
    "$machine" run "$@" </dev/null &
    wait $!
    "$machine" stop
}
gpu_tests() { on_machine pytest -p no:cacheprovider tests/gpu "$@"; }

case $what in
lint | types) in_test_image env TARMAC_TOOLS=/opt/venv/bin tests/check.sh "$what" ;;
unit)
    in_test_image pytest -p no:cacheprovider tests/pure "$@"
    ;;
build-trainer) ;; # built above
all)
    start_faults "$@"
    say "Trainer tests"
    docker run --rm --network none --name "$runner" "tarmac/trainer-test:$TARMAC_TAG"
    say "Stack tests"
    in_test_image pytest -p no:cacheprovider --ignore=tests/gpu --ignore=tests/faults tests "$@"
    say "GPU tests"
    gpu_tests "$@"
    show_faults
    ;;
gpu) gpu_tests "$@" ;;
faults) fault_tests "$@" ;;
chaos)
    where=on_machine
    [ "${GPUS:-2}" != 0 ] || where=in_test_image
    "$where" python tests/tools/chaos.py --rounds "${ROUNDS:-20}" ${SEED:+--seed "$SEED"}
    ;;
bench-admission)
    in_test_image env "STEPS=${STEPS:-}" python tests/bench/bench_admission.py
    in_test_image python tests/bench/bench_postgres.py
    ;;
sbom) in_test_image env "TARMAC_TAG=$stack_tag" python tests/tools/sbom.py "${1:-build/sbom}" ;;
audit)
    # Behind a TLS-inspecting proxy pip-audit has to know its certificate, as builds do.
    mkdir -p build
    cp "$TARMAC_CA_BUNDLE" build/ca.pem
    in_test_image env "TARMAC_TAG=$stack_tag" REQUESTS_CA_BUNDLE=build/ca.pem python tests/tools/audit.py
    ;;
bench-quality)
    docker run --rm --network none --tmpfs /tmp:exec --name "$runner" --volume "$repo:/repo:ro" --env EXAMPLES=/repo/examples \
        --env "MODEL=${MODEL:-}" --env "UPDATES=${UPDATES:-}" --env "SEEDS=${SEEDS:-}" --entrypoint /opt/venv/bin/python \
        "tarmac/trainer-test:$TARMAC_TAG" -P /repo/tests/bench/bench_quality.py
    ;;
bench-handover) on_machine env "READINGS=${READINGS:-}" "TRAIN_SECONDS=${TRAIN_SECONDS:-}" python tests/bench/bench_handover.py ;;
*) die "run.sh knows all, gpu, faults, unit, build-trainer, chaos, bench-admission, bench-handover, bench-quality, sbom, audit, lint and types, not '$what'." ;;
esac
