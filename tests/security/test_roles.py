"""Which role may do what through the ports of the stack, with real accounts of Airflow's roles."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest
import schemathesis
from hypothesis import given, settings
from schemathesis.checks import not_a_server_error

from support.stack import DAG
from tarmac.request.schema import TrainingRequest

from .conftest import SERVICES, AttackedStack

ROLES = ["Viewer", "User", "Op"]
# Well formed, and refused by the run's first task: what is stored there is not what its id says.
GOOD = {"model": "test_model", "datasets": {"a": {"train": f"{'2' * 44}/{'2' * 44}.jsonl"}}}
BAD = {"model": "gpt-9", "datasets": {"a": {"train": "../x"}}}
READS = [
    "/api/v2/dags", DAG, f"{DAG}/details", f"{DAG}/dagRuns", "/api/v2/pools", "/api/v2/connections", "/api/v2/config",
    "/api/v2/variables", "/api/v2/eventLogs", "/api/v2/importErrors", "/api/v2/plugins", "/ui/config",
    "/auth/fab/v1/users", "/tarmac/api/v1/sessions", "/tarmac/api/v1/datasets", "/tarmac/api/v1/openapi.json",
    "/tarmac/api/v1/now", "/tarmac/news/now",
]  # fmt: skip
Call = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def callers(stack: AttackedStack) -> dict[str, Call]:
    """A caller for each role, an anonymous one, and one with a forged token."""
    stack.store_false_content("2" * 44)
    found: dict[str, Call] = {}
    for role in ROLES:
        name, password = role.lower(), secrets.token_hex(16)
        user = {
            "username": name, "email": f"{name}@localhost", "first_name": name, "last_name": "Test",
            "password": password, "roles": [{"name": role}],
        }  # fmt: skip
        answer = stack.http.post("/auth/fab/v1/users", json=user)
        assert answer.status_code in (200, 201), answer.text
        found[role] = caller(stack, {"Authorization": f"Bearer {stack.token(name, password)}"})
    found["Admin"] = caller(stack, {"Authorization": stack.http.headers["Authorization"]})
    found["anonymous"] = caller(stack, {})
    claims = jwt.decode(stack.token("airflow", stack.password), options={"verify_signature": False})
    found["forged"] = caller(stack, {"Authorization": f"Bearer {jwt.encode(claims, 'guess' * 16, algorithm='HS512')}"})
    found["unsigned"] = caller(stack, {"Authorization": f"Bearer {jwt.encode(claims, '', algorithm='none')}"})
    return found


def caller(stack: AttackedStack, headers: dict[str, str]) -> Call:
    client = httpx.Client(base_url=str(stack.http.base_url), timeout=120, headers=headers)
    return client.request


def send(call: Call, conf: Any) -> httpx.Response:
    return call("POST", f"{DAG}/dagRuns", json={"logical_date": None, "conf": conf})


def run_count(stack: AttackedStack) -> int:
    found: int = stack.http.get(f"{DAG}/dagRuns", params={"limit": 1}).json()["total_entries"]
    return found


@pytest.mark.parametrize("who", ["anonymous", "forged", "unsigned"])
def test_callers_without_a_login_read_nothing_and_start_nothing(
    stack: AttackedStack, callers: dict[str, Call], who: str
):
    before = run_count(stack)
    for path in READS:
        answer = callers[who]("GET", path)
        assert answer.status_code in (401, 403), path
        assert "nlp_model_training" not in answer.text
    assert send(callers[who], GOOD).status_code in (401, 403)
    assert run_count(stack) == before


def test_a_bad_request_without_a_login_tells_nothing_but_what_a_request_is(callers: dict[str, Call]):
    assert send(callers["anonymous"], BAD).status_code == 401
    # With a header that looks like credentials the guard answers first; what it says is in the README, too.
    answer = send(callers["forged"], BAD)
    assert answer.status_code == 400
    assert set(answer.json()) == {"detail", "problems"}


def test_a_viewer_reads_runs_and_changes_nothing(stack: AttackedStack, callers: dict[str, Call]):
    view = callers["Viewer"]
    run_id = stack.start(GOOD)
    assert stack.finish(run_id) == "failed"
    before = run_count(stack)
    assert view("GET", f"{DAG}/dagRuns/{run_id}").status_code == 200
    run = f"{DAG}/dagRuns/{run_id}"
    tries: list[tuple[str, str, Any]] = [
        ("POST", f"{DAG}/dagRuns", {"logical_date": None, "conf": GOOD}),
        ("PATCH", run, {"state": "success"}),
        ("POST", f"{run}/clear", {"dry_run": False}),
        ("DELETE", run, None),
        ("PATCH", DAG, {"is_paused": True}),
        ("PATCH", "/api/v2/pools/gpu_pool", {"pool": "gpu_pool", "slots": 9, "include_deferred": False}),
        ("POST", "/api/v2/variables", {"key": "a", "value": "b"}),
        ("POST", "/api/v2/connections", {"connection_id": "a", "conn_type": "http"}),
    ]
    for method, path, body in tries:
        answer = view(method, path, **({} if body is None else {"json": body}))
        assert answer.status_code == 403, (method, path, answer.text)
    assert view("POST", f"{DAG}/dagRuns/", json={"logical_date": None, "conf": GOOD}).status_code >= 300
    assert run_count(stack) == before
    assert stack.run_state(run_id) == "failed"


@pytest.mark.parametrize("role", [*ROLES, "Admin"])
def test_no_role_starts_a_bad_request(stack: AttackedStack, callers: dict[str, Call], role: str):
    before = run_count(stack)
    answer = send(callers[role], BAD)
    assert answer.status_code == 400
    assert len(answer.json()["problems"]) == 2
    assert run_count(stack) == before


@pytest.mark.parametrize("role", ["User", "Op", "Admin"])
def test_those_who_may_start_sessions_do(stack: AttackedStack, callers: dict[str, Call], role: str):
    answer = send(callers[role], GOOD)
    assert answer.status_code == 200, answer.text
    assert stack.finish(answer.json()["dag_run_id"]) == "failed", (
        "in its first task: the content is not what its id says"
    )


@pytest.mark.parametrize("role", ["Viewer", "User"])
def test_connections_and_variables_are_for_operators(callers: dict[str, Call], role: str):
    for path in ("/api/v2/connections", "/api/v2/variables", "/auth/fab/v1/users"):
        assert callers[role]("GET", path).status_code == 403, path
    assert callers["Op"]("GET", "/auth/fab/v1/users").status_code == 403


def test_a_request_names_no_image_no_command_and_no_template(stack: AttackedStack, callers: dict[str, Call]):
    for extra in ({"image": "debian"}, {"command": ["sh"]}, {"environment": {}}, {"mounts": ["/"]}):
        assert send(callers["User"], GOOD | extra).status_code == 400
    template = {"a": {"train": "file:///files/{{conn.get('x')}}.jsonl"}}
    answer = send(callers["User"], {"model": "test_model", "datasets": template})
    assert answer.status_code == 400
    assert "{{conn.get('x')}}" in answer.text, "it is text, and stays text"


def test_mlflow_is_closed_without_a_login_and_to_other_host_names(stack: AttackedStack):
    url = f"http://127.0.0.1:{stack.mlflow_port}"
    for path in (
        "/api/2.0/mlflow/experiments/search?max_results=1",
        "/ajax-api/2.0/mlflow/experiments/search?max_results=1",
    ):
        assert httpx.get(url + path).status_code == 401
        assert httpx.get(url + path, auth=("tarmac", "password")).status_code == 401
        assert httpx.get(url + path, headers={"Host": "evil.example"}).status_code in (401, 403)
    assert httpx.get(f"{url}/health", headers={"Host": "evil.example"}).status_code in (200, 403)


# ---- what does not hold, so that it is not relied on


def test_a_holder_of_the_signing_key_is_an_administrator(stack: AttackedStack, callers: dict[str, Call]):
    """Every task has it in its environment: a DAG file's author is an administrator."""
    bearer = stack.token("airflow", stack.password)
    claims = jwt.decode(bearer, options={"verify_signature": False})
    key = stack.secrets["AIRFLOW__API_AUTH__JWT_SECRET"]
    minted = jwt.encode(claims, key, algorithm=jwt.get_unverified_header(bearer)["alg"])
    call = caller(stack, {"Authorization": f"Bearer {minted}"})
    assert call("GET", "/auth/fab/v1/users").status_code == 200
    for service in ("scheduler", "dag-processor", "triggerer"):
        environment = stack.containers()[service]["Config"]["Env"]
        assert f"AIRFLOW__API_AUTH__JWT_SECRET={key}" in environment


def test_a_holder_of_the_socket_is_root_of_this_machine(stack: AttackedStack):
    """Which is why one service holds it, and why a DAG file's author is root, too: tasks run in that service."""
    code = (
        "import docker, sys; api = docker.from_env(); "
        "out = api.containers.run(sys.argv[1], entrypoint='id', command=['-u'], user='0', remove=True,"
        " network_mode='none', volumes={'/': {'bind': '/host', 'mode': 'ro'}}); print(out.decode().strip())"
    )
    rows = stack.containers()
    image = rows["mlflow"]["Config"]["Image"].replace("/mlflow:", "/airflow:")
    for service in set(SERVICES) - {"postgres", "mlflow"}:
        command = ["docker", "exec", rows[service]["Id"], "python", "-c", code, image]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == (service == "scheduler"), (service, done.stderr)
        assert done.stdout.strip() == ("0" if service == "scheduler" else "")


# ---- bodies of any shape


def test_schemathesis_starts_no_session_and_breaks_nothing_at_the_real_api(
    stack: AttackedStack, callers: dict[str, Call], capsys: pytest.CaptureFixture[str]
):
    described = stack.http.get("/openapi.json").json()
    path = "/api/v2/dags/{dag_id}/dagRuns"
    operation = described["paths"][path]["post"]
    request = TrainingRequest.model_json_schema(ref_template="#/components/schemas/Tarmac{model}")
    for name, schema in request.pop("$defs").items():
        described["components"]["schemas"][f"Tarmac{name}"] = schema
    body = {
        "type": "object",
        "properties": {"logical_date": {"type": "null"}, "conf": request},
        "required": ["logical_date"],
    }
    operation["requestBody"]["content"] = {"application/json": {"schema": body}}
    described["paths"] = {f"{DAG}/dagRuns": {"post": operation | {"parameters": []}}}
    schema = schemathesis.openapi.from_dict(described)
    counts: Counter[str] = Counter()
    before = run_count(stack)

    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(case=schema[f"{DAG}/dagRuns"]["POST"].as_strategy())
    def fuzz(case: Any) -> None:
        answer = case.call(
            base_url=str(stack.http.base_url).rstrip("/"),
            headers={"Authorization": stack.http.headers["Authorization"]},
        )
        counts[str(answer.status_code)] += 1
        case.validate_response(answer, checks=[not_a_server_error])
        assert answer.status_code in (200, 400, 413, 422), answer.text

    fuzz()
    with capsys.disabled():
        print(f"\nbodies at the real API by schemathesis: {dict(counts)}")
    assert counts["400"] > 50
    assert run_count(stack) - before == counts["200"]
    assert json.loads(stack.http.get("/api/v2/monitor/health").text)["metadatabase"]["status"] == "healthy"
