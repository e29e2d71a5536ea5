"""What `make hosts` shows of machines that are started for sessions, and of what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tarmac.admission.machines import State, day_of, spent
from tarmac.base.texts import one_line
from tarmac.base.units import format_seconds
from tarmac.hosts.kinds import DAY, Kinds, money
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.machines import DAYS


def facts(ledger: Ledger, kinds: Kinds) -> dict[str, Any]:
    """Read the ledger and return what there is to say; {}: none is declared, and none was there lately.

    `machines` that are there, `kinds`, and what was spent: `today` and `limit` in `currency`, by day of UTC (`days`),
    and by session since yesterday (`sessions`: what a machine costs while a session holds it).
    """
    rows = ledger.machines()
    if not kinds.kinds and not rows:
        return {}
    now = ledger.now().timestamp()
    today = day_of(now)
    why = {row["name"]: row for row in ledger.kinds()}
    return {
        "machines": [
            {
                "name": one.name,
                "kind": one.kind,
                "state": one.state.value,
                "seconds": now - one.intended_at,
                "until": datetime.fromtimestamp(one.until, UTC),
                "price_per_hour": one.price,
                "money": one.price * (now - one.intended_at) / 3600,
                "trouble": one.trouble,
            }
            for one in rows
            if one.live
        ],
        "kinds": [
            {
                "name": kind.name,
                "price_per_hour": kind.price,
                "most": kind.most,
                "barred": why[kind.name]["barred"] if kind.name in why else "",
                "says": why[kind.name]["says"] if kind.name in why else "",
            }
            for kind in kinds.kinds
        ],
        "today": spent(rows, today, now),
        "limit": kinds.money_per_day,
        "currency": kinds.currency,
        "days": [
            {"day": f"{datetime.fromtimestamp(day * DAY, UTC):%Y-%m-%d}", "money": spent(rows, day, now)}
            for day in range(today - DAYS + 2, today + 1)
        ],
        "sessions": ledger.session_money(),
    }


_WORDS = {State.STARTING: "starting", State.READY: "a host", State.ENDING: "ending"}


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return the lines of `make hosts`. Pure."""
    if not found:
        return []
    unit = found["currency"]
    today, limit = money(found["today"], unit), money(found["limit"], unit)
    said = ["", f"Machines on demand: {today} of at most {limit} spent today (UTC)."]
    for one in found["machines"]:
        trouble = f": {one_line(one['trouble'])}" if one["trouble"] else ""
        said.append(
            f"{one['name']}  {_WORDS[State(one['state'])]}, {money(one['money'], unit)} in "
            f"{format_seconds(one['seconds'])}, ends by {one['until']:%H:%M} UTC{trouble}"
        )
    for kind in found["kinds"]:
        why = kind["barred"] or kind["says"]
        none = f"; none is started now: {one_line(why)}" if why else ""
        said.append(f"kind {kind['name']}: {money(kind['price_per_hour'], unit)} an hour, at most {kind['most']}{none}")
    if found["sessions"]:
        each = ", ".join(f"{row['run_id']} {money(row['money'], unit)}" for row in found["sessions"][:10])
        said.append(f"Sessions on them since yesterday: {each}")
    return said
