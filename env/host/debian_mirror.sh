# shellcheck shell=bash
# Which Debian mirror this machine uses, read from its own apt configuration, so that
# no mirror is named in this repository. Source it after lib.sh.

# Prints the first address in a mirror list of apt ('mirror+file:/etc/apt/mirrors/...'),
# or the address itself if it is an ordinary one.
_plain_address() {
    case $1 in
    mirror+file:*) awk '!/^#/ && NF { print $1; exit }' "${1#mirror+file:}" 2>/dev/null ;;
    *) printf '%s\n' "$1" ;;
    esac
}

# Prints "ADDRESS SUITE" of every source of apt that is signed as Debian's and has been
# downloaded (apt-get update); else of every source, as then apt knows no more.
_apt_sources() {
    local sources
    # shellcheck disable=SC2016 # $(...) is for apt
    sources=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE)' 2>/dev/null |
        awk '$1 == "Debian" { print $2, $3 }')
    if [ -z "$sources" ]; then
        sources=$(apt-get --print-uris update 2>/dev/null |
            sed -n "s|^'\(.*\)/dists/\(.*\)/InRelease' .*|\1 \2|p")
    fi
    printf '%s\n' "$sources"
}

# Prints the address of the Debian archive ($1 = main or security) that this Debian machine
# uses, without a trailing slash; prints nothing where there is none (Ubuntu, no apt).
# TARMAC_DEBIAN_MIRROR and TARMAC_DEBIAN_SECURITY_MIRROR, if set, are the answer instead.
debian_mirror() {
    local found=${TARMAC_DEBIAN_MIRROR:-} suites
    suites="$(os_release VERSION_CODENAME)|stable|oldstable|testing|unstable|sid"
    suites=${suites#|}
    if [ "$1" = security ]; then
        found=${TARMAC_DEBIAN_SECURITY_MIRROR:-}
        suites="($suites)(-security|/updates)"
    fi
    if [ -z "$found" ] && [ -z "${TARMAC_DEBIAN_MIRROR:-}" ] && [ "$(os_release ID)" = debian ]; then
        found=$(_apt_sources | awk -v suites="^($suites)\$" '$2 ~ suites { print $1; exit }')
    fi
    found=$(_plain_address "$found")
    printf '%s\n' "${found%/}"
}

# Prints the file with the keys of the Debian archive; fails if the machine has none.
debian_keyring() {
    local file
    for file in /usr/share/keyrings/debian-archive-keyring.gpg /usr/share/keyrings/debian-archive-keyring.pgp; do
        if [ -r "$file" ]; then printf '%s\n' "$file"; return 0; fi
    done
    return 1
}
