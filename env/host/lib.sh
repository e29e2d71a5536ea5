# shellcheck shell=bash
# What every script in env/host shares. Source it once, first; but for standard input it does nothing by itself.
# It keeps to bash 3.2, so that a Mac's bash can run it too.

# Standard input belongs to the caller: a loop may read file names from it, a shell may read its script from it. Docker
# Compose would take it away from them. So every command of these scripts reads /dev/null, unless a script passes a file
# or the caller's input on, and says so in that line. The caller's input is kept as descriptor 7.
{ exec 7<&0; } 2>/dev/null || exec 7</dev/null
exec </dev/null

# All messages go to stderr: stdout belongs to a script's result.
if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then
    _yellow=$'\033[33m' _red=$'\033[31m' _plain=$'\033[0m'
else
    _yellow='' _red='' _plain=''
fi

# Tells the user one line about what happens now.
say() { printf '%s\n' "$*" >&2; }

# Tells the user about something that is not right but does not stop us.
warn() { printf '%swarning:%s %s\n' "$_yellow" "$_plain" "$*" >&2; }

# Says what is wrong and what to do about it, and ends the script with status 1, or what die_status says.
die() {
    printf '%serror:%s %s\n' "$_red" "$_plain" "$*" >&2
    exit "${die_status:-1}"
}

# Says what is wrong with what the user gave, and ends the script with status 2.
refuse() {
    say "$*"
    exit 2
}

# Refuses a value ($2) of make's variable $1 that is missing; $3 says what to write.
need() { [ -n "$2" ] || refuse "$1: is missing. $3"; }

# Refuses a value ($2) of make's variable $1 that does not name a file to read; $3 says what to write.
need_file() {
    need "$@"
    if [ -d "$2" ]; then refuse "$1: '$2' is a folder. Name one file. $3"; fi
    [ -e "$2" ] || refuse "$1: there is no file '$2'. $3"
    [ -f "$2" ] || refuse "$1: '$2' is not a regular file. Copy its content into a file first. $3"
    [ -r "$2" ] || refuse "$1: you may not read the file '$2'. Change its permissions (chmod u+r)."
}

# True for a switch ($2) of make's variable $1 that is on, false for one that is off or not given; refuses the rest.
is_on() {
    case $2 in
    1 | yes | y | true) return 0 ;;
    '' | 0 | no | n | false) return 1 ;;
    *) refuse "$1: '$2' is neither 1 nor 0." ;;
    esac
}

# Asks the caller a yes-or-no question ($1) on the terminal. False for no. Refuses where there is no terminal; $2 says
# what to do then.
confirm() {
    local answer=''
    [ -t 7 ] || refuse "$2"
    printf '%s [y/N] ' "$1" >&2
    read -r answer <&7 || true
    case $answer in y | Y | yes) ;; *) return 1 ;; esac
}

# Prints the account that runs this script. The system knows its name by its number: no variable changes that. Only root
# can set SUDO_USER for root, so with sudo the line names the calling account too.
account() {
    local name
    name=$(id -un 2>/dev/null) || name="user $(id -u)"
    if is_root && [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ]; then name="$name (sudo by $SUDO_USER)"; fi
    printf '%s\n' "$name"
}

# Shows the last lines (20, or as many as $2 says) of a log, indented, on stderr.
show_end_of() {
    [ -r "$1" ] || return 0
    tail -n "${2:-20}" "$1" | sed 's/^/  | /' >&2
}

# At a script's end: removes the folder $2 in which it made $1, where there is one, and a file $3, and says so if it failed:
# what a command says that fails, on a full disk for instance, does not say what becomes of what it made.
leave_nothing_of() {
    local code=$?
    [ -n "$2" ] || return 0
    rm -rf "$2" ${3:+"$3"}
    case $code in
    0 | 130) ;;
    *) say "$1 was not made, and nothing is left of it. If there is no space, name a file on a disk that has more." ;;
    esac
}

# Prints the absolute path of the repository, wherever the caller stands.
root_of_repo() { (cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P); }

# True if we are root.
is_root() { [ "$(id -u)" -eq 0 ]; }

# Prints one value of os-release (ID, ID_LIKE, VERSION_CODENAME), or nothing.
os_release() {
    [ -r /etc/os-release ] || return 0
    # shellcheck source=/dev/null
    (. /etc/os-release && eval "printf '%s\n' \"\${$1:-}\"")
}

# True on Debian, Ubuntu and what descends from them, if apt is there as well.
is_debian_like() {
    command -v apt-get >/dev/null 2>&1 || return 1
    case " $(os_release ID) $(os_release ID_LIKE) " in
    *' debian '* | *' ubuntu '*) return 0 ;;
    *) return 1 ;;
    esac
}

# Runs a command as root, or dies saying how to become root. It never calls sudo
# on its own: what changes the machine is for the user to start.
as_root() {
    is_root || die "this step needs root: $*. Run 'sudo make up', or ask an administrator of this machine."
    "$@"
}

# Runs a command for at most $1 seconds (unlimited where the system has no timeout).
limited() {
    local seconds=$1
    shift
    if command -v timeout >/dev/null 2>&1; then
        timeout -k 5 "$seconds" "$@"
    else
        "$@"
    fi
}

# True if the dotted version $1 is at least $2; compares the first two numbers.
version_at_least() {
    local have_major have_minor want_major want_minor
    IFS=. read -r have_major have_minor _ <<<"${1#v}"
    IFS=. read -r want_major want_minor _ <<<"$2"
    have_major=${have_major%%[!0-9]*} have_minor=${have_minor%%[!0-9]*}
    [ -n "$have_major" ] || return 1
    [ "$have_major" -gt "$want_major" ] ||
        { [ "$have_major" -eq "$want_major" ] && [ "${have_minor:-0}" -ge "${want_minor:-0}" ]; }
}

# Gives what root made ($2...) to the owner of $1, so that after 'sudo make up' the
# user still owns the files in their own folders. Does nothing for anyone but root.
own_like() {
    is_root || return 0
    chown -h --reference="$1" -- "${@:2}" 2>/dev/null || true
}

# Installs Debian packages without questions, or dies showing apt's last lines.
apt_install() {
    local log
    log=$(mktemp "${TMPDIR:-/tmp}/tarmac-apt.XXXXXX")
    if { as_root apt-get update -q && DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        as_root apt-get install -q -y --no-install-recommends "$@"; } >"$log" 2>&1 </dev/null; then
        rm -f "$log"
        return 0
    fi
    show_end_of "$log"
    rm -f "$log"
    die "apt could not install: $*. Its last lines are above. If they speak of the network, check that \
'apt-get update' works here; then run 'make up' again."
}

# Runs the script $0 again with its arguments where its output goes into a pipe, and exits as that does; with 0, and
# without a word, when the reader of the pipe has ended before it: make would call that an error (`make models | head`).
end_with_reader() {
    if [ ! -p /dev/stdout ] || [ -n "${TARMAC_PIPED:-}" ]; then return 0; fi
    local ended
    set +e
    trap : INT
    TARMAC_PIPED=1 "$@" | cat 2>/dev/null
    ended=("${PIPESTATUS[@]}")
    [ "${ended[1]}" -ne 141 ] || exit 0
    exit "${ended[0]}"
}
