"""The command line: one subcommand for each command of the trainer contract."""

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tarmac_trainer import __version__, steps
from tarmac_trainer.runtime import events, stopping
from tarmac_trainer.runtime.errors import TrainerError
from tarmac_trainer.runtime.health import DEFAULT_MAX_AGE

_STEPS = {
    "prep": (steps.prep, "fetch and check the data sets of request.json into data/"),
    "train": (steps.train, "train on data/, leave the best model in model/"),
    "restore": (steps.restore, "fetch what the same training gave before instead, from MLflow"),
    "eval": (steps.evaluate, "score model/ on the eval lines, write metrics.json"),
    "save": (steps.save, "record model/ and its training in MLflow, unregistered"),
    "fetch": (steps.fetch, "fetch the registered model that TARMAC_MODEL_URI names into model/, from MLflow"),
    "predict": (steps.predict, "predict with model/ for each line of lines.jsonl"),
    "check": (steps.check, "say which of the lines of lines.jsonl cannot be read for the model of request.json"),
    "cleanup": (steps.cleanup, "empty the session's folder"),
}

_EPILOG = """\
A session is a folder that lasts from step to step; it starts with request.json:

  {"model": "named_entity_recognition",
   "datasets": {"news": {"train": "<id>/<id>.jsonl", "eval": null}},
   "gpu": false, "seed": 0, "parameters": {"max_steps": 1000}}

eval null holds out a fixed tenth of train. A data set is JSON lines:

  {"sentence": "Empire State Building", "named_entity": ["B-location", "I-location", "I-location"]}

exit codes: 0 done; 1 failed, may be retried; 2 the request or its data is wrong;
3 out of GPU memory; 143 stopped by SIGTERM.
Events are JSON lines on stdout, see the trainer contract.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser, for `main` and for tests."""
    parser = argparse.ArgumentParser(
        prog="tarmac-trainer",
        description="One step of a training session of Tarmac.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="command")
    for name, (_, help_text) in _STEPS.items():
        _add_session(commands.add_parser(name, help=help_text, description=_sentence(help_text)))
    text = "exit 0 when the training of the session progresses, 1 with a reason when not"
    health = commands.add_parser("health", help=text, description=_sentence(text))
    _add_session(health)
    health.add_argument(
        "--max-age",
        type=float,
        metavar="SECONDS",
        help=f"how long ago the last progress may be (default: $TARMAC_STALL_SECONDS, else {DEFAULT_MAX_AGE:g})",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Every failure ends in an `error` event."""
    signal.signal(signal.SIGTERM, stopping.handle)
    parser = build_parser()
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return 0
    session = Path(given.session)
    if given.command == "health":
        from tarmac_trainer.runtime import health

        well, line = health.check(session, max_age=given.max_age, now=time.time())
        print(line, flush=True)
        return 0 if well else 1
    try:
        events.result(session, given.command, _STEPS[given.command][0](session))
    except TrainerError as error:
        return _fail(str(error), error.exit_code, retryable=error.retryable, **error.fields())
    except OSError as error:
        return _fail(f"{type(error).__name__}: {error}", TrainerError.exit_code, retryable=True)
    except Exception as error:  # a bug: tell all of it, and let the pipeline try again
        traceback.print_exc()
        message = f"unexpected {type(error).__name__}: {error}"
        return _fail(message, TrainerError.exit_code, retryable=True)
    return 0


def _fail(message: str, exit_code: int, *, retryable: bool, **fields: Any) -> int:
    print(message, file=sys.stderr, flush=True)
    events.emit("error", message=message, retryable=retryable, **fields)
    return exit_code


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _add_session(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--session",
        default=os.environ.get("TARMAC_SESSION") or "/session",
        metavar="FOLDER",
        help="the session's folder (default: $TARMAC_SESSION, else /session; now %(default)s)",
    )
