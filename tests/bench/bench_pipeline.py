"""`make bench-pipeline`: its overhead beside a bare chain of the same containers, and the idle stack. Prints only.

Run in the scheduler's container by tests/bench/bench_pipeline.sh.
"""

from __future__ import annotations

import os
import statistics
import time
import uuid
from datetime import datetime
from typing import Any

from tarmac.base.airflow_api import AirflowApi
from tarmac.base.session import SESSION_USER
from tarmac.base.settings import MLFLOW_VARIABLES, settings
from tarmac.containers import engine

STEPS = ["prep", "train", "save", "eval", "cleanup"]
IDLE_SECONDS = 30


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def container_seconds(api: Any, run_id: str, since: float, until: float) -> float:
    """Sum of the times from create to end of a run's step containers; they are removed later, beside the next ones."""
    born: dict[str, float] = {}
    total = 0.0
    filters = {"type": ["container"], "label": [f"tarmac.run={run_id}"], "event": ["create", "die"]}
    for event in api.events(since=int(since) - 1, until=int(until) + 2, filters=filters, decode=True):
        actor, at = event["Actor"], event["timeNano"] / 1e9
        if "tarmac.task" not in actor["Attributes"]:
            continue  # the helper that writes request.json belongs to the pipeline's own time
        if event["Action"] == "create":
            born[actor["ID"]] = at
        else:
            total += at - born.pop(actor["ID"])
    return total


def session(airflow: AirflowApi, api: Any, request: dict[str, Any]) -> tuple[float, float]:
    """One session: (wall seconds from trigger to end, of these inside containers)."""
    run_id = airflow.trigger(request)
    while (run := airflow.run(run_id))["state"] not in ("success", "failed"):
        time.sleep(0.2)
    if run["state"] != "success":
        raise SystemExit(f"The benchmark's session {run_id} failed; its logs say why.")
    started, ended = seconds(run["queued_at"]), seconds(run["end_date"])
    return ended - started, container_seconds(api, run_id, started, ended)


def bare_chain(api: Any, request: dict[str, Any]) -> float:
    """The same steps as containers by hand, one after the other, with the same isolation. Seconds."""
    stack, name = settings(), f"{settings().stack}-bench-{uuid.uuid4().hex[:8]}"
    labels = {"tarmac.project": stack.stack, "tarmac.bench": name}
    started = time.monotonic()
    engine.create_session_volume(api, name, labels, request, stack.trainer_image)
    try:
        for step in STEPS:
            mounts = [{"Type": "volume", "Source": name, "Target": "/session", "ReadOnly": False}]
            if step == "prep":
                mounts.append(
                    {"Type": "volume", "Source": stack.datasets_volume, "Target": "/datasets", "ReadOnly": True}
                )
            environment = {"TARMAC_RUN_ID": name, "TARMAC_DAG_ID": "bench"}
            if step == "save":
                environment |= {key: os.environ[key] for key in MLFLOW_VARIABLES if key in os.environ}
            container = api.create_container(
                image=stack.trainer_image, command=[step], user=SESSION_USER, labels=labels, environment=environment,
                host_config=api.create_host_config(
                    mounts=mounts, read_only=True, cap_drop=["ALL"], security_opt=["no-new-privileges"], init=True,
                    network_mode=stack.registry_network if step == "save" else "none",
                    tmpfs={"/tmp": "rw,nosuid,nodev,size=1g,mode=1777"},  # noqa: S108
                ),
            )["Id"]  # fmt: skip
            api.start(container)
            code = api.wait(container)["StatusCode"]
            if code:
                raise SystemExit(f"The bare chain's {step} failed: {api.logs(container).decode()}")
            engine.remove_container(api, container)
    finally:
        engine.fence(api, labels)
        engine.remove_volume(api, name)
    return time.monotonic() - started


def idle(api: Any) -> tuple[int, float, dict[str, tuple[int, float]]]:
    """Bytes of memory (without reclaimable page cache) and cores of the services, averaged over IDLE_SECONDS."""
    # Images carry Compose's project label too, so it alone would select any container made of them.
    label = [f"com.docker.compose.project={settings().stack}", "com.docker.compose.oneoff=False"]
    rows = {row["Labels"]["com.docker.compose.service"]: row["Id"] for row in api.containers(filters={"label": label})}

    def cpu(stats: dict[str, Any]) -> int:
        used: int = stats["cpu_stats"]["cpu_usage"]["total_usage"]
        return used

    first = {service: (api.stats(row, stream=False), time.monotonic()) for service, row in rows.items()}
    time.sleep(IDLE_SECONDS)
    found = {}
    for service, row in rows.items():
        stats, before = api.stats(row, stream=False), first[service]
        memory = stats["memory_stats"]["stats"]  # cgroup v1 says rss, v2 anon; both: shmem
        held = memory.get("total_rss", memory.get("anon", 0)) + memory.get("total_shmem", memory.get("shmem", 0))
        cores = (cpu(stats) - cpu(before[0])) / 1e9 / (time.monotonic() - before[1])
        found[service] = (held, cores)
    return sum(m for m, _ in found.values()), sum(c for _, c in found.values()), found


def main() -> None:
    api = engine.client()
    airflow = AirflowApi("http://webserver:8080", os.environ["BENCH_USER"], os.environ["BENCH_PASSWORD"])
    data = os.environ["BENCH_DATASET"]
    request = {"model": "test_model", "datasets": {"tiny": {"train": data, "eval": None}}, "gpu": False,
               "seed": 0, "parameters": {}, "no_cache": True}  # fmt: skip
    memory, cores, services = idle(api)
    rounds = int(os.environ["BENCH_ROUNDS"])
    sessions = [session(airflow, api, request) for _ in range(rounds)]
    chains = [bare_chain(api, request) for _ in range(rounds)]
    walls, inside = [wall for wall, _ in sessions], [inner for _, inner in sessions]
    overheads = [wall - inner for wall, inner in sessions]
    chain = statistics.median(chains)
    print(f"idle stack over {IDLE_SECONDS} s (goals: at most 2 GiB, 0.25 cores):")
    print(f"  {'all':<14} {memory / 1024**2:6.0f} MiB  {cores:.3f} cores")
    for service, (used, busy) in sorted(services.items()):
        print(f"  {service:<14} {used / 1024**2:6.0f} MiB  {busy:.3f} cores")
    print(f"CPU session, test_model, median of {rounds}:")
    print(f"  wall                         {statistics.median(walls):6.2f} s")
    print(f"  of it inside containers      {statistics.median(inside):6.2f} s")
    spread = f"{min(overheads):.2f} to {max(overheads):.2f}"
    print(f"  overhead (goal at most 5 s)  {statistics.median(overheads):6.2f} s  ({spread})")
    print(f"bare chain of the same steps   {chain:6.2f} s")
    print(f"ratio session / bare chain     {statistics.median(walls) / chain:6.2f}")


if __name__ == "__main__":
    main()
