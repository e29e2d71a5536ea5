"""Recording a trained model in MLflow: one run for one session, however often `save` is tried."""

import json
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tarmac_trainer import __version__
from tarmac_trainer.data import splits
from tarmac_trainer.mlflow_io import predicting, tracking
from tarmac_trainer.model import Model
from tarmac_trainer.runtime import events, files, libraries, memory
from tarmac_trainer.runtime.counting import counted
from tarmac_trainer.runtime.errors import ExperimentDeletedError, RegistryError
from tarmac_trainer.runtime.request import Request

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.models import ModelSignature

RECORDED_VARIABLE = "TARMAC_MLFLOW_RUN"
"""Names the MLflow run that was begun with the training, as `runs:/<id>`."""

RUN_TAG = "tarmac.run_id"
TRAINING_TAG = "tarmac.training"
"""When the training ended: tells a retry of `save` from a session that was cleared and trained again."""

ARTIFACT = "model"
RECORD_FOLDER = "tarmac"
RECORDS = ("request.json", "training.json")
"""Files of the session that are kept among a run's artifacts: what it takes to train again or to
take its model instead."""

COUNTS = ("train_lines", "eval_lines", "eval_lines_seen", "skipped_lines")
"""What of a session's data is recorded as parameters, besides its data sets."""

NUMBERS = ("best_score", "best_step", "steps", "seconds", "gpu_peak_bytes", "memory_peak_bytes")
"""What of a training's result is recorded as tags `tarmac.<name>`; plugins/tarmac/registry/tags.py has the same."""

PARAMETER_LIMIT = 500
"""Characters of a value; MLflow takes more, but a table does not show more."""


MANY_FILES, MANY_BYTES = 500, 100 * 2**20
"""A model of more than either takes long enough to upload that the log says so first."""


def save(
    session: Path, request: Request, model: Model[Any], predictor: Any, known: Mapping[str, int]
) -> dict[str, Any]:
    """Log the model, its parameters and its curve to the MLflow at `MLFLOW_TRACKING_URI`.

    Idempotent for one `TARMAC_RUN_ID` and one training: a retry continues the run of the attempt before, and a run
    that is finished is only looked up. A run that `TARMAC_MLFLOW_RUN` names is gone on with, if it is still there.
    Without either variable each call makes a run of its own.

    Returns:
        The contract's result of `save`.

    Raises:
        SessionError: an earlier step left nothing.
        RegistryError: MLflow does not answer, or refuses.
    """
    training = files.read_json(session / "training.json", made_by="train")
    manifest = {**splits.read_manifest(session), **known}
    with tracking.connected() as client:
        experiment_id = _experiment(client, request.model)
        run = _recorded_run(client) or _run(client, experiment_id, os.environ.get("TARMAC_RUN_ID"), training)
        logged = _logged_model(client, run)
        if logged is None or run.info.status != "FINISHED":
            # The model first: MLflow writes a run's metrics at step 0 once more when a model is logged to it.
            if logged is None:
                _tell_size(session / "model")
                card = _card(request, model, training, manifest)
                _log_model(run, session / "model", model, predictor, card, libraries.recorded(session))
                logged = _logged_model(client, run)
            own = {"libraries": ", ".join(libraries.recorded(session))} if request.run is not None else {}
            _log_facts(client, run, request, model, training, manifest, own)
            for record in [*RECORDS, *(name for name in (libraries.RECORD,) if (session / name).is_file())]:
                client.log_artifact(run.info.run_id, str(session / record), RECORD_FOLDER)
            client.set_terminated(run.info.run_id, "FINISHED", int(float(training["finished"]) * 1000))
    if logged is None:
        raise RegistryError("MLflow took the model but does not list it")
    size = files.folder_bytes(session / "model")
    events.say(f"saved as {logged.model_uri}, run {run.info.run_id}, {size:,} bytes")
    return {"mlflow_run_id": run.info.run_id, "model_uri": logged.model_uri, "bytes": size}


def _tell_size(folder: Path) -> None:
    count, size = files.folder_content(folder)
    if count > MANY_FILES or size > MANY_BYTES:
        events.say(f"uploading {counted(count, 'file')}, {memory.in_words(size)}, to MLflow, one after the other")


def _experiment(client: "MlflowClient", name: str) -> str:
    """The id of the experiment, made if there is none; two sessions may make it at the same
    time."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage == "deleted":
        raise ExperimentDeletedError(name)
    return str(found.experiment_id)


def _recorded_run(client: "MlflowClient") -> "Run | None":
    """The run that was begun with the training; None: there is none, or it was deleted since."""
    from mlflow.exceptions import MlflowException

    name = os.environ.get(RECORDED_VARIABLE, "")
    if not name:
        return None
    try:
        run = client.get_run(name.removeprefix("runs:/"))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    if run.info.lifecycle_stage == "deleted":
        return None
    if run.info.status != "FINISHED":
        client.update_run(run.info.run_id, status="RUNNING")
    return run


def _run(client: "MlflowClient", experiment_id: str, run_id: str | None, training: Mapping[str, Any]) -> "Run":
    """The session's run: that of an earlier attempt at the same training, set running again if it
    did not finish, or a new one."""
    finished = str(training["finished"])
    tags = {TRAINING_TAG: finished} if run_id is None else {RUN_TAG: run_id, TRAINING_TAG: finished}
    if run_id is not None:
        # MLflow's filters know no escape. Airflow allows neither quote in a run id unless told to.
        quote = '"' if "'" in run_id else "'"
        if quote in run_id:
            raise RegistryError(f"a run id with both kinds of quotes cannot be looked up: {run_id}")
        earlier = client.search_runs(
            [experiment_id],
            filter_string=f"tags.`{RUN_TAG}` = {quote}{run_id}{quote} and tags.`{TRAINING_TAG}` = '{finished}'",
            order_by=["attributes.start_time ASC"],
            max_results=1,
        )
        if earlier:
            events.say(f"continuing MLflow run {earlier[0].info.run_id} of an earlier attempt")
            if earlier[0].info.status != "FINISHED":
                client.update_run(earlier[0].info.run_id, status="RUNNING")
            return earlier[0]
    started = int((float(training["finished"]) - float(training["seconds"])) * 1000)
    name = os.environ.get("TARMAC_RUN_NAME") or run_id
    return client.create_run(experiment_id, start_time=started, tags=tags, run_name=name)


def _logged_model(client: "MlflowClient", run: "Run") -> "LoggedModel | None":
    """The run's model, if it is complete; what a killed attempt left half done is deleted."""
    from mlflow.entities import LoggedModelStatus

    found = client.search_logged_models([run.info.experiment_id], filter_string=f"source_run_id = '{run.info.run_id}'")
    ready = None
    for logged in found:
        if logged.status == LoggedModelStatus.READY:
            ready = logged
        else:
            client.delete_logged_model(logged.model_id)
    return ready


def _log_facts(
    client: "MlflowClient",
    run: "Run",
    request: Request,
    model: Model[Any],
    training: Mapping[str, Any],
    manifest: Mapping[str, Any],
    own: Mapping[str, str],
) -> None:
    """Parameters, tags and the curve, as far as an earlier attempt did not log them. Idempotent.

    Args:
        own: more parameters, of own code; one that is empty is left out.
    """
    from mlflow.entities import Metric, Param, RunTag

    code = request.script if request.run is None else request.run.code
    facts: dict[str, Any] = {
        **training["parameters"],
        **{key: value for key, value in (("script", code), ("base_model", request.base_model)) if value},
        **({} if request.run is None else {"command": json.dumps(list(request.run.command), ensure_ascii=False)}),
        **{key: value for key, value in own.items() if value},
        "model": request.model,
        "seed": training["seed"],
        "device": training["device"],
        **({"chosen": json.dumps(training["chosen"])} if "chosen" in training else {}),
        **{key: training[key] for key in ("best_is", "trained_again_on") if key in training},
        **{name: count for name, count in manifest.items() if name in COUNTS},
    }
    for entry in manifest["datasets"]:
        for key in ("id", "bytes", "lines"):
            facts[f"data.{_key(entry['name'])}.{entry['split']}.{key}"] = entry[key]
    tags = {
        "mlflow.note.content": _card(request, model, training, manifest),
        "tarmac.dag_id": os.environ.get("TARMAC_DAG_ID"),
        TRAINING_TAG: str(training["finished"]),
        "tarmac.version": os.environ.get("TARMAC_VERSION") or __version__,
        "tarmac.commit": os.environ.get("TARMAC_COMMIT"),
        "tarmac.cached_from": training.get("cached_from"),
        "tarmac.resumed": _resumed(training.get("resumed")),
        "tarmac.base_model": request.base_model,
        "tarmac.script": code,
        "tarmac.image": training.get("image") or os.environ.get("TARMAC_IMAGE"),
        "tarmac.airflow_url": os.environ.get("TARMAC_AIRFLOW_URL"),
        # One number a run each: as metrics they would be charts of one dot between the curves.
        **{f"tarmac.{name}": str(training[name]) for name in NUMBERS if name in training},
    }
    run_id = run.info.run_id
    when = int(training["finished"]) * 1000
    name = training["score_name"]
    told = {point.step for point in client.get_metric_history(run_id, name)}
    points = [Metric(name, value, when, step) for step, value in training["curve"] if step not in told]
    # What a user's code measures stands apart from what Tarmac does.
    prefix = "script." if code else ""
    curves = {f"{prefix}{_key(own)}": curve for own, curve in training.get("measurements", {}).items()}
    for key, curve in curves.items():
        known_steps = {point.step for point in client.get_metric_history(run_id, key)}
        points += [Metric(key, value, when, step) for step, value in curve if step not in known_steps]
    for start in range(0, len(points), 1000):  # the most that MLflow takes at once
        client.log_batch(run_id, metrics=points[start : start + 1000])
    # MLflow refuses to change a parameter; equal requests give equal ones.
    known = run.data.params
    parameters = [Param(name, str(value)[:PARAMETER_LIMIT]) for name, value in facts.items() if name not in known]
    for start in range(0, len(parameters), 100):
        client.log_batch(run_id, params=parameters[start : start + 100])
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items() if value])


def _resumed(resumed: Mapping[str, Any] | None) -> str | None:
    """What a training's record says of the checkpoints that it went on from; None: it never did. Pure."""
    if not resumed:
        return None
    times = "once" if resumed["times"] == 1 else f"{resumed['times']} times"
    return f"{times}, last from step {resumed['step']:,}; {events.in_words(resumed['seconds_saved'])} saved"


def _log_model(
    run: "Run", folder: Path, model: Model[Any], predictor: Any, card: str, installed: Sequence[str]
) -> None:
    """Upload a predictor's folder as a model that MLflow loads as a Python function and, where it is a
    pipeline, as spaCy's.

    Args:
        installed: the libraries that it was trained with beside ours, as `name==version`.
    """
    import mlflow
    from mlflow.models import Model as Described

    # Given only the run, MLflow would put the model in the default experiment.
    mlflow.set_experiment(experiment_id=run.info.experiment_id)
    Described.log(
        artifact_path=None,
        name=ARTIFACT,
        flavor=predicting,
        run_id=run.info.run_id,
        signature=_signature(model, predictor) if model.has_signature else None,
        input_example=dict(model.example) if model.has_signature else None,
        folder=folder,
        kind=model,
        card=card,
        installed=installed,
    )


def _signature(model: Model[Any], predictor: Any) -> "ModelSignature":
    """What goes in and comes out, read off the model's own examples."""
    from mlflow.models import infer_signature

    examples = [dict(example) for example in (model.example, model.other_example) if example is not None]
    return infer_signature(examples, model.predict(predictor, examples))


def _card(request: Request, model: Model[Any], training: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """The model card, in Markdown."""
    rows = "\n".join(
        f"| {_cell(entry['name'])} | {entry['split']} | `{entry['id']}` | {entry['lines']:,} |"
        for entry in manifest["datasets"]
    )
    parameters = "\n".join(f"- {name}: {value}" for name, value in training["parameters"].items())
    example = json.dumps(dict(model.example), ensure_ascii=False) if model.example else "{...}"
    spacy = "\n`mlflow.spacy.load_model` gives the spaCy pipeline itself.\n" if model.is_spacy else ""
    known = ""
    if overlapping := manifest.get("eval_lines_seen"):
        known = f", {overlapping:,} of which it or its base model was trained on, so its metrics are better than it is"
    if doubt := splits.doubt(manifest["eval_lines"]):
        known += f" ({doubt})"
    again = ""
    if lines := training.get("trained_again_on"):
        again = (
            f"\nThen it was trained again on {lines:,} lines, those held out to evaluate included, in the way that\n"
            "was best. The metrics are those of the model that did not know them.\n"
        )
    command = "" if request.run is None else f"Command: `{_cell(' '.join(request.run.command))}`.\n"
    best = ""
    if "best_score" in training:
        of = f"at step {training['best_step']} of {training['steps']}"
        if "best_is" in training:
            of = f"of {training['best_is']}"
        score = f"{training['score_name']} on the eval lines while training: {training['best_score']:.4f}"
        best = f"Best {score},\n{of}, after"
    url = os.environ.get("TARMAC_AIRFLOW_URL")
    origin = f"\nTrained in [this Airflow run]({url}).\n" if url else ""
    return f"""# {request.model}

A model that {model.title}. Load it and predict, with the MLflow it came from as `MLFLOW_TRACKING_URI`:

```python
mlflow.pyfunc.load_model("models:/{request.name}/<version>").predict([{example}])
```
{spacy}{origin}
{command}{best or "Trained for"} {training["seconds"]:.0f} s
on {training["device"]}, seed {request.seed}. Trained on {manifest["train_lines"]:,} lines,
evaluated on {manifest["eval_lines"]:,}{known}.
{again}
| data set | split | id | lines |
| --- | --- | --- | --- |
{rows}

Limits: what its train lines do not show it has not learned, and its metrics hold for data like its
eval lines. {model.limits}

Parameters:

{parameters}
"""


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _key(text: str) -> str:
    """The name of a data set, or of another metric than the score, as MLflow allows it in a key: no path that leads
    elsewhere."""
    key = "".join(c if c.isascii() and (c.isalnum() or c in "_-. /") else "_" for c in text)[:100] or "_"
    return key if posixpath.normpath(f"x/{key}") == f"x/{key}" else re.sub(r"[/.]", "_", key)
