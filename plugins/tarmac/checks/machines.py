"""Machines on demand: asks each kind's provider what it offers and has, and judges how they are. Starts nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tarmac.base.errors import ProviderError
from tarmac.base.texts import counted
from tarmac.checks.finding import Finding, State
from tarmac.hosts.kinds import declared, money
from tarmac.hosts.providers import provider_of


def ask() -> list[dict[str, str]]:
    """Return of each kind its name, `problem` or "", and what its provider says, as a sentence.

    Raises:
        HostsFileError: env/hosts.toml, as the stack was started with it, is wrong.
    """
    kinds = declared()
    found = []
    for kind in kinds.kinds:
        try:
            provider = provider_of(kind, kinds)
            listed, offer = provider.listed(), provider.offers()
        except ProviderError as error:
            found.append({"kind": kind.name, "problem": str(error), "says": ""})
            continue
        price = money(kind.price, kinds.currency)
        says = f"a machine can be had for {price} an hour; {counted(len(listed), 'machine')} with the label"
        found.append({"kind": kind.name, "problem": offer, "says": says})
    return found


def judge(facts: Mapping[str, Any]) -> list[Finding]:
    """Judge the machines that were started for sessions. Pure.

    Args:
        facts: of machine_board.
    """
    if not facts:
        return []
    found = []
    known = {kind["name"] for kind in facts["kinds"]}
    for one in facts["machines"]:
        if one["kind"] not in known:
            says = (
                f"{one['name']} is there, and env/hosts.toml does not declare its kind {one['kind']!r}: it costs money"
            )
            todo = "Declare the kind again, with most = 0, and run `make up`: the machine is ended when it is idle."
            found.append(Finding("machines", State.WRONG, says, todo))
        elif one["trouble"]:
            todo = "`make hosts-check` asks its provider; docs/hosts.md, Machines on demand."
            found.append(Finding("machines", State.NOTE, f"{one['name']} is {one['state']}: {one['trouble']}", todo))
    for kind in facts["kinds"]:
        if kind["barred"]:
            todo = "`make hosts-check` asks it again; docs/hosts.md, Machines on demand."
            found.append(Finding("machines", State.WRONG, f"kind {kind['name']}: {kind['barred']}", todo))
    return found or [Finding("machines", State.OK, f"{counted(len(facts['machines']), 'machine')} of those on demand")]
