"""A stack: what its server answers, call by call, without a network."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from datetime import datetime, timezone
from email.utils import format_datetime
from typing import Any

import httpx

from tarmac_client import files

LOST = httpx.ConnectError("connection refused")
WAITS = {"run_state": "running", "state": "queued", "waits": {"why": "no device has 12 GiB free", "ahead": 2}}
TRAINS = {
    "run_state": "running", "state": "training", "progress": {"done": 5, "total": 20, "eta_seconds": 9},
    "metric": {"name": "f1", "step": 2, "value": 0.4},
}  # fmt: skip
HOST = {
    "name": "local", "capacity_millicpus": 4000, "reserved_millicpus": 1500, "beside_millicpus": 0,
    "capacity_bytes": 4 * 1024**3, "reserved_bytes": 1024**3, "beside_bytes": 1024**3,
}  # fmt: skip
GPUS = {
    "sentence": "a session can train on a GPU", "driver": "570.1", "cuda": None, "unidentified": [],
    "devices": [{"uuid": "GPU-a", "name": "H100", "total_bytes": 80 * 1024**3, "problem": "", "capability": "9.0",
                 "remark": "too old for x", "parent": None}],
    "passed": 1,
}  # fmt: skip
HELD = {"run_id": "s", "host": "local", "millicpus": 1500, "bytes": 1024**3, "beside": False}
STEP = {
    "model": "ner", "kind": "person", "from_version": None, "to_version": 3, "who": "ada", "why": "better",
    "at": "2026-11-28T06:00:00Z", "margin": None,
}  # fmt: skip
KIND = {
    "name": "ner", "title": "Named entities", "score": "f1", "scripts": True, "parameters": [
        {"name": "patience", "type": "int", "low": 1.0, "high": 100000.0, "choices": [], "default": 600.0,
         "help": "so many updates without a better score end the training"},
        {"name": "refit", "type": "choice", "low": None, "high": None, "choices": ["always", "never"], "default": None,
         "help": "trained again"},
        {"name": "language", "type": "word", "low": None, "high": None, "choices": [], "default": None,
         "help": "translated into"},
    ],
}  # fmt: skip
URL = "http://stack.example:8081"
LINE = '{"sentence": "Ada met Bob", "entities": []}\n'
OVER = {"run_state": "success", "state": "done", "result": {
    "metrics": {"f1": 0.41}, "eval_lines": 3, "interval": {"metric": "f1", "low": 0.1, "high": 0.8},
    "warnings": ["it says little"], "model": "ner", "version": "3",
}}  # fmt: skip


def version(text: str, score: str) -> dict[str, Any]:
    name, number = text.split("/")
    facts = {"metric": {"f1": score}, "parameter": {"max_steps": "5"}, "data": {}, "training": {}, "origin": {}}
    return {"name": name, "version": int(number), **facts}


class Stack:
    """Answers calls. `script` holds what to answer before anything else: a status, or an error of httpx."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.raw: list[str] = []
        self.stored: dict[str, bytes] = {}
        self.started: dict[str, Any] = {}
        self.states: list[dict[str, Any]] = [OVER]
        self.script: list[int | Exception] = []
        self.problems: list[str] = []
        self.file_problems: list[str] = []
        self.check_file: Callable[[bytes], list[str]] = lambda _: self.file_problems
        self.password = "right"
        self.database = "healthy"
        self.token = "t1"
        self.api = "1.0"
        self.date = format_datetime(datetime.now(timezone.utc), usegmt=True)
        self.log = ["one", "two"]
        self.unmended: list[dict[str, str]] = []
        self.findings = [{"part": "disk", "state": "wrong", "says": "full", "todo": "Make space."}]
        self.gpus = True
        self.matches = True
        self.part_bytes: int | None = 100
        self.uploads: dict[str, bytes] = {}
        self.lose_answers = 0
        self.production = True
        self.sent: list[Any] = []
        self.dags: dict[str, dict[str, Any]] = {}
        self.dag_states = ["waiting", "shown"]
        self.dag_refusal: tuple[int, str] | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.calls.append((request.method, path))
        self.raw.append(request.url.raw_path.decode())
        if self.script:
            what = self.script.pop(0)
            if isinstance(what, Exception):
                raise what
            return self.answer(what, {"detail": f"scripted {what}"})
        body = request.read()
        if path == "/api/v2/monitor/health":
            return httpx.Response(200, json={"metadatabase": {"status": self.database}})
        if path == "/auth/token":
            given = json.loads(body)
            if given["password"] != self.password:
                return httpx.Response(401, json={"detail": "Invalid credentials"})
            return httpx.Response(201, json={"access_token": self.token})
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return self.answer(401, {"detail": "Token Expired"})
        return self.answer(*self.api_answer(request.method, path.partition("/api/v1")[2], request, body))

    def answer(self, status: int, body: Any) -> httpx.Response:
        return httpx.Response(status, json=body, headers={"Tarmac-Api": self.api, "Date": self.date})

    def api_answer(self, method: str, path: str, request: httpx.Request, body: bytes) -> tuple[int, Any]:
        if path == "/version":
            return 200, {"api": self.api, "tarmac": "0.1.0", "user": "ada", "may_start": True, "may_change": True}
        if path == "/checks":
            return 200, {"problems": self.problems}
        if path == "/checks/file":
            return 200, {"problems": self.check_file(body)}
        if path == "/checks/weights":
            names = sorted(set(json.loads(body)["names"]) & {"config.json", "model.safetensors", "tokenizer.json"})
            if "model.safetensors" not in names:
                return 400, {"detail": "The folder has no model.safetensors: name another.", "problems": []}
            return 200, {"names": names}
        if path == "/sessions" and method == "POST":
            sent = json.loads(body)
            new = sent["key"] not in self.started
            self.started[sent["key"]] = sent["request"]
            return 201, {"id": sent["key"], "new": new, "url": f"{URL}/run"}
        if path == "/sessions":
            rows = [{"id": f"s{n}", "run_state": "success"} for n in range(250)]
            first, count = int(request.url.params["offset"]), int(request.url.params["limit"])
            return 200, rows[first : first + count]
        if path.endswith("/metrics"):
            return 200, [{"name": "f1", "step": 1, "value": 0.4}]
        if path.endswith("/logs"):
            first = int(request.url.params["first"])
            lines = self.log[first : first + 1]
            return 200, {
                "task": "train_model_cpu", "attempt": 1, "lines": lines, "next": first + len(lines), "ended": not lines,
            }  # fmt: skip
        if path == "/doctor" and method == "POST":
            left = [{**one, "why": "you choose"} for one in self.findings if one["state"] != "ok"]
            done = [{"part": "leftovers", "says": "removed volume v: over"}]
            return 200, {"mended": done, "failed": self.unmended, "left": left, "findings": self.findings}
        if path == "/doctor":
            return 200, self.findings
        if path == "/gpus/check":
            return 200, {**GPUS, "usable": self.gpus, "host": request.url.params.get("host", "local")}
        if path.endswith("/reproduce"):
            return 201, {"id": json.loads(body)["key"], "new": True, "url": f"{URL}/run", "of": "s"}
        if path.endswith("/verdict"):
            return 200, {"matches": self.matches, "metrics": ["f1: 1 in the record, 2 now"], "circumstances": []}
        if method == "DELETE" and path.startswith("/models/"):
            if path.endswith("/1"):
                return 409, {"detail": "ner/1 is in production"}
            return 200, {"model": "ner", "version": int(path.rpartition("/")[2]), "files": path.endswith("/2")}
        if path == "/models/compare":
            return 200, [version(request.url.params["a"], "0.4"), version(request.url.params["b"], "0.5")]
        if path.endswith("/production"):
            return 200, [STEP] if self.production else []
        if path.endswith("/predict"):
            return self.predict(path, body, request.url.params)
        if path.endswith("/promote") or path.endswith("/rollback"):
            self.sent.append(json.loads(body))
            return 200, STEP
        if path.endswith("/explain"):
            return 200, {"id": "s", "state": "queued", "why": ["It needs 12 GiB."], "todo": ["Wait."], "newer": 1}
        if path.endswith("/retry"):
            return 200, {"id": "s", "task": "train_model_cpu", "said": ["Run s runs again, from train_model_cpu on."]}
        if path == "/sessions/nre":
            return 404, {"detail": "There is no session 'nre'."}
        if path == "/hosts":
            return 200, {"hosts": [HOST], "reservations": [HELD], "queue": []}
        if path.endswith("/cancel"):
            said = "has not ended after 10 s" if path.endswith("/slow/cancel") else "is cancelled."
            return 200, {"cancelled": said == "is cancelled.", "said": [f"Run s {said}"]}
        if match := re.fullmatch(r"/sessions/([^/]+)", path):
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            return 200, {"id": match[1], "url": f"{URL}/run", **state}
        if path == "/datasets":
            return 200, [{"reference": name, "size": len(data)} for name, data in self.stored.items()]
        if match := re.fullmatch(r"/datasets/([^/]+)/upload", path):
            return self.part(method, match[1], body, request)
        if match := re.fullmatch(r"/datasets/([^/]+)(/content)?", path):
            return self.file(method, match[1], body, request)
        if path == "/models":
            return 200, [{"name": "ner", "version": 3, "created": "2026-11-28T06:00:00Z", "aliases": ["production"]}]
        if path == "/dags" or path.startswith("/dags/"):
            return self.dag(method, path.removeprefix("/dags").strip("/"), body, request.url.params)
        if path == "/kinds":
            return 200, {"ner": "Named entities"}
        if path.startswith("/kinds/"):
            return (
                (200, KIND)
                if path == "/kinds/ner"
                else (404, {"detail": "There is no kind of model 'nre'; there are: ner."})
            )
        if path == "/gpus":
            return 200, {"devices": [], "reservations": [], "queue": [{"run_id": "s", "reason": "no device"}]}
        return 404, {"detail": f"no {path}"}

    def predict(self, path: str, body: bytes, params: httpx.QueryParams) -> tuple[int, Any]:
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        if "sentence" not in lines[0]:
            return 400, {"detail": 'line 1: "sentence" is missing'}
        if path == "/models/ner/predict":
            which = params.get("version", "production")
            return 200, {
                "model": "ner", "version": 3, "kind": "named_entity_recognition",
                "predictions": [{"which": which, "said": one["sentence"]} for one in lines],
            }  # fmt: skip
        if path == "/sessions/s1/predict":
            return 200, {"model": "s1", "version": None, "kind": "ner", "predictions": [{"session": True}]}
        return 404, {"detail": f"There is no {path.split('/')[2]!r}."}

    def dag(self, method: str, name: str, body: bytes, params: httpx.QueryParams) -> tuple[int, Any]:
        if self.dag_refusal:
            return self.dag_refusal[0], {"detail": self.dag_refusal[1]}
        if method == "PUT":
            self.sent.append(body)
            suffix = params.get("suffix", "")
            name = f"{name}__{suffix}" if suffix else name
            self.dags[name] = {
                "name": name, "who": "ada", "why": params.get("why", ""), "suffix": suffix, "error": "",
                "at": datetime.now(timezone.utc).isoformat(),
                "dags": [{"id": name, "url": f"{URL}/dags/{name}", "paused": None}],
            }  # fmt: skip
        for one in self.dags.values():
            one["state"] = self.dag_states.pop(0) if len(self.dag_states) > 1 else self.dag_states[0]
            if one["state"] == "shown":
                one["dags"][0]["paused"] = True
            one["error"] = "x.py, line 3: ValueError: no" if one["state"] == "broken" else ""
        if method == "DELETE":
            if self.dags.pop(name, None) is None:
                return 404, {"detail": f"There is no uploaded DAG file {name!r}: `tarmac dag ls` lists them."}
            return 200, {"name": name, "dags": [name], "runs": 2, "remains": "Its 2 runs stay."}
        return 200, self.dags[name] if name else list(self.dags.values())

    def part(self, method: str, name: str, body: bytes, request: httpx.Request) -> tuple[int, Any]:
        if self.part_bytes == 0:
            return 404, {"detail": "Not Found"}
        there = self.uploads.setdefault(name, b"")
        if method == "GET":
            return 200, {"received": len(there), "part_bytes": self.part_bytes}
        offset, total = (int(request.url.params[key]) for key in ("offset", "total"))
        assert int(request.headers["content-length"]) == len(body)
        if offset != len(there):
            return 409, {"detail": f"{len(there)} bytes of this file are there, not {offset}: go on from there."}
        there = self.uploads[name] = there + body
        if len(there) == total:
            self.stored[f"{name.partition('.')[0]}/{name}"] = there
        if self.lose_answers:
            self.lose_answers -= 1
            raise httpx.ReadError("the answer was lost")
        return 200, {"received": len(there), "whole": len(there) == total}

    def file(self, method: str, name: str, body: bytes, request: httpx.Request) -> tuple[int, Any]:
        reference = f"{name.partition('.')[0]}/{name}"
        if method == "DELETE" and reference in self.stored:
            return 200, {"reference": reference, "size": len(self.stored.pop(reference))}
        if method == "PUT":
            assert int(request.headers["content-length"]) == len(body)
            assert files.base58(hashlib.sha256(body).digest()) == name.partition(".")[0]
            self.stored[reference] = body
            return 200, {"reference": reference, "size": len(body), "new": True}
        if reference not in self.stored:
            return 404, {"detail": f"There is no file {name!r} in the data set store."}
        return 200, {
            "reference": reference,
            "size": 1,
            "lines": 1,
            "keys": {"sentence": 1},
            "kinds": {"sentence": ["text"]},
            "words": {"sentence": {"least": 1, "median": 2, "most": 3}},
            "labels": {"tags": {"O": 3, "B-x": 1}},
            "warnings": ["look at it"],
            "sample": [{"sentence": "a"}],
        }
