#!/usr/bin/env bash
# support.sh FILE.tar.gz [RUN]: collects versions, settings, states and logs of this stack in one file, without secrets; with
# RUN also what there is of that session. It works also where the stack does not run: the parts that ask the stack then hold
# the reason.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"
file=${1:-} run=${2:-} parts=''
need FILE "$file" 'Say where to: make support FILE=support.tar.gz'
case $file in -*) file=./$file ;; esac # no option
[ ! -e "$file" ] || refuse "FILE: '$file' is there already: name another one."
# shellcheck source-path=SCRIPTDIR source=stack.sh
. "$here/stack.sh"
trap 'leave_nothing_of "The file" "$parts"' EXIT
trap 'exit 130' INT TERM
umask 077
parts=$(mktemp -d "$file.XXXXXX" 2>/dev/null) || refuse "FILE: you cannot write into the folder of '$file'. Name a file in a folder that is there and yours."
image=${TARMAC_REGISTRY:-tarmac}/airflow:${TARMAC_TAG:-latest}
docker image inspect "$image" >/dev/null 2>&1 || die "the image $image is not here: 'make up' makes it, and it takes the secrets out."

# Runs one of Tarmac's modules alone: without a network, a stack, or anything to write to. $1: more options of docker.
alone() {
    local more=$1
    shift
    # shellcheck disable=SC2086 # options without blanks in them
    docker run --rm --interactive --network none --read-only --cap-drop ALL --security-opt no-new-privileges $more \
        --volume "$_repo/plugins:/opt/airflow/plugins:ro" "$image" python -m "$@"
}

mkdir -p "$parts/all/secrets/env" "$parts/all/secrets/examples" "$parts/all/logs"
cp "$ENV_DIR"/*.env "$parts/all/secrets/env/"
cp "$_repo"/env/*.env.example "$parts/all/secrets/examples/"
printf '%s' "$TARMAC_NOTIFY" >"$parts/all/secrets/notify.toml"

# Keeps what a command ($2...) prints as $1. One that fails or takes too long is part of the answer.
keep() {
    local name=$1 code=0
    shift
    limited 90 "$@" >"$parts/all/$name" 2>&1 </dev/null || code=$?
    if [ "$code" -ne 0 ]; then printf '\n[exit code %s]\n' "$code" >>"$parts/all/$name"; fi
}
if [ -n "$run" ]; then
    logs=${TARMAC_PROJECT}_logs
    docker volume inspect "$logs" >/dev/null 2>&1 || die "this stack has no logs yet (volume $logs): no session has run."
    alone "--volume $logs:/opt/airflow/logs:ro" tarmac.cli.session_logs "$run" >"$parts/session.tar" </dev/null
    tar --extract --no-same-owner --directory "$parts/all" --file "$parts/session.tar"
    mkdir -p "$parts/all/session"
fi
say "Collecting, at most some minutes ..."
{
    date -u +%Y-%m-%dT%H:%M:%SZ
    printf 'Tarmac %s (%s)\nGPU: %s\n' "$TARMAC_VERSION" "$TARMAC_COMMIT" "$GPU_STATE"
    printf 'notify.toml: %s\n' "$([ -n "$TARMAC_NOTIFY" ] && echo yes || echo no)"
} >"$parts/all/about.txt"
keep machine.txt sh -c 'uname -a; cat /etc/os-release; nproc; head -n 3 /proc/meminfo; cat /proc/loadavg; df -h; nvidia-smi 2>&1 || true'
keep engine.txt docker info
keep compose.txt "$here/stack.sh" version
keep services.txt "$here/stack.sh" ps --all
keep containers.txt docker ps --all --no-trunc --filter "label=tarmac.project=$TARMAC_PROJECT"
for name in doctor space gpus hosts sessions models; do
    keep "$name.json" "$here/stack.sh" exec -T airflow-cli python -m tarmac.cli "$name" --json
done
if [ -n "$run" ]; then
    keep session/explain.txt "$here/stack.sh" exec -T airflow-cli python -m tarmac.cli explain -- "$run"
fi
for name in $(compose config --services); do
    keep "logs/$name.log" "$here/stack.sh" logs --no-color --no-log-prefix --timestamps --tail 5000 "$name"
done
tar --create --directory "$parts/all" --file - . | alone '' tarmac.cli.support >"$parts/out"
mv "$parts/out" "$file"
own_like "$_repo" "$file"
say "Wrote $file ($(du -h "$file" | cut -f1)), without secrets. It names people, sessions and machines, and holds what programs \
printed: look before you send it ('tar tzf')."
