"""What each verb does. Errors are raised; `main.py` prints them."""

from __future__ import annotations

import argparse
import csv
import getpass
import json
import os
import platform
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tarmac_client import __version__, config, files
from tarmac_client.cli import machine, show
from tarmac_client.client import Session, Tarmac
from tarmac_client.config import Login
from tarmac_client.errors import ExitCode, RefusedError, SettingsError
from tarmac_client.types import Finding
from tarmac_client.verbs import Verbs, size


def connect() -> Tarmac:
    """Connect to the stack; what is uploaded is said on stderr."""
    tarmac = Tarmac()
    tarmac.verbs = Verbs(tarmac.verbs.calls, say=_say)
    return tarmac


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print(arguments: argparse.Namespace, value: Any, lines: Callable[[Any], list[str]]) -> int:
    for line in [show.as_json(value)] if arguments.json else lines(value):
        print(line)
    return ExitCode.SUCCESS


# ---- login -----------------------------------------------------------------------------------------------------------


def login(arguments: argparse.Namespace) -> int:
    """Try a login and keep it."""
    url = config.check_url(arguments.url)
    if config.is_open(url):
        _say("warning: http:// sends the password unencrypted over the network; use https:// where the stack has it.")
    user = arguments.user or _asked("Name: ", input, "--user NAME")
    if arguments.password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = _asked("Password: ", getpass.getpass, "--password-stdin, or set TARMAC_PASSWORD")
    bundle = os.environ.get("TARMAC_CA_BUNDLE", "")
    with Tarmac(url, user, password) as tarmac:
        about = tarmac.version()
    path = config.save(Login(url, user, password, ca_bundle=bundle), keyring=arguments.keyring)
    may = "may start sessions" if about["may_start"] else "may look, but not start sessions"
    return _print(
        arguments,
        {**about, "url": url, "kept_in": str(path)},
        lambda _: [f"Logged in to {url} (Tarmac {about['tarmac']}) as {user}, who {may}. Kept in {path}."],
    )


def _asked(prompt: str, ask: Callable[[str], str], instead: str) -> str:
    if not sys.stdin.isatty():
        raise SettingsError(f"{prompt.strip(': ')}: there is no terminal to ask: give {instead}.")
    try:
        return ask(prompt)
    except EOFError as error:
        raise SettingsError(f"{prompt.strip(': ')}: nothing was given.") from error


# ---- sessions --------------------------------------------------------------------------------------------------------


def train(arguments: argparse.Namespace) -> int:
    """Start a session and follow it."""
    request, folder = request_of(arguments)
    with connect() as tarmac:
        session = _started(lambda: tarmac.send(request, folder=folder, key=_key(arguments)))
        if arguments.detach:
            return _print(arguments, {"id": session.id}, lambda value: [value["id"]])
        _say(f"Started session {session.id}")
        return _follow(session, arguments)


def _started(start: Callable[[], Session]) -> Session:
    try:
        return start()
    except KeyboardInterrupt:
        _say("\nInterrupted before the stack said that the session is started: 'tarmac ls' lists it if it is.")
        raise


def run(arguments: argparse.Namespace) -> int:
    """Train with code of one's own, and follow it."""
    request = run_request_of(arguments)
    with connect() as tarmac:
        session = _started(lambda: tarmac.send(request, key=_key(arguments)))
        if arguments.detach:
            return _print(arguments, {"id": session.id}, lambda value: [value["id"]])
        _say(f"Started session {session.id}")
        return _follow(session, arguments)


def run_request_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the request that a command line of `run` means. Without --code the files that the command names are sent.

    Raises:
        SettingsError: options do not go together.
    """
    own: str | list[str] | None = arguments.code
    requirements = arguments.requirements
    if own is None and arguments.git is None:
        own = [word for word in arguments.command if Path(word).is_file() and Path(word).parent == Path()]
    if requirements is not None and arguments.git is None:
        own, requirements = _with_file(own, requirements)
    if arguments.python is not None and requirements is None:
        raise SettingsError("--python: says for which Python --requirements are: name these, too.")
    if arguments.eval is not None and len(arguments.data) > 1:
        raise SettingsError("--eval: goes with one --data; write a request for more (docs/own-code.md).")
    data = {}
    for number, train in enumerate(arguments.data):
        name = files.data_name(train)
        data[f"{name}-{number + 1}" if name in data else name] = (train, arguments.eval)
    asked = {"gpu_memory": arguments.gpu_memory, "memory": arguments.memory, "cpus": arguments.cpus}
    return files.build_run(
        arguments.command,
        data,
        code=own or None,
        image=arguments.image,
        git=arguments.git,
        requirements=requirements,
        python=arguments.python,
        gpu=arguments.gpu or arguments.gpu_memory is not None,
        name=arguments.name,
        resources={key: value for key, value in asked.items() if value is not None},
    )


def _with_file(own: str | list[str] | None, name: str) -> tuple[str | list[str] | None, str]:
    """Return code with a file of this machine in it, and where it is in there.

    Raises:
        SettingsError: it is not in the folder that is sent.
    """
    if isinstance(own, str) and not Path(own).is_file():
        inside = Path(own, name) if Path(own, name).is_file() else Path(name)
        try:
            return own, inside.resolve().relative_to(Path(own).resolve()).as_posix() if Path(own).is_dir() else name
        except ValueError:
            raise SettingsError(
                f"--requirements: {name!r} is not in the folder {own!r} that --code names: put it there."
            ) from None
    sent = [own] if isinstance(own, str) else own or []
    return list(dict.fromkeys([*sent, name])), Path(name).name


def request_of(arguments: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """Return the request that a command line means, and the folder that its paths are relative to.

    Raises:
        SettingsError: the file cannot be read, or options do not go together.
    """
    what, given = Path(arguments.what), _parameters(arguments.set)
    if what.suffix != ".json" and not what.is_file():
        if arguments.train is None:
            hint = "which data: tarmac train MODEL --train FILE; or name a request: tarmac train req.json"
            raise SettingsError(f"--train: is missing. Say {hint}.")
        made = files.build_request(
            arguments.what, arguments.train, arguments.eval, gpu=arguments.gpu, parameters=given, name=arguments.name
        )
        return made, Path()
    if arguments.train is not None or arguments.eval is not None:
        raise SettingsError(f"--train, --eval: the request {arguments.what!r} names its data itself; leave them out.")
    request = _read(what)
    if arguments.gpu:
        request["gpu"] = True
    if arguments.name is not None:
        request["name"] = arguments.name
    if given:
        request["parameters"] = {**(request.get("parameters") or {}), **given}
    return request, what.parent


def _read(path: Path) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise SettingsError(f"{path}: the key {key!r} is there more than once; keep one of them.")
            found[key] = value
        return found

    try:
        request = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=once)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 text (byte {error.start + 1}): save it as UTF-8.") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} is not JSON: {error}.") from error
    except ValueError as error:
        raise SettingsError(f"{path} holds a number of thousands of digits; no field takes one.") from error
    if not isinstance(request, dict):
        raise SettingsError(f"{path}: a request is a JSON object with model and datasets.")
    return request


def _key(arguments: argparse.Namespace) -> str | None:
    """Return the session's id that is asked for.

    Raises:
        SettingsError: it is empty, as of a variable that is not set: the request could be sent twice.
    """
    key: str | None = arguments.key
    if key == "":
        raise SettingsError("--key: is empty. Give the session's id, or leave --key out.")
    return key


def _parameters(words: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise SettingsError(f"--set: {word!r} is not KEY=VALUE: write for example --set max_steps=500.")
        if key in found:
            raise SettingsError(f"--set: {key!r} is given twice; keep one of them.")
        try:
            found[key] = json.loads(text)
        except (ValueError, RecursionError):
            found[key] = text
    return found


def _follow(session: Session, arguments: argparse.Namespace) -> int:
    code = _watch(session, shown=not arguments.json, again=f"tarmac follow {session.id}")
    if arguments.json and code != ExitCode.INTERRUPTED:
        print(show.as_json(session.info))
    return code


def _watch(session: Session, *, shown: bool, again: str) -> ExitCode:
    """Wait for a session's end, and show it meanwhile. `again`: the command that an interrupt names to come back."""
    screen = show.Screen(live=None if shown else False)
    try:
        for info in session.follow():
            if shown:
                screen.show(info)
    except KeyboardInterrupt:
        _say(f"\nNo longer following; the session goes on. Come back: {again}")
        return ExitCode.INTERRUPTED
    return ExitCode.SUCCESS if session.info.ended_well else ExitCode.SESSION_FAILED


def follow(arguments: argparse.Namespace) -> int:
    """Follow a session to its end."""
    with connect() as tarmac:
        return _follow(Session(tarmac, arguments.session), arguments)


def ls(arguments: argparse.Namespace) -> int:
    """List the latest sessions."""
    with connect() as tarmac:
        return _print(arguments, tarmac.sessions(arguments.limit), show.session_lines)


def status(arguments: argparse.Namespace) -> int:
    """Show all about a session."""
    with connect() as tarmac:
        return _print(arguments, tarmac.session(arguments.session).info, show.status_lines)


def logs(arguments: argparse.Namespace) -> int:
    """Print a session's log; with --json each line is a JSON string."""
    with connect() as tarmac:
        found = Session(tarmac, arguments.session).logs(arguments.task, follow=arguments.follow)
        try:
            for line in found:
                for text in [json.dumps(line, ensure_ascii=False)] if arguments.json else line.splitlines():
                    print(text if arguments.json else "".join(_shown(letter) for letter in text), flush=True)
        except KeyboardInterrupt:
            _say(f"\nNo longer following; the session goes on. Come back: tarmac logs -f {arguments.session}")
            return ExitCode.INTERRUPTED
    return ExitCode.SUCCESS


def _shown(letter: str) -> str:
    return letter if letter.isprintable() or letter == "\t" else ascii(letter)[1:-1]


def cancel(arguments: argparse.Namespace) -> int:
    """End a session."""
    with connect() as tarmac:
        try:
            said = tarmac.run(tarmac.verbs.cancel(arguments.session))
        except RefusedError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            print(error, file=sys.stderr)  # it was right to ask; the session has ended, or has not yet
            return ExitCode.SESSION_FAILED
        return _print(arguments, {"id": arguments.session, "said": said}, lambda value: list(value["said"]))


def retry(arguments: argparse.Namespace) -> int:
    """Run a session that failed again."""
    with connect() as tarmac:
        said = tarmac.run(tarmac.verbs.retry(arguments.session))
        lines = [*said, f"Follow it: tarmac follow {arguments.session}"]
        return _print(arguments, {"id": arguments.session, "said": said}, lambda _: lines)


def explain(arguments: argparse.Namespace) -> int:
    """Say why a session waits or failed, and what to do."""
    with connect() as tarmac:
        found = tarmac.run(tarmac.verbs.explain(arguments.session))
        return _print(arguments, found, show.explanation_lines)


# ---- data sets, models, devices --------------------------------------------------------------------------------------


def data_push(arguments: argparse.Namespace) -> int:
    """Store files; print what a request names each by."""
    with connect() as tarmac:
        how = {"script": arguments.script, "code": arguments.code, "weights": arguments.weights}
        how |= {"text": arguments.text, "label": arguments.label}
        how |= {"encoding": arguments.encoding, "classes": _class_numbers(arguments.classes)}
        how["labels_between"] = arguments.labels_between
        found = {name: tarmac.push(name, **how) for name in arguments.files}
        return _print(arguments, found, lambda value: list(value.values()))


def _class_numbers(given: str | None) -> dict[str, int]:
    names = [] if given is None else [name.strip() for name in next(csv.reader([given]))]
    if "" in names or len(set(names)) < len(names) or given == "":
        raise SettingsError(f"--classes: {given!r} must be different names with commas between: --classes bad,good")
    return {name: number for number, name in enumerate(names)}


def data_ls(arguments: argparse.Namespace) -> int:
    """List what is stored."""
    with connect() as tarmac:
        return _print(arguments, tarmac.datasets(arguments.limit), show.file_lines)


def data_show(arguments: argparse.Namespace) -> int:
    """Say what is in a data set."""
    with connect() as tarmac:
        return _print(arguments, tarmac.dataset(arguments.id, beside=arguments.beside), show.content_lines)


def data_rm(arguments: argparse.Namespace) -> int:
    """Remove files of the store; the first that is refused ends it."""
    removed = []
    with connect() as tarmac:
        for name in arguments.ids:
            removed.append(tarmac.run(tarmac.verbs.remove_dataset(name)))
            if not arguments.json:
                print(f"Removed {removed[-1]['reference']} ({size(removed[-1]['size'])}).", flush=True)
    return _print(arguments, removed, lambda _: [])


def kinds(arguments: argparse.Namespace) -> int:
    """List the kinds of models, or show one with its parameters."""
    with connect() as tarmac:
        if arguments.kind is None:
            return _print(arguments, tarmac.kinds(), show.kinds_lines)
        return _print(arguments, tarmac.kind(arguments.kind), show.kind_lines)


def models_rm(arguments: argparse.Namespace) -> int:
    """Remove a registered version."""
    with connect() as tarmac:
        done = tarmac.run(tarmac.verbs.remove_model(arguments.model, arguments.version))
        files = "with its files" if done["files"] else "its files stay: another version is the same model"
        return _print(arguments, done, lambda _: [f"Removed {arguments.model}/{arguments.version}, {files}."])


def predict(arguments: argparse.Namespace) -> int:
    """Predict for the lines of a file; print an object a line."""
    try:
        lines = sys.stdin.buffer.read() if arguments.file == "-" else Path(arguments.file).read_bytes()
    except OSError as error:
        raise SettingsError(f"FILE: {arguments.file!r} cannot be read: {error.strerror}.") from error
    if not lines.strip():
        raise SettingsError(f"FILE: {arguments.file!r} has no line to predict for.")
    values = _of_array(lines, arguments.file) if lines.lstrip()[:1] == b"[" else lines
    with connect() as tarmac:
        found = tarmac.run(tarmac.verbs.predict_with(values, arguments.model))
        which = found.model if found.version is None else f"{found.model} version {found.version}"
        _say(f"{which} ({found.kind})")
        return _print(
            arguments, found, lambda value: [json.dumps(one, ensure_ascii=False) for one in value.predictions]
        )


def _of_array(content: bytes, name: str) -> list[Any]:
    """Return what is in a JSON array; an array of objects is read as lines are."""
    try:
        found: list[Any] = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"FILE: {name!r} begins like a JSON array and is not one: {error}.") from error
    return found


def models_ls(arguments: argparse.Namespace) -> int:
    """List registered versions."""
    with connect() as tarmac:
        return _print(arguments, tarmac.models(arguments.model), lambda found: show.model_lines(found, arguments.model))


def models_compare(arguments: argparse.Namespace) -> int:
    """Show two versions side by side."""
    with connect() as tarmac:
        return _print(arguments, tarmac.compare(arguments.a, arguments.b), show.comparison_lines)


def models_promote(arguments: argparse.Namespace) -> int:
    """Put a version into production."""
    with connect() as tarmac:
        step = tarmac.promote(arguments.model, arguments.version, arguments.why)
        return _print(arguments, step, show.step_lines)


def models_rollback(arguments: argparse.Namespace) -> int:
    """Take the last promotion back."""
    with connect() as tarmac:
        return _print(arguments, tarmac.rollback(arguments.model, arguments.why), show.step_lines)


def models_production(arguments: argparse.Namespace) -> int:
    """Say what is or was in production, and how it came there."""
    with connect() as tarmac:
        steps = tarmac.production(arguments.model, arguments.at)
        return _print(arguments, steps, lambda found: show.production_lines(found, arguments.model, arguments.at))


def models_reproduce(arguments: argparse.Namespace) -> int:
    """Train again from a session's record; exit with 0 if the metrics match, with 1 if not."""
    with connect() as tarmac:
        session = Session(tarmac, arguments.session)
        again = Session(tarmac, arguments.compare) if arguments.compare else _started(session.reproduce)
        compare = f"tarmac models reproduce {session.id} --compare {again.id}"
        if arguments.detach:
            _say(f"When it has ended: {compare}")
            return _print(arguments, {"id": again.id}, lambda value: [value["id"]])
        if not arguments.compare:
            _say(f"Repeating {session.id} from its record, as session {again.id}")
        code = _watch(again, shown=not arguments.json, again=compare)
        if code == ExitCode.SESSION_FAILED:
            why = again.info.why_failed or again.info.lacks or "no reason is known"
            _say(f"Nothing was compared: the repetition {again.id} has no model: {why}")
        if code != ExitCode.SUCCESS:
            return code
        found = session.verdict(again)
        _print(arguments, found, show.verdict_lines)
        return ExitCode.SUCCESS if found.matches else ExitCode.SESSION_FAILED


def dag_upload(arguments: argparse.Namespace) -> int:
    """Upload a DAG file; exit with 0 if Airflow has loaded it, with 1 if it cannot, or has not yet."""
    with connect() as tarmac:
        found = tarmac.upload_dag(arguments.file, suffix=arguments.suffix, why=arguments.why)
        _print(arguments, found, show.uploaded_lines)
        return ExitCode.SUCCESS if found.state == "shown" else ExitCode.SESSION_FAILED


def dag_ls(arguments: argparse.Namespace) -> int:
    """List the uploaded DAG files."""
    with connect() as tarmac:
        return _print(arguments, tarmac.dags(), show.dag_lines)


def dag_rm(arguments: argparse.Namespace) -> int:
    """Remove an uploaded DAG file."""
    with connect() as tarmac:
        done = tarmac.run(tarmac.verbs.remove_dag(arguments.name))
        return _print(arguments, done, lambda _: [f"Removed {done['name']}. {done['remains']}"])


def passwords_generate(arguments: argparse.Namespace) -> int:
    """Give the stack of this machine new passwords and keys; exit as the stack's own program does."""
    folder = Path(arguments.folder)
    code = machine.new_passwords(folder, ask=not arguments.yes, quiet=arguments.json)
    if arguments.json and code == ExitCode.SUCCESS:
        print(show.as_json(machine.logins(folder)))
    return code


def gpus(arguments: argparse.Namespace) -> int:
    """Show devices, reservations and the queue."""
    with connect() as tarmac:
        return _print(arguments, tarmac.gpus(), show.gpu_lines)


def hosts(arguments: argparse.Namespace) -> int:
    """Show hosts, reservations and the queue of CPU sessions."""
    with connect() as tarmac:
        return _print(arguments, tarmac.hosts(), show.host_lines)


def gpu_check(arguments: argparse.Namespace) -> int:
    """Say whether the GPUs can be used; exit with 0 if a session can train on one, with 1 if not."""
    with connect() as tarmac:
        found = tarmac.check_gpus(arguments.host)
        _print(arguments, found, show.gpu_check_lines)
        return ExitCode.SUCCESS if found["usable"] else ExitCode.SESSION_FAILED


def doctor(arguments: argparse.Namespace) -> int:
    """Say what is wrong here and with the stack; exit with 0 if nothing is, with 1 if something is."""
    with connect() as tarmac:
        if arguments.fix:
            mended = tarmac.mend()
            _print(arguments, mended, show.mended_lines)
            return ExitCode.SESSION_FAILED if mended.wrong else ExitCode.SUCCESS
        about = tarmac.version()
        may = "" if about["may_start"] else ", who may only look"
        here = [
            Finding("client", "ok", f"tarmac-client {__version__}, Python {platform.python_version()}"),
            Finding("login", "note" if may else "ok", f"at {tarmac.login.url} as {about['user']}{may}"),
            *tarmac.run(tarmac.verbs.clock(datetime.now(timezone.utc))),
        ]
        found = [*here, *tarmac.doctor()]
        _print(arguments, found, show.finding_lines)
        return ExitCode.SESSION_FAILED if any(one.state == "wrong" for one in found) else ExitCode.SUCCESS
