"""What the Tarmac page costs the webserver of a running stack: time to the first content, memory, processor.

    make bench-page

Restart the webserver before: the first visit loads the code of the page, which is what its memory is compared with.
While a session trains, it also says what one and five people cost who look at Now and at that session.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from pathlib import Path
from urllib.parse import quote

import docker
import httpx

from tarmac.web.page.live import ASK_SECONDS

PAGES = ("/tarmac/", "/tarmac/sessions", "/tarmac/models", "/tarmac/new", "/tarmac/datasets", "/tarmac/history")
TIMES, IDLE_SECONDS = 10, 30


def used(container: docker.models.containers.Container) -> tuple[float, float]:
    """The memory of a container's processes in MiB, and the processor time that it has had, in seconds."""
    found = container.stats(stream=False)
    memory = found["memory_stats"]["stats"]
    bytes_used = memory.get("anon") or memory["total_rss"]  # the names of both versions of control groups
    return bytes_used / 2**20, found["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9


def idle_percent(container: docker.models.containers.Container) -> float:
    """How much of a core a container takes while nobody asks it anything but its health check."""
    before = used(container)[1]
    time.sleep(IDLE_SECONDS)
    return (used(container)[1] - before) / IDLE_SECONDS * 100


def looked_at(webserver: docker.models.containers.Container, url: str, token: str, path: str, viewers: int) -> str:
    """What it costs while some people look at a page, and how many events with how many bytes each of them gets."""
    events: list[int] = []
    over = threading.Event()

    def look(late: float) -> None:
        over.wait(late)
        with httpx.stream("GET", f"{url}{path}", timeout=60, headers={"Cookie": f"_token={token}"}) as news:
            news.raise_for_status()
            for chunk in news.iter_raw():
                events.append(len(chunk))
                if over.is_set():
                    return

    threads = [threading.Thread(target=look, args=(ASK_SECONDS * number / viewers,)) for number in range(viewers)]
    for thread in threads:
        thread.start()
    percent = idle_percent(webserver)
    over.set()
    for thread in threads:
        thread.join()
    each, kib = len(events) / viewers / IDLE_SECONDS, sum(events) / viewers / IDLE_SECONDS / 1024
    return f"{viewers} at {path[:40]}: {percent:.1f} % of a core; {each:.1f} events, {kib:.1f} KiB a second each"


def login() -> dict[str, str]:
    """The login of the stack's Airflow."""
    lines = (Path(os.environ.get("TARMAC_ENV_DIR", "env")) / "login.env").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {"username": values["TARMAC_UI_USER"], "password": values["TARMAC_UI_PASSWORD"]}


def main() -> None:
    """Measure and print."""
    project, port = os.environ.get("TARMAC_PROJECT", "tarmac"), os.environ.get("TARMAC_WEB_PORT", "8081")
    webserver = docker.from_env().containers.get(f"{project}-webserver-1")
    with httpx.Client(base_url=f"http://localhost:{port}", timeout=60) as http:
        token = http.post("/auth/token", json=login()).json()["access_token"]
        # What Airflow loads for calls of its own is none of the page's.
        for _ in range(5):
            http.get("/api/v2/dags/nlp_model_training/dagRuns", headers={"Authorization": f"Bearer {token}"})
        print(f"before the first visit: {used(webserver)[0]:.0f} MiB, {idle_percent(webserver):.2f} % of a core")
        for path in PAGES:
            took = []
            for _ in range(1 + TIMES):
                began = time.perf_counter()
                http.get(path, headers={"Cookie": f"_token={token}"}).raise_for_status()
                took.append(1000 * (time.perf_counter() - began))
            print(f"{path:<18} first {took[0]:.0f} ms, then {statistics.median(took[1:]):.0f} ms (median of {TIMES})")
        print(f"after the visits: {used(webserver)[0]:.0f} MiB, {idle_percent(webserver):.2f} % of a core")
        under_way = http.get("/tarmac/api/v1/now", headers={"Authorization": f"Bearer {token}"}).json()["sessions"]
        if training := next((one["id"] for one in under_way if one["progress"]), None):
            for path in ("/tarmac/news/now", f"/tarmac/news/sessions/{quote(training, safe='')}"):
                for viewers in (1, 5):
                    print(looked_at(webserver, str(http.base_url), token, path, viewers))


if __name__ == "__main__":
    main()
