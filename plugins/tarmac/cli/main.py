"""The commands behind the Makefile, run in the airflow-cli container: `python -m tarmac.cli COMMAND`.

Exit codes are `ExitCode`: 0 success, 1 the run failed, 2 bad input, 3 the stack does not answer, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import re
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, NoReturn

from tarmac.base.airflow_api import log_in
from tarmac.base.errors import CheckerUnavailableError, DatasetError, ExitCode, RequestError, TarmacError
from tarmac.base.ids import DAG_ID
from tarmac.base.settings import settings
from tarmac.base.units import format_size
from tarmac.checks import parts
from tarmac.cli import doctor, host_commands, model_commands, notify_test, space
from tarmac.cli.cancel import cancel_run
from tarmac.cli.explain import explain as explain_session
from tarmac.cli.explain import lines, make_command
from tarmac.cli.follow import follow_run
from tarmac.cli.retry import begin_again, retry_run
from tarmac.cli.session_tables import HEADER, PAUSED, WHOLE, session_facts, session_rows
from tarmac.cli.tables import add_json, print_json, screen_width, table
from tarmac.cli.values import account, text_problem
from tarmac.ledger import database
from tarmac.ledger.ledger import Ledger
from tarmac.request import datasets
from tarmac.request import weights as weight_files
from tarmac.request.catalogue import OUR_IMAGE, TRANSFORMERS_IMAGE, catalogue, named_weights
from tarmac.request.checker import ask_checker
from tarmac.request.content import HEAD_BYTES, problem_with_content
from tarmac.request.schema import read_request
from tarmac.request.starting import check_key, start
from tarmac.request.text import read_json
from tarmac.scheduler.board import facts, show


def init(_: argparse.Namespace) -> int:
    """Migrate and seed."""
    # Imported here: it is Airflow's models, 1,170 modules and 4.2 s of CPU on a slow core (time.process_time), for this
    # command alone.
    from tarmac.cli.stack_init import initialise

    initialise()
    return 0


def dataset(arguments: argparse.Namespace) -> int:
    """Store standard input; print its reference. A file that is something else is refused before anything is stored."""
    head = sys.stdin.buffer.read(HEAD_BYTES)
    if problem := problem_with_content(head, arguments.suffix):
        raise DatasetError(problem)
    reference, size, new = datasets.put(sys.stdin.buffer, settings().store_url, arguments.suffix, head=head)
    if not arguments.quiet:
        # The engine passes the two outputs on side by side: on a screen either can be first.
        said = "Stored" if new else "Already there:"
        print(f"{said} {format_size(size)}. The line with the id is what goes into a request.", file=sys.stderr)
    print(reference)
    return 0


def weights(arguments: argparse.Namespace) -> int:
    """Store the weights on standard input, print what a request names them by. With names: choose of them."""
    if arguments.names:
        print("\n".join(weight_files.choose(arguments.names)))
        return 0
    reference, size, new = datasets.put(sys.stdin.buffer, settings().store_url, ".weights")
    said = "Stored" if new else "Already there:"
    print(f"{said} {format_size(size)}. The line with weights: goes into a request, as base_model.", file=sys.stderr)
    print(named_weights(reference))
    return 0


def _read_request(content: bytes) -> dict[str, Any]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = f"byte {error.start + 1} is 0x{content[error.start]:02x}"
        raise RequestError([f"request: is not UTF-8 text ({byte}): save the file as UTF-8."]) from error
    try:
        return read_request(text)[0]
    except RequestError as error:
        raise RequestError([*error.problems, *_world_problems(text)]) from None


def _world_problems(text: str) -> list[str]:
    """Say what the world contradicts of a request that is wrong already, so that one answer names it all."""
    try:
        conf, _ = read_json(text, what="request")
        return asyncio.run(ask_checker(conf)) if isinstance(conf, dict) else []
    except (RequestError, CheckerUnavailableError, ValueError):
        return []  # what the form lacks is told in any case


def check_settings(_: argparse.Namespace) -> int:
    """Read the settings, which refuses a wrong one."""
    settings()
    return 0


def trigger(arguments: argparse.Namespace) -> int:
    """Check the request on standard input, start a run, print its id; with a key, at most one run for that key."""
    check_key(arguments.key)
    request = _read_request(sys.stdin.buffer.read())
    run_id, new = start(log_in(), request, arguments.key)
    said = f"Started run {run_id}" if new else f"The key {arguments.key!r} was sent before: its run is {run_id}"
    print(said, file=sys.stderr)
    print(run_id, flush=True)
    return 0


def follow(arguments: argparse.Namespace) -> int:
    """Follow a run to its end."""
    try:
        return follow_run(log_in(), arguments.run_id)
    except KeyboardInterrupt:
        print(f"\nNo longer following; the run goes on. Follow it again: make follow RUN={arguments.run_id}")
        return ExitCode.INTERRUPTED


def cancel(arguments: argparse.Namespace) -> int:
    """End a run."""
    return cancel_run(log_in(), arguments.run_id, arguments.by)


def retry(arguments: argparse.Namespace) -> int:
    """Run a session that failed again, from the task that failed on."""
    if retry_run(log_in(), arguments.run_id, arguments.by):
        print(f"next     make follow RUN={arguments.run_id}")
    return 0


def begin_sessions_again(arguments: argparse.Namespace) -> int:
    """Train sessions of a backup again whose volume is gone."""
    for run_id in begin_again(log_in(), arguments.run_ids):
        print(f"{run_id} was being saved or scored when the backup was made: it trains again.")
    return 0


def explain(arguments: argparse.Namespace) -> int:
    """Say why a session waits or failed, and what to do."""
    api = log_in()
    run = api.run(arguments.run_id)
    found = explain_session(api, run, parts.place(arguments.run_id), make_command)
    if arguments.json:
        print_json({"id": arguments.run_id, **asdict(found)})
        return 0
    for line in lines(found, arguments.run_id):
        print(line)
    return 0


def sessions(arguments: argparse.Namespace) -> int:
    """List the latest training sessions."""
    api = log_in()
    runs = api.runs(20)
    under_way = [run["dag_run_id"] for run in runs if run["state"] in ("running", "queued")]
    found = session_facts(runs, api.active_tasks(under_way), now=datetime.now(UTC))
    if arguments.json:
        print_json(found)
    elif not found:
        print("No training session yet: try `make demo` or `make trigger CONFIG=req.json`.")
    else:
        for line in table(HEADER, session_rows(found), width=screen_width(), whole=WHOLE):
            print(line)
    if under_way and not arguments.json and api.is_paused():
        print(PAUSED)
    if arguments.space and not arguments.json:
        print(f"\n{space.latest()}")
    return 0


def gpus(arguments: argparse.Namespace) -> int:
    """Show devices, reservations and the queue."""
    with Ledger(settings().database_url) as ledger:
        if arguments.json:
            print_json(facts(ledger))
            return 0
        for line in show(ledger):
            print(line)
    return 0


def examine(arguments: argparse.Namespace) -> int:
    """Say what is wrong with the stack, and mend what is safe to mend before if asked to; fail if something is."""
    if arguments.fix:
        mended = doctor.ask("POST", "/mend")
        if arguments.json:
            print_json(mended)
        else:
            print("\n".join(doctor.mended_lines(mended)))
        return doctor.code_of([*mended["findings"], *({"state": "wrong"} for _ in mended["failed"])])
    found = doctor.ask("GET", "/doctor")
    if arguments.json:
        print_json(found)
    else:
        print("\n".join(doctor.finding_lines(found)))
    return doctor.code_of(found)


def gpu_check(arguments: argparse.Namespace) -> int:
    """Say whether the GPUs can be used; fail if none can."""
    found = doctor.ask("POST", "/gpu-check", host=arguments.host)
    if arguments.json:
        print_json(found)
    else:
        print("\n".join(doctor.gpu_lines(found)))
    return ExitCode.SUCCESS if found["usable"] else ExitCode.RUN_FAILED


def release_gpu(arguments: argparse.Namespace) -> int:
    """Take a device out of quarantine."""
    with Ledger(settings().database_url) as ledger:
        if arguments.uuid not in (known := [device.uuid for device in ledger.devices()]):
            print(
                f"GPU: there is no device {arguments.uuid!r}; there are: {', '.join(known) or 'none'}.", file=sys.stderr
            )
            return ExitCode.BAD_INPUT
        if ledger.release_quarantine(arguments.uuid, arguments.by):
            print(f"{arguments.uuid} takes sessions again, as soon as the driver calls it healthy.")
        else:
            print(f"{arguments.uuid} is not in quarantine.")
    return 0


def trainers(arguments: argparse.Namespace) -> int:
    """List the catalogue; fail if a file of it has a problem."""
    logging.getLogger(catalogue.__module__).setLevel(logging.ERROR)  # its problems are printed below
    found = catalogue()
    ours = (OUR_IMAGE, TRANSFORMERS_IMAGE)
    names = {name: "Tarmac's own" if model.image in ours else model.image for name, model in found.models.items()}
    if arguments.json:
        print_json([{"model": name, "trainer": names[name], **asdict(model)} for name, model in found.models.items()])
    else:
        rows = [[name, model.score, names[name], model.title] for name, model in found.models.items()]
        for line in table(["MODEL", "SCORE", "TRAINER", "WHAT"], rows, width=screen_width(), whole=("MODEL",)):
            print(line)
    for problem in found.problems:
        print(problem, file=sys.stderr)
    return ExitCode.BAD_INPUT if found.problems else 0


def migrate(arguments: argparse.Namespace) -> int:
    """Bring the ledger to a version."""
    before, after = database.migrate(settings().database_url, arguments.to)
    print(f"The ledger was at version {before} and is at version {after}.")
    return 0


def ready(_: argparse.Namespace) -> int:
    """Tell whether the API answers and has the DAG, and whether Tarmac's page is there."""
    api = log_in()
    dag = api.call("GET", f"/dags/{DAG_ID}")
    if dag["has_import_errors"]:
        print(f"{DAG_ID} has import errors: see the UI's first page.", file=sys.stderr)
        return ExitCode.UNREACHABLE
    api.visit("/tarmac/")
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser whose errors name make's variable, in one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and exit with 2."""
        named = re.sub(r"^argument (?:--)?([a-z_]+): ", lambda found: f"{found[1].upper()}: ", message)
        self.exit(ExitCode.BAD_INPUT, f"{named}\n")


def main(argv: list[str] | None = None) -> int:
    """Run one command; errors made on purpose become one message and an exit code."""
    parser = _Parser(prog="tarmac", description="Commands of the Tarmac stack.")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("init", help="migrate the databases, set the login, seed the pools").set_defaults(run=init)
    store = commands.add_parser("dataset", help="store a file from standard input, print its reference")
    store.add_argument("--quiet", action="store_true", help="print the reference only")
    store.add_argument(
        "--suffix", choices=(".jsonl", ".py", ".sh", ".tar"), default=".jsonl", help="a data set, a script, or code"
    )
    store.set_defaults(run=dataset)
    brought = commands.add_parser("weights", help="store weights of a transformer from standard input, a tar of files")
    brought.add_argument("names", nargs="*", help="the names of a folder's files: print those that are to be sent")
    brought.set_defaults(run=weights)
    send = commands.add_parser("trigger", help="check a request from standard input and start it")
    send.add_argument("--key", help="the run's id; the same request with the same key starts nothing a second time")
    send.set_defaults(run=trigger)
    one = commands.add_parser("follow", help="follow a run to its end")
    one.add_argument("run_id", metavar="run")
    one.set_defaults(run=follow)
    end = commands.add_parser("cancel", help="end a run, in whatever state it is")
    end.add_argument("run_id", metavar="run")
    end.add_argument("--by", default="", type=account, help="who says so, for the record")
    end.set_defaults(run=cancel)
    again = commands.add_parser("retry", help="run a session that failed again, from the task that failed on")
    again.add_argument("run_id", metavar="run")
    again.add_argument("--by", default="", type=account, help="who says so, for the record")
    again.set_defaults(run=retry)
    anew = commands.add_parser("begin-again", help="train sessions of a backup again whose volume is gone")
    anew.add_argument("run_ids", metavar="run", nargs="*")
    anew.set_defaults(run=begin_sessions_again)
    one = commands.add_parser("explain", help="say why a run waits or failed, and what to do")
    one.add_argument("run_id", metavar="run")
    add_json(one)
    one.set_defaults(run=explain)
    listing = commands.add_parser("sessions", help="list the latest training sessions")
    add_json(listing)
    listing.add_argument("--space", action="store_true", help="say what took how much when that was measured last")
    listing.set_defaults(run=sessions)
    listing = commands.add_parser("gpus", help="show the GPUs, their reservations and the queue")
    add_json(listing)
    listing.set_defaults(run=gpus)
    host_commands.add_to(commands)
    look = commands.add_parser("doctor", help="say what is wrong with the stack, and what to do")
    look.add_argument("--fix", action="store_true", help="mend before what is safe to mend")
    add_json(look)
    look.set_defaults(run=examine)
    look = commands.add_parser("gpu-check", help="say whether the GPUs can be used; each is tried")
    add_json(look)
    look.add_argument("--host", default="", help="whose GPUs; default: this machine's")
    look.set_defaults(run=gpu_check)
    release = commands.add_parser("release-gpu", help="take a GPU out of quarantine")
    release.add_argument("uuid", metavar="gpu")
    release.add_argument("--by", default="", type=account, help="who says so, for the record")
    release.set_defaults(run=release_gpu)
    schema = commands.add_parser("migrate", help="bring the ledger's schema to a version, by default the newest")
    schema.add_argument("--to", type=int)
    schema.set_defaults(run=migrate)
    model_commands.add_to(commands)
    space.add_to(commands)
    notify_test.add_to(commands)
    listing = commands.add_parser("trainers", help="list the models of the catalogue")
    add_json(listing)
    listing.set_defaults(run=trainers)
    look = commands.add_parser("settings-check", help="refuse a setting that is wrong")
    look.set_defaults(run=check_settings)
    look = commands.add_parser("ready", help="exit 0 once the API answers and has the DAG, and the page is there")
    look.set_defaults(run=ready)
    given = sys.argv[1:] if argv is None else argv
    for word in given:
        if not_text := text_problem(word):
            print(not_text, file=sys.stderr)
            return ExitCode.BAD_INPUT
    arguments = parser.parse_args(given)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except TarmacError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return ExitCode.INTERRUPTED
    return code


if __name__ == "__main__":
    sys.exit(main())
