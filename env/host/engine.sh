#!/usr/bin/env bash
# Guarantees that a Docker Engine (20.10 or newer) answers. Silent if one does;
# otherwise starts or installs it where it may, or says exactly what to do.
#
#   engine.sh [--check]        --check changes nothing: without an engine it says what to do and exits with 3
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

oldest_engine=20.10
daemon_log=/var/log/dockerd.log
daemon_wait=60

engine_version=''
engine_error=''

# Asks the engine for its version; keeps the answer or the error's text.
engine_answers() {
    local out
    command -v docker >/dev/null 2>&1 || { engine_error='no docker command'; return 1; }
    if out=$(limited 20 docker version --format '{{.Server.Version}}' 2>&1) && [ -n "$out" ]; then
        engine_version=$(printf '%s\n' "$out" | tail -n 1)
        return 0
    fi
    engine_error=${out:-no answer within 20 seconds}
    return 1
}

# Prints where dockerd is, also for a user whose PATH has no sbin; fails if nowhere.
find_dockerd() {
    PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" command -v dockerd
}

has_systemd() { [ -d /run/systemd/system ]; }

# Dies if the engine that answers is too old for our Compose files and builds.
refuse_old_engine() {
    version_at_least "$engine_version" "$oldest_engine" ||
        die "Docker Engine $engine_version answers, but Tarmac needs $oldest_engine or newer. \
Upgrade it (on Debian and Ubuntu: apt-get install docker.io), then run 'make up' again."
}

# Dies where starting a local daemon would not help: the engine is somewhere else, or it
# answers and refuses us. Returns if the reason is that no local daemon runs.
explain_what_we_cannot_fix() {
    local context
    case $engine_error in
    *'permission denied'* | *'Permission denied'*)
        die "Docker runs, but user '$(id -un)' may not use its socket. Either join the docker group: \
'sudo usermod -aG docker $(id -un)', then log out and in; or run 'sudo make up'." ;;
    esac
    if [ -n "${DOCKER_HOST:-}" ]; then
        die "DOCKER_HOST is set to '$DOCKER_HOST', but no Docker Engine answers there ($engine_error). \
Start that engine, or run 'unset DOCKER_HOST' to use the one on this machine."
    fi
    command -v docker >/dev/null 2>&1 || return 0
    context=$(docker context inspect --format '{{.Name}}' 2>/dev/null || true)
    if [ -n "$context" ] && [ "$context" != default ]; then
        die "the Docker context '$context' is selected, but no Docker Engine answers there ($engine_error). \
Start that engine, or run 'docker context use default'."
    fi
    case $engine_error in
    *'Cannot connect'* | *'failed to connect'* | *'connection refused'* | *'no such file'* | *'daemon running'*) ;;
    *) die "the Docker Engine gives no usable answer: $engine_error. If that names versions, install a docker \
command and an engine that fit each other." ;;
    esac
}

# Dies with instructions where we are not allowed to change the machine or do not know how.
explain_how_to_get_an_engine() {
    local installed=$1
    if [ "$(uname -s)" != Linux ]; then
        die "no Docker Engine answers. Install and start Docker Desktop (or any Docker Engine $oldest_engine or \
newer with Compose v2), wait until 'docker info' works, then run 'make up' again."
    elif [ "$installed" = yes ]; then
        die "Docker is installed but does not run, and only root can start it. Run 'sudo systemctl start docker' \
or 'sudo make up', or ask an administrator of this machine."
    elif is_debian_like; then
        die "Docker is not installed, and only root can install it. Run 'sudo make up', which installs Docker \
from your distribution, or ask an administrator of this machine to run 'apt-get install docker.io'."
    fi
    die "Docker is not installed, and Tarmac only knows how to install it on Debian and Ubuntu. Install Docker \
Engine $oldest_engine or newer with your system's package manager, start it, then run 'make up' again."
}

# Installs dockerd and the docker command from the distribution's own packages.
install_engine() {
    local packages='docker.io iptables ca-certificates'
    if find_dockerd >/dev/null; then packages='ca-certificates'; fi
    say "Docker is not installed: installing it from this system's own packages (apt-get install docker.io) ..."
    limited 120 apt-get update -q >/dev/null 2>&1 || true # apt_install repeats it and reports
    # since Debian 13 the docker command is a package of its own
    if apt-cache show docker-cli 2>/dev/null | grep -q '^Package: docker-cli$'; then
        packages="$packages docker-cli"
    fi
    # shellcheck disable=SC2086 # a list of words
    apt_install $packages
    hash -r
    if ! find_dockerd >/dev/null || ! command -v docker >/dev/null 2>&1; then
        die "apt installed '$packages', but dockerd or docker is still missing. Install Docker Engine by hand."
    fi
}

# Polls until the engine answers. Gives up after daemon_wait seconds, or soon after the
# daemon's process ($1, if given) has ended.
wait_for_engine() {
    local pid=${1:-} gone=0 end=$((SECONDS + daemon_wait))
    while [ "$SECONDS" -lt "$end" ]; do
        if engine_answers; then return 0; fi
        if [ -n "$pid" ] && ! kill -0 "$pid" 2>/dev/null; then
            gone=$((gone + 1)) # another daemon may have been quicker: a few more tries
            if [ "$gone" -gt 6 ]; then return 1; fi
        fi
        sleep 0.5
    done
    return 1
}

# Starts the daemon through systemd.
start_with_systemd() {
    say 'Docker does not run: starting it (systemctl start docker) ...'
    if systemctl start docker && wait_for_engine; then return 0; fi
    journalctl -u docker -n 20 --no-pager 2>/dev/null | sed 's/^/  | /' >&2 || true
    die "systemd could not start Docker ($engine_error). The last lines of its journal are above; \
'systemctl status docker' says more."
}

# Starts dockerd in the background, on its own, where no service manager could do it.
start_without_service_manager() {
    local dockerd pid
    dockerd=$(find_dockerd)
    say "Docker does not run and there is no service manager: starting dockerd (log: $daemon_log) ..."
    PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" \
        setsid nohup "$dockerd" >>"$daemon_log" 2>&1 </dev/null 7<&- 9>&- &
    pid=$!
    if wait_for_engine "$pid"; then return 0; fi
    show_end_of "$daemon_log"
    die "dockerd did not start. The last lines of $daemon_log are above. Often it is a leftover \
/var/run/docker.pid (delete it if no dockerd runs), missing rights (a container needs --privileged), or no \
iptables. Put it right, then run 'make up' again."
}

# Starts the installed daemon, whichever way this machine has. One at a time.
start_engine() {
    exec 9>/run/tarmac-engine.lock
    if command -v flock >/dev/null 2>&1; then flock 9; fi
    if engine_answers; then return 0; fi
    if has_systemd; then start_with_systemd; else start_without_service_manager; fi
}

main() {
    if [ "${1:-}" = --check ]; then
        die_status=3
        engine_answers || explain_what_we_cannot_fix
        [ -n "$engine_version" ] || die "no Docker Engine answers on this machine: 'make up' starts it, or says what to do."
    elif ! engine_answers; then
        explain_what_we_cannot_fix
        local installed=no
        if find_dockerd >/dev/null && command -v docker >/dev/null 2>&1; then installed=yes; fi
        if [ "$(uname -s)" != Linux ] || ! is_root; then explain_how_to_get_an_engine "$installed"; fi
        if [ "$installed" = no ]; then
            is_debian_like || explain_how_to_get_an_engine no
            install_engine
        fi
        start_engine
    fi
    refuse_old_engine
}

main "$@"
