"""Looks at every part of the stack and says what is wrong, with the numbers, and what to do. Changes nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tarmac.base.airflow_api import AirflowApi
from tarmac.base.errors import TarmacError
from tarmac.base.settings import settings, tower_login
from tarmac.base.texts import counted
from tarmac.base.units import format_cores, format_seconds, format_size
from tarmac.checks import machines
from tarmac.checks.finding import Finding, State
from tarmac.checks.space import LOGS, sizes
from tarmac.containers import engine
from tarmac.hosts.kinds import declared
from tarmac.ledger import database
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.outbox import Outbox
from tarmac.ledger.records import DeviceRow, HostRow
from tarmac.reaper import orphans
from tarmac.reaper.airflow_state import AirflowState, database_url
from tarmac.reaper.orphans import Container, Inventory, Orphans, Volume
from tarmac.registry.client import Registry
from tarmac.scheduler import machine_board
from tarmac.scheduler.board import certificate_sentence
from tarmac.workers import presence

_LITTLE_BYTES, _LITTLE_SHARE = 5 * 1024**3, 0.05
_NONE_BYTES = 1024**3
_MANY_LOGS_BYTES, _MANY_LOGS_SHARE = 2 * 1024**3, 0.1
_SKEW_SECONDS = 2.0
_NAMED = 3
_HEALTHY = "healthy"
SERVICE_LABEL = "com.docker.compose.service"
PUBLISHED = {"webserver": "TARMAC_WEB_PORT", "mlflow": "TARMAC_MLFLOW_PORT"}
"""The services that people reach, and the setting of the port of each."""
_BEGAN = datetime.now(UTC)
"""When this process read the code."""


def room(where: str, free: int, total: int) -> Finding:
    """Judge the room of a disk. Pure.

    Args:
        free, total: in bytes.
    """
    says = f"{where}: {format_size(free)} of {format_size(total)} free"
    if free < _NONE_BYTES:
        return Finding("disk", State.WRONG, says, "Make space now: what starts a container or writes a row will fail.")
    if free < min(_LITTLE_BYTES, total * _LITTLE_SHARE):
        return Finding("disk", State.NOTE, says, "Make space: `tarmac data rm`, `tarmac models rm`, `docker image rm`.")
    return Finding("disk", State.OK, says)


def clock(what: str, theirs: datetime, ours: datetime) -> Finding:
    """Judge a clock by ours. Pure.

    Args:
        theirs, ours: aware, of one instant.
    """
    skew = (theirs - ours).total_seconds()
    if abs(skew) <= _SKEW_SECONDS:
        return Finding("clocks", State.OK, f"{what} and the scheduler's container agree")
    ahead = "ahead of" if skew > 0 else "behind"
    says = f"the clock of {what} is {abs(skew):.1f} s {ahead} that of the scheduler's container"
    return Finding("clocks", State.WRONG, says, "Set the machine's clock by NTP: Airflow's tokens and leases need it.")


def schema(there: int, known: int) -> Finding:
    """Judge the version of the ledger's schema. Pure."""
    if there == known:
        return Finding("migrations", State.OK, f"the ledger's schema is version {there}, as this Tarmac knows it")
    todo = "`make up` migrates it." if there < known else "Use the Tarmac that made it: docs/install.md, Upgrade."
    return Finding(
        "migrations", State.WRONG, f"the ledger's schema is version {there}, and this Tarmac's is {known}", todo
    )


def health(answer: Mapping[str, Any]) -> list[Finding]:
    """Judge what Airflow says of its parts. Pure.

    Args:
        answer: of /api/v2/monitor/health.
    """
    found = []
    for part, said in sorted(answer.items()):
        status = said.get("status") if isinstance(said, Mapping) else None
        name = f"airflow {part.replace('_', '-')}"
        if status == _HEALTHY:
            found.append(Finding(name, State.OK, "healthy"))
        elif status is not None:
            found.append(Finding(name, State.WRONG, str(status), "`make ps`, then `make logs` of that service."))
    return found


def pipeline(*, paused: bool) -> list[Finding]:
    """Judge whether sessions go on. Pure."""
    if not paused:
        return []
    todo = "Switch it on, on its page in Airflow."
    return [Finding("pipeline", State.NOTE, "paused in Airflow by a person: no session goes on", todo)]


def reservations(holders: Sequence[Mapping[str, Any]], now: datetime) -> Finding:
    """Judge the reservations by their leases. Pure.

    Args:
        holders: as the ledger gives them, of devices and of hosts.
        now: the database's time.
    """
    stale = sorted({str(row["run_id"]) for row in holders if row["suspect"]})
    if not stale:
        return Finding(
            "reservations", State.OK, f"held by {counted(len({row['run_id'] for row in holders}), 'session')}"
        )
    says = f"the lease of {_named(stale)} has expired at {now:%H:%M:%S} UTC"
    return Finding(
        "reservations",
        State.NOTE,
        says,
        "Nothing within a minute: the reaper decides. Then `make logs SERVICE=scheduler`.",
    )


def leftovers(found: Orphans) -> Finding:
    """Judge what sessions that are over left. Pure."""
    names = [*(one.name for one in found.containers), *(one.name for one in found.volumes)]
    names += [key.run_id for key in (*found.reserved, *found.waiting)]
    if not names:
        return Finding("leftovers", State.OK, "no container, volume or reservation that nothing needs any more")
    todo = "Nothing: the reaper removes them within seconds. If they stay, `make logs SERVICE=scheduler` says why."
    return Finding("leftovers", State.NOTE, f"of steps and sessions that are over: {_named(names)}", todo)


def code(changed: Sequence[str], since: datetime) -> Finding:
    """Judge whether the code is that which the services have read. Pure.

    Args:
        changed: files that were changed since.
        since: when the service began that looks; aware.
    """
    if not changed:
        return Finding("code", State.OK, "as it was when the stack was started")
    says = (
        f"{counted(len(changed), 'file')} changed since {since:%Y-%m-%d %H:%M:%S} UTC: {_named(changed)}. Tasks that "
        "start now read them, services do not"
    )
    return Finding("code", State.NOTE, says, "`make down`, then `make up`; before an upgrade `make down` first.")


def images(found: Sequence[Mapping[str, Any]], current: str) -> Finding:
    """Judge the images by their tags. Pure.

    Args:
        found: as the engine lists them.
        current: the trainer's image, `registry/trainer:tag`.
    """
    registry, tag = current.rpartition("/trainer")[0], current.rpartition(":")[2]
    names = {
        f"{registry}/{image}"
        for image in ("airflow", "mlflow", "trainer", "trainer-cuda", "trainer-torch", "trainer-torch-cuda")
    }
    ours = [name for one in found for name in one.get("RepoTags") or [] if name.rpartition(":")[0] in names]
    others = sorted(name for name in ours if name.rpartition(":")[2] != tag)
    if not others:
        return Finding("images", State.OK, f"those of this version, {tag}, only")
    says = f"{len(others)} of other versions than {tag}: {_named(others)}"
    return Finding("images", State.NOTE, says, "Where no stack uses them: `docker image rm`. Layers are shared.")


def ports(containers: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Judge the addresses at which people reach the stack. Pure.

    Args:
        containers: of its services, as the engine lists them.
    """
    found, open_to_all = [], []
    for service, setting in PUBLISHED.items():
        own = [one for one in containers if (one.get("Labels") or {}).get(SERVICE_LABEL) == service]
        bound = [port for one in own for port in one.get("Ports") or [] if port.get("PublicPort")]
        if own and not bound:
            says = f"{service} is reached at no port of this machine: it does not run, or another program has its port"
            todo = f"`make ps` says which; then `make up`, with another {setting} in env/stack.env where it is taken."
            return [Finding("ports", State.WRONG, says, todo)]
        found += sorted({f"{service} {port.get('IP', '')}:{port['PublicPort']}" for port in bound})
        open_to_all += [service for port in bound if not str(port.get("IP") or "::1").startswith(("127.", "::1"))][:1]
    if open_to_all:
        says = f"{', '.join(found)}: other machines reach {' and '.join(open_to_all)}, without encryption"
        return [Finding("ports", State.NOTE, says, "docs/install.md, Other machines, says what to do before.")]
    return [Finding("ports", State.OK, ", ".join(found))] if found else []


def quarantine(rows: Sequence[DeviceRow]) -> list[Finding]:
    """Say which devices take no session, as the ledger knows them. Pure."""
    found = []
    for row in rows:
        if row.quarantine:
            todo = f"Mend it, then `make release-gpu GPU={row.uuid}`."
            found.append(Finding("gpu", State.WRONG, f"{row.uuid} is in quarantine: {row.quarantine}", todo))
        elif why := row.closed or row.unusable:
            found.append(Finding("gpu", State.NOTE, f"{row.uuid} is not usable: {why}"))
    return found


def certificates(rows: Sequence[HostRow]) -> list[Finding]:
    """Say which hosts' certificates end soon. Pure."""
    found = []
    for row in rows:
        if says := certificate_sentence(row):
            state = State.NOTE if (row.certificate_seconds or 0.0) > 0 else State.WRONG
            found.append(
                Finding(
                    "hosts",
                    state,
                    f"{row.name}: {says}",
                    "docs/hosts.md, *An engine that listens with TLS*, has the steps.",
                )
            )
    return found


def notifications(counts: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Judge how the targets of env/notify.toml take their messages. Pure.

    Args:
        counts: as the outbox gives them.
    """
    found = []
    todo = "`make notify-test` sends each a message and says what it answers; docs/notifications.md."
    for row in counts:
        says = []
        if row["open"] and row["problem"]:
            waits = format_seconds(row["seconds"], about=True)
            says.append(f"takes no message, {row['open']} wait, the oldest for {waits}: {row['problem']}")
        if row["given_up"]:
            says.append(f"gave up {row['given_up']} in the last day")
        if says:
            found.append(Finding("notifications", State.WRONG, f"target {row['target']!r} {'; '.join(says)}", todo))
    if counts and not found:
        found.append(Finding("notifications", State.OK, f"{len(counts)} targets take their messages"))
    return found


def space(sizes: Mapping[str, int], total: int) -> list[Finding]:
    """Say what takes how much, and judge the logs. Pure.

    Args:
        sizes: in bytes, by what takes them.
        total: bytes of the engine's disk.
    """
    found = [Finding("space", State.OK, ", ".join(f"{what} {format_size(size)}" for what, size in sizes.items()))]
    logs = sizes.get(LOGS, 0)
    if logs > max(_MANY_LOGS_BYTES, total * _MANY_LOGS_SHARE):
        says = f"{format_size(logs)}, of a disk of {format_size(total)}"
        todo = "Lower TARMAC_KEEP_DAYS in env/stack.env, then `make up`; `make space DAYS=7` says what goes."
        found.append(Finding("logs", State.NOTE, says, todo))
    return found


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if names[_NAMED:] else "")


def workers(wanted: int, alive: int, *, broker: bool) -> list[Finding]:
    """Judge the workers. Pure.

    Args:
        wanted: how many the stack has by its setting; 0: the scheduler runs the tasks.
        alive: how many take tasks.
        broker: whether it answers.
    """
    if not wanted:
        return []
    found = []
    if not broker:
        says = "the broker does not answer: tasks that are to start wait, and those that run go on"
        found.append(Finding("broker", State.WRONG, says, "`make ps`, then `make up`."))
    if alive < wanted:
        says = f"{alive} of {wanted} take tasks; what the others ran is followed by these"
        found.append(Finding("workers", State.WRONG, says, "`make ps`, then `make up`."))
    elif broker:
        found.append(Finding("workers", State.OK, f"{alive} of {wanted} take tasks; the broker answers"))
    return found


def examine() -> list[dict[str, Any]]:
    """Look at every part. One that does not answer is a finding too.

    Returns:
        A Finding each, as JSON has it.
    """
    parts: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("engine", _engine),
        ("code", _code),
        ("disk", _disks),
        ("space", _space),
        ("database", _database),
        ("registry", _registry),
        ("airflow", _airflow),
        ("workers", _workers),
        ("leftovers", _leftovers),
    ]
    found: list[Finding] = []
    for part, look in parts:
        try:
            found += look()
        except (TarmacError, OSError, ValueError, KeyError) as error:  # requests', docker's and httpx's too
            found.append(Finding(part, State.WRONG, f"does not answer: {error}", "`make ps`, then `make up`."))
    return [asdict(one) for one in found]


def _code() -> list[Finding]:
    root = Path(__file__).parents[2]
    files = [*root.rglob("*.py"), *root.rglob("*.toml"), *(root.parent / "dags").glob("*.py")]
    changed = sorted(str(one.relative_to(root.parent)) for one in files if one.stat().st_mtime > _BEGAN.timestamp())
    return [code(changed, _BEGAN)]


def _engine() -> list[Finding]:
    api = engine.client()
    info = api.info()
    machine = (
        f"version {info.get('ServerVersion', '?')}, {format_cores(1000 * int(info['NCPU']))}, "
        f"{format_size(int(info['MemTotal']))}"
    )
    found = [Finding("engine", State.OK, machine)]
    if text := info.get("SystemTime"):
        found.append(clock("the engine's machine", datetime.fromisoformat(text), datetime.now(UTC)))
    of_stack = {"com.docker.compose.project": settings().stack}
    return [*found, *ports(engine.containers_with(api, of_stack)), images(api.images(), settings().trainer_image)]


def _disks() -> list[Finding]:
    # One of the engine's disk; the store may lie on another.
    found, seen = [], set[tuple[int, int]]()
    for where, path in (("the engine's disk", "/opt/airflow/logs"), ("the data sets' disk", "/datasets")):
        usage = shutil.disk_usage(path)
        if (usage.total, usage.free) not in seen:
            found.append(room(where, usage.free, usage.total))
        seen.add((usage.total, usage.free))
    return found


def _space() -> list[Finding]:
    return space(sizes(), shutil.disk_usage("/opt/airflow/logs").total)


def _database() -> list[Finding]:
    with Ledger(settings().database_url) as ledger:
        before = datetime.now(UTC)
        now = ledger.now()
        with ledger.transaction():
            holders = [*ledger.holders(), *ledger.host_holders()]
            rows, hosts, made = ledger.devices(), ledger.hosts(), machine_board.facts(ledger, declared())
        with ledger.cursor() as cursor:
            version = database.version(cursor)
    found = [schema(version, len(database.migrations())), clock("Postgres", now, before)]
    with Outbox(settings().database_url) as outbox:
        told = notifications(outbox.counts())
    judged = [*quarantine(rows), *certificates(hosts), *machines.judge(made)]
    return [*found, reservations(holders, now), *judged, *told]


def _registry() -> list[Finding]:
    return [Finding("registry", State.OK, f"MLflow answers; it has {counted(len(Registry().models()), 'model')}")]


def airflow_health() -> list[Finding]:
    """Ask Airflow for its parts, and judge them.

    Raises:
        OSError: it does not answer.
    """
    import httpx

    try:
        answer = httpx.get(f"{settings().airflow_url}/api/v2/monitor/health", timeout=10)
    except httpx.HTTPError as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    return health(answer.json())


def _airflow() -> list[Finding]:
    found = airflow_health()
    with AirflowApi(settings().airflow_url, *tower_login()) as api:
        return [*found, *pipeline(paused=api.is_paused())]


def _workers() -> list[Finding]:
    wanted = int(os.environ.get("TARMAC_WORKERS") or 0)
    if not wanted:
        return []
    answers = presence.broker_answers(os.environ.get("AIRFLOW__CELERY__BROKER_URL", ""))
    return workers(wanted, presence.present(database_url()), broker=answers)


def _leftovers() -> list[Finding]:
    api, stack = engine.client(), settings().stack
    # Of containers that only help, the reaper knows since when they are there; they are none of ours to judge.
    there = engine.stack_containers(api, stack)
    containers = [Container(one.id, one.name, one.key, one.owner, one.generation, 0.0) for one in there]
    volumes = [Volume(name, key) for name, key in engine.session_volumes(api, stack).items()]
    with Ledger(settings().database_url) as ledger:
        held, waiting = {one.key: one for one in ledger.reservations()}, [*ledger.waiting(), *ledger.arrived()]
    keys: Collection[Any] = {
        *held,
        *waiting,
        *(one.key for one in volumes),
        *(one.key for one in containers if one.key),
    }
    state = AirflowState(database_url())
    try:
        runs = state.runs(keys) if keys else {}
    finally:
        state.close()
    return [leftovers(orphans.find(Inventory(held, waiting, containers, volumes, runs)))]
