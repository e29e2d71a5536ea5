"""Orphans: a pure decision over what Airflow, the ledger and the engine hold (decision 0012).

Only what is known counts. A state that is not named here, a task that has no row, an engine or a database that did not
answer: none of these makes an orphan.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from tarmac.base.ids import GPU_PREFLIGHT_CONFIGURATION, GPU_TRAINING_SENSOR, TRAIN_MODEL_CPU, TRAIN_MODEL_GPU
from tarmac.base.session import SessionKey
from tarmac.base.states import FINISHED_STATES, RUN_OVER_STATES

# What only helps others for a moment (a container that files are copied through, a probe) is left alone for this long.
HELPER_SECONDS = 60.0
_CLEARED = " was cleared"


@dataclass(frozen=True)
class Task:
    """A task of a run as Airflow has it. `generation` changes when the task is cleared."""

    state: str | None
    generation: str = ""


@dataclass(frozen=True)
class Run:
    """A run as Airflow has it: its state, its tasks by id."""

    state: str
    tasks: Mapping[str, Task] = field(default_factory=dict)

    def state_of(self, task_id: str) -> str | None:
        """Return a task's state; None: it has none."""
        task = self.tasks.get(task_id)
        return task.state if task else None


@dataclass(frozen=True)
class Container:
    """A container with this stack's label. Without `key` or `owner` it only helps; `seconds`: since it was first seen.

    `generation` is that of the owner when the container was started; "": it does not say. `runs`: it has not ended.
    `allowed_seconds`: how long one that only helps may live; 0: as others.
    """

    id: str
    name: str
    key: SessionKey | None
    owner: str
    generation: str
    seconds: float
    runs: bool = False
    allowed_seconds: int = 0


@dataclass(frozen=True)
class Volume:
    """A session's volume."""

    name: str
    key: SessionKey


@dataclass(frozen=True)
class Inventory:
    """What there is, in the order in which it has to be read: Airflow's runs last.

    So whatever is listed here was made before its run's state was read. `runs` lacks the sessions that Airflow does not
    know; a read that failed gives no inventory at all.
    """

    reserved: Collection[SessionKey]
    waiting: Collection[SessionKey]
    containers: Collection[Container]
    volumes: Collection[Volume]
    runs: Mapping[SessionKey, Run]


@dataclass(frozen=True)
class Orphans:
    """Each orphan, with why it is one."""

    containers: Mapping[Container, str]
    reserved: Mapping[SessionKey, str]
    waiting: Mapping[SessionKey, str]
    volumes: Mapping[Volume, str]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.containers or self.reserved or self.waiting or self.volumes)


def find(inventory: Inventory) -> Orphans:
    """Decide what is orphaned. Pure."""
    runs = inventory.runs

    def which[T](things: Collection[T], why_not: Mapping[T, str | None]) -> dict[T, str]:
        return {thing: why for thing in things if (why := why_not[thing])}

    return Orphans(
        which(inventory.containers, {one: _container(one, runs) for one in inventory.containers}),
        which(inventory.reserved, {key: why_unwanted(runs.get(key)) for key in inventory.reserved}),
        which(inventory.waiting, {key: why_unwanted(runs.get(key)) for key in inventory.waiting}),
        which(inventory.volumes, {one: _volume(runs.get(one.key)) for one in inventory.volumes}),
    )


def twice(before: Orphans, now: Orphans) -> Orphans:
    """Keep what was orphaned in the round before too. Pure."""

    def both[T](old: Mapping[T, str], new: Mapping[T, str], name: str) -> dict[T, str]:
        known = {getattr(one, name, one) for one in old}
        return {one: why for one, why in new.items() if getattr(one, name, one) in known}

    return Orphans(
        both(before.containers, now.containers, "id"),
        both(before.reserved, now.reserved, ""),
        both(before.waiting, now.waiting, ""),
        both(before.volumes, now.volumes, "name"),
    )


def find_there(
    host: str,
    reserved: Mapping[SessionKey, str],
    containers: Collection[Container],
    volumes: Collection[Volume],
    runs: Mapping[SessionKey, Run],
) -> Orphans:
    """Decide what is orphaned on another machine than the stack's. Pure.

    There a session has its training and a copy of its volume, for as long as it holds something of that host, or its
    container has a result that is not kept yet.

    Args:
        host: that machine.
        reserved: where each session that holds a reservation trains.
        containers, volumes: those on that machine, listed before `reserved` and `runs` were read.
    """

    def of_container(one: Container) -> str | None:
        if one.key and one.owner and reserved.get(one.key, host) != host:
            return f"its session trains on {reserved[one.key]} now"
        # It was given up while the machine did not answer. What it still has of a device would never be free.
        if one.runs and one.owner == TRAIN_MODEL_GPU and one.key not in reserved:
            return "its session holds no device any more"
        return _container(one, runs)

    def of_volume(one: Volume) -> str | None:
        if reserved.get(one.key) == host or any(container.key == one.key for container in containers):
            return None
        return "nothing of its session trains there"

    held = [key for key, where in reserved.items() if where == host]
    return Orphans(
        {one: why for one in containers if (why := of_container(one))},
        {key: why for key in held if (why := why_unwanted(runs.get(key)))},
        {},
        {one: why for one in volumes if (why := of_volume(one))},
    )


def _container(one: Container, runs: Mapping[SessionKey, Run]) -> str | None:
    if one.key is None or not one.owner:
        if one.allowed_seconds:
            allowed = one.allowed_seconds
            return f"it was to live for {allowed} s at most" if one.seconds > allowed else None
        return "it was to live for a moment only" if one.seconds > HELPER_SECONDS else None
    run = runs.get(one.key)
    if run is None:
        return "its run was deleted"
    task = run.tasks.get(one.owner)
    if task is None:
        return f"its run is over ({run.state})" if run.state in RUN_OVER_STATES else None
    if task.state in FINISHED_STATES:
        return f"its task {one.owner} is over ({task.state})"
    if task.state == "restarting" or (one.generation and one.generation != task.generation):
        return f"its task {one.owner}{_CLEARED}"
    # The clean-up of a run that was marked by hand runs in a run that is over.
    if run.state in RUN_OVER_STATES and task.state != "running":
        return f"its run is over ({run.state})"
    return None


def goes_on(why: str) -> bool:
    """Tell whether what an orphaned container did is begun once more, by why it is an orphan. Pure."""
    return why.endswith(_CLEARED)


def why_unwanted(run: Run | None) -> str | None:
    """Say why Airflow will not train a session any more; None: it still may. Pure.

    The one rule by which a session loses its reservation or its place in the queue while others need them. An expired
    lease plays no part in it.

    Args:
        run: the session's; None: Airflow's database has no such run.
    """
    if run is None:
        return "its run was deleted"
    training, preflight = run.state_of(TRAIN_MODEL_GPU), run.state_of(GPU_PREFLIGHT_CONFIGURATION)
    if training == "skipped":  # by the branch: it is a CPU session
        training, preflight = run.state_of(TRAIN_MODEL_CPU), None
    if training in FINISHED_STATES:
        return f"its training is over ({training})"
    if preflight in FINISHED_STATES - {"success"}:
        return f"its preflight is over ({preflight})"
    # A preflight that was lost with its scheduler has no state for a moment either; what is before it has.
    before = (GPU_TRAINING_SENSOR, GPU_PREFLIGHT_CONFIGURATION)
    if all(task in run.tasks and run.state_of(task) is None for task in before):
        return "its run was cleared from before it waited"
    if run.state in RUN_OVER_STATES and training != "running":
        return f"its run is over ({run.state})"
    return None


def _volume(run: Run | None) -> str | None:
    if run is None:
        return "its run was deleted"
    if run.state in RUN_OVER_STATES and not any(task.state == "running" for task in run.tasks.values()):
        return f"its run is over ({run.state})"
    return None
