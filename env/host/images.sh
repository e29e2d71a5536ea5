#!/usr/bin/env bash
# Guarantees that the upstream images that everything is built from are on this machine, and the broker's where
# TARMAC_WORKERS is not 0: already there, or pulled, or made from Debian's own packages (images/airgap) under the same names.
# TARMAC_DEBIAN_IMAGE, TARMAC_POSTGRES_IMAGE and TARMAC_PULL_SECONDS change the names and the limit; with
# TARMAC_BUILD=no it only checks.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

debian_image=${TARMAC_DEBIAN_IMAGE:-debian:trixie-slim}
postgres_image=${TARMAC_POSTGRES_IMAGE:-postgres:17-trixie}
broker_image=valkey/valkey:8.1
pull_seconds=${TARMAC_PULL_SECONDS:-60}
airgap=$(root_of_repo)/images/airgap
scratch=''
trap '[ -z "$scratch" ] || rm -rf "$scratch"' EXIT

is_here() { docker image inspect "$1" >/dev/null 2>&1; }

# Pulls all given images at once, each for at most pull_seconds. Whether that worked
# shows in is_here; the reasons for failures are in $scratch/pull.*.
pull_all() {
    local image pids='' pid
    say "Pulling $* ..."
    for image in "$@"; do
        limited "$pull_seconds" docker pull --quiet "$image" >/dev/null 2>"$scratch/pull.${image//[:\/]/_}" &
        pids="$pids $!"
    done
    for pid in $pids; do wait "$pid" || true; done
}

# Prints why no image could be pulled, in one line.
why_no_pull() {
    local reason
    reason=$(cat "$scratch"/pull.* 2>/dev/null | grep -v '^$' | tail -n 1 || true)
    printf '%s' "${reason:-no answer within $pull_seconds seconds}"
}

# True if 'docker build' can use BuildKit: commands since 23 need the buildx plugin for it.
has_buildkit() {
    docker buildx version >/dev/null 2>&1 ||
        ! version_at_least "$(docker version --format '{{.Client.Version}}')" 23.0
}

# Builds the stand-in for image $1 of the folder $2 on the Debian image, or dies showing the end of the build's log.
build_stand_in() {
    local arguments=(--build-arg "BASE=$debian_image") buildkit=0 name
    if has_buildkit; then buildkit=1; fi
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        if [ -n "${!name:-}" ]; then arguments+=(--build-arg "$name"); fi
    done
    say "Building a stand-in for $1 from Debian's packages (about half a minute) ..."
    DOCKER_BUILDKIT=$buildkit docker build "${arguments[@]}" --tag "$1" "$airgap/$2" \
        >"$scratch/build" 2>&1 && return
    show_end_of "$scratch/build"
    die "the stand-in for $1 could not be built; the end of the log is above. If it speaks of the \
network, check that containers reach your Debian mirror; or bring the image from another machine \
(docker save ... | docker load)."
}

main() {
    local missing=() image needed=("$debian_image" "$postgres_image")
    [ "${TARMAC_WORKERS:-0}" = 0 ] || needed+=("$broker_image")
    for image in "${needed[@]}"; do
        is_here "$image" || missing+=("$image")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    if [ "${TARMAC_BUILD:-yes}" = no ]; then
        die "TARMAC_BUILD is no, and this machine lacks: ${missing[*]}. Bring them (docker save ... | docker load), or \
set TARMAC_BUILD=yes."
    fi
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/tarmac-images.XXXXXX")
    pull_all "${missing[@]}"
    for image in "${missing[@]}"; do
        is_here "$image" && continue
        say "Not everything could be pulled ($(why_no_pull)); making stand-ins from Debian's packages instead."
        break
    done
    for image in "${missing[@]}"; do
        if is_here "$image"; then continue; fi
        case $image in
        "$debian_image") "$airgap/debian.sh" "$image" ;;
        "$postgres_image") build_stand_in "$image" postgres ;;
        *) build_stand_in "$image" valkey ;;
        esac
    done
}

main "$@"
