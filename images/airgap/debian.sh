#!/usr/bin/env bash
# Makes a stand-in for debian:trixie-slim from Debian's own signed packages and loads it into Docker.
#
#   debian.sh [IMAGE]          IMAGE is debian:trixie-slim if not given
#
# It uses the Debian mirror that this machine uses (or TARMAC_DEBIAN_MIRROR, and for security updates
# TARMAC_DEBIAN_SECURITY_MIRROR). The image carries the label tarmac.airgap=1.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source-path=SCRIPTDIR source=../../env/host/lib.sh
. "$here/../../env/host/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../../env/host/debian_mirror.sh
. "$here/../../env/host/debian_mirror.sh"

release=trixie
image=${1:-debian:trixie-slim}
by_hand="bring the image from another machine instead: there 'docker save $image | gzip > image.tgz', here \
'docker load < image.tgz'; then run 'make up' again"
scratch=''
trap '[ -z "$scratch" ] || rm -rf --one-file-system "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Guarantees mmdebstrap, which makes a Debian system out of packages, and the archive's keys.
need_tools() {
    if command -v mmdebstrap >/dev/null 2>&1 && debian_keyring >/dev/null &&
        { is_root || command -v newuidmap >/dev/null 2>&1; }; then return 0; fi
    is_debian_like || die "no image registry is reachable, and only Debian and Ubuntu have the tool (mmdebstrap) \
that makes $image from packages. Please $by_hand."
    is_root || die "no image registry is reachable. To make $image from Debian's packages, run 'sudo make up', or \
'sudo apt-get install mmdebstrap debian-archive-keyring uidmap'. Or $by_hand."
    say 'Installing mmdebstrap, which makes the image from packages ...'
    apt_install mmdebstrap debian-archive-keyring
}

# Writes a deb822 source of apt for the image: address, suites.
deb822() {
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n\n' \
        "$1" "$2" /usr/share/keyrings/debian-archive-keyring.gpg
}

# Writes files for the image's /etc that keep it slim and its layers small, as those of the
# official image do: into $1 what has to be there before the first package, into $2 the rest.
write_config() {
    local name
    mkdir -p "$1/apt/apt.conf.d" "$1/dpkg/dpkg.cfg.d" "$2/apt/apt.conf.d" "$2/apt/sources.list.d"
    cat >"$1/dpkg/dpkg.cfg.d/docker" <<'END'
# as in every slim image: no documentation, manual pages or translations
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/groff/*
path-exclude /usr/share/info/*
path-exclude /usr/share/linda/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
END
    echo 'force-unsafe-io' >"$1/dpkg/dpkg.cfg.d/docker-apt-speedup"
    cat >"$2/apt/apt.conf.d/docker-clean" <<'END'
// keep downloaded packages out of the layers
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
END
    echo 'Acquire::Languages "none";' >"$1/apt/apt.conf.d/docker-no-languages"
    echo 'Apt::AutoRemove::SuggestsImportant "false";' >"$2/apt/apt.conf.d/docker-autoremove-suggests"
    # A mirror that is a frozen copy is out of date on purpose: what this machine's apt puts
    # up with for it, the image's apt has to put up with too.
    for name in Acquire::Check-Valid-Until Acquire::Check-Date; do
        case $(apt-config dump --no-empty "$name" 2>/dev/null) in
        *'"false"'* | *'"no"'* | *'"0"'*) printf '%s "false";\n' "$name" >>"$1/apt/apt.conf.d/docker-host-mirror" ;;
        esac
    done
}

# Makes the image's file system as $scratch/image.tar. Signatures are checked by apt, always.
# Arguments: more options for mmdebstrap.
bootstrap() {
    local main security keyring sources=()
    keyring=$(debian_keyring)
    main=$(debian_mirror main)
    security=$(debian_mirror security)
    if [ -n "$main" ]; then # otherwise mmdebstrap has a default of its own, updates included
        sources=("deb [signed-by=$keyring] $main $release main" "deb [signed-by=$keyring] $main $release-updates main")
        deb822 "$main" "$release $release-updates" >"$scratch/last/apt/sources.list.d/debian.sources"
        if [ -n "$security" ]; then
            sources+=("deb [signed-by=$keyring] $security $release-security main")
            deb822 "$security" "$release-security" >>"$scratch/last/apt/sources.list.d/debian.sources"
        fi
        case $main$security in *https:*) set -- "$@" --include=ca-certificates ;; esac
    fi
    # The hooks put our files in before any package, and take out what came before dpkg obeyed them.
    # shellcheck disable=SC2016 # "$1" is for the hook's shell
    TMPDIR=$scratch TARMAC_SCRATCH=$scratch mmdebstrap --variant=minbase --format=tar --keyring="$keyring" \
        --setup-hook='mkdir -p "$1/etc" && cp -R "$TARMAC_SCRATCH/first/." "$1/etc/"' \
        --customize-hook='rm -rf "$1"/usr/share/man/* "$1"/usr/share/locale/* "$1"/usr/share/info/* "$1"/usr/share/lintian/*' \
        --customize-hook='find "$1/usr/share/doc" -type f ! -name copyright -delete; find "$1/usr/share/doc" -type l ! -name copyright -delete; find "$1/usr/share/doc" -mindepth 1 -type d -empty -delete' \
        --customize-hook='if [ -s "$TARMAC_SCRATCH/last/apt/sources.list.d/debian.sources" ]; then rm -f "$1/etc/apt/sources.list"; fi' \
        --customize-hook='cp -R "$TARMAC_SCRATCH/last/." "$1/etc/"' \
        --customize-hook='printf "#!/bin/sh\nexit 101\n" >"$1/usr/sbin/policy-rc.d"; chmod 755 "$1/usr/sbin/policy-rc.d"' \
        --customize-hook='rm -f "$1/etc/hostname" "$1/etc/resolv.conf" "$1"/var/log/*.log "$1"/var/log/apt/* "$1"/var/cache/apt/*.bin' \
        "$@" "$release" "$scratch/image.tar" ${sources[@]+"${sources[@]}"} >"$scratch/log" 2>&1
}

# Dies with what mmdebstrap said and what to do about it.
explain_failed_bootstrap() {
    show_end_of "$scratch/log"
    if grep -q -e NO_PUBKEY -e 'no public key' -e 'not signed' "$scratch/log"; then
        die "this machine does not know the keys of Debian $release. Run 'sudo apt-get update && sudo apt-get install \
debian-archive-keyring'; if that is not new enough, $by_hand."
    fi
    die "$image could not be made from Debian's packages; the end of the log is above. If it speaks of the network, \
check that 'apt-get update' works here (TARMAC_DEBIAN_MIRROR=... names another Debian mirror); or $by_hand."
}

main() {
    need_tools
    say "Making a stand-in for $image from Debian's packages (about half a minute) ..."
    scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/tarmac-debian.XXXXXX")
    chmod 755 "$scratch" # apt downloads as its own user
    write_config "$scratch/first" "$scratch/last"
    bootstrap || explain_failed_bootstrap
    docker import --change 'CMD ["bash"]' --change 'LABEL tarmac.airgap=1' "$scratch/image.tar" "$image" >/dev/null
}

main "$@"
