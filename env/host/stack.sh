#!/usr/bin/env bash
# The stack as scripts and the Makefile address it: defines `compose`, and exports what compose.yaml reads.
# Source it after lib.sh, or run it with a Compose command, which reads the caller's standard input: `env/host/stack.sh ps`.
if ! declare -F root_of_repo >/dev/null; then
    set -euo pipefail
    # shellcheck source-path=SCRIPTDIR source=lib.sh
    . "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
fi

_repo=$(root_of_repo)
"$_repo/env/host/engine.sh" --check
ENV_DIR=${TARMAC_ENV_DIR:-$_repo/env}
for _example in "$ENV_DIR"/*.env.example; do
    if [ ! -r "${_example%.example}" ]; then
        "$_repo/env/host/secrets.sh" "$ENV_DIR"
        break
    fi
done
if [ "$ENV_DIR" = "$_repo/env" ] && [ ! -e "$_repo/.env" ]; then
    # So that `docker compose ...` typed by hand reads the same settings.
    ln -s env/stack.env "$_repo/.env"
    own_like "$_repo" "$_repo/.env"
fi
# A variable that is set already wins over the file, as everywhere in Compose.
while IFS='=' read -r _key _value; do
    case $_key in '' | \#*) continue ;; esac
    [ -n "${!_key+set}" ] || export "$_key=$_value"
done <"$ENV_DIR/stack.env"
export TARMAC_ENV_DIR=$ENV_DIR TARMAC_FILES_DIR=${TARMAC_FILES_DIR:-$_repo/examples}
if [ -z "${TARMAC_CA_BUNDLE:-}" ]; then
    for _bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
        if [ -r "$_bundle" ]; then
            TARMAC_CA_BUNDLE=$_bundle
            break
        fi
    done
fi
export TARMAC_CA_BUNDLE=${TARMAC_CA_BUNDLE:-/dev/null}
# What every model's record says it was trained by. A copy without git's folder knows its version only.
TARMAC_VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' "$_repo/pyproject.toml" | head -n 1)
TARMAC_COMMIT=$([ ! -e "$_repo/.git" ] || git -c safe.directory="$_repo" -C "$_repo" describe --always --dirty 2>/dev/null || true)
export TARMAC_VERSION TARMAC_COMMIT=${TARMAC_COMMIT:-unknown}

# Prints one of the files that a person may write; nothing where it is not there.
text_of() {
    [ -e "$1" ] || return 0
    local text
    text=$(cat "$1") || die "you may not read $1: change its permissions."
    # As much as the engine passes on in one variable.
    [ "${#text}" -lt 100000 ] || die "$1 is larger than 100000 characters."
    printf '%s\n' "$text"
}
# Who is told what, and where: the notifier's file, whose addresses are secrets like those of the env files.
TARMAC_NOTIFY=$(text_of "$ENV_DIR/notify.toml")
# Which machines may be started, and with which credentials; the commands that do it are in a folder (docs/hosts.md).
TARMAC_HOST_KINDS=$(text_of "$ENV_DIR/hosts.toml")
TARMAC_PROVIDER_ENV=$(text_of "$ENV_DIR/providers.env")
export TARMAC_NOTIFY TARMAC_HOST_KINDS TARMAC_PROVIDER_ENV
# Names the machines that were started for sessions and cost money: a stack that is stopped ends none of them.
name_machines() {
    [ -n "$TARMAC_HOST_KINDS" ] || return 0
    local names
    names=$(compose exec -T postgres psql --username postgres --dbname tarmac --no-align --tuples-only --command \
        "SELECT name FROM machine WHERE state <> 'ended' ORDER BY number" 2>/dev/null) || return 0
    if [ -n "$names" ]; then
        say "These machines on demand go on, and cost money until they end themselves (docs/hosts.md): ${names//$'\n'/, }"
    fi
}

# A working GPU is a driver that lists one and an engine that knows how to pass it on.
_compose_files=(--file "$_repo/compose.yaml")
TRAINER_VARIANT=trainer
if ! command -v nvidia-smi >/dev/null 2>&1; then
    GPU_STATE='none: this machine has no NVIDIA driver; sessions train on the CPU'
elif ! nvidia-smi --list-gpus >/dev/null 2>&1; then
    GPU_STATE='none: the NVIDIA driver lists no GPU (see nvidia-smi)'
elif ! command -v nvidia-container-runtime-hook >/dev/null 2>&1 && ! command -v nvidia-ctk >/dev/null 2>&1; then
    GPU_STATE='not usable: install the NVIDIA Container Toolkit, restart the engine, and run make up again'
else
    GPU_STATE="$(nvidia-smi --list-gpus | grep -c '^GPU ') found" # its MIG instances are indented
    TRAINER_VARIANT=trainer-cuda
    _compose_files+=(--file "$_repo/compose.gpu.yaml")
fi
case ${TARMAC_CUDA:-no} in
no) ;;
yes)
    if [ "$TRAINER_VARIANT" = trainer ]; then
        TRAINER_VARIANT=trainer-cuda
        _compose_files+=(--file "$_repo/compose.cuda.yaml")
        GPU_STATE="$GPU_STATE; the trainer has CUDA for other hosts (TARMAC_CUDA)"
    fi
    ;;
*) die "TARMAC_CUDA is '$TARMAC_CUDA', must be yes or no." ;;
esac
export TRAINER_VARIANT GPU_STATE TORCH_VARIANT=${TRAINER_VARIANT/trainer/trainer-torch}
case ${TARMAC_WORKERS:-0} in
0) ;;
[1-9] | 1[0-6])
    [[ ${TARMAC_PARALLELISM:-16} =~ ^[1-9][0-9]{0,2}$ ]] ||
        die "TARMAC_PARALLELISM is '$TARMAC_PARALLELISM', must be a whole number from 1 to 999 where there are workers."
    export TARMAC_TASKS_AT_ONCE=$((TARMAC_WORKERS * ${TARMAC_PARALLELISM:-16}))
    case " ${_compose_files[*]} " in
    *compose.gpu.yaml*) _compose_files+=(--file "$_repo/compose.workers.yaml" --file "$_repo/compose.workers-gpu.yaml") ;;
    *) _compose_files+=(--file "$_repo/compose.workers.yaml") ;;
    esac
    ;;
*) die "TARMAC_WORKERS is '$TARMAC_WORKERS', must be a whole number from 0 to 16: 0 for none, the scheduler runs the tasks itself." ;;
esac
case ${TARMAC_GIT:-no} in
no) ;;
yes) export TARMAC_AIRFLOW_TMP=exec ;; # see compose.yaml
*) die "TARMAC_GIT is '$TARMAC_GIT', must be yes or no." ;;
esac

_compose_command=$("$_repo/env/host/compose.sh")
# Compose for this stack, from wherever it is called.
compose() {
    # shellcheck disable=SC2086 # the command may be two words
    $_compose_command --project-directory "$_repo" --env-file "$ENV_DIR/stack.env" "${_compose_files[@]}" "$@"
}

# Runs one of Tarmac's commands (plugins/tarmac/cli) in the stack.
tarmac() { compose exec -T airflow-cli python -m tarmac.cli "$@" || ended $?; }

# Returns the exit code of a command; says what it means where the engine ended the container that it ran in, and where
# the caller interrupted it: Compose says "canceled" then, and leaves the command in the container alone.
ended() {
    case $1 in
    137)
        say "The command was ended with its container, as when the stack is stopped, started anew or upgraded. Sessions go \
on. When 'make ps' answers again, give the command again; 'make follow RUN=...' follows a session on."
        ;;
    130)
        say "Interrupted. The command may go on in the stack, and nothing that it did is taken back: 'make ps' lists the \
sessions as they are."
        ;;
    esac
    return "$1"
}

# Follows run $1 to its end, on a terminal where the caller has one: it sees the width of the screen, and the interrupt.
follow_run() {
    local code=0
    # The interrupt belongs to the command inside, which says how to follow the run again.
    trap : INT
    if [ -t 7 ] && [ -t 1 ]; then
        compose exec airflow-cli python -m tarmac.cli follow -- "$1" <&7 || code=$?
        if [ "$code" -eq 130 ]; then return 130; fi
    else
        compose exec -T airflow-cli python -m tarmac.cli follow -- "$1" || code=$?
        if [ "$code" -eq 130 ]; then
            say "No longer following; the run goes on. Follow it again: make follow RUN=$1"
            return 130
        fi
    fi
    ended "$code"
}

# Ends the script with status 3 unless the stack runs.
ensure_up() {
    if ! compose exec -T airflow-cli true >/dev/null 2>&1; then
        say "The stack is not running: 'make up' starts it."
        exit 3
    fi
}

# Builds all of our images, or those of the given services. Compose writes the project's name into an image that it
# builds: with one name for all, another stack's build leaves the images, and so this stack's containers, as they are.
compose_build() {
    local profiles=(--profile build)
    if wants_transformers; then profiles+=(--profile transformers); fi
    compose --project-name tarmac-images "${profiles[@]}" build "$@"
}

# True if the trainer of transformers is to be built: by the setting, or again since it was built before.
wants_transformers() {
    case ${TARMAC_TRANSFORMERS:-no} in
    yes) ;;
    no) docker image inspect "$(transformers_image)" >/dev/null 2>&1 ;;
    *) die "TARMAC_TRANSFORMERS is '$TARMAC_TRANSFORMERS', must be yes or no." ;;
    esac
}
transformers_image() { printf '%s\n' "${TARMAC_REGISTRY:-tarmac}/$TORCH_VARIANT:${TARMAC_TAG:-latest}"; }

# True if all of our images are built.
images_are_here() {
    local name
    for name in airflow mlflow "$TRAINER_VARIANT"; do
        docker image inspect "${TARMAC_REGISTRY:-tarmac}/$name:${TARMAC_TAG:-latest}" >/dev/null 2>&1 || return 1
    done
    ! wants_transformers || docker image inspect "$(transformers_image)" >/dev/null 2>&1
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then compose "$@" <&7; fi
