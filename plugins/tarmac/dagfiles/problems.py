"""What is wrong with a DAG file that was loaded once, in a sentence each. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tarmac.base.ids import DAG_ID
from tarmac.base.texts import one_line
from tarmac.dagfiles.folder import Upload
from tarmac.dagfiles.looking import MOST_DAGS

SECONDS = 20
"""How long the top level of a file may take; compose.yaml gives Airflow longer."""

_MOST_OF_A_MESSAGE = 300
_TIMEOUT = re.compile(r"DagBag import timeout for .* after (\d+)(?:\.\d+)?s")
_IN_FILE = r'File "[^"]*/%s", line (\d+)'
_CYCLE = re.compile(r"Cycle detected in DAG: (\S+?)\.? Faulty task: (\S+)", re.IGNORECASE)
_NOT_FOUND = re.compile(r"\b(?:VARIABLE|CONNECTION)_NOT_FOUND\b")
_IMPORT = re.compile(r"No module named '([^']+)'")


def problem_of(trace: str, file: str) -> str:
    """Say what a trace of Airflow's means, by the line of the file that it happened in. Pure."""
    lines = re.findall(_IN_FILE % re.escape(file), trace)
    where = f"{file}, line {lines[-1]}" if lines else file
    said = _message(trace)
    if timeout := _TIMEOUT.search(trace):
        return (
            f"{where}: loading the file was not done after {timeout[1]} s, and Airflow loads it again and again: move "
            "what is slow into a task."
        )
    if cycle := _CYCLE.search(trace):
        return (
            f"{file}: DAG {cycle[1]!r} has a circle: task {cycle[2]!r} comes after itself. Take one of the arrows out."
        )
    if missing := _IMPORT.search(said):
        return (
            f"{where}: there is no module {missing[1]!r} in the stack's Airflow: import what its image has "
            "(docs/dags.md), or put the code into this file."
        )
    if _NOT_FOUND.search(said):
        return (
            f"{where}: it asks Airflow for a variable or a connection while it is loaded, and the check has none: ask "
            "in a task, or in a template such as {{ var.value.name }}."
        )
    return f"{where}: {said}"


def _message(trace: str) -> str:
    """Return the error that a trace ends with, which may have several lines."""
    lines = trace.rstrip().splitlines()
    frame = max((number for number, line in enumerate(lines) if line.startswith('  File "')), default=-1)
    first = next((number for number in range(frame + 1, len(lines)) if not lines[number].startswith(" ")), 0)
    said = one_line(" ".join(lines[first:]))[:_MOST_OF_A_MESSAGE]
    return re.sub(r"^(?:\w+\.)+(?=\w+(?::|$))", "", said) or "loading the file failed"


def problems(
    found: Mapping[str, Any],
    *,
    file: str,
    name: str,
    suffix: str,
    others: Mapping[str, str],
    uploads: Mapping[str, Upload],
) -> list[str]:
    """Say why a file cannot be uploaded under a name; []: it can.

    Args:
        found: of the file, as `looking.load` gives it.
        file: its name as its person has it.
        name: under which it is to be stored: with the suffix of a copy.
        others: the DAGs that are in Airflow and not uploaded: for each id where its file is.
        uploads: all that is uploaded, by name.
    """
    dags = list(found["dags"])
    if wrong := [problem_of(str(trace), file) for trace in found["errors"]]:
        return wrong
    if not dags:
        return [
            f"{file}: there is no DAG in it: make one at the top level, by `with DAG(...)` or by calling a function "
            "with @dag."
        ]
    if len(dags) > MOST_DAGS:
        return [f"{file}: it makes more than {MOST_DAGS} DAGs: make fewer, and give a DAG parameters instead."]
    wrong = [f"{file}: it makes two DAGs {one!r}: give each an id of its own." for one in _twice(dags)]
    for dag in dict.fromkeys(dags):
        if dag == DAG_ID or dag.startswith(f"{DAG_ID}__"):
            wrong.append(
                f"{file}: {DAG_ID!r} is the stack's own DAG: use another id. A copy of that DAG would train nothing, "
                "since its tasks know it by its id: start sessions by the API, also from a task of a DAG of yours "
                "(docs/api.md)."
            )
        elif dag in others:
            wrong.append(f"{file}: the stack has a DAG {dag!r} already, in {others[dag]}: {_INSTEAD}")
        if owner := next((key for key, one in uploads.items() if key != name and dag in one.dags), None):
            wrong.append(f"{file}: {uploads[owner].who} has uploaded a DAG {dag!r} already, as {owner!r}: {_INSTEAD}")
        if suffix and not dag.endswith(f"__{suffix}"):
            wrong.append(
                f"{file}: --as cannot change the id of DAG {dag!r}: write its id where the DAG is made, as in "
                "DAG('my_dag') or @dag(dag_id='my_dag')."
            )
    return wrong


_INSTEAD = "use another id, or upload a copy with --as SUFFIX."


def _twice(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
