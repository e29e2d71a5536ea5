"""An engine that listens with TLS: its certificates, the link to it on real sockets, and each refusal in words."""

from __future__ import annotations

import argparse
import io
import json
import socket
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509

from support.tls_server import context_of, tls_server
from support.waiting import wait_for
from tarmac.base.errors import HostError
from tarmac.checks import adding, doctor
from tarmac.cli import host_commands
from tarmac.hosts import certificates, link
from tarmac.hosts.address import TlsAddress, read_tls_url, read_url
from tarmac.hosts.engines import link_to
from tarmac.hosts.tls import TlsLink, refuse_open_door, tls_problem
from tarmac.ledger.records import HostRow
from tarmac.scheduler.board import host_board

DAY = 86400.0
HERE = "127.0.0.1"


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stack's volume of keys, empty."""
    found = tmp_path / "keys"
    found.mkdir()
    monkeypatch.setattr(link, "KEYS", found)
    monkeypatch.setattr(link, "LINKS", tmp_path / "links")
    return found


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[int], TlsLink]]:
    """Opens links to ports of this machine; they are closed after the test."""
    made: list[TlsLink] = []

    def to(port: int) -> TlsLink:
        made.append(TlsLink("gpu3", TlsAddress(HERE, port)))
        made[-1].open()
        return made[-1]

    yield to
    for one in made:
        one.close()


def through(name: str) -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    found.settimeout(10)
    found.connect(link.socket_of(name))
    return found


def another_stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str = HERE) -> certificates.Bundle:
    """Certificates that another stack has made."""
    folder = tmp_path / "others"
    folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(link, "KEYS", folder)
        return certificates.for_host("gpu3", host)


# ---- where it is -----------------------------------------------------------------------------------------------------


def test_a_machine_that_listens_with_tls_is_where_its_url_says():
    assert read_url("tcp://gpu3") == read_url("tcp://gpu3:2376") == read_url("tcp://gpu3:2376/") == TlsAddress("gpu3")
    assert read_url("tcp://10.0.0.3:12376") == TlsAddress("10.0.0.3", 12376)
    assert isinstance(link_to("gpu3", "tcp://gpu3", ""), TlsLink)


@pytest.mark.parametrize("url", ["tcp://", "tcp://-x", "tcp://a@gpu3", "tcp://gpu3:99999", "tcp://gpu3/x", "tcp://a b"])
def test_what_is_no_machine_is_refused(url: str):
    with pytest.raises(HostError, match=r"says no machine: .* or tcp://machine:2376 for an engine that listens"):
        read_url(url)


def test_a_machine_that_is_reached_by_ssh_needs_no_certificate():
    with pytest.raises(HostError, match="is reached by SSH, which needs no certificate: write tcp://gpu3:2376"):
        read_tls_url("ssh://tarmac@gpu3")


# ---- the certificates ------------------------------------------------------------------------------------------------


def test_certificates_are_for_one_machine_and_one_use_and_no_key_leaves_the_volume(keys: Path):
    made = adding.certify("gpu3", "tcp://gpu3:2376")
    again = adding.certify("gpu4", "tcp://10.0.0.4")
    assert made["files"]["ca.pem"] == again["files"]["ca.pem"], "one authority for all machines"
    own = keys / "tls"
    assert {one.name: stat.S_IMODE(one.stat().st_mode) for one in [own, *own.iterdir()]} == {
        "tls": 0o700, "ca.pem": 0o600, "ca.key": 0o600, "client.pem": 0o600,
    }  # fmt: skip
    told = json.dumps([made, again]).replace("\\n", "\n")
    for secret in ("ca.key", "client.pem"):
        assert (own / secret).read_text().partition("PRIVATE KEY-----\n")[2][:60] not in told
    machines, clients = (
        x509.load_pem_x509_certificate(text.encode())
        for text in (made["files"]["cert.pem"], (own / "client.pem").read_text())
    )
    uses = [one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value for one in (machines, clients)]
    assert [[use._name for use in one] for one in uses] == [["serverAuth"], ["clientAuth"]]
    names = machines.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [one.value for one in names] == ["gpu3"]
    assert not machines.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert timedelta(days=396) < datetime.fromisoformat(made["ends"]) - datetime.now(UTC) < timedelta(days=398)


def test_a_person_gets_a_tar_and_reads_what_to_do_with_it(monkeypatch: pytest.MonkeyPatch, capsys: Any):
    made = adding.certify("gpu3", "tcp://gpu3:12376")
    monkeypatch.setattr(host_commands, "_ask", lambda *_: made)
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=written))
    host_commands.host_certs(argparse.Namespace(name="gpu3", url="tcp://gpu3:12376", file="out/gpu3.tar"))
    with tarfile.open(fileobj=io.BytesIO(written.getvalue())) as archive:
        entries = {one.name: one.mode for one in archive}
    assert entries == dict.fromkeys(("tarmac/ca.pem", "tarmac/cert.pem", "tarmac/key.pem"), 0o400)
    said = capsys.readouterr().err
    assert "PRIVATE" not in said
    assert "tar -xf gpu3.tar -C /etc/docker" in said
    assert '"hosts": ["unix:///var/run/docker.sock", "tcp://0.0.0.0:12376"]' in said
    assert '"tlsverify": true' in said
    assert "make host-add NAME=gpu3 URL=tcp://gpu3:12376" in said


# ---- the link --------------------------------------------------------------------------------------------------------


def test_what_is_sent_to_the_socket_goes_to_the_engine_and_back(tmp_path: Path, opened: Callable[[int], TlsLink]):
    bundle = certificates.for_host("gpu3", HERE)
    with tls_server(context_of(bundle, tmp_path)) as server:
        connected = opened(server.port)
        assert connected.certificate_ends() == bundle.ends.replace(microsecond=0)
        assert stat.S_IMODE(Path(link.socket_of("gpu3")).stat().st_mode) == 0o600
        with through("gpu3") as one, through("gpu3") as other:
            for each, text in ((one, b"a" * 3_000_000), (other, b"b")):
                sender = threading.Thread(target=each.sendall, args=(text,))
                sender.start()
                got = b""
                while len(got) < len(text):
                    got += each.recv(1 << 20)
                sender.join(5)
                assert got == text


def test_a_machine_that_is_gone_ends_the_link_and_all_that_wait_and_it_comes_back(
    tmp_path: Path, opened: Callable[[int], TlsLink]
):
    bundle = certificates.for_host("gpu3", HERE)
    with tls_server(context_of(bundle, tmp_path)) as server:
        connected = opened(server.port)
        with through("gpu3") as waits:
            waits.sendall(b"x")
            assert waits.recv(1) == b"x"
            server.end()
            assert waits.recv(1) == b""
        through("gpu3").close()
        wait_for("the link's end", lambda: not connected.runs, 10)
        assert f"Nothing listens on port {server.port} of {HERE}" in connected.why()
        with pytest.raises(HostError, match="Nothing listens"):
            connected.open()
    with tls_server(context_of(bundle, tmp_path)) as server:
        assert opened(server.port).runs


def test_a_stack_without_certificates_says_which_command_makes_them(opened: Callable[[int], TlsLink]):
    with pytest.raises(HostError, match="has made no certificates yet.*`make host-certs` first"):
        opened(1)


def test_a_certificate_of_another_stack_is_refused_by_both_sides(
    tmp_path: Path, opened: Callable[[int], TlsLink], monkeypatch: pytest.MonkeyPatch
):
    theirs, ours = another_stacks(tmp_path, monkeypatch), certificates.for_host("gpu3", HERE)
    with (
        tls_server(context_of(theirs, tmp_path)) as server,
        pytest.raises(HostError, match="shows a certificate that this stack has not made"),
    ):
        opened(server.port)
    with (
        tls_server(context_of(ours, tmp_path, ca=theirs.ca)) as server,
        pytest.raises(HostError, match="does not take this stack's certificate"),
    ):
        opened(server.port)


def test_a_machine_cannot_pass_for_another_one_or_for_the_stack(
    tmp_path: Path, opened: Callable[[int], TlsLink], keys: Path
):
    elsewhere, ours = certificates.for_host("gpu4", "10.0.0.4"), certificates.for_host("gpu3", HERE)
    with (
        tls_server(context_of(elsewhere, tmp_path)) as server,
        pytest.raises(HostError, match=f"was made for another name than {HERE}"),
    ):
        opened(server.port)
    # With its own certificate a machine is let in by no other one.
    (keys / "tls" / "client.pem").write_text(elsewhere.certificate + elsewhere.key)
    with (
        tls_server(context_of(ours, tmp_path)) as server,
        pytest.raises(HostError, match="does not take this stack's certificate"),
    ):
        opened(server.port)


def test_a_certificate_that_has_ended_is_refused(tmp_path: Path, opened: Callable[[int], TlsLink]):
    with (
        tls_server(context_of(certificates.for_host("gpu3", HERE, days=0), tmp_path)) as server,
        pytest.raises(HostError, match=r"no longer valid by this machine's clock. Make its certificates again"),
    ):
        opened(server.port)


def test_an_engine_without_tls_is_refused(opened: Callable[[int], TlsLink]):
    certificates.for_host("gpu3", HERE)
    with tls_server(None) as server, pytest.raises(HostError, match="An engine answers on port .* without TLS"):
        opened(server.port)


def test_an_engine_that_asks_for_no_certificate_is_refused(tmp_path: Path, opened: Callable[[int], TlsLink]):
    bundle = certificates.for_host("gpu3", HERE)
    with tls_server(context_of(bundle, tmp_path, asks=False)) as server:
        opened(server.port)
        with pytest.raises(HostError, match='takes calls without a certificate: .* Set "tlsverify": true'):
            refuse_open_door("gpu3", TlsAddress(HERE, server.port))
    with tls_server(context_of(bundle, tmp_path)) as server:
        refuse_open_door("gpu3", TlsAddress(HERE, server.port))


def test_what_speaks_no_tls_and_is_no_engine_is_told_apart(opened: Callable[[int], TlsLink]):
    certificates.for_host("gpu3", HERE)
    with socket.create_server((HERE, 0)) as server:

        def greet() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                connection.sendall(b"SSH-2.0-OpenSSH_10.0\r\n")
                connection.recv(1000)
                connection.close()

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        with pytest.raises(HostError, match="does not speak TLS: is that the engine's port"):
            opened(server.getsockname()[1])


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("name Name or service not known", "The name gpu3 is not known to the scheduler's container"),
        ("silent no answer in time", "Nothing answers on port 2376 of gpu3: is the machine on"),
        ("certificate 9 certificate is not yet valid", "is not valid yet by this machine's clock: set the clock"),
        ("alert SSLV3_ALERT_CERTIFICATE_EXPIRED", "certificate is not valid now: is the clock there right"),
        ("answer ['HTTP/1.0 404 Not Found']", "is not a Docker Engine: it says ['HTTP/1.0 404 Not Found']"),
        ("Traceback\nValueError: x", "cannot be reached by TLS: Traceback\nValueError: x"),
        ("", "cannot be reached by TLS: no answer in time"),
    ],
)
def test_what_the_process_says_becomes_a_remedy(said: str, sentence: str):
    assert sentence in tls_problem(said, TlsAddress("gpu3"))


# ---- its end is told -------------------------------------------------------------------------------------------------


def row(seconds: float | None) -> HostRow:
    return HostRow("gpu3", 9, 4000, 8, 4000, 0, 0, 0, 0, "tcp://gpu3", certificate_seconds=seconds)


@pytest.mark.parametrize(
    ("seconds", "says", "state"),
    [
        (12 * DAY, "its certificate ends in 12 days 0 h: make host-certs NAME=gpu3 URL=tcp://gpu3", "note"),
        (-5.0, "its certificate has ended: no connection can be made any more: make host-certs NAME=gpu3", "wrong"),
    ],
)
def test_the_end_of_a_certificate_is_told_before(seconds: float, says: str, state: str):
    now = datetime(2026, 11, 30, tzinfo=UTC)
    (line,) = (line for line in host_board([row(seconds)], [], [], now) if "certificate" in line)
    assert says in line
    (finding,) = doctor.certificates([row(seconds)])
    assert (finding.state, says in finding.says) == (state, True)


@pytest.mark.parametrize("seconds", [None, 31 * DAY])
def test_a_certificate_that_is_valid_for_long_is_no_news(seconds: float | None):
    assert "certificate" not in str(host_board([row(seconds)], [], [], datetime(2026, 11, 30, tzinfo=UTC)))
    assert doctor.certificates([row(seconds)]) == []
