"""The commands about registered models: models, compare, promote, rollback, production, reproduce."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tarmac.base.settings import settings
from tarmac.cli.model_tables import (
    comparison,
    history_rows,
    instant,
    step_lines,
    version_rows,
)
from tarmac.cli.tables import add_json, print_json, screen_width, table
from tarmac.cli.values import account
from tarmac.registry import actions
from tarmac.registry.client import Registry
from tarmac.registry.facts import compared_facts, scored_apart, step_facts, version_facts
from tarmac.registry.production import Production
from tarmac.registry.promotion import of_this_model


def models(arguments: argparse.Namespace) -> int:
    """List versions: name, version, alias, metric, data, age."""
    registry = Registry()
    with Production(settings().database_url, registry) as production:
        # An alias that a crash left behind follows the history; what was done in MLflow becomes part of it.
        notes = production.settle_all(registry.models())
    versions = registry.versions(arguments.model) if arguments.model else registry.all_versions(registry.models())
    if arguments.json:
        print_json([version_facts(version) for version in versions])
        for note in notes:
            print(note, file=sys.stderr)
        return 0
    if versions:
        header, rows = ["NAME", "VERSION", "ALIAS", "METRIC", "DATA", "AGE"], version_rows(versions, now=time.time())
        if any(row[-1] for row in rows):
            header = [*header, "NOTE"]
        for line in table(
            header, [row[: len(header)] for row in rows], width=screen_width(), whole=("NAME", "VERSION")
        ):
            print(line)
    elif name := arguments.model:
        print(f"{name} has no version any more: `make production MODEL={name}` shows its history.")
    else:
        print("No model yet: try `make demo` or `make trigger CONFIG=req.json`.")
    for note in notes:
        print(note)
    return 0


def compare(arguments: argparse.Namespace) -> int:
    """Show two versions side by side."""
    registry = Registry()
    a, b = (actions.trained(registry, text) for text in (arguments.a, arguments.b))
    if arguments.json:
        print_json(compared_facts(a, b))
    else:
        if caution := scored_apart(a.version.tags, b.version.tags):
            print(caution)
        for line in table(["", "", "", a.title, b.title], comparison(a, b), width=screen_width(), wrapped=True):
            print(line)
    for one in (a, b):
        if one.run is None:
            print(f"The MLflow run of {one.title} was deleted: what it recorded is not known.", file=sys.stderr)
    return 0


def promote(arguments: argparse.Namespace) -> int:
    """Put a version into production."""
    step = actions.promote(arguments.model, arguments.version, who=arguments.by, why=arguments.why)
    for line in step_lines(step):
        print(line)
    return 0


def rollback(arguments: argparse.Namespace) -> int:
    """Take the last promotion back."""
    step = actions.roll_back(arguments.model, who=arguments.by, why=arguments.why)
    for line in step_lines(step):
        print(line)
    return 0


def production(arguments: argparse.Namespace) -> int:
    """Say what is or was in production, and how it came there."""
    steps, step = actions.history(arguments.model, arguments.at)
    if arguments.json:
        print_json([step_facts(one) for one in ([] if step is None else [step] if arguments.at else steps)])
        return 0
    if not steps:
        print(f"No version of {arguments.model} was ever in production.")
        return 0
    if arguments.at is not None:
        if step is None or step.to_version is None:
            print(f"Nothing of {arguments.model} was in production at {instant(arguments.at)}.")
        else:
            print(f"Version {step.to_version} of {arguments.model} was in production at {instant(arguments.at)}.")
            if step not in of_this_model(steps):
                print("It was of a model of that name that was deleted in MLflow since.")
        return 0
    header = ["AT", "FROM", "TO", "KIND", "WHO", "WHY"]
    past = table(header, history_rows(steps), width=screen_width(), whole=("AT", "FROM", "TO"))
    for line in [*step_lines(steps[-1]), "", *past]:
        print(line)
    return 0


def reproduce(arguments: argparse.Namespace) -> int:
    """Train again from the record of a run; exit 0 if the metrics match, 1 if not."""
    from tarmac.cli.reproduce import reproduce_run

    return reproduce_run(arguments.run_id)


def _instant(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time: write for example 2026-11-24T08:30:00Z (UTC where no zone is given)"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _number(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a version: write its number, for example 3")
    return int(text)


def add_to(commands: Any) -> None:
    """Add these commands to the parser of cli.py."""

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(name, help=text)
        parser.set_defaults(run=run)
        return parser

    listed = add("models", models, "list registered models")
    listed.add_argument("model", nargs="?")
    both = add("compare", compare, "show two versions side by side")
    both.add_argument("a")
    both.add_argument("b")
    up = add("promote", promote, "put a version into production")
    up.add_argument("model")
    up.add_argument("version", type=_number)
    back = add("rollback", rollback, "take the last promotion back")
    back.add_argument("model")
    for parser in (up, back):
        parser.add_argument("--by", default="", type=account, help="who says so, for the record")
        parser.add_argument("--why", default="", help="why, for the record")
    past = add("production", production, "say what is or was in production")
    past.add_argument("model")
    past.add_argument("--at", type=_instant, help="a time, ISO 8601")
    for parser in (listed, both, past):
        add_json(parser)
    repeat = add("reproduce", reproduce, "train again from a run's record, compare the metrics")
    repeat.add_argument("run_id", metavar="run")
