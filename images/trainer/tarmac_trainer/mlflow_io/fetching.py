"""Fetching models from MLflow: one to train on from, one that the same training gave before, the one
in production."""

import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tarmac_trainer.mlflow_io import tracking
from tarmac_trainer.mlflow_io.saving import RECORD_FOLDER, RUN_TAG
from tarmac_trainer.runtime import events, files
from tarmac_trainer.runtime.errors import CachedModelGoneError, InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ALIAS = "production"
VERSION_FILE = "version.json"


class MissingModelError(InputError):
    """A model is not in MLflow, not whole, or not one of this trainer's."""


def fetch_base(session: Path, uri: str) -> None:
    """Fetch the model to train on from into `base/`. Idempotent.

    Raises:
        MissingModelError: it has no such model.
        RegistryError: MLflow does not answer.
    """
    with tracking.connected():
        _fetch(uri, session / "base")
    events.say(f"fetched {uri} to train on from")


def fetch_model(session: Path, uri: str) -> int:
    """Fetch a registered model into `model/`, and run nothing of it; return its bytes. Idempotent.

    Raises:
        MissingModelError: it has no such model.
        RegistryError: MLflow does not answer.
    """
    folder = session / "model"
    with tracking.connected():
        _fetch(uri, folder)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def fetch_cached(session: Path, cached_run: str, load: Callable[[Path], Any]) -> dict[str, Any]:
    """Fetch what the same training gave before into `model/` and `training.json`. Idempotent.

    Args:
        session: the session's folder.
        cached_run: the MLflow run that has it, `runs:/<id>`.
        load: loads a model of the kind from its folder, to see that it is whole.

    Returns:
        That training's result, with `cached_from`: the Airflow run that it was, or the MLflow run.

    Raises:
        CachedModelGoneError: the run or its model is gone, or the model is not whole any more.
        InputError: the reference is none.
        RegistryError: MLflow does not answer.
    """
    match = re.fullmatch(r"runs:/([0-9a-f]{32})", cached_run)
    if match is None:
        raise InputError(f'TARMAC_CACHED_RUN is "{cached_run}", must be runs:/ and the id of an MLflow run')
    run_id = match[1]
    with tracking.connected() as client:
        run = _kept_run(client, run_id)
        uri = _saved_model(client, run.info.experiment_id, run_id)
        training = _record(run_id, "training.json")
        if uri is None or training is None or not _is_there(client, uri):
            raise CachedModelGoneError(run_id)
        try:
            _fetch(uri, session / "model")
            load(session / "model")
        except (MissingModelError, OSError, ValueError, KeyError) as error:
            raise CachedModelGoneError(run_id) from error
    # This session went on from no checkpoint.
    training = {key: value for key, value in training.items() if key != "resumed"}
    result = {key: value for key, value in training.items() if key not in ("finished", "measurements", "scored")}
    result["cached_from"] = training.get("cached_from") or run.data.tags.get(RUN_TAG) or run_id
    files.write_json(session / "training.json", {**training, **result, "finished": time.time()})
    events.say(f"nothing is trained: the same training was done before, by {result['cached_from']}")
    return result


def fetch_production(session: Path, name: str) -> str | None:
    """Fetch the model in production into `production/`, so that `eval` can score it, too. Idempotent.

    Args:
        session: the session's folder.
        name: of the registered model.

    Returns:
        Its version; None: nothing is in production, or nothing that can be fetched: the session decides without it.

    Raises:
        RegistryError: MLflow does not answer.
    """
    folder = session / "production"
    with tracking.connected() as client:
        version = _production(client, name)
        if version is None:
            shutil.rmtree(folder, ignore_errors=True)
            return None
        folder.mkdir(exist_ok=True)
        try:
            _fetch(f"models:/{name}/{version}", folder / "model")
        except MissingModelError as error:
            shutil.rmtree(folder)
            events.say(f"version {version} of {name}, which is in production, cannot be scored: {error}")
            return None
    files.write_json(folder / VERSION_FILE, {"version": version})
    events.say(f"version {version} of {name} is in production; it is scored, too")
    return version


def _production(client: "MlflowClient", name: str) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_model_version_by_alias(name, ALIAS).version)
    except MlflowException as error:
        # There is no such model, or none of its versions has the alias.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _kept_run(client: "MlflowClient", run_id: str) -> "Run":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise CachedModelGoneError(run_id) from error
        raise


def _is_there(client: "MlflowClient", uri: str) -> bool:
    """Whether the files of a saved model are there: MLflow lists a model also when its artifacts were removed."""
    model_id = uri.removeprefix("models:/")
    return any(item.path == "MLmodel" for item in client.list_logged_model_artifacts(model_id))


def _saved_model(client: "MlflowClient", experiment_id: str, run_id: str) -> str | None:
    from mlflow.entities import LoggedModelStatus

    for logged in client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'"):
        if logged.status == LoggedModelStatus.READY:
            return str(logged.model_uri)
    return None


def _record(run_id: str, name: str) -> Mapping[str, Any] | None:
    """A JSON file that `save` kept among the run's artifacts; None: it is not there."""
    import mlflow

    found = {item.path for item in mlflow.MlflowClient().list_artifacts(run_id, RECORD_FOLDER)}
    path = f"{RECORD_FOLDER}/{name}"
    if path not in found:
        return None
    record: Mapping[str, Any] = mlflow.artifacts.load_dict(f"runs:/{run_id}/{path}")
    return record


def _fetch(uri: str, target: Path) -> None:
    """Put the predictor's folder of a saved model where `target` is; it appears whole or not.

    Raises:
        MissingModelError: it is not there, its files are not, or another program saved it.
    """
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model as Described

    partial = target.with_name(f".{target.name}.fetched")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        root = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(partial)))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise MissingModelError(f"{uri} is not in MLflow") from error
    if not (root / "MLmodel").is_file():
        raise MissingModelError(f"the files of {uri} were deleted from MLflow")
    flavor = Described.load(str(root)).flavors.get("python_function", {})
    folder = root / str(flavor.get("data", ""))
    if "data" not in flavor or not folder.is_dir():
        raise MissingModelError(f"{uri} was not saved by this trainer: it has no predictor's folder")
    files.replace_folder(folder, target)
    shutil.rmtree(partial)
