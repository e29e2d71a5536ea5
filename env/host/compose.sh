#!/usr/bin/env bash
# Guarantees Docker Compose v2 and prints the command that runs it on stdout, for example
# 'docker compose'. Where there is none, it takes the plugin from the distribution's signed
# packages into .cache/compose/; that needs no root and leaves apt's configuration alone.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=debian_mirror.sh
. "$(dirname "${BASH_SOURCE[0]}")/debian_mirror.sh"

oldest_compose=2.20
release_with_compose=trixie
repo=$(root_of_repo)
private_plugin=$repo/.cache/compose/docker-compose
scratch=''
trap '[ -z "$scratch" ] || rm -rf "$scratch"' EXIT

# True if the given command is Compose, new enough.
is_compose() {
    local version
    version=$("$@" version --short 2>/dev/null) && version_at_least "$version" "$oldest_compose"
}

# Downloads package $1 with apt into $scratch, with apt's own lists or, with more
# arguments, with those apt options. apt checks signature and checksum.
download() {
    local package=$1
    shift
    (cd "$scratch" && apt-get -q "$@" download "$package") >>"$scratch/log" 2>&1
}

# True if apt's lists on this machine offer package $1 in a version that will do.
host_offers() {
    local version
    version=$(apt-cache policy "$1" 2>/dev/null | awk '$1 == "Candidate:" { print $2 }')
    version=${version#*:}
    [ -n "$version" ] && [ "$version" != '(none)' ] && version_at_least "$version" "$oldest_compose"
}

# Downloads the package that this machine's own release has, if it has one.
fetch_from_this_release() {
    local package
    for package in docker-compose-v2 docker-compose-plugin docker-compose; do
        if host_offers "$package" && download "$package"; then return 0; fi
    done
    return 1
}

# Downloads a package with lists of our own in $scratch: no root, nothing of the host's
# changes. The host's proxies and certificates (apt.conf) hold, and $1 may be a file of
# sources instead of the host's own.
fetch_with_own_lists() {
    local sources=$1 package=$2 options
    mkdir -p "$scratch/state/lists/partial" "$scratch/cache/archives/partial"
    options=(-o "Dir::State=$scratch/state" -o "Dir::State::status=/var/lib/dpkg/status"
        -o "Dir::Cache=$scratch/cache" -o Acquire::Languages=none -o APT::Update::Error-Mode=any)
    if [ -n "$sources" ]; then
        options+=(-o "Dir::Etc::sourcelist=$sources" -o Dir::Etc::sourceparts=-)
    fi
    apt-get -q "${options[@]}" update >>"$scratch/log" 2>&1 && download "$package" "${options[@]}"
}

# Downloads the package of the Debian release that the images are built from.
fetch_from_debian() {
    local mirror keyring
    mirror=$(debian_mirror main)
    [ -n "$mirror" ] || die "Docker Compose v2 is missing, and apt on this machine has no Debian mirror to fetch \
it from. Add one to apt's sources, or install a docker-compose v2 plugin ($oldest_compose or newer) by hand."
    keyring=$(debian_keyring) ||
        die "Docker Compose v2 is missing, and without Debian's keys its package cannot be trusted. \
Run 'sudo apt-get install debian-archive-keyring', then 'make up' again."
    printf 'deb [signed-by=%s target=Packages] %s %s main\n' "$keyring" "$mirror" "$release_with_compose" \
        >"$scratch/sources.list"
    fetch_with_own_lists "$scratch/sources.list" docker-compose
}

# Dies with what apt said and what to do about it.
explain_failed_fetch() {
    show_end_of "$scratch/log"
    if grep -q -e NO_PUBKEY -e 'not signed' -e 'no public key' "$scratch/log"; then
        die "Docker Compose v2 is missing, and this machine does not know the keys of Debian $release_with_compose yet. \
Run 'sudo apt-get update && sudo apt-get install debian-archive-keyring', then 'make up' again."
    fi
    die "Docker Compose v2 is missing and could not be fetched; apt's last lines are above. If they speak of the \
network, check that 'apt-get update' works here. Or install a Compose v2 plugin ($oldest_compose or newer) by hand."
}

# Leaves the plugin in .cache/compose/docker-compose, whole or not at all.
fetch_private_plugin() {
    local deb found
    is_debian_like || die "Docker Compose v2 ($oldest_compose or newer) is missing: 'docker compose version' does not \
work. Install your system's package for it (docker-compose-plugin, docker-compose, or Docker Desktop), then run 'make up' again."
    say 'Docker Compose v2 is missing: fetching it from the distribution into .cache/compose/ ...'
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/tarmac-compose.XXXXXX")
    chmod 755 "$scratch" # apt downloads as its own user
    : >"$scratch/log"
    if ! fetch_from_this_release; then
        case $(os_release ID) in
        debian) fetch_from_debian || explain_failed_fetch ;;
        *) fetch_with_own_lists '' docker-compose-v2 || explain_failed_fetch ;;
        esac
    fi
    deb=$(find "$scratch" -maxdepth 1 -name '*.deb' | head -n 1)
    dpkg-deb -x "$deb" "$scratch/unpacked"
    found=$(find "$scratch/unpacked" -type f -name docker-compose -path '*/cli-plugins/*' | head -n 1)
    if [ -z "$found" ] || ! is_compose "$found"; then
        die "the package ${deb##*/} holds no Compose plugin that runs here. Install Compose v2 by hand."
    fi
    mkdir -p "${private_plugin%/*}"
    cp "$found" "$private_plugin.$$"
    chmod 755 "$private_plugin.$$"
    mv -f "$private_plugin.$$" "$private_plugin"
    own_like "$repo" "$repo/.cache" "${private_plugin%/*}" "$private_plugin"
}

# Lets 'docker compose' find the plugin, if the user's own plugin folder has none yet.
link_plugin_for_user() {
    local config link
    config=${DOCKER_CONFIG:-${HOME:+$HOME/.docker}}
    link=$config/cli-plugins/docker-compose
    [ -n "$config" ] && [ ! -e "$link" ] || return 0
    if mkdir -p "$config/cli-plugins" 2>/dev/null && ln -sfn "$private_plugin" "$link" 2>/dev/null; then
        own_like "${HOME:-$config}" "$config" "$config/cli-plugins" "$link"
        say "Linked it as $link, so that 'docker compose' works on the command line."
    fi
}

main() {
    if is_compose docker compose; then echo 'docker compose'; return; fi
    if is_compose docker-compose; then echo 'docker-compose'; return; fi
    if ! is_compose "$private_plugin"; then fetch_private_plugin; fi
    link_plugin_for_user
    if is_compose docker compose; then
        echo 'docker compose'
    else
        printf '%q\n' "$private_plugin"
    fi
}

main "$@"
