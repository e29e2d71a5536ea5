#!/usr/bin/env bash
# Makes env/NAME.env from every env/NAME.env.example, once, with fresh secrets in it.
# What is in an existing .env is never changed; a key that an example gained later is added.
#
#   secrets.sh [FOLDER]        FOLDER is env/ of this repository if not given
#
# Values an example can have:
#   <generated:hexN> <generated:base64N>   N random bytes    <generated:fernet>   a Fernet key
#   <same:NAME:KEY>                        the value of KEY in NAME.env, also inside a longer value
# Files may refer to each other in one direction only (and to themselves).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

folder=''
work=''
trap '[ -z "$work" ] || rm -rf "$work"' EXIT

# Prints the last value of KEY ($2) in an env file ($1), without quotes around it; fails if not there.
value_of() {
    local line value='' found=1
    [ -r "$1" ] || return 1
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in "$2="*) value=${line#*=} found=0 ;; esac
    done <"$1"
    case $value in
    \"*\") value=${value#\"} value=${value%\"} ;;
    \'*\') value=${value#\'} value=${value%\'} ;;
    esac
    printf '%s' "$value"
    return "$found"
}

# Prints $1 random bytes in base64, in one line.
random_base64() { head -c "$1" /dev/urandom | base64 | tr -d '\n'; }

# Prints what the value $1 stands for: fresh random text for a <generated:...>, else itself.
# $2 says where it is from, for the message.
generate() {
    local kind count
    case $1 in
    '<generated:'*'>') ;;
    *'<generated:'*) die "$2: <generated:...> must be the whole value." ;;
    *) printf '%s' "$1"; return ;;
    esac
    kind=${1#<generated:} kind=${kind%>}
    if [ "$kind" = fernet ]; then
        random_base64 32 | tr '+/' '-_'
        return
    fi
    count=${kind#hex} count=${count#base64}
    case $kind:$count in
    *:*[!0-9]* | *: | *:0* | *:?????*) ;;
    hex[0-9]*) head -c "$count" /dev/urandom | od -An -v -tx1 | tr -d ' \n'; return ;;
    base64[0-9]*) random_base64 "$count"; return ;;
    esac
    die "$2: '$1' must be one of <generated:hexN>, <generated:base64N>, <generated:fernet>."
}

# Prints the lines that an example ($1) has and the env file ($2, maybe absent) lacks, generated
# values filled in: everything for a new file, else the missing keys with the comments above them.
missing_lines() {
    local example=$1 existing=$2 line key value comments=''
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
        [A-Za-z_]*=*)
            key=${line%%=*}
            if [ ! -e "$existing" ] || ! value_of "$existing" "$key" >/dev/null; then
                value=$(generate "${line#*=}" "${example##*/}: $key")
                printf '%s%s=%s\n' "$comments" "$key" "$value"
            fi
            comments='' ;;
        *)
            if [ ! -e "$existing" ]; then
                printf '%s\n' "$line"
            elif [ -z "$line" ]; then
                comments=''
            else
                comments=$comments$line$'\n'
            fi ;;
        esac
    done <"$example"
}

# Prints the file $1 with every <same:...> replaced. Status 3 if one needs an env file that is
# not published yet; dies if one names a key that does not exist. $2 is the file's own NAME.
resolve() {
    local line reference rest name key value source
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
        '#'*) ;;
        *)
            while [ "$line" != "${line#*<same:}" ]; do
                rest=${line#*<same:} reference=${rest%%>*} rest=${rest#*>}
                name=${reference%%:*} key=${reference#*:}
                source=$folder/$name.env
                if [ "$name" = "$2" ]; then source=$1; fi
                if [ "$name" != "$2" ] && [ -e "$work/$name.new" ]; then return 3; fi
                value=$(value_of "$source" "$key") ||
                    die "$2.env: <same:$reference> names no value: there is no $key in $name.env."
                case $value in *'<same:'*) die "$2.env: <same:$reference> leads to another <same:...>; name its source." ;; esac
                line=${line%%<same:*}$value$rest
            done ;;
        esac
        printf '%s\n' "$line"
    done <"$1"
}

# Writes work/NAME.new, the whole future text of NAME.env, if NAME.env lacks anything.
prepare() {
    local name=$1 example=$folder/$1.env.example existing=$folder/$1.env
    missing_lines "$example" "$existing" >"$work/$name.add"
    [ -s "$work/$name.add" ] || return 0
    if [ -e "$existing" ]; then
        cp "$existing" "$work/$name.new.part"
        if [ -n "$(tail -c 1 "$existing")" ]; then echo >>"$work/$name.new.part"; fi
        say "Added to env/$name.env: $(sed -n 's/^\([A-Za-z_][A-Za-z_0-9]*\)=.*/\1/p' "$work/$name.add" | tr '\n' ' ')"
    fi
    cat "$work/$name.add" >>"$work/$name.new.part"
    mv "$work/$name.new.part" "$work/$name.new"
}

# Puts NAME.env in place in one step, readable by its owner only. Status 3 if it has to wait.
publish() {
    local name=$1
    resolve "$work/$name.new" "$name" >"$work/$name.done" || return $?
    chmod 600 "$work/$name.done"
    own_like "$folder" "$work/$name.done"
    mv -f "$work/$name.done" "$folder/$name.env"
    rm "$work/$name.new"
}

# Publishes every prepared file, those that others copy from first: should we be killed midway,
# the next run finds the originals and copies the same values.
publish_all() {
    local file name status progress waiting
    while :; do
        progress=no waiting=''
        for file in "$work"/*.new; do
            [ -e "$file" ] || continue
            name=${file##*/} name=${name%.new}
            status=0
            publish "$name" || status=$?
            case $status in
            0) progress=yes ;;
            3) waiting="$waiting $name.env" ;;
            *) exit "$status" ;;
            esac
        done
        [ -n "$waiting" ] || return 0
        [ "$progress" = yes ] || die "these examples copy values from each other in a circle:$waiting. \
Keep every original in one of them."
    done
}

main() {
    local example name
    umask 077
    folder=$(cd "${1:-$(root_of_repo)/env}" 2>/dev/null && pwd -P) || die "there is no folder '${1:-env}'."
    exec 9<"$folder"
    if command -v flock >/dev/null 2>&1; then # two starts at once make one set of secrets
        flock 9
        rm -rf "$folder"/.secrets.* # of a run that was killed
    fi
    work=$(mktemp -d "$folder/.secrets.XXXXXX") # on the same disk, so that mv is one step
    for example in "$folder"/*.env.example; do
        [ -e "$example" ] || die "there is no *.env.example in $folder: the checkout is not complete."
        name=${example##*/} name=${name%.env.example}
        prepare "$name"
    done
    publish_all
}

main "$@"
