"""Sends a test message to the targets of env/notify.toml."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tarmac.base.errors import ExitCode, NotifyError
from tarmac.notify import sending
from tarmac.notify.config import Target, configured

_TITLE = "Tarmac: a test message"


def notify_test(arguments: argparse.Namespace) -> int:
    """Send a test message to each target, or to one; print what became of it. Fails if one did not take it."""
    config = configured()
    sending.check(config)
    names = ", ".join(target.name for target in config.targets)
    if arguments.check:
        return 0
    if not config.targets:
        raise NotifyError(
            [
                "there is no [[target]], or there is no such file. Copy env/notify.toml.example to "
                "env/notify.toml and fill it in."
            ]
        )
    asked = [target for target in config.targets if arguments.target in ("", target.name)]
    if not asked:
        raise NotifyError([f"TARGET: there is no target {arguments.target!r}; there are: {names}."])
    with ThreadPoolExecutor(len(asked)) as pool:
        problems = list(pool.map(_send, asked))
    for target, problem in zip(asked, problems, strict=True):
        print(f"{target.name}: {'did not take the message: ' + problem if problem else 'took the message.'}")
    return ExitCode.RUN_FAILED if any(problems) else ExitCode.SUCCESS


def _send(target: Target) -> str:
    told = ", ".join(sorted(target.kinds))
    whose = "all sessions" if target.owners is None else f"sessions of {', '.join(sorted(target.owners))}"
    return sending.send(target, None, _TITLE, f"The target {target.name!r} gets: {told}; of {whose}.")


def add_to(commands: Any) -> None:
    """Add the command to a parser."""
    test = commands.add_parser("notify-test", help="send a test message to each target of env/notify.toml")
    test.add_argument("target", nargs="?", default="", help="only to this one")
    test.add_argument("--check", action="store_true", help="send nothing: say whether the file is right")
    test.set_defaults(run=notify_test)
