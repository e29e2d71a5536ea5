"""The commands about hosts."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tarmac.base.errors import CheckerUnavailableError, ExitCode, HostError, HostsFileError
from tarmac.base.ids import LOCAL_HOST
from tarmac.base.settings import settings
from tarmac.base.texts import counted
from tarmac.cli.tables import add_json, print_json
from tarmac.hosts.kinds import declared, lacking
from tarmac.hosts.providers import CREDENTIALS, credentials
from tarmac.ledger.ledger import Ledger
from tarmac.request.checker import call_checker
from tarmac.scheduler import board


def hosts(arguments: argparse.Namespace) -> int:
    """Show hosts, what sessions hold of them, and the queue of CPU sessions."""
    with Ledger(settings().database_url) as ledger:
        if arguments.json:
            print_json(board.host_facts(ledger))
            return 0
        for line in board.show_hosts(ledger):
            print(line)
    return 0


def hosts_check(arguments: argparse.Namespace) -> int:
    """Say what is wrong with env/hosts.toml, and ask the provider of each kind of machine."""
    kinds = declared().kinds
    given = credentials(os.environ.get(CREDENTIALS, ""))
    if arguments.file:
        if problems := lacking(kinds, given):
            raise HostsFileError(problems)
        return 0
    if not kinds:
        print("env/hosts.toml declares no kind of machine: copy env/hosts.toml.example to it and fill it in.")
        return 0
    found = _ask("POST", "/hosts-check", {})
    if tuple(one["kind"] for one in found) != tuple(kind.name for kind in kinds):
        raise HostsFileError(["the stack has another file than the one here: run `make up` first"])
    for one in found:
        print(f"{'✗' if one['problem'] else '✓'} {one['kind']}: {one['problem'] or one['says']}")
    return ExitCode.RUN_FAILED if any(one["problem"] for one in found) else ExitCode.SUCCESS


def host_key(_: argparse.Namespace) -> int:
    """Print the line that lets this stack in on another machine."""
    print(_ask("GET", "/host-key", {})["line"])
    return 0


def host_add(arguments: argparse.Namespace) -> int:
    """Enter another machine as a host, once its fingerprint was compared."""
    name, url = arguments.name, arguments.url
    query = {"name": name, "url": url, "fingerprint": arguments.fingerprint}
    found = _ask("POST", "/host", query)
    if not found["says"]:
        print("\n".join(compare_lines(name, url, found, _ask("GET", "/host-key", {})["line"])))
        return ExitCode.RUN_FAILED
    for text in found["says"]:
        print(f"✓ {text}")
    what = "GPU sessions and CPU sessions" if found.get("gpus") else "CPU sessions"
    print(f"Host {name} takes {what} in a few seconds: make hosts")
    return 0


def compare_lines(name: str, url: str, found: Mapping[str, Any], line: str) -> list[str]:
    """Say what to compare and what to do next, before a host is added. Pure."""
    user = url.removeprefix("ssh://").partition("@")[0]
    return [
        f"{url} shows the host key {found['fingerprint']}. Nothing was added yet.",
        "1. Compare it: on that machine, this prints the same fingerprint:",
        f"     ssh-keygen -lf {found['key_file']}",
        f"2. Let this stack in: add this line to ~{user}/.ssh/authorized_keys there, for a {user} who may use Docker:",
        f"     {line}",
        "3. Add the host:",
        f"     make host-add NAME={name} URL={url} FINGERPRINT={found['fingerprint']}",
    ]


def host_certs(arguments: argparse.Namespace) -> int:
    """Write the certificates of a machine whose engine is to listen with TLS, as a tar; say what to do with it."""
    made = _ask("POST", "/host-certs", {"name": arguments.name, "url": arguments.url})
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        for file, text in made["files"].items():
            entry, content = tarfile.TarInfo(f"tarmac/{file}"), text.encode()
            entry.size, entry.mode, entry.mtime = len(content), 0o400, int(time.time())
            archive.addfile(entry, io.BytesIO(content))
    print("\n".join(certs_lines(arguments.name, arguments.url, arguments.file, made)), file=sys.stderr)
    return 0


def daemon_settings(port: int) -> dict[str, Any]:
    """Return what stands in an engine's daemon.json so that it listens with TLS. Pure."""
    return {
        "hosts": ["unix:///var/run/docker.sock", f"tcp://0.0.0.0:{port}"],
        "tlsverify": True,
        "tlscacert": "/etc/docker/tarmac/ca.pem",
        "tlscert": "/etc/docker/tarmac/cert.pem",
        "tlskey": "/etc/docker/tarmac/key.pem",
    }


def certs_lines(name: str, url: str, file: str, made: Mapping[str, Any]) -> list[str]:
    """Say what to do with the certificates of a machine. Pure."""
    there = daemon_settings(made["port"]).items()
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in there)
    return [
        f"{file} holds the certificate of {name} and its private key. It is valid until {made['ends'][:10]}.",
        f"1. Copy {file} to that machine, and there, as root:",
        f"     tar -xf {Path(file).name} -C /etc/docker",
        "2. Put these lines between the braces of /etc/docker/daemon.json there, which may be a new file:",
        *(f"     {line}" for line in lines.splitlines()),
        "3. Where systemd starts Docker, its own list of sockets has to go: `systemctl edit docker`, then these lines:",
        "     [Service]",
        "     ExecStart=",
        "     ExecStart=/usr/bin/dockerd",
        "4. Restart the engine, which ends the containers there: systemctl restart docker",
        f"   Let only the stack's machine reach port {made['port']}.",
        f"5. Delete {file} here and there. If {name} is not a host yet: make host-add NAME={name} URL={url}",
    ]


def host_drain(arguments: argparse.Namespace) -> int:
    """Let a host take no new session."""
    return _drain(arguments.name, draining=True, says="takes no new session; those that train there go on")


def host_resume(arguments: argparse.Namespace) -> int:
    """Let a host take sessions again."""
    return _drain(arguments.name, draining=False, says="takes sessions again")


def _drain(name: str, *, draining: bool, says: str) -> int:
    with Ledger(settings().database_url) as ledger:
        if not ledger.drain_host(name, draining):
            raise _unknown(ledger, name)
    print(f"Host {name} {says}.")
    return 0


def host_remove(arguments: argparse.Namespace) -> int:
    """Forget another machine."""
    name = arguments.name
    with Ledger(settings().database_url) as ledger:
        if name == LOCAL_HOST:
            raise HostError(f"NAME: {LOCAL_HOST!r} is this machine and stays: `make host-drain NAME={LOCAL_HOST}`.")
        url = next((host.url for host in ledger.hosts() if host.name == name), "")
        if not ledger.remove_host(name):
            if there := [row["run_id"] for row in ledger.host_holders() if row["host"] == name]:
                raise HostError(
                    f"NAME: {counted(len(there), 'session')} {'holds' if len(there) == 1 else 'hold'} something of "
                    f"{name!r} ({', '.join(there[:4])}): "
                    f"`make host-drain NAME={name}` and wait for them, or cancel them."
                )
            raise _unknown(ledger, name)
    print(f"Host {name} is removed. {leave_sentence(url)}")
    return 0


def leave_sentence(url: str) -> str:
    """Say what is left on a machine that is no host any more. Pure."""
    if url.startswith("tcp:"):
        return (
            "On that machine, take the lines of make host-certs out of /etc/docker/daemon.json and restart its engine."
        )
    return "On that machine, delete this stack's line from authorized_keys (make host-key)."


def _unknown(ledger: Ledger, name: str) -> HostError:
    known = ", ".join(host.name for host in ledger.hosts())
    return HostError(f"NAME: there is no host {name!r}; there are: {known}.")


def _ask(method: str, path: str, query: Mapping[str, str]) -> Any:
    status, answer = asyncio.run(call_checker(method, path, query))
    if status == 400:
        raise HostError(str(answer.get("detail")))
    if status != 200:
        raise CheckerUnavailableError(f"the checker does not answer: {answer.get('detail', status)}")
    return answer


def add_to(commands: Any) -> None:
    """Add these commands to the parser of main.py."""

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(name, help=text)
        parser.set_defaults(run=run)
        return parser

    add_json(add("hosts", hosts, "show the hosts, what is reserved of them, and the queue"))
    check = add("hosts-check", hosts_check, "ask the provider of each kind of machine in env/hosts.toml")
    check.add_argument("--file", action="store_true", help="ask nothing: say whether the file is right")
    add("host-key", host_key, "print the line that lets this stack in on another machine")
    new = add("host-add", host_add, "let another machine train")
    new.add_argument("name")
    new.add_argument("url")
    new.add_argument("--fingerprint", default="", help="of its host key, once it was compared")
    certs = add("host-certs", host_certs, "print what another machine's engine needs to listen with TLS, as a tar")
    for word in ("name", "url", "file"):
        certs.add_argument(word)
    for name, run, text in (
        ("host-drain", host_drain, "let a host take no new session"),
        ("host-resume", host_resume, "let a host take sessions again"),
        ("host-remove", host_remove, "forget another machine"),
    ):
        add(name, run, text).add_argument("name")
