"""The DAG as Airflow sees it: its tasks, its edges, its form. No database, no server."""

import importlib.util
import json
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tarmac.base.ids import TASKS

DAG_ID = "nlp_model_training"
EDGES = {
    "check_request_body": {"create_unique_session_path"},
    "create_unique_session_path": {"retrieve_resources", "cleanup", "delete_volume"},
    "retrieve_resources": {"determine_cpu_or_gpu"},
    "determine_cpu_or_gpu": {"gpu_training_sensor", "train_model_cpu"},
    "gpu_training_sensor": {"gpu_preflight_configuration"},
    "gpu_preflight_configuration": {"gpu_pool_setup"},
    "gpu_pool_setup": {"train_model_gpu"},
    "train_model_gpu": {"save_model"},
    "train_model_cpu": {"save_model"},
    "save_model": {"eval_model"},
    "eval_model": {"update_model_metadata_registry"},
    "update_model_metadata_registry": {"cleanup", "check_DAG_success"},
    "cleanup": {"delete_volume"},
    "delete_volume": {"check_DAG_success"},
    "check_DAG_success": set(),
}
ID = "AF4japp77czNJo9thM9RHYM7oMpeZZXnGyNiHoCMxtr7"
GOOD = {"model": "test_model", "datasets": {"tiny": {"train": f"{ID}/{ID}.jsonl", "eval": None}}}


RESOURCES = {
    "gpu_memory": None,
    "memory": None,
    "cpus": None,
    "host": None,
    "gpus": 1,
    "policy": "packed",
    "max_wait_seconds": 28800,
    "stall_seconds": 300,
}


@pytest.fixture(scope="module")
def dag(repository: Path) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(repository / "dags"), bundle_path=None, safe_mode=False)
    assert bag.import_errors == {}
    assert list(bag.dags) == [DAG_ID]
    return bag.dags[DAG_ID]


@pytest.fixture(scope="module")
def stored(dag: Any) -> Any:
    """The DAG as the scheduler and the api-server read it back."""
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))


def test_it_has_exactly_the_15_tasks(dag: Any):
    assert sorted(dag.task_ids) == sorted(EDGES) == sorted(TASKS)
    assert len(dag.task_ids) == 15


def test_its_edges_are_those_of_the_design(dag: Any):
    assert {task.task_id: task.downstream_task_ids for task in dag.tasks} == EDGES


def test_it_survives_the_way_through_the_database(dag: Any, stored: Any):
    assert stored.dag_id == DAG_ID
    assert {task.task_id: set(task.downstream_task_ids) for task in stored.tasks} == EDGES
    assert stored.params.dump() == {
        "model": None,
        "datasets": {"my-data": {"train": "<id>/<id>.jsonl", "eval": None}},
        "gpu": False,
        "seed": 0,
        "priority": 0,
        "resources": RESOURCES,
        "script": None,
        "parameters": {},
        "name": None,
        "base_model": None,
        "no_cache": False,
        "promote": "never",
    }
    assert stored.tags == {"tarmac", "training", "nlp"}


@pytest.mark.parametrize("task", ["gpu_training_sensor", "train_model_cpu"])
def test_the_branch_goes_where_the_plan_says(dag: Any, monkeypatch: pytest.MonkeyPatch, task: str):
    from tarmac.tasks import pipeline

    class Instance:
        pushed: dict[str, Any] = {}

        def xcom_pull(self, task_ids: list[str]) -> list[dict[str, Any]]:
            assert task_ids == ["check_request_body", "retrieve_resources", "create_unique_session_path"]
            return [{"model": "test_model"}, {"datasets": []}, {"volume": "v"}]

        def xcom_push(self, key: str, value: Any) -> None:
            self.pushed[key] = value

    asked: list[tuple[Any, ...]] = []

    def plan(request: Any, prep: Any, session: Any) -> dict[str, str]:
        asked.append((request.model, prep.datasets, session["volume"]))
        return {"task": task}

    monkeypatch.setattr(pipeline, "plan_training", plan)
    instance = Instance()
    assert dag.get_task("determine_cpu_or_gpu").python_callable(instance) == task
    assert instance.pushed == {"plan": {"task": task}}
    assert asked == [("test_model", (), "v")]


@pytest.mark.parametrize(
    ("task", "pulled", "words"),
    [
        (
            "determine_cpu_or_gpu",
            [{"model": "m"}, {"datasets": [{"name": "a"}]}, {"volume": "v"}],
            r"datasets\.0\.split",
        ),
        (
            "update_model_metadata_registry",
            [{"model": "m"}, {"datasets": []}, {"bytes": 3}, {"metrics": {}}, {"volume": "v"}],
            "save_model",
        ),
    ],
)
def test_a_wrong_result_of_a_step_fails_the_task_at_once_and_is_named(
    dag: Any, task: str, pulled: list[Any], words: str
):
    from airflow.sdk.exceptions import AirflowFailException

    class Instance:
        run_id = "r1"

        def xcom_pull(self, task_ids: str | list[str], key: str = "") -> Any:
            return {"task": "train_model_cpu"} if key else pulled

    with pytest.raises(AirflowFailException, match=words):
        dag.get_task(task).python_callable(Instance())


def test_each_task_of_a_branch_asks_the_plan_before_it_runs(dag: Any):
    from tarmac.tasks.attempts import only_as_planned

    asks = {task.task_id for task in dag.tasks if task._pre_execute_hook is only_as_planned}
    assert asks == {*POOLS, "train_model_cpu"}


def test_each_step_after_a_training_asks_for_the_results_before_it(dag: Any):
    from tarmac.tasks.attempts import only_with_results

    asks = {task.task_id for task in dag.tasks if task._pre_execute_hook is only_with_results}
    assert asks == {"retrieve_resources", "save_model", "eval_model"}


POOLS = {
    "gpu_training_sensor": "gpu_preflight_pool",
    "gpu_preflight_configuration": "gpu_preflight_pool",
    "gpu_pool_setup": "gpu_preflight_pool",
    "train_model_gpu": "gpu_pool",
}


def test_gpu_tasks_are_in_their_pools_and_no_other_task_is(dag: Any):
    assert {task.task_id: task.pool for task in dag.tasks if task.pool != "default_pool"} == POOLS


def test_training_joins_whichever_branch_ran(stored: Any):
    from airflow.task.trigger_rule import TriggerRule

    assert stored.get_task("save_model").trigger_rule == TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS


def test_cleaning_up_happens_whatever_failed_and_only_for_a_session_that_began(dag: Any):
    assert dag.get_task("create_unique_session_path").is_setup
    for name in ("cleanup", "delete_volume"):
        task = dag.get_task(name)
        assert task.is_teardown
        assert not task.on_failure_fail_dagrun
        assert "create_unique_session_path" in task.upstream_task_ids
    assert dag.get_task("delete_volume").upstream_task_ids >= {"cleanup"}


def test_the_last_task_runs_whatever_happened_and_fails_the_run(dag: Any):
    last = dag.get_task("check_DAG_success")
    assert last.is_teardown
    assert last.on_failure_fail_dagrun
    assert last.upstream_task_ids == {"update_model_metadata_registry", "delete_volume"}
    assert [task.task_id for task in dag.leaves] == ["check_DAG_success"]


def test_every_task_survives_processes_that_are_lost_and_a_step_fails_a_few_times_only(dag: Any):
    from tarmac.tasks.container_operator import LOST_ATTEMPTS, TrainingContainerOperator

    assert all(task.retries >= 5 for task in dag.tasks)
    steps = [task for task in dag.tasks if isinstance(task, TrainingContainerOperator)]
    assert {task.task_id: task.failures_allowed for task in steps} == {
        "retrieve_resources": 2, "train_model_cpu": 2, "train_model_gpu": 4, "save_model": 3, "eval_model": 2,
        "cleanup": 2,
    }  # fmt: skip
    assert all(task.retries >= task.failures_allowed + LOST_ATTEMPTS for task in steps)
    assert {task.task_id for task in steps if not task.needs_result} == {"cleanup"}


def test_every_task_says_what_it_does(stored: Any):
    for task in stored.tasks:
        assert task.doc_md, task.task_id


def test_it_is_started_by_people_only_and_is_not_paused(stored: Any):
    assert stored.timetable.summary == "Never, external triggers only" or not stored.timetable.can_be_scheduled
    assert stored.is_paused_upon_creation is False
    assert not stored.catchup


def test_training_has_no_network_and_no_credentials(dag: Any):
    for name in ("train_model_gpu", "eval_model", "cleanup"):
        task = dag.get_task(name)
        assert task.network_mode == "none", name
        assert task.include_credentials == (), name
    # Both as the plan says: one that trains is told "none", and credentials go only where there is a network.
    assert "['network']" in dag.get_task("train_model_cpu").network_mode
    assert dag.get_task("train_model_cpu").include_credentials == ("mlflow",)
    assert dag.get_task("retrieve_resources").include_credentials == ("object_store", "mlflow")
    assert dag.get_task("save_model").include_credentials == ("mlflow",)


def test_a_trained_model_is_not_given_up_while_the_registry_is_away(stored: Any):
    for name in ("save_model", "update_model_metadata_registry"):
        task = stored.get_task(name)
        assert task.retries * task.max_retry_delay >= timedelta(days=30)
        assert task.max_retry_delay <= timedelta(minutes=5)
        assert task.retry_exponential_backoff > 1, "a bare True means 1, no backoff at all"


def test_the_session_s_last_task_links_to_what_it_left_in_mlflow(stored: Any):
    links = {link.name for link in stored.get_task("update_model_metadata_registry").operator_extra_links}
    assert links == {"Model version in MLflow", "Training in MLflow"}


def test_only_fetching_the_data_sees_the_store_and_local_files(dag: Any):
    mounts = {task.task_id: {m["Target"]: m["ReadOnly"] for m in getattr(task, "mounts", [])} for task in dag.tasks}
    shared = {"/datasets": True, "/files": True, "/libraries": False}
    assert mounts["retrieve_resources"] == {"/session": False, **shared}
    for name in ("train_model_cpu", "train_model_gpu", "save_model", "eval_model", "cleanup"):
        assert mounts[name] == {"/session": False}, name


def test_a_training_whose_volume_is_gone_fetches_its_data_again(dag: Any):
    for name in ("train_model_cpu", "train_model_gpu"):
        assert dag.get_task(name).refill.task_id == "retrieve_resources"
        assert "check_request_body" in dag.get_task(name).request
    assert dag.get_task("eval_model").refill is None
    # Clearing a training clears its setups with it, so the data is fetched before it.
    assert dag.get_task("retrieve_resources").is_setup


def test_libraries_of_own_code_are_in_a_volume_that_no_other_trainer_prepares_with(dag: Any):
    task = dag.get_task("retrieve_resources")
    source = next(one["Source"] for one in task.mounts if one["Target"] == "/libraries")

    def volume(settled: dict[str, Any] | None) -> str:
        pull = SimpleNamespace(xcom_pull=lambda **_: settled)
        template = dag.get_template_env(force_sandboxed=False).from_string(source)
        return str(template.render(ti=pull, run_id="r", **dag.user_defined_macros))

    assert volume({"libraries": "x_libraries"}) == "x_libraries"
    own = dag.user_defined_macros["session_volume"]("r")
    # Settled by the version before, and a session that was refused before it had a volume.
    assert volume({"volume": "v"}) == volume(None) == own


def test_own_code_trains_in_its_image_and_every_other_step_in_tarmac_s_trainer(dag: Any):
    own = {"image": "team/train:3", "command": ["/bin/sh", "/session/own_code.sh"], "memory_bytes": None}
    trainer = {"image": "tarmac/trainer:1", "command": [], "memory_bytes": None, "volume": "v"}
    made = {}
    for name in ("retrieve_resources", "train_model_cpu", "train_model_gpu", "save_model", "eval_model", "cleanup"):
        task = dag.get_task(name)
        pull = SimpleNamespace(xcom_pull=lambda **_: {**trainer, "training": own})
        made[name] = [
            dag.get_template_env(force_sandboxed=False).from_string(text).render(ti=pull, **dag.user_defined_macros)
            for text in (task.image, task.entrypoint)
        ]
    ours, theirs = ["tarmac/trainer:1", []], [own["image"], own["command"]]
    assert {name: [image, found or []] for name, (image, found) in made.items()} == {
        "retrieve_resources": ours, "train_model_cpu": theirs, "train_model_gpu": theirs, "save_model": ours,
        "eval_model": ours, "cleanup": ours,
    }  # fmt: skip
    # A session that the version before began has no such key.
    assert dag.user_defined_macros["session_training"](trainer) == trainer


BAD_VALUES = {
    "no model": ({"datasets": GOOD["datasets"]}, "model"),
    "data sets as a list": ({**GOOD, "datasets": []}, "datasets"),
    "an empty object of data sets": ({**GOOD, "datasets": {}}, "datasets"),
    "a data set without train": ({**GOOD, "datasets": {"tiny": {"eval": None}}}, "datasets"),
    "an unknown key in a data set": ({**GOOD, "datasets": {"tiny": {"train": "s3://b/x", "x": 1}}}, "datasets"),
    "gpu as a word": ({**GOOD, "gpu": "yes"}, "gpu"),
    "a seed below zero": ({**GOOD, "seed": -1}, "seed"),
    "a seed in quotes": ({**GOOD, "seed": "7"}, "seed"),
    "parameters as a list": ({**GOOD, "parameters": []}, "parameters"),
}


@pytest.mark.parametrize(("conf", "field"), BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_the_form_refuses_a_bad_value_by_its_field(stored: Any, conf: dict[str, Any], field: str):
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError, match=field):
        stored.params.deep_merge(conf).validate()


GOOD_VALUES = {
    # The catalogue may have it by now: the request guard reads it at that moment, Airflow's database has a copy.
    "a model that is newer than this copy of the form": {**GOOD, "model": "new_model"},
    "the shortest request": GOOD,
    "a field that the form does not show": {**GOOD, "model": "own_code", "run": {"command": ["python", "train.py"]}},
    "everything given": {**GOOD, "gpu": True, "seed": 7, "parameters": {"train_seconds": 1}},
}


@pytest.mark.parametrize("conf", GOOD_VALUES.values(), ids=GOOD_VALUES.keys())
def test_the_form_takes_a_good_request(stored: Any, conf: dict[str, Any]):
    assert stored.params.deep_merge(conf).validate()["model"] == conf["model"]


def test_the_form_tells_what_each_field_is_for(stored: Any):
    shown = {name: stored.params.get_param(name) for name in stored.params}
    assert all(param.description or param.schema.get("description_md") for param in shown.values())
    assert all(param.schema.get("title") for param in shown.values())


def plugin_files(folder: Path) -> list[str]:
    from airflow._shared.module_loading import find_path_from_directory

    found = find_path_from_directory(str(folder), ".airflowignore", "glob")
    return sorted(str(Path(path).relative_to(folder)) for path in found if path.endswith(".py"))


def test_airflow_finds_one_plugin_file_and_no_module_of_ours(repository: Path):
    assert plugin_files(repository / "plugins") == ["tarmac_plugin.py"]


def test_without_the_ignore_file_airflow_would_load_our_modules_under_wrong_names(repository: Path, tmp_path: Path):
    # Shows that the test above can fail: the discovery is Airflow's own, and the ignore file is what tames it.
    copy = tmp_path / "plugins"
    shutil.copytree(repository / "plugins", copy, ignore=shutil.ignore_patterns("__pycache__", ".airflowignore"))
    assert "tarmac/base/errors.py" in plugin_files(copy)


def test_airflow_loads_the_plugin_without_a_copy_of_our_classes(repository: Path, monkeypatch: pytest.MonkeyPatch):
    from airflow._shared.plugins_manager.plugins_manager import _load_plugins_from_plugin_directory

    # Airflow puts the file into sys.modules; take it out again afterwards.
    monkeypatch.setitem(sys.modules, "tarmac_plugin", None)
    before = set(sys.modules)
    plugins, errors = _load_plugins_from_plugin_directory(str(repository / "plugins"))
    assert errors == {}
    assert [plugin.name for plugin in plugins] == ["tarmac"]
    from tarmac.request.api_guard import RequestGuard

    assert plugins[0].fastapi_root_middlewares[0]["middleware"] is RequestGuard
    stems = {path.stem for path in (repository / "plugins" / "tarmac").rglob("*.py")} - {"__init__"}
    loaded = {name for name in set(sys.modules) - before if "." not in name}
    assert not stems & loaded


def test_no_module_of_ours_has_the_name_of_a_library(repository: Path):
    # Were the ignore file lost, such a module would shadow the library for all of Airflow.
    stems = {path.stem for path in (repository / "plugins" / "tarmac").rglob("*.py")} - {"__init__", "__main__"}
    for stem in stems:
        spec = importlib.util.find_spec(stem)
        # A folder without __init__.py (tests/engine) is found as a namespace without an origin.
        assert spec is None or spec.origin is None or str(repository) in spec.origin, stem


def test_no_container_of_a_session_sends_usage_data(dag: Any, monkeypatch: pytest.MonkeyPatch):
    from tarmac.base.settings import read
    from tarmac.tasks.container_operator import TrainingContainerOperator

    steps = [task for task in dag.tasks if isinstance(task, TrainingContainerOperator)]
    assert {"retrieve_resources", "train_model_cpu", "save_model"} <= {task.task_id for task in steps}
    of_a_run = property(lambda self: SimpleNamespace(run_id="r", dag_id=DAG_ID, task_id=self.task_id))
    monkeypatch.setattr(TrainingContainerOperator, "_ti", of_a_run)
    for task in steps:
        environment = task._environment(read({}), "sha256:0")
        assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true", task.task_id
        assert environment["DO_NOT_TRACK"] == "true", task.task_id
