#!/usr/bin/env bash
# cli.sh COMMAND [VALUE...]: runs one of Tarmac's commands in the stack, for the Makefile. Each value is that of a make
# variable, taken literally: none is expanded, split, or read as an option.
# Exits with 0 success, 1 the run failed, 2 wrong input, 3 the stack or the engine does not answer.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"
end_with_reader "$0" "$@"
command=${1:?} || exit 2
shift

# Defines `tarmac` and guarantees a stack that runs. Called after the checks that need none.
use_stack() {
    # shellcheck source-path=SCRIPTDIR source=stack.sh
    . "$here/stack.sh"
    ensure_up
}

# Lists something, no wider than the caller's terminal; with JSON=1 everything, as JSON.
list() {
    local command=$1 size='' json=()
    shift
    if is_on JSON "${JSON:-}"; then json=(--json); fi
    if [ -t 1 ]; then { size=$(stty size <&8 2>/dev/null) || size=''; } 8>&1; fi
    compose exec -T ${size:+-e "COLUMNS=${size#* }"} airflow-cli python -m tarmac.cli \
        "$command" ${json[@]+"${json[@]}"} "$@"
}

# Refuses a value ($2) of variable $1 that is missing: $3 says what to write, and command $4 lists what there is.
need_one_of() {
    [ -z "$2" ] || return 0
    say "$1: is missing. $3, one of these:"
    use_stack
    JSON='' list "$4" >&2
    exit 2
}

# Starts the services that have stopped while others run, as they are, and waits until they are healthy. Where none
# runs, a person stopped the stack, and it stays stopped. airflow-init exits when its work is done.
start_stopped() {
    local found service state id deadline health started=()
    found=$(compose ps --all --format '{{.Service}} {{.State}} {{.ID}}')
    grep -q ' running ' <<<"$found" || return 0
    while read -r service state id; do
        case $service:$state in
        airflow-init:*) continue ;;
        *:exited | *:created | *:dead) ;;
        *) continue ;;
        esac
        if docker start "$id" >/dev/null; then
            started+=("$service $id")
        else
            warn "service $service has stopped and does not start: 'make logs SERVICE=$service' says why; then 'make up'."
        fi
    done <<<"$found"
    deadline=$((SECONDS + 120))
    for found in ${started[@]+"${started[@]}"}; do
        service=${found% *} id=${found#* }
        while :; do
            health=$(docker inspect --format '{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}' "$id") || health=gone
            case $health in
            healthy | running)
                say "Started the service $service, which had stopped."
                break
                ;;
            esac
            if [ "$SECONDS" -ge "$deadline" ]; then
                warn "service $service had stopped, was started, and is $health after 120 s: 'make logs SERVICE=$service' says why."
                break
            fi
            sleep 1
        done
    done
}

case $command in
follow)
    need_one_of RUN "${1:-}" 'Say which run: make follow RUN=...' sessions
    use_stack
    follow_run "$1"
    ;;
cancel)
    need_one_of RUN "${1:-}" 'Say which run: make cancel RUN=...' sessions
    use_stack
    tarmac cancel --by="$(account)" -- "$1"
    ;;
retry)
    need_one_of RUN "${1:-}" 'Say which run: make retry RUN=...' sessions
    use_stack
    tarmac retry --by="$(account)" -- "$1"
    ;;
explain)
    need_one_of RUN "${1:-}" 'Say which run: make explain RUN=...' sessions
    use_stack
    list explain -- "$1"
    ;;
reproduce)
    need_one_of RUN "${1:-}" 'Say which run: make reproduce RUN=...' sessions
    use_stack
    tarmac reproduce -- "$1"
    ;;
dataset)
    need_file FILE "${1:-}" 'Say which file to store: make dataset FILE=examples/tiny.jsonl'
    use_stack
    tarmac dataset <"$1"
    ;;
script)
    need_file FILE "${1:-}" 'Say which .py or .sh file to store: make script FILE=train.py'
    case $1 in
    *.py | *.sh) ;;
    *) refuse "FILE: '$1' must end in .py or .sh, which says how it is run: make script FILE=train.py" ;;
    esac
    use_stack
    tarmac dataset --suffix=".${1##*.}" <"$1"
    ;;
weights)
    [ -n "${1:-}" ] || refuse 'DIR: is missing. Say which folder has the weights: make weights DIR=minilm'
    [ -d "$1" ] || refuse "DIR: '$1' is not a folder: name the one that a transformer was saved to"
    names=()
    # Links are followed: a hub's cache holds its files behind them.
    for file in "$1"/*; do if [ -f "$file" ]; then names+=("${file##*/}"); fi; done
    [ "${#names[@]}" -gt 0 ] || refuse "DIR: '$1' has no file in it"
    use_stack
    chosen=$(tarmac weights -- "${names[@]}")
    say "Storing $(tr '\n' ' ' <<<"$chosen")..."
    # In the order of the list. Options of tar that all know; what differs between them is made equal in the stack.
    # shellcheck disable=SC2086 # names without blanks
    tar -C "$1" -c -h -f - $chosen | tarmac weights
    ;;
ps)
    use_stack
    if ! is_on JSON "${JSON:-}"; then
        # airflow-init ends when its work is done.
        services=$(compose ps --all --format 'table {{.Service}}\t{{.Status}}' | grep -v '^airflow-init .*Exited (0)' || true)
        printf '%s\n\n' "$services"
        if grep -qE ' (Exited|Created|Dead)' <<<"$services"; then
            warn "a service has stopped: 'make doctor FIX=1' starts it. 'make logs SERVICE=...' says why it stopped."
        fi
    fi
    list sessions --space
    ;;
logs)
    use_stack
    services=$(compose config --services)
    if [ -n "${1:-}" ] && ! grep -qxF -e "$1" <<<"$services"; then
        refuse "SERVICE: there is no service '$1'; there are: $(sort <<<"$services" | tr '\n' ' ')"
    fi
    compose logs --follow --tail 50 ${1:+"$1"}
    ;;
release-gpu)
    need_one_of GPU "${1:-}" 'Say which GPU: make release-gpu GPU=...' gpus
    use_stack
    tarmac release-gpu --by="$(account)" -- "$1"
    ;;
notify-test)
    use_stack
    # The file as it is now, not as it was at the last `make up`.
    compose exec -T --env TARMAC_NOTIFY airflow-cli python -m tarmac.cli notify-test -- ${1:+"$1"} || ended $?
    ;;
host-key)
    use_stack
    tarmac host-key
    ;;
host-add)
    need NAME "${1:-}" 'Say what to call the host: make host-add NAME=gpu2 URL=ssh://user@machine'
    need URL "${2:-}" 'Say where it is: make host-add NAME=gpu2 URL=ssh://user@machine'
    use_stack
    tarmac host-add --fingerprint="${3:-}" -- "$1" "$2"
    ;;
host-certs)
    need NAME "${1:-}" 'Say which host: make host-certs NAME=gpu3 URL=tcp://gpu3:2376 FILE=gpu3-certs.tar'
    need URL "${2:-}" 'Say where it is: make host-certs NAME=gpu3 URL=tcp://gpu3:2376 FILE=gpu3-certs.tar'
    need FILE "${3:-}" 'Say where to: make host-certs NAME=gpu3 URL=tcp://gpu3:2376 FILE=gpu3-certs.tar'
    file=$3
    case $file in -*) file=./$file ;; esac # no option
    [ ! -e "$file" ] || refuse "FILE: '$file' is there already: name another one."
    use_stack
    trap 'leave_nothing_of "The file" "$parts"' EXIT
    umask 077
    parts=$(mktemp "$file.XXXXXX" 2>/dev/null) || refuse "FILE: you cannot write into the folder of '$file'. Name a file in a folder that is there and yours."
    compose exec -T airflow-cli python -m tarmac.cli host-certs -- "$1" "$2" "$3" >"$parts" || ended $?
    mv "$parts" "$file"
    parts=''
    ;;
hosts-check)
    use_stack
    # The file as it is now, not as it was at the last `make up`.
    compose exec -T --env TARMAC_HOST_KINDS airflow-cli python -m tarmac.cli hosts-check || ended $?
    ;;
host-drain | host-resume | host-remove)
    need_one_of NAME "${1:-}" "Say which host: make $command NAME=..." hosts
    use_stack
    tarmac "$command" -- "$1"
    ;;
models)
    use_stack
    list models -- ${1:+"$1"}
    ;;
compare)
    need_one_of 'A or B' "${1:+${2:-}}" 'Say which two: make compare A=name/1 B=name/2' models
    use_stack
    list compare -- "$1" "$2"
    ;;
promote)
    need_one_of 'MODEL or VERSION' "${1:+${2:-}}" 'Say what: make promote MODEL=name VERSION=n' models
    use_stack
    tarmac promote --by="$(account)" --why="${3:-}" -- "$1" "$2"
    ;;
rollback)
    need_one_of MODEL "${1:-}" 'Say which model: make rollback MODEL=name' models
    use_stack
    tarmac rollback --by="$(account)" --why="${2:-}" -- "$1"
    ;;
production)
    need_one_of MODEL "${1:-}" 'Say which model: make production MODEL=name' models
    use_stack
    # A second value that is empty is a time that was meant and is missing, not now.
    list production ${2+--at="$2"} -- "$1"
    ;;
space)
    use_stack
    list space ${1+--days="$1"}
    ;;
doctor)
    if is_on FIX "${1:-}"; then
        # shellcheck source-path=SCRIPTDIR source=stack.sh
        . "$here/stack.sh"
        start_stopped
        ensure_up
        list doctor --fix
    else
        use_stack
        list doctor
    fi
    ;;
gpu-check)
    use_stack
    list gpu-check ${1:+--host="$1"}
    ;;
gpus | hosts | trainers)
    use_stack
    list "$command"
    ;;
*) die "cli.sh does not know '$command'." ;;
esac
