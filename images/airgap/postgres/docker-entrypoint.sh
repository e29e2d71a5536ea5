#!/usr/bin/env bash
# Starts PostgreSQL the way the official image does: POSTGRES_PASSWORD, POSTGRES_USER, POSTGRES_DB (each
# also as NAME_FILE), POSTGRES_INITDB_ARGS, POSTGRES_INITDB_WALDIR, POSTGRES_HOST_AUTH_METHOD, PGDATA, and
# /docker-entrypoint-initdb.d/*.{sh,sql,sql.gz} when the data directory is new.
# One thing it does better: a first start that is killed midway leaves nothing that looks initialised.
set -Eeuo pipefail

# Where the first start works: a folder in PGDATA, so that the last step is a rename on one disk.
unfinished=$PGDATA/.unfinished # being made; worthless after a kill
finished=$PGDATA/.finished     # complete; only needs moving up into PGDATA

say() { printf 'docker-entrypoint: %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Sets variable $1 from itself, from the file that $1_FILE names, or to $2.
from_env_or_file() {
    local file_var=$1_FILE value=$2
    if [ -n "${!1:-}" ] && [ -n "${!file_var:-}" ]; then die "both $1 and $1_FILE are set; set only one."; fi
    if [ -n "${!1:-}" ]; then
        value=${!1}
    elif [ -n "${!file_var:-}" ]; then
        value=$(<"${!file_var}") || die "$1_FILE names '${!file_var}', which cannot be read."
    fi
    export "$1=$value"
    unset "$file_var"
}

read_settings() {
    from_env_or_file POSTGRES_PASSWORD ''
    from_env_or_file POSTGRES_USER postgres
    from_env_or_file POSTGRES_DB "$POSTGRES_USER"
    from_env_or_file POSTGRES_INITDB_ARGS ''
    : "${POSTGRES_HOST_AUTH_METHOD:=scram-sha-256}" "${POSTGRES_INITDB_WALDIR:=}"
}

# Makes the folders, and gives them to the user postgres if we are root.
make_folders() {
    mkdir -p "$PGDATA" /var/run/postgresql
    chmod 00700 "$PGDATA" 2>/dev/null || true
    chmod 03775 /var/run/postgresql 2>/dev/null || true
    if [ -n "$POSTGRES_INITDB_WALDIR" ]; then mkdir -p "$POSTGRES_INITDB_WALDIR"; fi
    [ "$(id -u)" -eq 0 ] || return 0
    find "$PGDATA" /var/run/postgresql ${POSTGRES_INITDB_WALDIR:+"$POSTGRES_INITDB_WALDIR"} \
        ! -user postgres -exec chown postgres '{}' +
}

# Moves a complete new cluster up into PGDATA. Can be killed and repeated at any point:
# .finished goes last, and the server does not start before it is gone.
adopt_finished() {
    [ -d "$finished" ] || return 0
    find "$finished" -mindepth 1 -maxdepth 1 -exec mv -t "$PGDATA" -- '{}' +
    sync "$PGDATA"
    rmdir "$finished"
}

# True if PGDATA has to be initialised. Clears what a killed first start left, and dies
# if PGDATA holds files that are not ours to mix with.
is_new() {
    local foreign
    if [ -s "$PGDATA/PG_VERSION" ]; then return 1; fi
    if [ -d "$unfinished" ]; then
        say 'the first start was interrupted; beginning it again'
        rm -rf "$unfinished"
        if [ -n "$POSTGRES_INITDB_WALDIR" ]; then find "$POSTGRES_INITDB_WALDIR" -mindepth 1 -delete; fi
    fi
    foreign=$(find "$PGDATA" -mindepth 1 -maxdepth 1 ! -name lost+found ! -name .finished -print -quit)
    [ -z "$foreign" ] || die "the data directory $PGDATA is not empty, but holds no database (there is $foreign). \
Use an empty volume, or a folder below it as PGDATA."
    return 0
}

# Dies, before anything is written, if there is no password.
need_password() {
    if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
        die "Database is uninitialized and superuser password is not specified.
       Set POSTGRES_PASSWORD (or POSTGRES_PASSWORD_FILE) to a non-empty value for the superuser, for
       example \"-e POSTGRES_PASSWORD=password\" on \"docker run\".
       POSTGRES_HOST_AUTH_METHOD=trust would let anyone in without one; do not use it."
    fi
    if [ "$POSTGRES_HOST_AUTH_METHOD" = trust ]; then
        say 'warning: POSTGRES_HOST_AUTH_METHOD=trust lets anyone in who reaches this port, without a password' >&2
    fi
}

# Runs psql as superuser over the socket, stopping at the first error.
process_sql() {
    PGHOST='' PGHOSTADDR='' psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --no-password \
        --dbname "$POSTGRES_DB" "$@"
}
# The official image's name for it, which scripts in /docker-entrypoint-initdb.d may call.
docker_process_sql() { process_sql "$@"; }

# Runs the files of /docker-entrypoint-initdb.d in the order of their names.
run_init_files() {
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
        *.sh)
            say "running $file"
            if [ -x "$file" ]; then
                "$file"
            else
                # shellcheck source=/dev/null
                . "$file"
            fi ;;
        *.sql) say "running $file"; process_sql -f "$file" ;;
        *.sql.gz) say "running $file"; gunzip -c "$file" | process_sql ;;
        '/docker-entrypoint-initdb.d/*') ;;
        *) say "ignoring $file" ;;
        esac
    done
}

# Makes a cluster with the database, the login and what the init files add. Either it is
# in PGDATA, complete, when this returns, or it does not count. Arguments: the server's.
initialise() {
    local real_pgdata=$PGDATA
    need_password
    ls /docker-entrypoint-initdb.d/ >/dev/null # fail now if it cannot be read
    mkdir -m 700 "$unfinished"
    export PGDATA=$unfinished
    # POSTGRES_INITDB_ARGS is shell words, as in the official image
    eval 'initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" --pwfile=<(printf "%s\n" "$POSTGRES_PASSWORD")' \
        '${POSTGRES_INITDB_WALDIR:+--waldir="$POSTGRES_INITDB_WALDIR"}' "$POSTGRES_INITDB_ARGS"
    printf '\nhost all all all %s\n' "$POSTGRES_HOST_AUTH_METHOD" >>"$PGDATA/pg_hba.conf"

    # on the socket only: no client reaches a database that is not complete
    set -- "$@" -c listen_addresses= -p "${PGPORT:-5432}" -c logging_collector=off
    pg_ctl --pgdata="$PGDATA" --wait --options "$(printf '%q ' "$@")" start
    if [ "$POSTGRES_DB" != postgres ]; then
        process_sql --dbname postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db";'
    fi
    export PGPASSWORD=$POSTGRES_PASSWORD
    run_init_files
    unset PGPASSWORD
    pg_ctl --pgdata="$PGDATA" --mode=fast --wait stop

    export PGDATA=$real_pgdata
    sync "$unfinished"
    mv -T "$unfinished" "$finished"
    adopt_finished
    say 'PostgreSQL init process complete; ready for start up.'
}

main() {
    local argument
    if [ "${1:0:1}" = - ]; then set -- postgres "$@"; fi
    if [ "${1:-}" != postgres ]; then exec "$@"; fi
    for argument in "$@"; do
        case $argument in '-?' | --help | --describe-config | -V | --version) exec "$@" ;; esac
    done
    read_settings
    make_folders
    if [ "$(id -u)" -eq 0 ]; then
        export HOME=/var/lib/postgresql
        exec setpriv --reuid=postgres --regid=postgres --init-groups "${BASH_SOURCE[0]}" "$@"
    fi
    adopt_finished
    if is_new; then
        initialise "${@:2}"
    else
        say 'PostgreSQL Database directory appears to contain a database; skipping initialization'
    fi
    # the server needs none of these, and its children should not see the passwords
    unset POSTGRES_PASSWORD PGPASSWORD
    exec "$@"
}

main "$@"
