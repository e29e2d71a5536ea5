#!/usr/bin/env bash
# run.sh COMMAND [arguments]: runs checks in the test image, so that the host needs Docker only.
#
#   all                                      every part of `make test`, some beside each other
#   trainer|host|stack|faults|gpu [pytest arguments]     one part by itself
#   long [pytest arguments]                  the long proofs, which are outside `make test`
#   unit|build-trainer|build-transformers|chaos|bench-admission|bench-handover|bench-quality|sbom|audit|lint|types
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/../env/host source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../env/host/lib.sh"
repo=$(root_of_repo)
cd "$repo"
what=${1:-all}
shift || true
# The parts of `make test`, in the order in which they start, and how many run at once: one for two processors. Two on two
# take longer than one after the other, since trainings that wait for a processor make each other late. Each has stacks of
# its own, named after the letter that TARMAC_TEST_ID ends with.
parts=(faults gpu stack)
# One after the other these run beside the others, on processor time that those leave. The trainer's wait for nothing; the
# host's have deadlines, so they get a share.
beside=(trainer host)
declare -A shares=([trainer]=2 [host]=512)
weight=()
at_once=${TARMAC_TEST_PARTS:-$((($(nproc) + 1) / 2))}

env/host/engine.sh
# Images under a tag of their own: a running stack keeps the ones it has. Another TARMAC_TEST_TAG for each of several
# clones that are tested on one engine at once.
stack_tag=${TARMAC_TAG:-latest}
export TARMAC_TAG=${TARMAC_TEST_TAG:-test} TARMAC_TEST_ID=$$x
scratch=$(mktemp -d "${TMPDIR:-/tmp}/tarmac-test.XXXXXX")
runner=tarmac-test-runner-$$

# Lists what carries a label of a stack of this run: a line "label's value, id" each.
list_containers() { docker ps --all --filter "label=$1" --format "{{.Label \"$1\"}} {{.ID}}"; }
list_volumes() { docker volume ls --filter "label=$1" --format "{{.Label \"$1\"}} {{.Name}}"; }
list_networks() { docker network ls --filter "label=$1" --format "{{.Label \"$1\"}} {{.ID}}"; }
ours() { "$1" "$2" | sed -n "s/^tarmac-[a-z0-9]*-$$[a-z][a-z0-9-]* //p"; }
# Removes what tests that were interrupted left: everything that carries the label of their stacks.
clean_up() {
    docker ps --all --quiet --filter "name=$runner" | xargs -r docker rm --force >/dev/null 2>&1 || true
    local label
    for label in com.docker.compose.project tarmac.project tarmac.test; do
        ours list_containers "$label" | xargs -r docker rm --force --volumes >/dev/null || true
        ours list_volumes "$label" | xargs -r docker volume rm --force >/dev/null || true
        ours list_networks "$label" | xargs -r docker network rm >/dev/null || true
    done
    local suffix
    for suffix in upgrade clock git; do
        docker images --format '{{.Repository}}:{{.Tag}}' "tarmac/*:$TARMAC_TAG-$suffix" | xargs -r docker rmi >/dev/null || true
    done
    docker images --format '{{.Repository}}:{{.Tag}}' "tarmac-security-$$[a-z]/*" | xargs -r docker rmi --force >/dev/null || true
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

# Runs a command in the test image: the repository at its own path, the engine's socket, the host's network.
in_test_image() {
    docker run --rm --name "$runner" --init --network host ${weight[@]+"${weight[@]}"} \
        --volume "$repo:$repo" --volume "${TARMAC_DOCKER_SOCKET:-/var/run/docker.sock}:/var/run/docker.sock" \
        --workdir "$repo" --env CI --env TARMAC_TAG --env TARMAC_TEST_ID --env TARMAC_MACHINE --env TARMAC_SCREENSHOTS \
        --env "PYTHONPATH=$repo/plugins:$repo/tests:$repo/tests/bench:$repo/tests/tools" --tmpfs /tmp:exec \
        "tarmac/test:$TARMAC_TAG" "$@" </dev/null &
    wait $!
}
# Behind a TLS-inspecting proxy, what fetches from inside the test image has to know its certificate, as builds do.
own_certificates() {
    mkdir -p build
    cp "$TARMAC_CA_BUNDLE" build/ca.pem
}
tests_in_image() { in_test_image pytest -p no:cacheprovider --durations 10 -m "not long" "$@"; }

# Runs a command on a machine that has an engine and two GPUs of its own.
on_machine() {
    local machine=tests/fakes/machine/machine.sh
    "$machine" start
    "$machine" load
    local code=0
    "$machine" run "$@" </dev/null &
    wait $! || code=$?
    "$machine" stop
    return "$code"
}

# Then, in the image with PyTorch, the tests that are skipped without.
part_trainer() {
    local code=0 tuned=0 with_torch
    mapfile -t with_torch < <(grep -l 'this image has no PyTorch' images/trainer/tests/test_*.py)
    docker run --rm --network none ${weight[@]+"${weight[@]}"} --name "$runner" "tarmac/trainer-test:$TARMAC_TAG" "$@" ||
        code=$?
    docker run --rm --network none ${weight[@]+"${weight[@]}"} --tmpfs /tmp:exec --name "$runner" \
        --entrypoint /opt/venv/bin/python \
        "tarmac/trainer-torch-test:$TARMAC_TAG" -P -m pytest -p no:cacheprovider \
        "${with_torch[@]/#images\/trainer//opt/tarmac}" "$@" ||
        tuned=$?
    # Where names of tests are chosen, one of the two may have none of them.
    if [ "$code" = 5 ]; then code=$tuned; elif [ "$tuned" != 5 ] && [ "$tuned" != 0 ]; then code=$tuned; fi
    return "$code"
}
# The client's tests run here on one Python; `make check-client` runs them on each that is there.
part_host() {
    local code=0
    tests_in_image -n 2 --dist worksteal tests/pure tests/contract tests/postgres tests/engine "$@" || code=$?
    in_test_image env "PYTHONPATH=$repo/client/src" pytest -c client/pyproject.toml -o pythonpath=tests \
        -p no:cacheprovider --quiet client/tests "$@" || more_failed $?
    return "$code"
}
# Of what is run after something else: "no test has such a name" (5) is no failure. Sets `code`.
more_failed() { [ "$1" = 5 ] || code=$1; }
# One stack for tests/stack, another one, with a malicious trainer, for tests/security: the tests that use it are one group.
part_stack() { tests_in_image -n 3 --dist loadgroup tests/security tests/stack "$@"; }
# A stack for each of two halves, which spend minutes waiting.
part_faults() { tests_in_image -n 2 --dist loadgroup --ignore tests/faults/test_machine.py tests/faults "$@"; }
# The machine's tests run on it, and then what is done to it as a whole.
part_gpu() {
    local machine=tests/fakes/machine/machine.sh code=0
    export TARMAC_MACHINE=tarmac-machine-$TARMAC_TEST_ID
    "$machine" start
    "$machine" load
    "$machine" run pytest -p no:cacheprovider --durations 10 -m "not long" tests/gpu "$@" </dev/null &
    wait $! || code=$?
    tests_in_image tests/faults/test_machine.py "$@" || more_failed $?
    "$machine" stop
    return "$code"
}
# The machine is started only where one of its tests is chosen.
part_long() {
    local machine=tests/fakes/machine/machine.sh code=0 there=0
    own_certificates
    in_test_image env "TARMAC_CA_BUNDLE=$repo/build/ca.pem" pytest -p no:cacheprovider --durations 10 -m long \
        tests/faults tests/stack "$@" || code=$?
    in_test_image pytest -p no:cacheprovider --collect-only --quiet -m long tests/gpu "$@" >"$scratch/chosen" || there=$?
    if [ "$there" = 0 ]; then
        "$machine" start
        "$machine" load
        "$machine" run pytest -p no:cacheprovider --durations 10 -m long tests/gpu "$@" </dev/null &
        wait $! || there=$?
        "$machine" stop
    fi
    # Where names of tests are chosen, one of the two places may have none of them.
    if [ "$code" = 5 ]; then code=$there; elif [ "$there" != 5 ] && [ "$there" != 0 ]; then code=$there; fi
    return "$code"
}

# Runs a part by itself: its output is shown as it comes.
run_part() {
    local part=$1
    shift
    export TARMAC_TEST_ID=$$${part:0:1}
    runner=$runner-$part "part_$part" "$@"
}

# Starts a part in the background; its output goes to a file, and how it ended and after how many seconds to another.
start_part() {
    say "Started: $1 tests"
    (
        set +e
        SECONDS=0
        if [ -n "${shares[$1]-}" ]; then weight=(--cpu-shares "${shares[$1]}"); fi
        (
            set -e
            run_part "$@"
        ) >"$scratch/$1.out" 2>&1
        echo "$? $SECONDS" >"$scratch/$1.new"
        mv "$scratch/$1.new" "$scratch/$1.end"
    ) &
}

# Prints all that a part printed, when it has ended.
show_part() {
    local code seconds said
    read -r code seconds <"$scratch/$1.end"
    said=passed
    [ "$code" = 0 ] || said="FAILED, exit code $code"
    # Where tests are chosen by their names, a part may have none of them.
    if [ "$code" = 5 ] && [ "$chosen" = yes ]; then said="has no such test" code=0; else none=0; fi
    printf '\n%s\n' "======== $1 tests ========"
    cat "$scratch/$1.out"
    summary+=("$(printf '  %-8s %5d s  %s' "$1" "$seconds" "$said")")
    [ "$code" -le "$worst" ] || worst=$code
}

run_all() {
    local left=("${parts[@]}") next=("${beside[@]}") running=() still part places=$((at_once + 1))
    summary=() worst=0 none=5 chosen=no
    [ "$#" = 0 ] || chosen=yes
    SECONDS=0
    start_part "${next[0]}" "$@"
    running+=("${next[0]}")
    while [ "${#left[@]}" -gt 0 ] || [ "${#running[@]}" -gt 0 ]; do
        while [ "${#left[@]}" -gt 0 ] && [ "${#running[@]}" -lt "$places" ]; do
            start_part "${left[0]}" "$@"
            running+=("${left[0]}")
            left=("${left[@]:1}")
        done
        sleep 1
        still=()
        for part in "${running[@]}"; do
            if [ ! -e "$scratch/$part.end" ]; then
                still+=("$part")
                continue
            fi
            show_part "$part"
            if [ "$part" != "${next[0]-}" ]; then continue; fi
            next=("${next[@]:1}")
            if [ "${#next[@]}" -gt 0 ]; then
                start_part "${next[0]}" "$@"
                still+=("${next[0]}")
            else
                places=$at_once
            fi
        done
        running=(${still[@]+"${still[@]}"})
    done
    printf '\n%s\n' "======== make test: $SECONDS s ========"
    printf '%s\n' "${summary[@]}"
    [ "$worst" != 0 ] || worst=$none
    return "$worst"
}

say "Preparing the test images (the first time takes a few minutes) ..."
env/host/images.sh
case $what in
all) build ;;
stack | faults | long | gpu | chaos | bench-handover) build airflow-init mlflow trainer test ;;
host) build airflow-init mlflow trainer test ;;
trainer) build trainer-test trainer-torch-test ;;
bench-quality | build-trainer) build trainer-test ;;
build-transformers) build trainer-torch-test ;;
*) build test ;;
esac

case $what in
all) run_all "$@" ;;
trainer | host | stack | faults | gpu) run_part "$what" "$@" ;;
long) part_long "$@" ;;
lint | types) in_test_image env TARMAC_TOOLS=/opt/venv/bin tests/check.sh "$what" ;;
unit)
    in_test_image pytest -p no:cacheprovider tests/pure "$@"
    ;;
build-trainer | build-transformers) ;; # built above
chaos)
    where=on_machine
    case ${HOSTS:-1} in 1 | 2 | 3) ;; *) refuse "HOSTS: '$HOSTS' is neither 1, 2 nor 3." ;; esac
    [ "${GPUS:-2}" != 0 ] || [ "${HOSTS:-1}" != 1 ] || where=in_test_image
    "$where" python tests/tools/chaos.py --rounds "${ROUNDS:-20}" --hosts "${HOSTS:-1}" ${SEED:+--seed "$SEED"}
    ;;
bench-admission)
    in_test_image env "STEPS=${STEPS:-}" python tests/bench/bench_admission.py
    in_test_image python tests/bench/bench_postgres.py
    ;;
sbom) in_test_image env "TARMAC_TAG=$stack_tag" python tests/tools/sbom.py "${1:-build/sbom}" ;;
audit)
    own_certificates
    in_test_image env "TARMAC_TAG=$stack_tag" REQUESTS_CA_BUNDLE=build/ca.pem python tests/tools/audit.py
    ;;
bench-quality)
    if [ -n "${DIR:-}" ]; then
        [ -d "$DIR" ] || die "DIR: there is no folder '$DIR'."
        docker run --rm --network none --tmpfs /tmp:exec --name "$runner" --volume "$repo:/repo:ro" --env SETS=/sets \
            --volume "$(realpath "$DIR"):/sets:ro" --env "MODEL=${MODEL:-}" --env "SEEDS=${SEEDS:-}" \
            --entrypoint /opt/venv/bin/python "tarmac/trainer-test:$TARMAC_TAG" /repo/tests/bench/bench_public.py
        exit
    fi
    docker run --rm --network none --tmpfs /tmp:exec --name "$runner" --volume "$repo:/repo:ro" --env EXAMPLES=/repo/examples \
        --env "MODEL=${MODEL:-}" --env "UPDATES=${UPDATES:-}" --env "SEEDS=${SEEDS:-}" --entrypoint /opt/venv/bin/python \
        "tarmac/trainer-test:$TARMAC_TAG" -P /repo/tests/bench/bench_quality.py
    ;;
bench-handover) on_machine env "MEASUREMENTS=${MEASUREMENTS:-}" "TRAIN_SECONDS=${TRAIN_SECONDS:-}" python tests/bench/bench_handover.py ;;
*) die "run.sh knows all, trainer, host, stack, faults, gpu, long, unit, build-trainer, build-transformers, chaos, bench-admission, bench-handover, \
bench-quality, sbom, audit, lint and types, not '$what'." ;;
esac
