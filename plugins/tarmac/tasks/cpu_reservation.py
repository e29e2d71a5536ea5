"""What a training on the CPU reserves of a host: queue, keep, release. gpu_preflight.py is for devices."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from tarmac.base.errors import ContainerError, LedgerError
from tarmac.base.ids import RETRIEVE_RESOURCES
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.base.units import format_cores, format_size
from tarmac.containers.calls import EngineCalls
from tarmac.request.schema import TrainingRequest
from tarmac.tasks.results import Prepared

# Imported where it is used, as in gpu_preflight.py.
if TYPE_CHECKING:
    from tarmac.ledger.ledger import Ledger
    from tarmac.ledger.records import Reservation

# A lease lasts a minute.
RENEW_SECONDS = 5.0


def threads(cores: int) -> int:
    """How many threads a training is to start for so many thousandths of a core: never more than it can use. Pure."""
    return max(1, math.ceil(cores / 1000))


def seek_host(
    ledger: Ledger, api: EngineCalls, context: Mapping[str, Any], request: TrainingRequest, limit_bytes: int
) -> Reservation | None:
    """Try once to get cores and memory: estimate, queue, run an admission cycle. Idempotent.

    Returns:
        The reservation, or None: it is queued, and the ledger says why.

    Raises:
        AirflowFailException: it can never fit, or its deadline has passed; it is out of the queue then.
        LedgerError: the database is unavailable.
    """
    from tarmac.scheduler.host_cycle import measured_hosts, run_host_cycle
    from tarmac.scheduler.needs import host_entry

    ti: Any = context["ti"]
    key = SessionKey(ti.dag_id, ti.run_id)
    if held := ledger.reservation(key):
        ledger.extend(key)
        return held
    hosts = measured_hosts(ledger, api)
    prep = Prepared.of(ti.xcom_pull(task_ids=RETRIEVE_RESOURCES))
    entry = host_entry(ledger, key, request, hosts, amount=prep.data_bytes, limit_bytes=limit_bytes, task_id=ti.task_id)
    ledger.enqueue(key, entry)
    run_host_cycle(ledger, key)
    if held := ledger.reservation(key):
        return held
    place = ledger.place_in_queue(key)
    if place is None:
        return ledger.reservation(key)
    if place.why.reason and place.why.reason.never:
        ledger.withdraw(key)
        raise AirflowFailException(
            f"This session never fits on a host: it {place.why} ({entry.estimate.sentence}). Ask for less in "
            "resources.memory or resources.cpus, or lower TARMAC_HOST_MEMORY_HEADROOM or TARMAC_HOST_CPU_HEADROOM."
        )
    if place.seconds_left <= 0:
        if not ledger.withdraw(key) and (held := ledger.reservation(key)):
            return held  # admitted at the last moment
        raise AirflowFailException(
            f"No cores and memory within resources.max_wait_seconds = {entry.max_wait_seconds}: it {place.why}. "
            "Send the request again, with a longer wait, a higher priority or a smaller need."
        )
    return None


def reserved_on_host_line(held: Reservation) -> str:
    """Return the line that tells a person what a session got. Pure."""
    return (
        f"Reserved {format_cores(held.millicpus)} and {format_size(held.host_bytes)} of memory on {held.host} "
        f"(by the rule {held.rule}), after {held.waited_seconds:.1f} s."
    )


class Lease:
    """Renews a session's lease while its training is followed: a thread with a connection of its own.

    Args:
        held: the reservation, with this attempt's token.
        database_url: of the ledger.
        log: the task's logger.
    """

    def __init__(self, held: Reservation, database_url: str, log: Any) -> None:
        self._held, self._url, self._log = held, database_url, log
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tarmac-lease", daemon=True)

    def __enter__(self) -> Lease:
        """Begin to renew it."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Renew it no more."""
        self._over.set()
        self._thread.join(10)

    def _run(self) -> None:
        from tarmac.ledger.ledger import Ledger

        troubled = False
        with Ledger(self._url) as ledger:
            while not self._over.is_set():
                try:
                    if not ledger.renew(self._held, running=True):
                        # The new owner follows the container, or has removed it.
                        self._log.warning("The reservation was taken over by another attempt or by the reaper.")
                        return
                    troubled = False
                except LedgerError as error:
                    if not troubled:
                        self._log.warning("The ledger does not answer; the training goes on: %s", error)
                    troubled = True
                self._over.wait(RENEW_SECONDS)


def limit_of(memory_bytes: int | str | None) -> int:
    """Return the memory of a session's containers: what its trainer's entry says, else the stack's setting."""
    return int(memory_bytes or settings().trainer_memory_bytes)


def admit_others(ledger: Ledger, kind: str, limit_bytes: int, log: Any) -> None:
    """After a release: correct the needs of queued sessions like it, and admit what fits.

    An error is only logged: it must not fail the training that has released its reservation.
    """
    from tarmac.scheduler.host_cycle import run_host_cycle
    from tarmac.scheduler.needs import learn_on_host

    try:
        learn_on_host(ledger, kind, limit_bytes)
        run_host_cycle(ledger)
    except (LedgerError, ContainerError, OSError) as error:
        log.warning("The cycle after the release failed; a queued session runs it: %s", error)
