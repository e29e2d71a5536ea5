#!/usr/bin/env bash
# Pins each dependency group of pyproject.toml in requirements-GROUP.lock, with hashes and without naming a host.
# Without arguments, all groups.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$(root_of_repo)"
command -v uv >/dev/null || die "this needs uv: 'pip install uv'."
groups=("$@")
if [ "${#groups[@]}" -eq 0 ]; then
    groups=(build airflow git mlflow trainer trainer-cuda trainer-torch trainer-torch-cuda trainer-test test predict)
fi
for group in "${groups[@]}"; do
    python=3.13
    [ "$group" != predict ] || python=3.11
    # What is beside Airflow needs only what Airflow's own lock has.
    beside=()
    [ "$group" != git ] || beside=(--no-deps)
    # Flower, a page about workers, comes with Airflow's Celery and is not started. With what it needs: a library that all of
    # Airflow loads loads tornado too, where it is installed.
    case $group in airflow | test) beside+=(--no-emit-package={flower,humanize,prometheus-client,tornado}) ;; esac
    uv pip compile --quiet --no-config --generate-hashes --no-header --no-annotate --no-emit-index-url \
        --python-version "$python" --python-platform x86_64-manylinux_2_40 \
        "${beside[@]}" --group "pyproject.toml:$group" --output-file "requirements-$group.lock"
    say "requirements-$group.lock: $(grep -c '==' "requirements-$group.lock") packages"
done
