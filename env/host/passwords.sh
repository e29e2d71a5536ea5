#!/usr/bin/env bash
# passwords.sh [1]: new credentials for login, databases, MLflow and service accounts, and new signing keys, applied to the
# running stack, after asking (1: without). Sessions go on; the old ones are dead afterwards. Killed midway, it goes on
# when it is called again.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=stack.sh
. "$(dirname "${BASH_SOURCE[0]}")/stack.sh"
work=$ENV_DIR/.passwords log=''
trap '[ -z "$log" ] || rm -f "$log"' EXIT
# The interrupt may come while the output goes into the log.
exec 3>&2
trap 'interrupted' INT TERM
umask 077

interrupted() {
    [ ! -e "$work" ] || say "Interrupted. 'make passwords YES=1' goes on from here." 2>&3
    exit 130
}

# Once databases have new passwords, services with the old ones do not start: then Postgres alone is needed.
[ -e "$work/databases" ] || [ -e "$work/placed" ] || ensure_up
if ! is_on YES "${1:-}"; then
    confirm "Replace all passwords and signing keys of the stack \"$TARMAC_PROJECT\"? People log in anew; sessions go on." \
        "This replaces all passwords: run 'make passwords YES=1' where there is no terminal." ||
        { say 'Nothing was changed.'; exit 1; }
fi
log=$(mktemp "${TMPDIR:-/tmp}/tarmac-passwords.XXXXXX")

# Prints the value of a key ($2) in an env file ($1).
value() { sed -n "s/^$2=//p" "$1" | tail -n 1; }
old() { value "$ENV_DIR/$1.env" "$2"; }
new() { value "$work/$1.env" "$2"; }

# Prints the env file NAME ($1) with the placeholders of its example in place of what was generated. What a person changed
# by hand stays.
with_placeholders() {
    local line key wanted before rest source
    while IFS= read -r line || [ -n "$line" ]; do
        key=${line%%=*} wanted=''
        case $line in [A-Za-z_]*=*) wanted=$(value "$ENV_DIR/$1.env.example" "$key") ;; esac
        case $wanted in
        '<generated:'*) line=$key=$wanted ;;
        *'<same:'*)
            before=${wanted%%<same:*} rest=${wanted#*<same:}
            source=${rest%%>*} rest=${rest#*>}
            [ "${line#*=}" != "$before$(old "${source%%:*}" "${source#*:}")$rest" ] || line=$key=$wanted
            ;;
        esac
        [ "$key" != TARMAC_UI_PASSWORD ] || line="$key=<generated:hex12>"
        printf '%s\n' "$line"
    done <"$ENV_DIR/$1.env"
}

# Makes the new env files beside the old ones; `ready` says that they are whole.
prepare() {
    local example name
    [ ! -e "$work/ready" ] || return 0
    rm -rf "$work"
    mkdir "$work"
    for example in "$ENV_DIR"/*.env.example; do
        name=${example##*/} name=${name%.env.example}
        if [ "$name" = login ] || grep -q -e '=.*<generated:' -e '=.*<same:' "$example"; then
            with_placeholders "$name" >"$work/$name.env.example"
        fi
    done
    "$_repo/env/host/secrets.sh" "$work"
    : >"$work/ready"
}

# What a command failed with, and that the next call goes on from here.
# Ends the script.
failed() {
    show_end_of "$log"
    die "$1; its last lines are above. The old passwords still count: run 'make passwords' again to go on."
}

# Connections and variables in Airflow's database are encrypted with its Fernet key: they are read with both, and written
# with the new one.
rotate_fernet() {
    local name=AIRFLOW__CORE__FERNET_KEY
    [ ! -e "$work/fernet" ] || return 0
    printf '%s,%s\n' "$(new airflow $name)" "$(old airflow $name)" | compose exec -T airflow-cli sh -ceu \
        'IFS= read -r AIRFLOW__CORE__FERNET_KEY; export AIRFLOW__CORE__FERNET_KEY; exec airflow rotate-fernet-key' \
        >"$log" 2>&1 || failed "Airflow could not encrypt its connections anew"
    : >"$work/fernet"
}

# MLflow keeps its login in its database, and changes it on demand only.
change_mlflow() {
    [ ! -e "$work/mlflow" ] || return 0
    printf '%s\n%s\n%s\n' "$(old registry MLFLOW_TRACKING_USERNAME)" "$(old registry MLFLOW_TRACKING_PASSWORD)" \
        "$(new registry MLFLOW_TRACKING_PASSWORD)" | compose exec -T mlflow python3 -S -c '
import base64, json, sys, urllib.error, urllib.request
user, old, new = sys.stdin.read().split("\n")[:3]
def call(method, path, word, **body):
    login = base64.b64encode(f"{user}:{word}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {login}"}
    url = "http://127.0.0.1:5000/api/2.0/mlflow/" + path
    data = json.dumps(body).encode() if body else None
    urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=60)
try:
    call("PATCH", "users/update-password", old, username=user, password=new, current_password=old)
except urllib.error.HTTPError as error:
    if error.code != 401:
        raise
    call("GET", "users/get?username=" + user, new)  # it was changed before
' >"$log" 2>&1 || failed "MLflow did not take its new password"
    : >"$work/mlflow"
}

# From here on services with the old passwords cannot connect anew: `make up` would not end well, and says so.
change_databases() {
    : >"$work/databases"
    compose up --detach --wait --no-recreate postgres >"$log" 2>&1 || failed "Postgres does not start"
    # shellcheck disable=SC2016 # the shell in the container expands it
    grep -h '^[A-Z_]*_PASSWORD=' "$work/postgres.env" | compose exec -T postgres sh -ceu '
while IFS= read -r line; do export "$line"; done
psql --username postgres --quiet --set ON_ERROR_STOP=1 --file /docker-entrypoint-initdb.d/10-databases.sql
printf "%s\n" "\\getenv own POSTGRES_PASSWORD" "SET log_statement = '\''none'\'';" \
    "SET log_min_error_statement = '\''panic'\'';" "ALTER ROLE postgres PASSWORD :'\''own'\'';" |
    psql --username postgres --quiet --set ON_ERROR_STOP=1
' >"$log" 2>&1 || failed "Postgres did not take the new passwords"
}

put_in_place() {
    local file
    for file in "$work"/*.env; do
        chmod 600 "$file"
        own_like "$ENV_DIR" "$file"
        cp -p "$file" "$file.new"
        mv -f "$file.new" "$ENV_DIR/${file##*/}"
    done
    : >"$work/placed"
    rm -f "$work/databases"
}

if [ ! -e "$work/placed" ]; then
    prepare
    if [ ! -e "$work/databases" ]; then
        rotate_fernet
        change_mlflow
    fi
    change_databases
    put_in_place
fi
say 'New passwords and keys are in place; the services start with them.'
# It changes the logins of Airflow, prints those that people use, and removes the folder when all services answer.
"$_repo/env/host/up.sh"
say "They are in $ENV_DIR, readable by you only. A backup of before has the old ones. People whom you added in Airflow keep theirs."
