"""The provider `script`: commands as processes, what they are told, and what they may print."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tarmac.base.errors import ProviderError
from tarmac.base.units import GIB
from tarmac.hosts import providers
from tarmac.hosts.kinds import Kind, Listed, Provider, Size
from tarmac.hosts.providers import Order, Scripts

KIND = Kind("gpu", Provider.SCRIPT, "mine", "H100", Size(1, 80 * GIB, 60 * GIB, 8500), 2, 600, 3600, 900, None, 2.5)
ORDER = Order("gpu-1", "restrict ssh-ed25519 AAAA tarmac", 1000.0, 4600.4)
KEY = "SHA256:" + 43 * "a"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mine"
    made.mkdir()
    return made


def scripts(folder: Path, **commands: str) -> Scripts:
    for name, body in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return Scripts(KIND, "tarmac-tests", folder, {"TOKEN": "hunter2-token"})


def test_a_command_is_told_what_to_make_and_gets_the_credentials_and_nothing_of_the_stack(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TARMAC_DATABASE_URL", "postgresql://tower:secret@postgres/tarmac")
    says = f'{{"id": "i-1", "url": "ssh://a@10.0.0.7:2222", "host_key": "{KEY}"}}'
    made = scripts(folder, create=f"env >told; echo \"$@\" >>told; echo '{says}'").create(ORDER)
    assert made == Listed("i-1", "gpu-1", "ssh://a@10.0.0.7:2222", KEY)
    told = (folder / "told").read_text()
    for line in (
        "TARMAC_LABEL=tarmac-tests", "TARMAC_KIND=gpu", "TARMAC_GPU=H100", "TARMAC_GPUS=1", f"TARMAC_MEMORY={60 * GIB}",
        f"TARMAC_GPU_MEMORY={80 * GIB}", "TARMAC_CORES=8.5", "TARMAC_SSH_KEY=restrict ssh-ed25519 AAAA tarmac",
        "TARMAC_UNTIL=4600", "TARMAC_LIFE_SECONDS=3600", "TARMAC_PRICE_PER_HOUR=2.5", "TOKEN=hunter2-token", "gpu-1",
    ):  # fmt: skip
        assert line in told.splitlines()
    assert "secret" not in told


def test_machines_are_listed_with_their_label_and_a_list_without_is_refused(folder: Path):
    one = '{"id": "i-1", "name": "gpu-1", "label": "tarmac-tests"}'
    provider = scripts(folder, list=f"echo '{one}'; echo; echo '{one.replace('-1', '-2')}'")
    assert provider.listed() == (Listed("i-1", "gpu-1"), Listed("i-2", "gpu-2"))
    assert scripts(folder, list="true").listed() == ()
    everything = scripts(folder, list="""echo '{"id": "i-9", "name": "the payroll", "label": null}'""")
    with pytest.raises(
        ProviderError, match="env/providers/mine/list printed a machine whose label is None: print those"
    ):
        everything.listed()


def test_a_machine_is_terminated_by_its_name_and_id(folder: Path):
    scripts(folder, terminate='echo "$1:$2" >told').terminate("gpu-1", "")
    assert (folder / "told").read_text() == "gpu-1:\n"


OFFERS = {
    "no word": ("true", ""),
    "it has some": ("""echo '{"available": true, "price_per_hour": 2.5}'""", ""),
    "it has none": ("""echo '{"available": false, "why": "sold out"}'""", "its provider has none now: sold out"),
    "it is too dear": (
        """echo '{"price_per_hour": 3}'""",
        "its provider asks for 3 an hour, and price_per_hour in env/hosts.toml is 2.5",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "says"), OFFERS.values(), ids=OFFERS)
def test_what_it_offers(folder: Path, body: str, says: str):
    assert scripts(folder, offers=body).offers() == says


WRONG = {
    "it fails": ("echo no such key: $TOKEN >&2; exit 3", r"create failed with exit code 3: no such key: \*\*\*$"),
    "it says nothing": ("true", r"create printed 0 lines: print one JSON object\.$"),
    "no JSON": ("echo hello $TOKEN", r"create: each line must be a JSON object \(it printed 'hello \*\*\*'\)\.$"),
    "no id": ("echo '{}'", r"create: a machine needs an id, and the name that it was made with\.$"),
    "another name": (
        """echo '{"id": "i", "name": "gpu-2"}'""",
        r"a machine needs an id, and the name that it was made",
    ),
    "no text": ("""echo '{"id": 7}'""", r"create: id must be a text \(it printed '7'\)\.$"),
    "no address": (
        """echo '{"id": "i", "url": "-oProxyCommand=x"}'""",
        r"create: URL: '-oProxyCommand=x' says no machine",
    ),
    "no SSH": (
        """echo '{"id": "i", "url": "tcp://a:2376"}'""",
        r"create: url must begin with ssh:// \(it printed 'tcp://a",
    ),
    "no fingerprint": (
        """echo '{"id": "i", "host_key": "x"}'""",
        r"create: host_key must be a fingerprint as ssh-keygen",
    ),
}


@pytest.mark.parametrize(("body", "words"), WRONG.values(), ids=WRONG)
def test_what_a_command_does_wrong_is_said_without_the_credentials(folder: Path, body: str, words: str):
    with pytest.raises(ProviderError, match=words):
        scripts(folder, create=body).create(ORDER)


def test_a_command_that_is_not_there_is_named(folder: Path):
    with pytest.raises(
        ProviderError, match="env/providers/mine/list cannot be run: the folder needs the four commands"
    ):
        scripts(folder).listed()
    (folder / "list").write_text("#!/bin/sh\n")
    with pytest.raises(ProviderError, match=r"which the scheduler's container may read and run \(chmod 755\)"):
        scripts(folder).listed()


def test_a_command_that_does_not_end_is_stopped_with_all_that_it_started(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(providers.SECONDS, "list", 0.3)
    provider = scripts(folder, list="sleep 600 & echo $! >number; wait")
    began = time.monotonic()
    with pytest.raises(ProviderError, match=r"env/providers/mine/list did not end within 0.3 s, and was stopped"):
        provider.listed()
    assert time.monotonic() - began < 20
    number = int((folder / "number").read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{number}/cmdline").exists() and Path(f"/proc/{number}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the command's own process goes on"
        os.sched_yield()
