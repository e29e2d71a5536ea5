#!/usr/bin/env bash
# other_engine.sh start|stop|cut|join: another machine, as far as the stack on this fake machine can tell: an engine of its
# own with one fake GPU of its own, and an SSH server, on port 2222, with the user `trainer`, who may use that engine
# (/run/other/docker.sock).
# cut: the server is away, and with it all its connections; join: it is back. The engine and its containers go on.
set -euo pipefail
port=2222 home=/home/trainer engine=/run/other gpus=/run/other-nvml
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

serve() {
    mkdir -p /run/sshd
    /usr/sbin/sshd -p "$port" -o PidFile=/run/sshd/other.pid -o PasswordAuthentication=no -o PerSourcePenalties=no
}
cut_off() {
    [ ! -e /run/sshd/other.pid ] || kill "$(cat /run/sshd/other.pid)" || true
    pkill -KILL -u trainer || true
    pkill -KILL -f '^sshd.*trainer' || true
}

case ${1:-} in
start)
    id trainer >/dev/null 2>&1 || useradd --create-home --groups docker trainer
    install -d -m 700 -o trainer -g trainer "$home/.ssh"
    install -m 600 -o trainer -g trainer /dev/null "$home/.ssh/authorized_keys"
    ssh-keygen -A >/dev/null
    mkdir -p "$engine" "$gpus"
    PYTHONPATH=$tests python -c 'import sys
from fakes.fakegpu import FakeGpus
FakeGpus(sys.argv[1], n=0).add("GPU-other-0")' "$gpus"
    # Without a bridge: trainings have no network. In a network of its own, as it would remove the other engine's bridge.
    FAKE_NVML_DIR=$gpus setsid unshare --net dockerd --data-root /var/lib/docker/other --exec-root "$engine/exec" --pidfile "$engine/docker.pid" --group docker \
        --host "unix://$engine/docker.sock" --bridge none --iptables=false --ip6tables=false >"$engine/log" 2>&1 </dev/null &
    for _ in {1..300}; do
        if docker --host "unix://$engine/docker.sock" version >/dev/null 2>&1; then
            serve
            exit 0
        fi
        sleep 0.1
    done
    tail -n 20 "$engine/log" >&2
    exit 1
    ;;
stop)
    cut_off
    docker --host "unix://$engine/docker.sock" ps --all --quiet | xargs -r docker --host "unix://$engine/docker.sock" rm --force >/dev/null
    number=$(cat "$engine/docker.pid")
    kill "$number"
    # Another one may be started at once, which refuses while this one still runs.
    for _ in {1..300}; do
        [ -e "/proc/$number" ] || exit 0
        sleep 0.1
    done
    echo "the other engine did not end" >&2
    exit 1
    ;;
cut) cut_off ;;
join) serve ;;
*) exit 2 ;;
esac
