"""The services' health checks, against a real server and real processes."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tarmac import healthcheck


@pytest.fixture
def serve() -> Iterator[Callable[[int, bytes], str]]:
    servers = []

    def start(status: int, body: bytes) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802  the standard library's name
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/health"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


HEALTHY = b'{"metadatabase": {"status": "healthy"}, "triggerer": {"status": null}}'
UNHEALTHY = b'{"metadatabase": {"status": "healthy"}, "scheduler": {"status": "unhealthy"}}'
ANSWERS = {
    "all components healthy": (200, HEALTHY, None),
    "an empty page, which is good news": (200, b"", None),
    "a version": (200, b'{"version": "3.3.2"}', None),
    "200 with bad news in it": (200, UNHEALTHY, "unhealthy: scheduler"),
    "503": (503, b"", "503"),
    "no JSON": (200, b"<html>", "Expecting value"),
}


@pytest.mark.parametrize(("status", "body", "problem"), ANSWERS.values(), ids=ANSWERS.keys())
def test_a_health_page_is_judged_by_status_and_content(
    serve: Callable[[int, bytes], str], status: int, body: bytes, problem: str | None
):
    url = serve(status, body)
    found = healthcheck.url_problem(url)
    if problem is None:
        assert found is None
    else:
        assert url in found
        assert problem in found


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """As the engine runs it: without site packages."""
    return subprocess.run(
        [sys.executable, "-S", healthcheck.__file__, *arguments], capture_output=True, text=True, check=False
    )


def test_the_command_exits_0_for_a_healthy_page_and_1_with_the_reason_for_an_unhealthy_one(
    serve: Callable[[int, bytes], str],
):
    good, bad = run(serve(200, HEALTHY)), run(serve(200, UNHEALTHY))
    assert (good.returncode, good.stdout) == (0, "")
    assert bad.returncode == 1
    assert "unhealthy: scheduler" in bad.stdout


def test_a_closed_port_is_unhealthy(serve: Callable[[int, bytes], str]):
    found = run("http://127.0.0.1:1/health")
    assert found.returncode == 1
    assert "refused" in found.stdout


@pytest.fixture
def process() -> Iterator[Callable[..., None]]:
    started = []

    def start(*words: str) -> None:
        child = subprocess.Popen([sys.executable, "-c", "input()", *words], stdin=subprocess.PIPE)
        started.append(child)
        # The kernel shows the words once the program is loaded.
        while words[-1].encode() not in Path(f"/proc/{child.pid}/cmdline").read_bytes():
            assert child.poll() is None

    yield start
    for child in started:
        child.kill()
        child.communicate()


PROCESSES = {
    "a process with the name as a word": (("airflow", "dag-processor-x"), "dag-processor-x", True),
    "a process that calls itself airflow NAME": (("airflow triggerer-x -- 1",), "triggerer-x", True),
    "another process": (("airflow", "scheduler-x"), "triggerer-x", False),
    "a health check of that name": (("process", "triggerer-x"), "triggerer-x", False),
}


@pytest.mark.parametrize(("words", "name", "found"), PROCESSES.values(), ids=PROCESSES.keys())
def test_a_process_is_found_by_its_name(process: Callable[..., None], words: tuple[str, ...], name: str, found: bool):
    process(*words)
    answer = run("process", name)
    assert answer.returncode == (0 if found else 1)
    assert answer.stdout == ("" if found else f"no process '{name}' runs\n")
