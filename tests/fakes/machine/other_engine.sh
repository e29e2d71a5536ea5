#!/usr/bin/env bash
# other_engine.sh start|restart|stop|cut|join ssh|tls: another machine, as far as the stack on this fake machine can tell:
# an engine of its own with one fake GPU of its own.
#   ssh: the machine `gpu2` (engine: /run/gpu2/docker.sock, GPU-gpu2-0) has an SSH server, with the user
#        `tarmac`, who may use that engine.
#   tls: the engine of the machine `gpu3` (/run/gpu3/docker.sock, GPU-gpu3-0) is set by /run/gpu3/etc/daemon.json, which
#        is not there at first. What comes to port 2376 of this machine goes to that port of the other one.
# cut: the server or the cable is away, and with it all its connections; join: it is back. The engine and its containers go
# on. restart: the engine ends, with its containers, and starts again.
set -euo pipefail
home=/home/tarmac ssh_port=22 tls_port=2376
what=${1:-} kind=${2:-}
case $kind in ssh) name=gpu2 ;; tls) name=gpu3 ;; *) exit 2 ;; esac
engine=/run/$name gpus=/run/$name-nvml socket=unix:///run/$name/docker.sock
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
wire=$tests/fakes/machine/wire.py

join_it() {
    if [ "$kind" = ssh ]; then
        mkdir -p /run/sshd
        /usr/sbin/sshd -p "$ssh_port" -o PidFile=/run/sshd/gpu2.pid -o PasswordAuthentication=no -o PerSourcePenalties=no
        return
    fi
    setsid python "$wire" out "$tls_port" "$engine/wire.sock" >>"$engine/log" 2>&1 </dev/null &
    echo $! >"$engine/out.pid"
}
cut_off() {
    if [ "$kind" = ssh ]; then
        [ ! -e /run/sshd/gpu2.pid ] || kill "$(cat /run/sshd/gpu2.pid)" || true
        pkill -KILL -u tarmac || true
        pkill -KILL -f '^sshd.*tarmac' || true
        return
    fi
    [ ! -e "$engine/out.pid" ] || kill "$(cat "$engine/out.pid")" || true
    rm -f "$engine/out.pid"
}
# Without a bridge: trainings have no network. In a network of its own, as it would remove the other engine's bridge.
start_engine() {
    local words=(--data-root "/var/lib/docker/$name" --exec-root "$engine/exec" --pidfile "$engine/docker.pid" --group docker
        --bridge none --iptables=false --ip6tables=false)
    if [ -e "$engine/etc/daemon.json" ]; then
        words+=(--config-file "$engine/etc/daemon.json")
    else
        words+=(--host "$socket")
    fi
    # shellcheck disable=SC2016 # that shell expands it
    FAKE_NVML_DIR=$gpus setsid unshare --net bash -c 'python "$1" in "$2/wire.sock" "$3" & echo $! >"$2/in.pid"; shift 3; exec dockerd "$@"' \
        - "$wire" "$engine" "$tls_port" "${words[@]}" >"$engine/log" 2>&1 </dev/null &
    for _ in {1..2400}; do
        if docker --host "$socket" version >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    tail -n 20 "$engine/log" >&2
    exit 1
}
stop_engine() {
    local number
    kill "$(cat "$engine/in.pid")" || true
    number=$(cat "$engine/docker.pid")
    kill "$number"
    # Another one may be started at once, which refuses while this one still runs.
    for _ in {1..2400}; do
        [ -e "/proc/$number" ] || return 0
        sleep 0.1
    done
    echo "the engine of $name did not end" >&2
    exit 1
}

case $what in
start)
    if [ "$kind" = ssh ]; then
        id tarmac >/dev/null 2>&1 || useradd --create-home --groups docker tarmac
        install -d -m 700 -o tarmac -g tarmac "$home/.ssh"
        install -m 600 -o tarmac -g tarmac /dev/null "$home/.ssh/authorized_keys"
        ssh-keygen -A >/dev/null
    fi
    rm -rf "${engine:?}/etc"
    mkdir -p "$engine/etc" "$gpus"
    PYTHONPATH=$tests python -c 'import sys
from fakes.fakegpu import FakeGpus
FakeGpus(sys.argv[1], n=0).add(sys.argv[2])' "$gpus" "GPU-$name-0"
    start_engine
    join_it
    ;;
restart)
    stop_engine
    start_engine
    ;;
stop)
    cut_off
    docker --host "$socket" ps --all --quiet | xargs -r docker --host "$socket" rm --force >/dev/null
    docker --host "$socket" volume ls --quiet | xargs -r docker --host "$socket" volume rm >/dev/null
    stop_engine
    ;;
cut) cut_off ;;
join) join_it ;;
*) exit 2 ;;
esac
