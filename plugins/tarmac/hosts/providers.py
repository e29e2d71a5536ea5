"""What makes machines (docs/hosts.md, "Machines on demand"): the provider `script`, four commands of a person's own,
and `libcloud`, which is called as such commands are (hosts/cloud.py).

Both run in the scheduler's container as processes with an environment of their own: what they are told, and the
credentials of env/providers.env. None of the stack's passwords is in it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, override

import tarmac
from tarmac.base.errors import HostError, ProviderError
from tarmac.base.texts import one_line
from tarmac.hosts import clouds
from tarmac.hosts.address import Address, read_url
from tarmac.hosts.clouds import Cloud
from tarmac.hosts.kinds import Kind, Kinds, Listed

FOLDER = Path("/opt/airflow/providers")
"""env/providers, which only the scheduler's container has."""

CREDENTIALS = "TARMAC_PROVIDER_ENV"
"""The environment variable that holds the text of env/providers.env; only the scheduler's container has it."""

SECONDS = {"offers": 60.0, "create": 600.0, "list": 60.0, "terminate": 300.0}
"""How long each command may take."""

# What a command finds beside what it is told: how the network is reached.
_PASSED_ON = ("PATH", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy", "SSL_CERT_FILE")
_SETTING = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_LONGEST = 300


@dataclass(frozen=True)
class Order:
    """A machine that is to be made. Times in seconds since 1970; `ssh_key`: the line for authorized_keys."""

    name: str
    ssh_key: str
    now: float
    until: float


class MachineProvider(Protocol):
    """Makes and ends the machines of one kind. Each call may be repeated, and does then what the first one did.

    Raises:
        ProviderError: from every method: it refuses or does not answer, and the call is made again later.
    """

    def offers(self) -> str:
        """Say why no machine can be had now at the kind's price; "": one can."""

    def create(self, order: Order) -> Listed:
        """Make a machine, unless there is one of this name."""

    def listed(self) -> tuple[Listed, ...]:
        """Return all machines that carry the label and cost money."""

    def terminate(self, name: str, machine_id: str) -> None:
        """End a machine, if it is there; without an id, the one of this name."""


def credentials(text: str) -> dict[str, str]:
    """Return the settings of an env file: a line `KEY=value` each. Pure.

    Raises:
        ProviderError: a line is none; it is not shown.
    """
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not (match := _SETTING.fullmatch(line.strip())):
            raise ProviderError(f"env/providers.env: line {number} must be KEY=value.")
        value = match[2].strip()
        found[match[1]] = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
    return found


class Commands:
    """What the providers share: four commands, what they are told, and what they may print.

    Args:
        kind: of the machines.
        label: that they carry.
        folder: in which they run.
        given: the credentials.
    """

    def __init__(self, kind: Kind, label: str, folder: Path, given: Mapping[str, str]) -> None:
        self._kind, self._label, self._folder, self._given = kind, label, folder, dict(given)

    def _command(self, verb: str) -> list[str]:
        """Return what is run.

        Raises:
            ProviderError: it cannot be.
        """
        raise NotImplementedError

    def _where(self, verb: str) -> str:
        """Name a command, for people."""
        raise NotImplementedError

    def _failed(self, verb: str, code: int, complaint: str) -> str:
        """Say that a command ended with an exit code, and what it printed."""
        raise NotImplementedError

    def offers(self) -> str:
        """See MachineProvider."""
        said = self._objects("offers")
        if len(said) > 1:
            raise ProviderError(f"{self._where('offers')} printed {len(said)} lines: print one, or nothing.")
        offer = said[0] if said else {}
        if offer.get("available", True) is not True:
            return f"its provider has none now{self._reason(offer)}"
        price = offer.get("price_per_hour", self._kind.price)
        if isinstance(price, bool) or not isinstance(price, int | float):
            raise ProviderError(f"{self._where('offers')}: price_per_hour must be a number (it printed {price!r}).")
        if price > self._kind.price:
            return (
                f"its provider asks for {price:g} an hour, and price_per_hour in env/hosts.toml is {self._kind.price:g}"
            )
        return ""

    @staticmethod
    def _reason(offer: Mapping[str, Any]) -> str:
        why = one_line(str(offer.get("why", "")))[:_LONGEST]
        return f": {why}" if why else ""

    def create(self, order: Order) -> Listed:
        """See MachineProvider."""
        times = {"TARMAC_UNTIL": f"{order.until:.0f}", "TARMAC_LIFE_SECONDS": f"{max(0, order.until - order.now):.0f}"}
        said = self._objects("create", order.name, more={"TARMAC_SSH_KEY": order.ssh_key, **times})
        if len(said) != 1:
            raise ProviderError(f"{self._where('create')} printed {len(said)} lines: print one JSON object.")
        return self._machine("create", {"name": order.name, **said[0]}, order.name)

    def listed(self) -> tuple[Listed, ...]:
        """See MachineProvider."""
        found = self._objects("list")
        for one in found:
            # A command that forgot to look for the label would have all machines of the account terminated.
            if one.get("label") != self._label:
                raise ProviderError(
                    f"{self._where('list')} printed a machine whose label is {one.get('label')!r}: print those alone "
                    f"that carry the label {self._label!r}, each with its label as the provider has it."
                )
        return tuple(self._machine("list", one) for one in found)

    def terminate(self, name: str, machine_id: str) -> None:
        """See MachineProvider."""
        self._run("terminate", (name, machine_id), {})

    def _machine(self, verb: str, found: Mapping[str, Any], name: str = "") -> Listed:
        values = {key: found.get(key) or "" for key in ("id", "name", "url", "host_key")}
        for key, value in values.items():
            if not isinstance(value, str) or len(value) > 1000 or not value.isprintable():
                raise ProviderError(f"{self._where(verb)}: {key} must be a text (it printed {str(value)[:100]!r}).")
        if not values["id"] or not values["name"] or (name and values["name"] != name):
            raise ProviderError(f"{self._where(verb)}: a machine needs an id, and the name that it was made with.")
        if values["url"]:
            try:
                address = read_url(values["url"])
            except HostError as error:
                raise ProviderError(f"{self._where(verb)}: {error}") from error
            if not isinstance(address, Address):
                raise ProviderError(f"{self._where(verb)}: url must begin with ssh:// (it printed {values['url']!r}).")
        if values["host_key"] and not _FINGERPRINT.fullmatch(values["host_key"]):
            raise ProviderError(
                f"{self._where(verb)}: host_key must be a fingerprint as ssh-keygen -l shows it, SHA256:... (it "
                f"printed {values['host_key'][:100]!r})."
            )
        return Listed(**values)

    def _objects(self, verb: str, *words: str, more: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        found = []
        for line in self._run(verb, words, more or {}).splitlines():
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if not isinstance(value, dict):
                shown = self._shown(line)
                raise ProviderError(f"{self._where(verb)}: each line must be a JSON object (it printed {shown!r}).")
            found.append(value)
        return found

    def _hidden(self, text: str) -> str:
        """Leave the credentials out of what a command said."""
        for secret in sorted((one for one in self._given.values() if len(one) > 3), key=len, reverse=True):
            text = text.replace(secret, "***")
        return one_line(text)

    def _shown(self, text: str) -> str:
        return self._hidden(text)[-_LONGEST:]

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        kind, size = self._kind, self._kind.size
        known = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        told = {
            "TARMAC_LABEL": self._label, "TARMAC_KIND": kind.name, "TARMAC_GPU": kind.gpu,
            "TARMAC_GPUS": str(size.gpus), "TARMAC_GPU_MEMORY": str(size.gpu_bytes),
            "TARMAC_CORES": f"{size.millicpus / 1000:g}", "TARMAC_MEMORY": str(size.memory_bytes),
            "TARMAC_PRICE_PER_HOUR": f"{kind.price:g}",
        }  # fmt: skip
        return {"HOME": "/tmp", "LANG": "C.UTF-8", **known, **self._given, **told, **more}  # noqa: S108  its own container

    def _run(self, verb: str, words: Sequence[str], more: Mapping[str, str]) -> str:
        # Without the process that called it, a command must not go on: it would be called a second time beside it.
        command = ["setpriv", "--pdeathsig", "KILL", "--", *self._command(verb), *words]
        try:
            process = subprocess.Popen(
                command, cwd=self._folder, env=self._environment(more), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise ProviderError(f"{self._where(verb)} cannot be run: {error.strerror}.") from error
        try:
            said, complaint = process.communicate(timeout=SECONDS[verb])
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise ProviderError(
                f"{self._where(verb)} did not end within {SECONDS[verb]:g} s, and was stopped."
            ) from error
        if process.returncode:
            raise ProviderError(self._failed(verb, process.returncode, complaint.strip()))
        return said


class Scripts(Commands):
    """The provider `script`; its folder has the four commands."""

    @override
    def _command(self, verb: str) -> list[str]:
        path = self._folder / verb
        if not os.access(path, os.X_OK) or not path.is_file():
            raise ProviderError(
                f"{self._where(verb)} cannot be run: the folder needs the four commands offers, create, list and "
                "terminate, which the scheduler's container may read and run (chmod 755)."
            )
        return [str(path)]

    @override
    def _where(self, verb: str) -> str:
        return f"env/providers/{self._folder.name}/{verb}"

    @override
    def _failed(self, verb: str, code: int, complaint: str) -> str:
        last = self._shown(complaint) or "it printed no error"
        return f"{self._where(verb)} failed with exit code {code}: {last}"


class Libcloud(Commands):
    """The provider `libcloud`.

    Args:
        kind: of the machines; it has a cloud.
        label: that they carry.
        given: the credentials.
        currency: of the kind's price.
    """

    def __init__(self, kind: Kind, label: str, given: Mapping[str, str], currency: str = "") -> None:
        super().__init__(kind, label, Path("/"), given)
        self._cloud, self._currency = kind.cloud or Cloud(""), currency

    @override
    def _command(self, verb: str) -> list[str]:
        return [sys.executable, "-P", "-m", "tarmac.hosts.cloud", verb]

    @override
    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        told = {
            "PYTHONPATH": str(Path(tarmac.__file__).parents[1]), "TARMAC_LIBCLOUD": clouds.written(self._cloud),
            "TARMAC_CURRENCY": self._currency,
        }  # fmt: skip
        return super()._environment({**more, **told})

    @override
    def _where(self, verb: str) -> str:
        return f"libcloud's {verb}"

    @override
    def _failed(self, verb: str, code: int, complaint: str) -> str:
        # The sentence begins with what matters; only where the process broke is there more than that.
        said = self._hidden(complaint.rsplit("\n", 1)[-1])[: 2 * _LONGEST]
        return f"{self._where(verb)}: {said or f'it ended with exit code {code}'}"


def provider_of(kind: Kind, kinds: Kinds, environment: Mapping[str, str] = os.environ) -> MachineProvider:
    """Return what makes machines of a kind.

    Raises:
        ProviderError: env/providers.env cannot be read.
    """
    given = credentials(environment.get(CREDENTIALS, ""))
    if kind.cloud is not None:
        return Libcloud(kind, kinds.label, given, kinds.currency)
    return Scripts(kind, kinds.label, FOLDER / kind.scripts, given)
