"""The names that Airflow knows: the DAG's id and the ids of its 15 tasks."""

from __future__ import annotations

DAG_ID = "nlp_model_training"

LOCAL_HOST = "local"
"""The host whose engine the stack talks to: the only one that trains today."""

CHECK_REQUEST_BODY = "check_request_body"
CREATE_UNIQUE_SESSION_PATH = "create_unique_session_path"
RETRIEVE_RESOURCES = "retrieve_resources"
DETERMINE_CPU_OR_GPU = "determine_cpu_or_gpu"
GPU_TRAINING_SENSOR = "gpu_training_sensor"
GPU_PREFLIGHT_CONFIGURATION = "gpu_preflight_configuration"
GPU_POOL_SETUP = "gpu_pool_setup"
TRAIN_MODEL_GPU = "train_model_gpu"
TRAIN_MODEL_CPU = "train_model_cpu"
SAVE_MODEL = "save_model"
EVAL_MODEL = "eval_model"
UPDATE_MODEL_METADATA_REGISTRY = "update_model_metadata_registry"
CLEANUP = "cleanup"
DELETE_VOLUME = "delete_volume"
CHECK_DAG_SUCCESS = "check_DAG_success"

TASKS = (
    CHECK_REQUEST_BODY,
    CREATE_UNIQUE_SESSION_PATH,
    RETRIEVE_RESOURCES,
    DETERMINE_CPU_OR_GPU,
    GPU_TRAINING_SENSOR,
    GPU_PREFLIGHT_CONFIGURATION,
    GPU_POOL_SETUP,
    TRAIN_MODEL_GPU,
    TRAIN_MODEL_CPU,
    SAVE_MODEL,
    EVAL_MODEL,
    UPDATE_MODEL_METADATA_REGISTRY,
    CLEANUP,
    DELETE_VOLUME,
    CHECK_DAG_SUCCESS,
)
"""All of them, in the order of the pipeline."""

BRANCHES = frozenset(
    {GPU_TRAINING_SENSOR, GPU_PREFLIGHT_CONFIGURATION, GPU_POOL_SETUP, TRAIN_MODEL_GPU, TRAIN_MODEL_CPU}
)
"""The tasks of the two branches: a session skips those of the one that it does not take."""

CLEAN_UP_TASKS = frozenset({CLEANUP, DELETE_VOLUME, CHECK_DAG_SUCCESS})
"""They run however the tasks before them ended, also when the run was marked by hand."""

PLAN = "plan"
MLFLOW_RUN = "mlflow_run"
"""The key of the XCom in which determine_cpu_or_gpu says how the session comes to its model."""
