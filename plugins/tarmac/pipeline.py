"""What the pipeline's Python tasks do. The DAG file only wires these; each takes plain values and is idempotent."""

from __future__ import annotations

import logging
from typing import Any

from tarmac import datasets
from tarmac.catalogue import MODELS
from tarmac.containers import engine, passthrough
from tarmac.errors import RequestError, TarmacError
from tarmac.gpu import devices
from tarmac.registry import Registry
from tarmac.request import TrainingRequest, parse_request
from tarmac.session import LABEL_PROJECT, SessionKey, session_labels, volume_name
from tarmac.settings import settings

log = logging.getLogger(__name__)

BAD_STATES = {"failed", "upstream_failed"}


def check_request(conf: object) -> dict[str, Any]:
    """Check a request again and against the world: data sets exist and match their ids, the GPU works.

    Starts nothing but, for a GPU request, one no-op container that proves the passthrough.

    Returns:
        The request with its defaults filled in.

    Raises:
        RequestError: names every bad field.
    """
    request = parse_request(conf)
    stack = settings()
    problems = datasets.check(request, stack.store_url, stack.url_schemes)
    if request.gpu:
        problems += _gpu_problems(request)
    if problems:
        raise RequestError(problems)
    log.info("The request is good: %s on %s.", request.model, ", ".join(request.datasets))
    return request.model_dump(mode="json")


def _gpu_problems(request: TrainingRequest) -> list[str]:
    """Say why a GPU session cannot be accepted on this machine; a device that is only busy or sick is no reason."""
    from tarmac.gpu.placement import DeviceLoad, Need, NoFit, place
    from tarmac.gpu.tower import readings
    from tarmac.request import gpu_bytes

    instead = "(got true). Send gpu: false to train on the CPU."
    seen = devices.snapshot()
    if seen.state is not devices.State.OK:
        return [f"gpu: this machine has no working GPU: {seen.sentence} {instead}"]
    stack = settings()
    labels = {LABEL_PROJECT: stack.stack, "tarmac.probe": "gpu"}
    usable = [device.uuid for device in seen.devices if device.usable]
    if usable and (problem := passthrough.problem(engine.client(), stack.trainer_image, usable[0], labels)):
        return [f"gpu: {problem} {instead}"]
    asked = request.resources
    found = readings(seen, [], {}, headroom_bytes=stack.gpu_headroom_bytes)
    if seen.unidentified or any(reading.total_bytes <= 0 for reading in found):
        return []  # what the one that cannot be read offers, nobody knows
    empty = [DeviceLoad(reading.uuid, reading.capacity_bytes, unusable=reading.unusable) for reading in found]
    need = Need(None if asked.gpu_memory is None else gpu_bytes(asked.gpu_memory), asked.gpus)
    answer = place(need, empty)
    if isinstance(answer, NoFit) and answer.reason.never:
        return [
            f"resources: this session never fits here: it {answer.sentence} (got gpu_memory {asked.gpu_memory!r}, "
            f"gpus {asked.gpus}). Ask for less, or train on a larger machine."
        ]
    return []


def needs_network(request: TrainingRequest) -> bool:
    """Tell whether fetching the data needs a network: something named by the request is not on this machine."""
    return any(datasets.is_remote(reference, settings().store_url) for _, reference in datasets.references(request))


def make_session(dag_id: str, run_id: str, request: dict[str, Any]) -> dict[str, str]:
    """Make the session's volume with request.json in it.

    Returns:
        `volume`: its name; `network`: the network its data has to be fetched over, "none" for local data.
    """
    stack = settings()
    name = volume_name(stack.stack, dag_id, run_id)
    engine.create_session_volume(
        engine.client(), name, session_labels(stack.stack, dag_id, run_id), request, stack.trainer_image
    )
    log.info("The session's volume is %s.", name)
    remote = needs_network(TrainingRequest.model_validate(request))
    return {"volume": name, "network": stack.egress_network if remote else "none"}


def delete_session(dag_id: str, run_id: str, request: dict[str, Any] | None) -> dict[str, Any]:
    """Stop and remove whatever containers the session has left, release its devices, then remove its volume.

    Args:
        dag_id, run_id: the session.
        request: as check_request returned it; None: it was refused, and nothing was reserved for it.
    """
    stack = settings()
    api = engine.client()
    fenced = engine.fence(api, session_labels(stack.stack, dag_id, run_id))
    if fenced:
        log.warning("Containers were left and have been removed: %s.", ", ".join(fenced))
    if request and request["gpu"] and _release(SessionKey(dag_id, run_id)):
        log.warning("The session still held a GPU; it is released.")
    name = volume_name(stack.stack, dag_id, run_id)
    removed = engine.remove_volume(api, name)
    log.info("The session's volume %s is %s.", name, "removed" if removed else "gone already")
    return {"volume": name, "removed": removed, "fenced": fenced}


def _release(key: SessionKey) -> bool:
    """Take a session out of the queue and release what it holds; nothing of it runs any more. Idempotent."""
    from tarmac.gpu.estimate import Outcome
    from tarmac.gpu.ledger import Ledger

    with Ledger(settings().database_url) as ledger, ledger.transaction():
        ledger.withdraw(key)
        held = ledger.reservation(key)
        return held is not None and ledger.finish(held, Outcome.FAILED, reason="the session was ended")


def register_model(
    run_id: str, request: dict[str, Any], prep: dict[str, Any], saved: dict[str, Any], scored: dict[str, Any]
) -> dict[str, Any]:
    """Register what `save` saved with what `eval` measured.

    Returns:
        `name`, `version`, `url`, `score_name`, `score` and all `metrics`.

    Raises:
        RegistryError: the registry refused or does not answer.
        TarmacError: `eval` gave no metric that ranks this model.
    """
    name = request["model"]
    score_name = MODELS[name].score
    metrics = {key: float(value) for key, value in scored.get("metrics", {}).items()}
    if score_name not in metrics:
        raise TarmacError(f"eval_model gave no metric {score_name!r}, only {sorted(metrics)}: nothing is registered.")
    version = Registry().register(
        name=name,
        run_id=saved["mlflow_run_id"],
        source=saved["model_uri"],
        metrics=metrics,
        tags={
            "tarmac.run_id": run_id,
            "tarmac.datasets": ",".join(str(d["id"]) for d in prep.get("datasets", []))[:5000],
            f"tarmac.{score_name}": f"{metrics[score_name]:.4f}",
        },
    )
    log.info("Registered %s version %s: %s", version.name, version.version, version.url)
    return {
        "name": version.name,
        "version": version.version,
        "url": version.url,
        "score_name": score_name,
        "score": metrics[score_name],
        "metrics": metrics,
    }


def failed_tasks(states: dict[str, str | None], own_task_id: str) -> list[str]:
    """Tasks of a run that failed, or could not start because one before them failed. Pure; sorted."""
    return sorted(task for task, state in states.items() if state in BAD_STATES and task != own_task_id)
