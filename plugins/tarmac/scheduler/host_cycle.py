"""The admission cycle of CPU sessions: admit all that fit on a host, keep a snapshot for the others.

As the cycle of GPU sessions (cycle.py) it is one transaction, so cycles take turns. It asks no driver and no engine:
what sessions reserve is in the ledger, and what a host has was measured before.
"""

from __future__ import annotations

from tarmac.admission.hosts import host_view, plan_hosts, with_host_reserved
from tarmac.base.ids import LOCAL_HOST
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.containers.calls import EngineCalls
from tarmac.hosts.capacity import measure
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.records import HostRow, session_key
from tarmac.ledger.statements import CANDIDATES_AT_MOST

# A host that was measured longer ago is measured again, before a session reserves anything of it.
MEASURED_SECONDS = 600.0


def note_host(ledger: Ledger, api: EngineCalls, host: str = LOCAL_HOST) -> None:
    """Measure the host of an engine and write down what sessions may reserve there. Idempotent.

    Raises:
        ContainerError, OSError: the engine does not answer; nothing was changed.
    """
    found = measure(api, settings(), host)
    ledger.put_host(host, found.total_bytes, found.total_millicpus, found.capacity_bytes, found.capacity_millicpus)


def measured_hosts(ledger: Ledger, api: EngineCalls) -> list[HostRow]:
    """Return the hosts; measure this one first where that was not done lately."""
    if not any(host.name == LOCAL_HOST for host in ledger.hosts(within_seconds=MEASURED_SECONDS)):
        note_host(ledger, api)
    return ledger.hosts()


def run_host_cycle(ledger: Ledger, key: SessionKey | None = None) -> list[SessionKey]:
    """Admit every CPU session that may be admitted now; keep a snapshot, from which the reasons of the others are made.

    Args:
        ledger: on which it is run.
        key: whose cycle it is: looked at in any case. Where the session is not queued any more when its turn comes, no
            cycle is run, so that of many that come at once one admits all.

    Returns:
        Which sessions were admitted.

    Raises:
        LedgerError: the database refused; none was admitted.
    """
    with ledger.transaction():
        opening = ledger.open_host_cycle(key)
        if opening is None:
            return []
        hosts = [row.load for row in opening.hosts]
        admitted: list[SessionKey] = []
        while True:
            found = ledger.host_candidates({host.name: host.free for host in hosts}, key)
            decided = plan_hosts(found.waiting, hosts, starved_below=found.starved_below)
            reserved = ledger.admit_on_hosts([(one.name, placement) for one, placement in decided.admitted])
            for one, placement in decided.admitted:
                if one.name in reserved:
                    admitted.append(session_key(one.name))
                    hosts = with_host_reserved(hosts, placement)
            # A full look may have left out some that fit into what is left now.
            if not reserved or len(found.waiting) < CANDIDATES_AT_MOST:
                break
        if opening.queued > len(admitted) or opening.queued == CANDIDATES_AT_MOST:
            view = host_view(hosts, decided.held, ledger.holders_of_hosts())
            if view != opening.view:
                ledger.show_hosts(view)
        return admitted
