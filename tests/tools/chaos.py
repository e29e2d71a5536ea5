"""`make chaos ROUNDS=n SEED=s HOSTS=h`: sessions train, and each round something is killed, stopped or ended at random.

In the end it prints what was lost. Exit code 0 only if nothing was: no session failed that was not ended on purpose, no
training was started twice, no device was over-admitted, and no container, volume, reservation or place in the queue
is left.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from gpu.other_machine import OtherMachine, gateway
from support.faults import (
    AIRFLOW,
    KILL,
    Engine,
    PatientClient,
    container_of,
    docker,
    kill_services,
    scheduler_answers,
    send_signal,
    start,
    stop,
    webserver_answers,
)
from support.stack import DAG, REPO, Stack
from support.waiting import wait_for

AT_ONCE = 4
GPU_GIB = 30  # two of them fit on a device of 80 GiB
ON_A_DEVICE = 2
END_SECONDS = 400.0


def taken(answer: httpx.Response) -> bool:
    """Whether Airflow did what it was asked; not, when the run has moved on meanwhile."""
    if answer.status_code in (404, 409):
        return False
    answer.raise_for_status()
    return True


class Chaos:
    """A stack, the sessions sent to it, and what was done to them."""

    def __init__(
        self, stack: Stack, engine: Engine, chance: random.Random, *, gpu: bool, machines: list[OtherMachine]
    ) -> None:
        self.stack, self.engine, self.chance, self.gpu, self.machines = stack, engine, chance, gpu, machines
        self.open: set[str] = set()
        self.ended_by_hand: set[str] = set()
        self.deleted: set[str] = set()
        self.hurt: set[str] = set()
        self.sent = 0
        self.done: Counter[str] = Counter()
        self.over_admissions = 0
        self._over = threading.Event()
        self._observer = threading.Thread(target=self._observe, daemon=True)

    # ---- sessions ----

    def top_up(self) -> None:
        """Send sessions until enough are under way."""
        for run_id in sorted(self.open):
            if run_id in self.deleted or self.stack.run_state(run_id) in ("success", "failed"):
                self.open.discard(run_id)
        while len(self.open) < AT_ONCE:
            self.sent += 1
            gpu = self.gpu and self.chance.random() < 0.5
            request: dict[str, Any] = {
                "model": "test_model",
                "no_cache": True,
                "gpu": gpu,
                "datasets": {"tiny": {"train": "file:///files/tiny.jsonl"}},
                "parameters": {"train_seconds": self.chance.choice([2, 8, 20, 40])},
            }
            if gpu:
                request["resources"] = {"gpu_memory": f"{GPU_GIB}GiB"}
                request["parameters"]["gpu_memory_mib"] = 1000
                # CPU sessions go to smaller hosts first by themselves.
                if self.machines and (machine := self.chance.choice([None, *self.machines])):
                    request["resources"]["host"] = machine.name
            answer = self.stack.post(request, f"chaos-{self.sent}")
            if answer.status_code not in (200, 409):
                raise RuntimeError(f"a session was refused: {answer.status_code} {answer.text}")
            self.open.add(f"chaos-{self.sent}")

    def some_session(self) -> str:
        return self.chance.choice(sorted(self.open))

    def _running(self) -> list[tuple[str, str, str]]:
        """Run, task and container of every step that runs now."""
        form = '{{.Label "tarmac.run"}} {{.Label "tarmac.task"}} {{.ID}}'
        label = f"label=tarmac.project={self.stack.project}"
        said = docker("ps", "--filter", label, "--filter", "label=tarmac.task", "--format", form)
        return sorted((run, task, one) for run, task, one in (line.split() for line in said.splitlines()))

    def _observe(self) -> None:
        label = f"label=tarmac.project={self.stack.project}"
        while not self._over.wait(0.5):
            said = docker(
                "ps",
                "--filter",
                label,
                "--filter",
                "label=tarmac.gpu",
                "--format",
                '{{.Label "tarmac.gpu"}}',
                check=False,
            )
            for machine in self.machines:
                said += machine.try_engine("ps", "--filter", "label=tarmac.gpu", "--format", '{{.Label "tarmac.gpu"}}')
            self.over_admissions += sum(count > ON_A_DEVICE for count in Counter(said.split()).values())

    # ---- faults ----

    def kill_a_task(self) -> None:
        self._kill_task("worker -- ")

    def kill_a_tasks_supervisor(self) -> None:
        self._kill_task("worker -- LocalExecutor: ")

    def _kill_task(self, title: str) -> None:
        tasks = self.stack.tasks(self.some_session()).values()
        for task in tasks:
            if task["state"] == "running":
                send_signal(self.stack, "scheduler", KILL, f"{title}{task['id']}")

    def kill_a_container(self) -> None:
        # Once a session: it may fail a few times, not as often as it is hurt.
        unhurt = [one for one in self._running() if one[0] not in self.hurt]
        if unhurt:
            run_id, _, container = self.chance.choice(unhurt)
            self.hurt.add(run_id)
            docker("kill", container, check=False)

    def kill_the_scheduler(self) -> None:
        send_signal(self.stack, "scheduler", KILL, "airflow scheduler")

    def kill_the_supervisor(self) -> None:
        send_signal(self.stack, "scheduler", KILL, "tarmac.reaper.supervisor")

    def kill_the_reaper(self) -> None:
        send_signal(self.stack, "scheduler", KILL, "tarmac.reaper.reaper")

    def kill_all_of_airflow(self) -> None:
        kill_services(self.stack, *AIRFLOW)

    def kill_the_webserver(self) -> None:
        kill_services(self.stack, "webserver")

    def kill_the_triggerer_and_the_dag_processor(self) -> None:
        kill_services(self.stack, "triggerer", "dag-processor")

    def restart_the_scheduler(self) -> None:
        docker("restart", container_of(self.stack, "scheduler"))

    def restart_postgres(self) -> None:
        docker("restart", "--time", "5", container_of(self.stack, "postgres"))

    def kill_postgres(self) -> None:
        kill_services(self.stack, "postgres")

    def stop_postgres(self) -> None:
        stop(self.stack, "postgres")
        time.sleep(self.chance.uniform(2, 12))
        start(self.stack, "postgres")

    def restart_the_registry(self) -> None:
        docker("restart", "--time", "1", container_of(self.stack, "mlflow"))

    def mark_a_run_failed(self) -> None:
        run_id = self.some_session()
        if run_id not in self.deleted:
            self.ended_by_hand.add(run_id)
            taken(self.stack.http.patch(f"{DAG}/dagRuns/{run_id}", json={"state": "failed"}))

    def delete_a_run(self) -> None:
        self.mark_a_run_failed()  # Airflow deletes no run that is running
        for run_id in sorted(self.ended_by_hand - self.deleted):
            if taken(self.stack.http.delete(f"{DAG}/dagRuns/{run_id}")):
                self.deleted.add(run_id)

    def clear_a_run(self) -> None:
        run_id = self.some_session()
        body = {"dry_run": False, "only_failed": False}
        if run_id not in self.deleted and taken(self.stack.http.post(f"{DAG}/dagRuns/{run_id}/clear", json=body)):
            self.engine.may_train_again(run_id)

    def cut_a_host_off(self) -> None:
        machine = self.chance.choice(self.machines)
        machine.control("cut")
        time.sleep(self.chance.uniform(2, 25))
        machine.control("join")

    def kill_an_agent(self) -> None:
        machine = self.chance.choice(self.machines)
        for container in machine.agents():
            machine.try_engine("kill", container)

    def kill_a_training_elsewhere(self) -> None:
        for machine in self.machines:
            for run_id, container in machine.sessions().items():
                if run_id not in self.hurt:
                    self.hurt.add(run_id)
                    machine.try_engine("kill", container)
                    return

    def restart_an_engine_elsewhere(self) -> None:
        # As above: not one whose sessions were hurt before.
        machine = self.chance.choice(self.machines)
        if not self.hurt & set(machine.sessions()):
            self.hurt |= set(machine.sessions())
            machine.control("restart")

    def faults(self) -> list[Callable[[], None]]:
        elsewhere = [
            self.cut_a_host_off, self.cut_a_host_off, self.cut_a_host_off, self.kill_an_agent, self.kill_an_agent,
            self.kill_a_training_elsewhere, self.restart_an_engine_elsewhere, self.restart_an_engine_elsewhere,
        ]  # fmt: skip
        return self._here() + (elsewhere if self.machines else [])

    def _here(self) -> list[Callable[[], None]]:
        return [
            self.kill_a_task, self.kill_a_task, self.kill_a_tasks_supervisor, self.kill_a_container,
            self.kill_the_scheduler, self.kill_the_supervisor, self.kill_the_reaper, self.kill_all_of_airflow,
            self.kill_the_webserver, self.kill_the_triggerer_and_the_dag_processor, self.restart_the_scheduler,
            self.restart_postgres, self.kill_postgres, self.stop_postgres, self.restart_the_registry,
            self.mark_a_run_failed, self.delete_a_run, self.clear_a_run,
        ]  # fmt: skip

    # ---- rounds ----

    def round(self, number: int) -> None:
        """Let sessions run for a moment, hurt something, wait until the stack answers again."""
        self.top_up()
        time.sleep(self.chance.uniform(0, 4))
        fault = self.chance.choice(self.faults())
        name = fault.__name__.replace("_", " ")
        began = time.monotonic()
        fault()
        self.done[name] += 1
        wait_for("Postgres", self._postgres_answers, 120)
        wait_for("the webserver", lambda: webserver_answers(self.stack), 120)
        wait_for("the scheduler", lambda: scheduler_answers(self.stack), 120)
        print(f"round {number}: {name}; answers after {time.monotonic() - began:.1f} s, "
              f"{len(self.open)} sessions under way", flush=True)  # fmt: skip

    def _postgres_answers(self) -> bool:
        command = ["docker", "exec", container_of(self.stack, "postgres"), "pg_isready", "--host=127.0.0.1", "--quiet"]
        return subprocess.run(command, capture_output=True).returncode == 0

    def run(self, rounds: int) -> dict[str, int]:
        """Make the rounds, let every session end, and count what was lost."""
        self._observer.start()
        for number in range(1, rounds + 1):
            self.round(number)
        lost = [run_id for run_id in self._names() if not self._ended_well(run_id)]
        for run_id in lost:
            print(f"lost: {run_id} {self.stack.states(run_id)}", flush=True)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and (self._containers() or self._volumes()):
            time.sleep(1)
        self._over.set()
        self._observer.join(10)
        twice = self.engine.started_twice()
        for run_id in twice:
            print(f"started twice: {run_id}", flush=True)
        return {
            "sessions lost": len(lost),
            "trainings started twice": len(twice),
            "over-admissions": self.over_admissions,
            "containers left": self._containers(),
            "volumes left": self._volumes(),
            "reservations left": self._count("reservation"),
            "places in the queue left": self._count("waiting"),
        }

    def _containers(self) -> int:
        there = [
            machine.try_engine("ps", "--all", "--quiet", "--filter", "label=tarmac.run") for machine in self.machines
        ]
        return len(self.stack.session_containers()) + len("".join(there).split())

    def _volumes(self) -> int:
        there = [
            machine.try_engine("volume", "ls", "--quiet", "--filter", "label=tarmac.run") for machine in self.machines
        ]
        return len(self.stack.session_volumes()) + len("".join(there).split())

    def _names(self) -> list[str]:
        return [f"chaos-{number}" for number in range(1, self.sent + 1)]

    def _ended_well(self, run_id: str) -> bool:
        if run_id in self.deleted:
            return True
        try:
            ended = self.stack.finish(run_id, END_SECONDS)
        except AssertionError:
            return False
        return ended == "success" or run_id in self.ended_by_hand

    def _count(self, table: str) -> int:
        command = ("psql", "--username", "postgres", "--tuples-only", "tarmac", "--command")
        return int(docker("exec", container_of(self.stack, "postgres"), *command, f"SELECT count(*) FROM {table}"))


def main() -> int:
    """Start a stack, make the rounds, remove the stack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--hosts", type=int, choices=(1, 2, 3), default=1)
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    gpu = bool(os.environ.get("FAKE_NVML_DIR"))
    machines = [OtherMachine(kind) for kind in ("ssh", "tls")[: arguments.hosts - 1]]
    what = f"{'two fake GPUs' if gpu else 'no GPU'}, {arguments.hosts} hosts"
    print(f"{arguments.rounds} rounds, seed {seed}, {what}", flush=True)
    with tempfile.TemporaryDirectory(prefix="tarmac-chaos-") as folder, ExitStack() as started:
        for example in (REPO / "env").glob("*.env.example"):
            shutil.copy(example, folder)
        stack = Stack(Path(folder))
        stack.http = PatientClient(base_url=stack.http.base_url, timeout=60)
        try:
            done = stack.make("up")
            if done.returncode:
                print(done.stderr, file=sys.stderr)
                return 1
            stack.log_in()
            for machine in machines:
                started.callback(machine.control, "stop")
                machine.control("start")
                machine.add_to(stack, gateway(stack), Path(folder))
            for machine in machines:
                wait_for(
                    f"the GPU of {machine.name}", lambda uuid=machine.gpu: uuid in stack.make("gpus").stdout, 120, 1
                )
            with Engine(stack, *(machine.socket for machine in machines)) as engine:
                chaos = Chaos(stack, engine, random.Random(seed), gpu=gpu, machines=machines)
                lost = chaos.run(arguments.rounds)
        finally:
            stack.make("clean", "YES=1")
    print(f"\n{sum(chaos.done.values())} rounds, seed {seed}, {chaos.sent} sessions")
    for name, count in sorted(chaos.done.items()):
        print(f"  {count:3d}  {name}")
    for name, count in lost.items():
        print(f"{name}: {count}")
    return 1 if any(lost.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
