"""Prometheus itself reads a stack, by the files of docs/monitoring, as an account that may only look."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import yaml

from support.stack import REPO, Stack, add_user, free_port
from support.waiting import wait_for

MONITORING = REPO / "docs/monitoring"


def test_prometheus_reads_a_stack_with_the_files_of_the_docs(stack: Stack, tmp_path: Path) -> None:
    user, password = add_user(stack, "Viewer")
    (tmp_path / "tarmac-password").write_text(password)
    (tmp_path / "alerts.yml").write_text((MONITORING / "alerts.yml").read_text())
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    (scrape,) = config["scrape_configs"]
    scrape["basic_auth"]["username"] = user
    scrape["static_configs"] = [{"targets": [f"localhost:{stack.web}"]}]
    scrape |= {"scrape_interval": "5s", "scrape_timeout": "5s"}
    config["global"] = {"evaluation_interval": "1s"}
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    checked = subprocess.run(["promtool", "check", "config", path], text=True, capture_output=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr

    text = stack.http.get("/tarmac/metrics", auth=(user, password)).text
    linted = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
    assert (linted.returncode, linted.stderr) == (0, ""), linted.stdout

    port = free_port()
    address = f"127.0.0.1:{port}"
    command = [
        "prometheus", f"--config.file={path}", f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address={address}"
    ]  # fmt: skip
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as server,
        httpx.Client(base_url=f"http://{address}/api/v1", timeout=60) as http,
    ):
        try:

            def value(expression: str) -> str | None:
                try:
                    answer = http.get("/query", params={"query": expression})
                except httpx.HTTPError:
                    return None
                if answer.status_code == 503:  # it listens, and is not ready
                    return None
                found: list[Any] = answer.json()["data"]["result"]
                return found[0]["value"][1] if found else None

            wait_for("Prometheus to have read the stack", lambda: value("tarmac_up") == "1")
            wait_for("the host's cores", lambda: float(value("max_over_time(tarmac_host_cores[5m])") or 0) > 0)

            def evaluated() -> list[dict[str, Any]]:
                groups = http.get("/rules").json()["data"]["groups"]
                rules = [rule for group in groups for rule in group["rules"]]
                return rules if all(rule["health"] != "unknown" for rule in rules) else []

            rules = wait_for("the alerts to be evaluated", evaluated)
            assert {rule["health"] for rule in rules} == {"ok"}, rules
            # Each query of the dashboard is one that Prometheus takes.
            dashboard = (MONITORING / "grafana.json").read_text()
            for found in re.findall(r'"expr":\s*"((?:[^"\\]|\\.)*)"', dashboard):
                expression = json.loads(f'"{found}"').replace("$__rate_interval", "5m").replace("$__range", "1h")
                answer = http.get("/query", params={"query": expression}).json()
                assert answer["status"] == "success", (expression, answer)
        finally:
            server.terminate()
