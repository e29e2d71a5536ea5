"""What is between a person and a stack, for real: a server that is off, its own certificate, proxies, a full disk."""

from __future__ import annotations

import errno
import http.server
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tarmac_client import SettingsError, files
from tarmac_client.cli.main import main

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


Tarmac = Callable[..., "tuple[int, str]"]


@pytest.fixture
def tarmac(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tarmac:
    """Run `tarmac ls`; return its exit code and what it says, which is one line."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    for name in [name for name in os.environ if name.upper() in PROXIES or name.startswith("TARMAC_")]:
        monkeypatch.delenv(name)

    def run(url: str, **more: str) -> tuple[int, str]:
        with monkeypatch.context() as given:
            for key, value in {"URL": url, "USER": "ada", "PASSWORD": "p"}.items():
                given.setenv(f"TARMAC_{key}", value)
            for key, value in more.items():
                given.setenv(key, value)
            code = main(["ls"])
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1, err
        return code, err.strip()

    return run


@pytest.fixture
def closed() -> Iterator[int]:
    """A port that is taken and at which nothing listens, so that no answer comes."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Knows nothing of a stack."""

    def do_POST(self) -> None:
        self.send_error(404)

    def do_CONNECT(self) -> None:
        self.send_error(502)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    yield found
    found.shutdown()
    found.server_close()


def begin(server: http.server.ThreadingHTTPServer) -> None:
    threading.Thread(target=server.serve_forever, daemon=True).start()


def test_a_stack_that_is_off_is_named_with_what_starts_it(tarmac: Tarmac, closed: int):
    url = f"http://127.0.0.1:{closed}"
    code, said = tarmac(url)
    assert code == 3
    assert said.startswith(f"{url} does not answer (")
    assert said.endswith("is the stack up? `make up` on its machine starts it.")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here, which makes the certificate")
def test_a_certificate_of_the_stack_s_own_is_trusted_once_it_is_named(
    tarmac: Tarmac, server: http.server.ThreadingHTTPServer, tmp_path: Path
):
    own, key = tmp_path / "own.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(own),
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    begin(server)
    url = f"https://localhost:{server.server_port}"
    code, said = tarmac(url)
    assert code == 3
    assert said.startswith(f"{url} has a certificate that this machine does not trust (")
    assert said.endswith("If it is the stack's own, set TARMAC_CA_BUNDLE to the file of its certificate.")
    code, said = tarmac(url, TARMAC_CA_BUNDLE=str(own))
    assert (code, "answers (HTTP 404), but has no Tarmac API" in said) == (5, True), "it is trusted, and is no stack"
    code, said = tarmac(url, TARMAC_CA_BUNDLE=str(tmp_path / "no.pem"))
    assert (code, "no.pem' cannot be read as certificates" in said) == (2, True)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_off_is_named_and_not_the_stack(tarmac: Tarmac, closed: int, scheme: str):
    proxy = {f"{scheme.upper()}_PROXY": f"http://me:secret@127.0.0.1:{closed}"}
    url = f"{scheme}://tarmac.example"
    code, said = tarmac(url, **proxy)
    assert code == 3
    assert said.startswith(f"The proxy http://127.0.0.1:{closed} before {url} does not answer (")
    assert said.endswith("check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.")
    stack = f"{scheme}://127.0.0.1:{closed}"
    assert tarmac(stack, **proxy, NO_PROXY="127.0.0.1")[1].startswith(f"{stack} does not answer (")


def test_a_proxy_that_does_not_let_through_is_named(tarmac: Tarmac, server: http.server.ThreadingHTTPServer):
    begin(server)
    code, said = tarmac("https://tarmac.example", HTTPS_PROXY=f"http://127.0.0.1:{server.server_port}")
    assert code == 3
    assert said.startswith("The proxy before https://tarmac.example does not answer (502")


WRONG = {
    "another scheme": ("HTTP_PROXY", "gopher://me:secret@x", "HTTP_PROXY: 'gopher://x' is not the address of a proxy"),
    "no port": ("HTTPS_PROXY", "http://x:port", "HTTPS_PROXY: 'http://x:port' is not the address of a proxy"),
    "half an address": ("ALL_PROXY", "http://[::1", "ALL_PROXY: 'http://[::1' is not the address of a proxy"),
    "SOCKS": ("ALL_PROXY", "socks5://x:1080", "is a SOCKS proxy, which needs one more library: pip install 'httpx[soc"),
}


@pytest.mark.parametrize(("name", "value", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_proxy_that_is_none_is_refused_before_anything_is_sent(tarmac: Tarmac, name: str, value: str, said: str):
    code, told = tarmac("http://tarmac.example", **{name: value})
    assert (code, said in told) == (2, True), told


def test_a_full_disk_under_what_is_made_of_an_export_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    export = tmp_path / "admin.jsonl"
    export.write_text('{"text": "Ada", "label": [[0, 3, "PER"]]}\n')
    (tmp_path / "train.py").write_text("x")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    for make in (
        lambda: files.identify(export, field="FILE"),
        lambda: files.identify_code(tmp_path / "train.py", field="FILE"),
    ):
        with pytest.raises(
            SettingsError, match=r"FILE: what is made of '.*' cannot be written to .*: No space left on"
        ):
            make()
