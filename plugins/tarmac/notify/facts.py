"""What people are told of a fact, in words. Pure.

A fact has a key, by which it is told once: a session that is run again ends again, which is another fact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from tarmac.base import ids
from tarmac.base.browser import for_whom, in_browser, told
from tarmac.base.session import cancellation, failure_in, lack_in
from tarmac.base.states import ACTIVE_STATES, RUN_OVER_STATES
from tarmac.base.texts import counted, one_line
from tarmac.base.units import format_seconds
from tarmac.cli.explain import Explanation, Known, explanation, make_command
from tarmac.cli.remedies import Remedy
from tarmac.notify.config import Kind
from tarmac.reaper.airflow_state import Session
from tarmac.registry.promotion import MODEL_DELETED, SET_IN_MLFLOW, VERSION_DELETED
from tarmac.request.naming import description
from tarmac.tasks.run_end import scored_sentence

_TITLE, _LINE = 200, 900
"""Characters: as much of a title and of a line as is told. A trainer's words can be of any length."""
_BEGUN = (*ACTIVE_STATES, "queued", "scheduled", "restarting")


@dataclass(frozen=True)
class Notice:
    """A fact as people are told it; `owner` "": it belongs to no person."""

    fact: str
    kind: Kind
    owner: str
    title: str
    body: str


def harmless(text: str, most: int) -> str:
    """Return a text on one line, in which no chat service finds a call for everyone or a link of its own notation.

    Args:
        most: characters; what is longer is cut.
    """
    text = one_line(text)
    # A word joiner is not seen, and keeps the services from reading @everyone, @here or <!channel>.
    text = re.sub(r"@(?=everyone\b|here\b|channel\b|all\b|room\b)", "@\u2060", text)
    text = re.sub(r"<(?=[!@#])", "<\u2060", text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def ended_key(run_id: str, ended: datetime) -> str:
    """Return the key of a session's end."""
    return f"session {run_id} ended {ended.isoformat()}"


def is_settled(session: Session) -> bool:
    """Tell whether a session is over to its last task: until then its note may lack the cause."""
    return session.state in RUN_OVER_STATES and not any(state in _BEGUN for state in session.tasks.values())


def ended(session: Session, remedies: tuple[Remedy, ...], page: str) -> Notice:
    """Tell how a session ended.

    Args:
        session: one that has ended.
        remedies: those of docs/trouble.md.
        page: the stack's address.
    """
    if session.ended is None:
        raise ValueError(f"{session.run_id} has not ended")
    what = description(session.request, session.owner or None)
    link = f"{page}/tarmac/sessions/{quote(session.run_id, safe='')}"
    key = ended_key(session.run_id, session.ended)
    if session.state == "success":
        lines = [*_result(session), *_took(session)]
        if lack := lack_in(session.note):
            lines = [f"It has no model: {lack}"]
        return _notice(key, Kind.FINISHED, session.owner, f"Finished: {what}", [*lines, link])
    found = _why_failed(session, remedies)
    kind, verb = (Kind.CANCELLED, "Cancelled") if cancellation(session.note) else (Kind.FAILED, "Failed")
    return _notice(key, kind, session.owner, f"{verb}: {what}", [*map(in_browser, found.why), *_todo(found), link])


def _todo(found: Explanation) -> list[str]:
    """Say what to do on the session's page, whose address follows, and who can do what it has no button for."""
    said = [in_browser(one) for one in found.todo]
    return [f"To do: {' '.join([*said, *for_whom([*found.why, *said])])}"] if said else []


def _why_failed(session: Session, remedies: tuple[Remedy, ...]) -> Explanation:
    """Explain a failure as `make explain` does."""
    run = {"dag_run_id": session.run_id, "state": session.state, "note": session.note}
    instances = [{"task_id": task, "state": state} for task, state in session.tasks.items()]
    place: Mapping[str, Any] = {"ledger": "nothing", "waits": None}
    cause = failure_in(session.note) or (
        "Airflow ended the session's run: it was marked as failed, or took longer than a session may."
    )
    return explanation(Known(run, instances, place, cause=cause), remedies, make_command)


def _result(session: Session) -> list[str]:
    registered = session.results.get(ids.UPDATE_MODEL_METADATA_REGISTRY)
    said = scored_sentence(registered)
    return [] if said is None else [f"{said}."]


def _took(session: Session) -> list[str]:
    if session.started is None or session.ended is None:
        return []
    return [f"It took {format_seconds((session.ended - session.started).total_seconds())}."]


def waits_key(run_id: str, since: datetime) -> str:
    """Return the key of a session's wait."""
    return f"session {run_id} waits since {since.isoformat()}"


def waits(row: Mapping[str, Any], session: Session, page: str) -> Notice:
    """Tell that a session waits for long.

    Args:
        row: of `Outbox.long_waiting`.
    """
    what = description(session.request, session.owner or None)
    waited = format_seconds(row["waited"], about=True)
    lines = [
        f"It has waited for {'cores and memory' if row['on_host'] else 'a GPU'} for {waited}: it {row['why']}.",
        'To do: nothing, or "Change priority" on its page, or ask for less; the page "Now" shows all that wait and '
        "what they wait for.",
        f"{page}/tarmac/sessions/{quote(session.run_id, safe='')}",
    ]
    return _notice(waits_key(session.run_id, row["enqueued_at"]), Kind.WAITING, session.owner, f"Waits: {what}", lines)


def quarantined(row: Mapping[str, Any], page: str) -> Notice:
    """Tell that a device takes no session until a person releases it.

    Args:
        row: of `Outbox.quarantined`.
    """
    uuid = str(row["device_uuid"])
    lines = [
        f"{uuid}: {row['reason']}.",
        told(f"To do: mend it, then `make release-gpu GPU={uuid}`. Until then it takes no session."),
        f"{page}/tarmac/",
    ]
    return _notice(quarantine_key(row), Kind.QUARANTINE, "", f"GPU in quarantine: {row['name']}", lines)


def quarantine_key(row: Mapping[str, Any]) -> str:
    """Return the key of a device's quarantine."""
    return f"quarantine {row['id']}"


def silent(row: Mapping[str, Any], lost_after: float, page: str) -> Notice:
    """Tell that another machine does not answer.

    Args:
        row: of `Outbox.silent_hosts`.
        lost_after: seconds without an answer, after which the sessions of a host are trained elsewhere.
    """
    count, since = int(row["sessions"]), format_seconds(row["silent"], about=True)
    if not count:
        meanwhile = "No session trains there."
    elif row["silent"] < lost_after:
        meanwhile = (
            f"{counted(count, 'session')} there may go on: they are followed again when it answers, and trained "
            f"elsewhere if it does not within {format_seconds(lost_after, about=True)}."
        )
    else:
        meanwhile = f"{counted(count, 'session')} of it are trained elsewhere as soon as there is room."
    lines = [
        f"It has not answered for {since}: {row['trouble']}.",
        meanwhile,
        told(
            f"To do: look at the machine and its network; {make_command('hosts')} shows when it answers. If it is gone "
            f"for good: `make host-remove NAME={row['name']}`."
        ),
        f"{page}/tarmac/",
    ]
    return _notice(silent_key(row), Kind.HOST, "", f"Host does not answer: {row['name']}", lines)


def silent_key(row: Mapping[str, Any]) -> str:
    """Return the key of a host's silence."""
    return f"host {row['name']} silent since {row['answered_at'].isoformat()}"


def promoted_key(row: Mapping[str, Any]) -> str:
    """Return the key of a step in a model's history."""
    return f"promotion {row['id']}"


def promoted(row: Mapping[str, Any], owner: str, page: str) -> Notice:
    """Tell what came into production, or that nothing is.

    Args:
        row: of `Outbox.promoted`.
        owner: whose session or step it was.
    """
    model, before, after = str(row["model"]), row["from_version"], row["to_version"]
    if after is None:
        title = f"No version of {model} is in production any more"
    else:
        title = f"In production: {model} version {after}" + ("" if before is None else f", in place of {before}")
    how = {
        "rule": f"The rule decided, of session {row['who']}",
        "rollback": f"{row['who']} took the last promotion back",
        SET_IN_MLFLOW: "It was set in MLflow",
        VERSION_DELETED: "The version was deleted in MLflow",
        MODEL_DELETED: "The model was deleted in MLflow",
    }.get(str(row["kind"]), f"{row['who']} decided")
    link = f"{page}/tarmac/models/{quote(model, safe='')}"
    return _notice(promoted_key(row), Kind.PROMOTED, owner, title, [f"{how}: {row['why']}", link])


def _notice(fact: str, kind: Kind, owner: str, title: str, lines: list[str]) -> Notice:
    body = "\n".join(harmless(line, _LINE) for line in lines if line)
    return Notice(fact, kind, owner, harmless(title, _TITLE), body)
