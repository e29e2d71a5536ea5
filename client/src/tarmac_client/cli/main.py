"""The command `tarmac`: parses the command line, and makes one message and an exit code of every error.

Exit codes are `ExitCode`; docs/client.md lists them.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

from tarmac_client import __version__
from tarmac_client.cli import commands, completion
from tarmac_client.errors import ExitCode, TarmacClientError

_ENVIRONMENT = """\
The stack and the login: `tarmac login URL`, or TARMAC_URL with TARMAC_USER and TARMAC_PASSWORD, or with TARMAC_TOKEN.
TARMAC_CA_BUNDLE: a file of certificates to trust. HTTPS_PROXY, NO_PROXY: as everywhere. TARMAC_CONFIG: where the login
is kept. Exit codes: 0 done, 1 the session failed, 2 wrong input, 3 the stack does not answer, 4 the login or its role,
5 client and stack have different versions, 130 interrupted."""

Run = Callable[[argparse.Namespace], int]


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line. Pure."""
    top = argparse.ArgumentParser(
        prog="tarmac",
        description="Train models on a Tarmac stack, on this machine or another one.",
        epilog=_ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"tarmac-client {__version__}")
    verbs = top.add_subparsers(required=True, metavar="VERB")
    top.set_defaults(json=False)
    as_json: dict[str, Any] = {
        "action": "store_true",
        "default": argparse.SUPPRESS,  # so that a verb below keeps what was said to the one above
        "help": "print the result as JSON and nothing else",
    }

    def add(name: str, run: Run, text: str, example: str, of: object = verbs) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = of.add_parser(  # type: ignore[attr-defined]
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        made.add_argument("--json", **as_json)
        made.set_defaults(run=run)
        return made

    login = add(
        "login", commands.login, "keep the address of a stack and a login", "tarmac login http://localhost:8081"
    )
    login.add_argument("url", metavar="URL")
    login.add_argument("--user", help="default: asked for")
    login.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    login.add_argument("--keyring", action="store_true", help="keep the password in the system's keyring")

    train = add(
        "train",
        commands.train,
        "start a session and follow it",
        "tarmac train named_entity_recognition --train my.jsonl --eval dev.jsonl --set max_steps=500\n"
        "  tarmac train req.json",
    )
    train.add_argument("what", metavar="REQUEST.json|MODEL", help="a request in a file, or a kind of model")
    train.add_argument("--train", metavar="FILE", help="what to train on: a file, an id of the store, or a URL")
    train.add_argument("--eval", metavar="FILE", help="what to score on; default: about a tenth of what is trained on")
    train.add_argument("--gpu", action="store_true", help="train on a GPU; waits until it fits on one")
    train.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a parameter, as `tarmac kinds MODEL` lists them; may be repeated",
    )
    train.add_argument("--name", help="under which the model is registered")
    train.add_argument(
        "--key", help="the session's id; the same request with the same key starts nothing a second time"
    )
    train.add_argument("--detach", action="store_true", help="print the session's id and return at once")

    own = add(
        "run",
        commands.run,
        "train with code of your own, and follow it",
        "tarmac run --data my.jsonl -- python train.py\n"
        "  tarmac run --image team/train:3 --gpu-memory 12GiB --code . --data my.jsonl -- python train.py --epochs 3\n"
        "  tarmac run --git .@HEAD --requirements requirements.txt --data my.jsonl -- python train.py",
    )
    own.add_argument("command", metavar="COMMAND", nargs="+", help="what trains, after --")
    own.add_argument(
        "--data", metavar="FILE", action="append", required=True, help="a file, an id or a URL; repeatable"
    )
    own.add_argument("--eval", metavar="FILE", help="what to score on; default: about a tenth of the data")
    own.add_argument("--code", metavar="PATH", help="a folder or a file; default: the files that COMMAND names")
    own.add_argument(
        "--git", metavar="REPOSITORY@COMMIT", help="code of a Git commit; with it --code is a folder in there"
    )
    own.add_argument(
        "--requirements", metavar="FILE", help="of the code, names libraries; they are installed before, and kept"
    )
    own.add_argument(
        "--python",
        metavar="VERSION",
        help="for which --requirements are, such as 3.11; default: that of Tarmac's trainer",
    )
    own.add_argument("--image", metavar="NAME", help="one that the stack allows; default: Tarmac's own trainer")
    own.add_argument("--gpu", action="store_true", help="train on a GPU; waits until it fits on one")
    own.add_argument("--gpu-memory", metavar="SIZE", help="of a GPU, for example 12GiB; implies --gpu")
    own.add_argument("--memory", metavar="SIZE", help="of the host, for example 4GiB")
    own.add_argument("--cpus", metavar="NUMBER", type=float, help="cores of the host")
    own.add_argument("--name", help="under which the model is registered; default: own_code")
    own.add_argument("--key", help="the session's id; the same request with the same key starts nothing a second time")
    own.add_argument("--detach", action="store_true", help="print the session's id and return at once")

    one = add("follow", commands.follow, "follow a session to its end", "tarmac follow SESSION")
    one.add_argument("session", metavar="SESSION")
    listing = add("ls", commands.ls, "list the latest sessions", "tarmac ls --limit 50")
    listing.add_argument("--limit", type=_count, default=20)
    one = add("status", commands.status, "show all about a session now", "tarmac status SESSION")
    one.add_argument("session", metavar="SESSION")
    one = add("logs", commands.logs, "print a session's log", "tarmac logs -f SESSION")
    one.add_argument("session", metavar="SESSION")
    one.add_argument("-f", "--follow", action="store_true", help="go on as it grows, until the session has ended")
    one.add_argument("--task", help="default: the last task that has begun")
    one = add(
        "explain", commands.explain, "say why a session waits or failed, and what to do", "tarmac explain SESSION"
    )
    one.add_argument("session", metavar="SESSION")
    one = add(
        "retry", commands.retry, "run a session that failed again, from the task that failed on", "tarmac retry SESSION"
    )
    one.add_argument("session", metavar="SESSION")
    one = add("cancel", commands.cancel, "end a session, in whatever state it is", "tarmac cancel SESSION")
    one.add_argument("session", metavar="SESSION")

    asks = add(
        "predict",
        commands.predict,
        "predict with a registered model, on the stack",
        "tarmac predict named_entity_recognition@production new.jsonl\n  tarmac predict named_entity_recognition@3 -",
    )
    asks.add_argument(
        "model",
        metavar="MODEL",
        help="NAME, NAME@3, NAME@production, or a session; NAME: in production, else the latest",
    )
    asks.add_argument(
        "file", metavar="FILE", help="JSON lines, or a JSON array, without what is to be predicted; -: standard input"
    )

    data = verbs.add_parser("data", help="store and look at data sets", description="Store and look at data sets.")
    data_verbs = data.add_subparsers(required=True, metavar="VERB")
    push = add(
        "push", commands.data_push, "store files that are not stored yet", "tarmac data push my.jsonl", data_verbs
    )
    push.add_argument("files", metavar="FILE", nargs="+", help="a data set, or a .py or .sh script with --script")
    kind = push.add_mutually_exclusive_group()
    kind.add_argument("--script", action="store_true", help="FILE is a script")
    kind.add_argument("--code", action="store_true", help="FILE is a folder or file of code, for a request with run")
    kind.add_argument(
        "--weights", action="store_true", help="FILE is a folder with a transformer's weights, for base_model"
    )
    push.add_argument("--text", metavar="COLUMN", help="of a table: the text; default: known by its name")
    push.add_argument("--label", metavar="COLUMN", help="of a table: the label; default: known by its name")
    push.add_argument(
        "--labels-between",
        metavar="SIGN",
        help="of a table: the sign between the labels of a text, such as ';'; '' where it has one label",
    )
    push.add_argument(
        "--classes",
        metavar="NAMES",
        help="of classes that are names: those in the order of their numbers, with commas between, for example "
        "bad,good; default: by the alphabet, the same in all files of one call",
    )
    push.add_argument("--encoding", metavar="NAME", help="of the text, for example ISO-8859-1; default: UTF-8")
    listing = add("ls", commands.data_ls, "list what is stored, newest first", "tarmac data ls", data_verbs)
    listing.add_argument("--limit", type=_count, default=100)
    show = add("show", commands.data_show, "say what is in a data set", "tarmac data show ID", data_verbs)
    show.add_argument("id", metavar="ID", help="as `tarmac data ls` prints it")
    show.add_argument("--beside", metavar="ID", help="count the lines that are in this one too: eval beside train")

    remove = add("rm", commands.data_rm, "remove files that nothing needs any more", "tarmac data rm ID", data_verbs)
    remove.add_argument("ids", metavar="ID", nargs="+", help="as `tarmac data ls` prints it")

    models = verbs.add_parser(
        "models",
        help="list, compare and promote registered models",
        description="Registered models. Without a VERB they are listed.",
    )
    models.add_argument("--json", **as_json)
    models.set_defaults(run=commands.models_ls, model=None)
    of_models = models.add_subparsers(metavar="VERB")
    listing = add("ls", commands.models_ls, "list registered versions", "tarmac models ls my_model", of_models)
    listing.add_argument("model", nargs="?", metavar="NAME", help="of one model only")
    both = add(
        "compare", commands.models_compare, "show two versions side by side", "tarmac models compare a/1 a/2", of_models
    )
    both.add_argument("a", metavar="NAME/NUMBER")
    both.add_argument("b", metavar="NAME/NUMBER")
    one = add(
        "promote", commands.models_promote, "put a version into production",
        'tarmac models promote my_model 3 --why "better on the new data"', of_models,
    )  # fmt: skip
    one.add_argument("model", metavar="NAME")
    one.add_argument("version", metavar="NUMBER", type=_number)
    one.add_argument("--why", default="", help="for the record")
    one = add(
        "rollback",
        commands.models_rollback,
        "take the last promotion back",
        "tarmac models rollback my_model",
        of_models,
    )
    one.add_argument("model", metavar="NAME")
    one.add_argument("--why", default="", help="for the record")
    one = add(
        "production", commands.models_production, "say what is or was in production, and how it came there",
        "tarmac models production my_model --at 2026-11-24T08:30:00Z", of_models,
    )  # fmt: skip
    one.add_argument("model", metavar="NAME")
    one.add_argument(
        "--at", type=_time, metavar="TIME", help="what was there then; ISO 8601, UTC where it names no zone"
    )
    one = add("rm", commands.models_rm, "remove a version with its files", "tarmac models rm my_model 2", of_models)
    one.add_argument("model", metavar="NAME")
    one.add_argument("version", metavar="NUMBER", type=_number)
    one = add(
        "reproduce", commands.models_reproduce, "train again from a session's record, and compare the metrics",
        "tarmac models reproduce SESSION", of_models,
    )  # fmt: skip
    one.add_argument("session", metavar="SESSION", help="the session to repeat")
    how = one.add_mutually_exclusive_group()
    how.add_argument("--detach", action="store_true", help="print the repetition's id and return at once")
    how.add_argument(
        "--compare", metavar="REPETITION", help="compare with REPETITION, which was started before, and start nothing"
    )
    one = add(
        "kinds", commands.kinds, "list the kinds of models; of one, show each parameter and what it does",
        "tarmac kinds named_entity_recognition",
    )  # fmt: skip
    one.add_argument("kind", metavar="MODEL", nargs="?", help="whose parameters are shown")
    add("gpus", commands.gpus, "show the GPUs, what is reserved, and the queue with reasons", "tarmac gpus")
    dag = verbs.add_parser("dag", help="upload DAG files", description="Upload DAG files; needs the role Admin.")
    of_dag = dag.add_subparsers(required=True, metavar="VERB")
    one = add(
        "upload", commands.dag_upload, "have a DAG file checked, and shown in Airflow",
        'tarmac dag upload nightly.py --as alice --why "twice the steps"', of_dag,
    )  # fmt: skip
    one.add_argument("file", metavar="FILE", help="one Python file that makes a DAG")
    one.add_argument("--as", metavar="SUFFIX", dest="suffix", default="", help="as a copy: its DAG ids end in __SUFFIX")
    one.add_argument("--why", default="", help="the reason: the note of each run has it, with your name")
    add("ls", commands.dag_ls, "list the uploaded DAG files", "tarmac dag ls", of_dag)
    one = add("rm", commands.dag_rm, "remove an uploaded DAG file; its runs stay", "tarmac dag rm nightly", of_dag)
    one.add_argument("name", metavar="NAME", help="as `tarmac dag ls` prints it")
    passwords = verbs.add_parser("passwords", help="replace passwords", description="Replace the stack's passwords.")
    of_passwords = passwords.add_subparsers(required=True, metavar="VERB")
    one = add(
        "generate", commands.passwords_generate,
        "give the stack of this machine new passwords and signing keys, and print the logins; sessions go on",
        "tarmac passwords generate --folder tarmac", of_passwords,
    )  # fmt: skip
    one.add_argument("--folder", default=".", help="in which `make up` was given; default: the current one")
    one.add_argument("--yes", action="store_true", help="do not ask first")
    gpu = verbs.add_parser("gpu", help="try the GPUs", description="Try the GPUs.")
    of_gpu = gpu.add_subparsers(required=True, metavar="VERB")
    one = add(
        "check",
        commands.gpu_check,
        "say whether the GPUs can be used; each is tried",
        "tarmac gpu check --host gpu2",
        of_gpu,
    )
    one.add_argument("--host", default="", help="whose, as `tarmac hosts` lists it; default: the stack's own machine")
    one = add(
        "doctor", commands.doctor, "say what is wrong with this machine's client and with the stack", "tarmac doctor"
    )
    one.add_argument("--fix", action="store_true", help="mend of the stack what is safe to mend, and say what")
    add("hosts", commands.hosts, "show cores and memory of the hosts, and the queue of CPU sessions", "tarmac hosts")
    complete = add(
        "completion",
        _print_completion,
        "print a script that completes this command in a shell",
        "tarmac completion bash",
    )
    complete.add_argument("shell", choices=completion.SHELLS)
    return top


def _print_completion(arguments: argparse.Namespace) -> int:
    script = completion.script(parser(), arguments.shell)
    print(json.dumps({"shell": arguments.shell, "script": script}) if arguments.json else script.rstrip("\n"))
    return ExitCode.SUCCESS


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000")
    return int(text)


def _number(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) < 1_000_000_000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a version: write its number, for example 3")
    return int(text)


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: write for example 2026-11-24T08:30:00Z") from error
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    arguments = parser().parse_args(argv)
    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()  # here, where a reader that has ended is no error
        return code
    except TarmacClientError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        _close_output()  # the program that read this has ended
        return ExitCode.INTERRUPTED
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _close_output()
        print(f"The output could not be written: {error.strerror}.", file=sys.stderr)
        return ExitCode.NO_ANSWER


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _close_output() -> None:
    # Python would try once more to write while it exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run() -> None:
    """Be the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has no ✓
    sys.exit(main())
