"""The names of the tags that Tarmac writes into MLflow. The trainer, which writes those of a run, has its own list."""

from __future__ import annotations

# Of a run, written by the trainer.
RUN_ID = "tarmac.run_id"
DAG = "tarmac.dag_id"
TRAINING = "tarmac.training"
TRAINER_VERSION = "tarmac.version"
COMMIT = "tarmac.commit"
IMAGE = "tarmac.image"
BASE_MODEL = "tarmac.base_model"
SCRIPT = "tarmac.script"
# The Airflow run that trained the model, where it was taken instead of trained.
CACHED_FROM = "tarmac.cached_from"
# How often its training went on from a checkpoint, and what that saved.
RESUMED = "tarmac.resumed"
AIRFLOW_URL = "tarmac.airflow_url"

# Of a run, written by the trainer: numbers of the training, each as `tarmac.<name>`. Older runs have them as metrics.
NUMBERS = ("best_score", "best_step", "steps", "seconds", "gpu_peak_bytes", "memory_peak_bytes")

# Of a run, written while its session trains: the container that trains, and why it did not end well.
CONTAINER = "tarmac.container"
FAILURE = "tarmac.failure"
# In the place of RUN_ID, of a run that has a training's curves while another one has its model.
CURVES_OF = "tarmac.curves_of"

# Of a run whose files were removed since nothing needed them any more: the day.
EXPIRED = "tarmac.expired"

# Of a run, written when its model is registered.
CACHE_KEY = "tarmac.cache_key"
METRICS = "tarmac.metrics"
MODEL_VERSION = "tarmac.model_version"

# Of a registered model and of its versions.
MODEL = "tarmac.model"

# Of a version that is a transformer; a small model has none.
ARCHITECTURE = "tarmac.architecture"

# Of a version.
DATA = "tarmac.data"
DATASETS = "tarmac.datasets"
SCORE_NAME = "tarmac.score_name"
SCORE = "tarmac.score"
SEEN = "tarmac.seen"
EVAL_LINES = "tarmac.eval_lines"
# What it is the same model as, because it was taken from there instead of trained.
SAME_AS = "tarmac.same_as"

# How MLflow's names of metrics begin that say what a run used of its machine.
SYSTEM_METRICS = "system/"

# Of a run and of a version.
EVALUATION_SET = "tarmac.evaluation_set"
