#!/bin/sh
# A docker for tests of the host's commands: it notes each call with its standard input, and answers as a stack that runs.
# It is a shell script since commands call docker several times each, and a Python would need most of their time.
#
#   FAKE_CALLS    the file of calls: of each the number of words, the words, and the file of its input, each ended by NUL
#   FAKE_ENGINE   how the engine is; nothing: well
engine=${FAKE_ENGINE:-}

fail() {
    printf '%s\n' "$1" >&2
    exit "${2:-1}"
}

case $engine in
stopped) fail 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?' ;;
refusing) fail 'permission denied while trying to connect to the Docker daemon socket' ;;
esac
case "$1 ${2:-}" in
'version '*) echo 28.0.0 && exit ;;
'compose version') echo 2.35.0 && exit ;;
esac

exec='' up='' config='' weights='' stat='' dashes='' ours='' trigger='' reads='' last=''
for last in "$@"; do
    case $last in
    exec) exec=yes reads=yes ;;
    --interactive) reads=yes ;;
    up) up=yes ;;
    config) config=yes ;;
    weights) weights=yes ;;
    stat) stat=yes ;;
    --) dashes=yes ;;
    tarmac.cli) ours=yes ;;
    trigger) trigger=yes ;;
    esac
done
if [ "$engine" = 'started anew' ] && [ "$ours" ]; then exit 137; fi
if [ "$engine" = interrupted ] && [ "$ours" ] && { [ "$last" = one ] || [ "$trigger" ]; }; then fail canceled 130; fi
if [ "$engine" = 'without a stack' ] && [ "$exec" ]; then fail 'service "airflow-cli" is not running'; fi

input=''
if [ "$reads" ]; then
    input=$FAKE_CALLS.$$
    cat >"$input"
fi
printf '%s\0' "$#" "$@" "$input" >>"$FAKE_CALLS"

if [ "$engine" = 'with a Postgres that refuses' ]; then
    case $* in *psql*) fail 'FATAL: the database system is shutting down' ;; esac
fi
if [ "$engine" = 'that starts no services' ]; then
    case $* in *--remove-orphans*) fail 'Error response from daemon: no space left on device' ;; esac
fi
if [ "$engine" = 'with a half-made container' ]; then
    case $* in *status=created*) echo 0123456789ab ;; esac
fi
if [ "$up" ]; then
    case $engine in 'loses a container once') lost=1 ;; 'keeps losing containers') lost=9 ;; *) lost=0 ;; esac
    echo >>"$FAKE_CALLS.up"
    if [ "$(wc -l <"$FAKE_CALLS.up")" -le "$lost" ]; then
        fail 'Error response from daemon: No such container: 0123456789ab'
    fi
fi
if [ "$1" = run ] && [ "$stat" ]; then echo 999; fi
case $* in *tarmac.cli.session_logs*) head -c 10240 /dev/zero ;; esac # an archive without a file
if [ "$config" ]; then printf 'mlflow\nscheduler\n'; fi
if [ "$weights" ] && [ "$dashes" ]; then printf 'config.json\nmodel.safetensors\n'; fi
case "$engine $*" in
*' --all '*table*)
    printf '%s\n' 'SERVICE        STATUS' 'airflow-init   Exited (0) 2 hours ago' 'postgres       Up 2 hours (healthy)'
    if [ "$engine" = 'with stopped services' ]; then echo 'scheduler      Exited (137) 5 minutes ago'; fi
    ;;
'with stopped services '*' --all '*)
    printf '%s\n' 'airflow-init exited 1' 'postgres running 2' 'webserver exited 3' 'mlflow exited 4' 'triggerer running 5'
    ;;
'without a running service '*' --all '*) printf '%s\n' 'postgres exited 2' 'webserver exited 3' ;;
'with stopped services start 4') fail 'Error response from daemon: driver failed' ;;
esac
if [ "$1" = inspect ]; then echo healthy; fi
# Like docker, it exits with an error when its output is closed.
if [ "$engine" = talkative ] && [ "$exec" ]; then seq -f 'line %.0f' 0 99999 2>/dev/null || exit 255; fi
case $last in sessions | models | gpus | hosts) printf 'a list of %s\n' "$last" ;; esac
