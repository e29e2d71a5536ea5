#!/usr/bin/env bash
# check.sh dev|lint|types|pure|postgres|trainer|client [pytest arguments]: the checks that run on this machine, without
# the test image. `build-client` builds the client into build/client. `dev` makes .venv from requirements-test.lock; the others do so where the lock has changed. Only `trainer`
# needs a Docker Engine. TARMAC_TOOLS=folder uses the programs there instead of .venv (the test image does).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/../env/host source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../env/host/lib.sh"
repo=$(root_of_repo)
cd "$repo"
tools=${TARMAC_TOOLS:-.venv/bin}
what=${1:-}
shift || true

# Prints a uv: the one on PATH, else one that is installed under .cache from its lock.
find_uv() {
    if command -v uv; then return; fi
    if [ ! -x .cache/uv/bin/uv ]; then
        say "uv is missing: installing it into .cache/uv ..."
        python3 -m venv .cache/uv || die "uv cannot be installed: Python's venv is missing (apt-get install python3-venv), \
or install uv yourself and run 'make dev' again."
        .cache/uv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-build.lock ||
            die "pip could not install uv; its message is above. Install uv yourself and run 'make dev' again."
    fi
    printf '%s\n' "$repo/.cache/uv/bin/uv"
}

# Prints the newest Python $1 of pyenv, which uv does not look at; else what uv is to search for, or to fetch.
find_python() {
    local found
    found=$(find "${PYENV_ROOT:-$HOME/.pyenv}/versions" -maxdepth 3 -path "*/$1.*/bin/python" 2>/dev/null | sort -V | tail -n 1)
    printf '%s\n' "${found:-$1}"
}

# Makes .venv what the lock says. Silent where it is so already.
make_environment() {
    if [ -n "${TARMAC_TOOLS:-}" ]; then return; fi
    if [ -e .venv/tarmac-lock ] && cmp -s requirements-test.lock .venv/tarmac-lock; then return; fi
    local uv
    uv=$(find_uv)
    say "Making .venv from requirements-test.lock ..."
    "$uv" venv --quiet --clear --python "$(find_python 3.13)" .venv ||
        die "uv found no Python 3.13 and could not fetch one. Install Python 3.13, then run 'make dev' again."
    "$uv" pip sync --quiet --python .venv/bin/python --require-hashes requirements-test.lock ||
        die "the packages could not be installed; uv's message is above."
    cp requirements-test.lock .venv/tarmac-lock
    own_like "$repo" .venv
}

lint() {
    "$tools/ruff" check --quiet .
    "$tools/ruff" format --quiet --check . || die "some files are not formatted (above): .venv/bin/ruff format ."
    check_scripts
    "$tools/codespell" --quiet-level 2
}

# Checks every shell script, unless all of them passed as they are: it takes most of lint's time.
check_scripts() {
    local scripts passed=.cache/shellcheck-passed now
    scripts=$(shell_scripts)
    # shellcheck disable=SC2086 # names of files of this repository, which have no blanks
    now=$(cksum $scripts requirements-test.lock)
    if [ -z "${TARMAC_TOOLS:-}" ] && [ "$now" = "$(cat "$passed" 2>/dev/null)" ]; then return; fi
    # shellcheck disable=SC2086
    "$tools/shellcheck" -x $scripts
    if [ -n "${TARMAC_TOOLS:-}" ]; then return; fi
    mkdir -p "${passed%/*}"
    printf '%s\n' "$now" >"$passed"
    own_like "$repo" .cache "$passed"
}

# Prints every shell script of the repository.
shell_scripts() {
    local file first
    for file in .ci/run env/host/*.sh images/*/*.sh tests/*.sh tests/*/*.sh tests/fakes/*/*.sh examples/trainers/*/tarmac-trainer; do
        read -r first <"$file" || true
        case $first in '#!'*sh | '# shellcheck shell=bash') printf '%s\n' "$file" ;; esac
    done
}

types() {
    "$tools/mypy" --strict plugins/tarmac plugins/tarmac_plugin.py dags
    # Each saved model has a copy of this package. The program that predicts with it may run on Python 3.10.
    "$tools/mypy" --strict --python-version 3.10 images/trainer/tarmac_trainer
    "$tools/mypy" --strict --python-version 3.10 client/src/tarmac_client
}

# Builds the client's wheel and sdist into build/client.
build_client() {
    rm -rf build/client
    "$1" build --quiet --out-dir build/client client || die "the client could not be built; uv's message is above."
    own_like "$repo" build build/client
}

# Runs the client's tests on each Python of this machine, on the wheel as a person installs it.
test_client() {
    local uv version python tried=0
    uv=$(find_uv)
    build_client "$uv"
    for version in 3.10 3.11 3.12 3.13 3.14; do
        if ! python=$("$uv" python find --no-python-downloads "$(find_python "$version")" 2>/dev/null); then
            say "Python $version is not on this machine: not tried."
            continue
        fi
        say "Python $version"
        "$uv" run --quiet --isolated --no-project --python "$python" --with "$(echo build/client/*.whl)" \
            --with "$(grep -o '^pytest==[0-9.]*' requirements-test.lock)" \
            python -m pytest -c client/pyproject.toml -o pythonpath=tests -p no:cacheprovider --quiet client/tests "$@"
        tried=$((tried + 1))
    done
    [ "$tried" -gt 0 ] || die "no Python from 3.10 to 3.14 is on this machine: install one."
}

# Runs the tests of the folders in `folders`, or of the files that the arguments name. On all cores, unless arguments
# choose a few: then a process for each costs more than it saves.
run_tests() {
    local workers=() argument
    # One more than there are cores, since many of these tests wait for a process or a thread.
    if [ $# -eq 0 ]; then workers=(-n "$(($(getconf _NPROCESSORS_ONLN) + 1))" --dist worksteal); fi
    for argument in "$@"; do
        case $argument in tests/*) folders=() ;; esac
    done
    # What Python compiles is kept, and beside the tree: compiling Airflow takes longer than most of the tests, and where
    # PYTHONDONTWRITEBYTECODE is set, as in many containers, each process would do it again.
    # The same for what hypothesis finds out about Unicode. A person waits for these tests; `make test` tries all examples.
    TARMAC_TEST_EXAMPLES=few PYTHONDONTWRITEBYTECODE='' PYTHONPYCACHEPREFIX=$repo/.cache/pycache \
        HYPOTHESIS_STORAGE_DIRECTORY=$repo/.cache/hypothesis PYTHONPATH=$repo/plugins \
        "$tools/python" -m pytest --quiet ${workers[@]+"${workers[@]}"} \
        -m 'not engine and not hardware' ${folders[@]+"${folders[@]}"} "$@"
}

case $what in
dev) ;;
lint | types | pure | postgres) make_environment ;;
trainer | client | build-client) ;;
*) die "check.sh knows dev, lint, types, pure, postgres, trainer, client and build-client, not '$what'." ;;
esac

case $what in
dev)
    make_environment
    say "Ready: 'make check' (no Docker, no Postgres), 'make check-db' (Postgres), 'make check-trainer' (Docker)."
    ;;
lint) lint ;;
types) types ;;
pure)
    folders=(tests/pure tests/contract)
    run_tests "$@"
    ;;
postgres)
    folders=(tests/postgres)
    run_tests "$@"
    ;;
client) test_client "$@" ;;
build-client)
    build_client "$(find_uv)"
    say "Built: $(echo build/client/*)"
    ;;
trainer)
    env/host/engine.sh
    name=trainer-test build=build-trainer
    # With PyTorch, which the tests of transformers are skipped without.
    if [ "${TARMAC_TRANSFORMERS:-no}" = yes ]; then name=trainer-torch-test build=build-transformers; fi
    image=${TARMAC_REGISTRY:-tarmac}/$name:${TARMAC_TEST_TAG:-test}
    docker image inspect "$image" >/dev/null 2>&1 || tests/run.sh "$build"
    # The image's own libraries, this working tree's code.
    docker run --rm --network none --tmpfs /tmp:exec --volume "$repo/examples:/examples:ro" \
        --volume "$repo/images/trainer/tarmac_trainer:/opt/tarmac/tarmac_trainer:ro" \
        --volume "$repo/images/trainer/tests:/opt/tarmac/tests:ro" \
        --volume "$repo/images/trainer/pytest.ini:/opt/tarmac/pytest.ini:ro" \
        --entrypoint /opt/venv/bin/python "$image" \
        -P -m pytest -p no:cacheprovider --quiet /opt/tarmac/tests "$@" </dev/null
    ;;
esac
