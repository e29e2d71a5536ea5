"""The DAG `nlp_model_training`: one run is one training session. Wiring only; plugins/tarmac does the work."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from typing import Any

from airflow.sdk import Param, TriggerRule, dag, task
from airflow.sdk.exceptions import AirflowFailException

from tarmac.base import ids
from tarmac.base.ids import DAG_ID
from tarmac.base.retries import FEW
from tarmac.base.session import container_name, volume_name
from tarmac.base.settings import settings
from tarmac.containers.mounts import TemplatedMount
from tarmac.request.form import field_descriptions, form_defaults, form_schema
from tarmac.request.naming import run_name
from tarmac.tasks.attempts import only_as_planned, only_with_results
from tarmac.tasks.cached_training import CachedTrainingOperator
from tarmac.tasks.container_operator import TrainingContainerOperator
from tarmac.tasks.gpu_pools import GpuPoolSetup
from tarmac.tasks.gpu_preflight import GpuPreflight
from tarmac.tasks.gpu_sensor import TrainingRunningSensor
from tarmac.tasks.gpu_training import GpuTrainingOperator
from tarmac.tasks.links import ModelRunLink, ModelVersionLink
from tarmac.tasks.run_end import tell_failure

STACK = settings()
DESCRIPTIONS = field_descriptions()
DEFAULTS = form_defaults()
PARAMS = {
    name: Param(
        **({"default": DEFAULTS[name]} if name in DEFAULTS else {}), description=DESCRIPTIONS[name], schema=schema
    )
    for name, schema in form_schema().items()
}

SESSION = TemplatedMount(source="{{ session_volume(run_id) }}", target="/session")
DATASETS = TemplatedMount(source=STACK.datasets_volume, target="/datasets", read_only=True)
FILES = TemplatedMount(source=STACK.files_volume, target="/files", read_only=True)
REQUEST_OF = f"ti.xcom_pull(task_ids='{ids.CHECK_REQUEST_BODY}')"
REQUEST = f"{{{{ {REQUEST_OF} }}}}"
PATH = f"ti.xcom_pull(task_ids='{ids.CREATE_UNIQUE_SESSION_PATH}')"
# A session that a version before settled has none.
LIBRARIES = TemplatedMount(
    source=f"{{{{ ({PATH} or {{}}).get('libraries') or session_volume(run_id) }}}}", target="/libraries"
)
PLAN = f"ti.xcom_pull(task_ids='{ids.DETERMINE_CPU_OR_GPU}', key='{ids.PLAN}')"
# What create_unique_session_path settled; a session that was refused before has nothing but the clean-up to run.
TRAINER = f"{{{{ session_trainer({PATH})%s }}}}"
TRAINING = f"{{{{ session_training({PATH})%s }}}}"
# The MLflow run that the training was recorded in while it went; "": none.
TRAININGS = [ids.TRAIN_MODEL_GPU, ids.TRAIN_MODEL_CPU]
RECORDED = f"{{{{ recorded_run(ti.xcom_pull(task_ids={TRAININGS}, key='{ids.MLFLOW_RUN}')) }}}}"
# A trained model is not given up while it can still be saved and registered: MLflow may be unavailable for days.
# Tried again after 10 to 20 s, then ever more slowly, at last every five minutes for a month.
RETRIES, SLOWER, SLOWEST = 10_000, 2.0, timedelta(minutes=5)


def session_trainer(settled: dict[str, Any] | None) -> dict[str, Any]:
    """Return the session's trainer; ours where none is settled."""
    return settled or {"image": STACK.trainer_image, "command": [], "memory_bytes": None}


def session_training(settled: dict[str, Any] | None) -> dict[str, Any]:
    """Return what trains: the session's trainer, or code of one's own."""
    trainer = session_trainer(settled)
    return trainer.get("training") or trainer


def tell_end(context: Any) -> None:
    """Write the note of a run whose last task is given up."""
    from tarmac.tasks import pipeline

    pipeline.tell_end(context)


def recorded_run(runs: Iterable[dict[str, str] | None] | None) -> str:
    """Return the MLflow run that one of the trainings left, as `runs:/<id>`."""
    return next((f"runs:/{run['id']}" for run in runs or () if run), "")


def named(request: dict[str, Any] | None, dag_run: Any) -> str:
    """Name a session's MLflow run."""
    return run_name(request or {}, dag_run.triggering_user_name)


def step(
    task_id: str,
    command: str,
    doc: str,
    operator: type[TrainingContainerOperator] = TrainingContainerOperator,
    **kwargs: Any,
) -> TrainingContainerOperator:
    """Make a task that runs one command of the trainer's image on the session's volume."""
    extra_mounts = kwargs.pop("extra_mounts", [])
    who = TRAINING if task_id in TRAININGS else TRAINER
    kwargs.setdefault("retries", 2)
    if task_id in TRAININGS:
        kwargs["pre_execute"] = only_as_planned
    elif command != "cleanup":
        kwargs["pre_execute"] = only_with_results
    return operator(
        task_id=task_id,
        image=who % "['image']",
        entrypoint=who % "['command']",
        memory_bytes=who % "['memory_bytes']",
        command=[command],
        container_name="{{ session_container(run_id, '" + task_id + "') }}",
        mounts=[SESSION, *extra_mounts],
        doc_md=doc,
        needs_result=command != "cleanup",
        **kwargs,
    )


@dag(
    dag_id=DAG_ID,
    dag_display_name="NLP model training",
    description="Train, evaluate and register a model from one JSON request.",
    doc_md="""
### One run is one training session

Send a request such as
```json
{"model": "named_entity_recognition",
 "datasets": {"sdk": {"train": "<id>/<id>.jsonl", "eval": null}},
 "gpu": false}
```
with **Trigger** above or `make trigger CONFIG=req.json`. `make dataset FILE=...` stores a file and prints its id.

The request is checked, the data fetched and checked, the model trained in a container without a network, saved to
MLflow, scored on the evaluation set, and registered. Whatever happens, the session's containers and its volume are
removed, and the run fails if any of its tasks failed. A GPU session first waits for its device, and says why it waits.
""",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=64,
    max_active_tasks=64,
    # The run fails then; the reaper removes what the session has.
    dagrun_timeout=STACK.session_limit,
    params=PARAMS,
    tags=["tarmac", "training", "nlp"],
    render_template_as_native_obj=True,
    # A task whose process is lost uses up an attempt; what cannot succeed fails at once (AirflowFailException).
    default_args={"retries": 10, "retry_delay": timedelta(seconds=5), "on_failure_callback": tell_failure},
    user_defined_macros={
        "session_volume": partial(volume_name, STACK.stack, DAG_ID),
        "session_container": partial(container_name, STACK.stack, DAG_ID),
        "session_trainer": session_trainer,
        "session_training": session_training,
        "recorded_run": recorded_run,
        "run_name": named,
    },
)
def nlp_model_training() -> None:
    """Wire the 15 tasks."""

    @task
    def check_request_body(dag_run: Any = None) -> dict[str, Any]:
        """Check the request again, and what needs the world: data sets, their content, the GPU."""
        from tarmac.tasks.attempts import attempt
        from tarmac.tasks.pipeline import check_request, describe_run

        describe_run(dag_run)
        return attempt(check_request, dag_run.conf)

    @task
    def create_unique_session_path(ti: Any = None) -> dict[str, Any]:
        """Make the session's volume, named after the run, with request.json in it."""
        from tarmac.tasks.attempts import attempt
        from tarmac.tasks.pipeline import make_session
        from tarmac.tasks.results import checked_request

        request = ti.xcom_pull(task_ids=ids.CHECK_REQUEST_BODY)
        return dict(attempt(lambda: make_session(ti.dag_id, ti.run_id, checked_request(request))))

    retrieve_resources = step(
        ids.RETRIEVE_RESOURCES,
        "prep",
        "Fetch the data sets, compare their content with their ids, read and check every line.",
        extra_mounts=[DATASETS, FILES, LIBRARIES],
        environment={
            "TARMAC_STORE": STACK.store_url,
            "TARMAC_PACKAGE_INDEX": STACK.package_index,
            "TARMAC_BASE_MODEL": f"{{{{ {PATH}['base'] }}}}",
            "TARMAC_HUB_URL": STACK.hub_url,
            # Without credentials of ours there are none: never those that a cloud's metadata service hands out.
            "AWS_EC2_METADATA_DISABLED": "true",
        },
        include_credentials=["object_store", "mlflow"],
        network_mode=f"{{{{ {PATH}['network'] }}}}",
    )

    @task.branch
    def determine_cpu_or_gpu(ti: Any = None) -> str:
        """Follow the request's `gpu`, unless the same training was done before: its model is taken, on the CPU."""
        from tarmac.tasks.attempts import attempt
        from tarmac.tasks.pipeline import plan_training
        from tarmac.tasks.results import Plan, Prepared, checked_request
        from tarmac.tasks.run_end import required

        def decide() -> Plan:
            tasks = [ids.CHECK_REQUEST_BODY, ids.RETRIEVE_RESOURCES, ids.CREATE_UNIQUE_SESSION_PATH]
            request, prep, session = required(ti.xcom_pull(task_ids=tasks), tasks)
            return plan_training(checked_request(request), Prepared.of(prep), session)

        plan = attempt(decide)
        ti.xcom_push(key=ids.PLAN, value=plan)
        return plan["task"]

    gpu_training_sensor = TrainingRunningSensor(
        task_id=ids.GPU_TRAINING_SENSOR,
        pre_execute=only_as_planned,
        pool="gpu_preflight_pool",
        priority_weight=1,
        weight_rule="absolute",
        timeout=8 * 3600,
        doc_md="Wait until no GPU session still starts.",
    )
    gpu_preflight_configuration = GpuPreflight(
        task_id=ids.GPU_PREFLIGHT_CONFIGURATION,
        pre_execute=only_as_planned,
        request=REQUEST,
        pool="gpu_preflight_pool",
        # The session that is further goes first through the pool's one slot.
        priority_weight=2,
        weight_rule="absolute",
        retries=5,
        doc_md="Wait for a device and reserve it; the log says why it waits. Holds no worker meanwhile.",
    )
    gpu_pool_setup = GpuPoolSetup(
        task_id=ids.GPU_POOL_SETUP,
        pre_execute=only_as_planned,
        pool="gpu_preflight_pool",
        priority_weight=3,
        weight_rule="absolute",
        retries=5,
        doc_md="Resize gpu_pool to the number of live reservations.",
    )
    train_model_gpu = step(
        ids.TRAIN_MODEL_GPU,
        "train",
        "Train on the reserved device, in a container that sees no other.",
        operator=GpuTrainingOperator,
        environment={"TARMAC_DEVICE": "cuda"},
        pool="gpu_pool",
        # A training that ran out of memory, hung or lost its device is repeated, with what was learned.
        retries=4,
        retry_delay=timedelta(seconds=2),
        refill=retrieve_resources,
        request=REQUEST,
    )
    train_model_cpu = step(
        ids.TRAIN_MODEL_CPU,
        f"{{{{ {PLAN}['command'] }}}}",
        "Train on the CPU, or fetch what the same training gave before. Never waits for a GPU session.",
        operator=CachedTrainingOperator,
        environment={"TARMAC_DEVICE": "cpu", "TARMAC_CACHED_RUN": f"{{{{ {PLAN}['cached_run'] }}}}"},
        # Only to fetch: a training has no network, and so no credentials.
        include_credentials=["mlflow"],
        network_mode=f"{{{{ {PLAN}['network'] }}}}",
        refill=retrieve_resources,
        request=REQUEST,
    )
    save_model = step(
        ids.SAVE_MODEL,
        "save",
        "Save the model to MLflow as a run with parameters, data set ids and the training curve.",
        environment={
            "TARMAC_AIRFLOW_URL": STACK.public_url + "/dags/{{ dag.dag_id }}/runs/{{ run_id }}",
            "TARMAC_MLFLOW_RUN": RECORDED,
            "TARMAC_RUN_NAME": "{{ run_name(" + REQUEST_OF + ", dag_run) }}",
        },
        include_credentials=["mlflow"],
        network_mode=STACK.registry_network,
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        retries=FEW,
        waits=RETRIES,
        retry_exponential_backoff=SLOWER,
        max_retry_delay=SLOWEST,
    )
    eval_model = step(
        ids.EVAL_MODEL, "eval", "Score the model on the evaluation set.", environment={"TARMAC_DEVICE": "cpu"}
    )

    @task(retries=RETRIES, retry_exponential_backoff=SLOWER, max_retry_delay=SLOWEST)
    def update_model_metadata_registry(ti: Any = None) -> dict[str, Any]:
        """Register the model as a new version, with its metrics; promote it if the request asks and the rule allows."""
        from tarmac.tasks.attempts import attempt
        from tarmac.tasks.pipeline import register_model
        from tarmac.tasks.results import Prepared, Registered, Saved, Scored, checked_request
        from tarmac.tasks.run_end import required

        tasks = [
            ids.CHECK_REQUEST_BODY,
            ids.RETRIEVE_RESOURCES,
            ids.SAVE_MODEL,
            ids.EVAL_MODEL,
            ids.CREATE_UNIQUE_SESSION_PATH,
            ids.DETERMINE_CPU_OR_GPU,
        ]

        def register() -> Registered:
            plan = ti.xcom_pull(task_ids=ids.DETERMINE_CPU_OR_GPU, key=ids.PLAN)
            request, prep, saved, scored, session, plan = required([*ti.xcom_pull(task_ids=tasks[:-1]), plan], tasks)
            done = Prepared.of(prep), plan, Saved.of(saved), Scored.of(scored)
            return register_model(ti.run_id, checked_request(request), *done, session)

        return dict(attempt(register))

    cleanup = step(
        ids.CLEANUP,
        "cleanup",
        "Empty the session's volume, whatever happened.",
        session_required=False,
        do_xcom_push=False,
    )

    @task
    def delete_volume(ti: Any = None) -> None:
        """Remove the session's volume and every container it left, whatever happened."""
        from tarmac.tasks.attempts import attempt
        from tarmac.tasks.pipeline import delete_session
        from tarmac.tasks.results import checked_request

        request = ti.xcom_pull(task_ids=ids.CHECK_REQUEST_BODY)
        attempt(delete_session, ti.dag_id, ti.run_id, checked_request(request) if request else None)

    @task(on_failure_callback=tell_end)
    def check_DAG_success(ti: Any = None, dag_run: Any = None) -> None:  # noqa: N802  the ancestor's task id
        """Fail the run unless its model was registered, and say why in its note; leave nothing behind."""
        from tarmac.tasks.attempts import attempt
        from tarmac.tasks.pipeline import SESSION_FAILED, delete_session, judge_run
        from tarmac.tasks.results import checked_request

        # Clearing only the failed tasks of a finished run makes its volume again without running delete_volume.
        request = ti.xcom_pull(task_ids=ids.CHECK_REQUEST_BODY)
        attempt(delete_session, ti.dag_id, ti.run_id, checked_request(request) if request else None)
        if cause := judge_run(ti, dag_run):
            raise AirflowFailException(f"{SESSION_FAILED} {cause}")

    create = create_unique_session_path()
    registered: Any = update_model_metadata_registry()
    registered.operator.operator_extra_links = (ModelVersionLink(), ModelRunLink())
    delete = delete_volume()
    # A teardown of its own: marking a run failed skips every other task that has not run, and a run whose last task
    # was skipped would end as a success.
    check = check_DAG_success().as_teardown(on_failure_fail_dagrun=True)

    branch = determine_cpu_or_gpu()
    # A setup, so that clearing a training clears this with it: the data went with the volume.
    retrieve: Any = retrieve_resources
    check_request_body() >> create >> retrieve.as_setup() >> branch
    branch >> gpu_training_sensor >> gpu_preflight_configuration >> gpu_pool_setup >> train_model_gpu
    branch >> train_model_cpu
    [train_model_gpu, train_model_cpu] >> save_model >> eval_model >> registered
    # Airflow takes what TaskFlow gives, its annotations do not.
    setups: Any = create
    registered >> cleanup.as_teardown(setups=setups) >> delete.as_teardown(setups=setups)
    [registered, delete] >> check


nlp_model_training()
