"""What the pipeline's Python tasks do. The DAG file only wires these; each takes plain values and is idempotent."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tarmac.base.errors import ContainerError, NothingToRegisterError, RegistryError, RequestError, TarmacError
from tarmac.base.ids import (
    CHECK_DAG_SUCCESS,
    GPU_TRAINING_SENSOR,
    MLFLOW_RUN,
    TRAIN_MODEL_CPU,
    TRAIN_MODEL_GPU,
    UPDATE_MODEL_METADATA_REGISTRY,
)
from tarmac.base.session import SESSION_PATH, SessionKey, cancellation, session_labels, volume_name
from tarmac.base.settings import settings
from tarmac.checks.world import trainer_image, world_problems
from tarmac.containers import engine
from tarmac.hosts.address import is_elsewhere
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.recordings import Recordings
from tarmac.registry import tags as tag
from tarmac.registry.client import Registry
from tarmac.registry.origins import Before, cache_key, find_base, find_before, same_model
from tarmac.registry.production import Production
from tarmac.registry.promotion import Candidate, Measured, counted, doubt, evaluation_set_id
from tarmac.request import datasets
from tarmac.request.catalogue import TRANSFORMER, architecture, from_weights, known_entry
from tarmac.request.naming import description
from tarmac.request.schema import TrainingRequest, parse_request
from tarmac.tasks import run_end
from tarmac.tasks.other_host import remove_from
from tarmac.tasks.results import Deleted, Plan, Prepared, Registered, Saved, Scored, Session

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

# MLflow takes 8,000 characters as the value of a run's tag, and cuts what is longer.
_TAG_CHARACTERS = 7_500
_DESCRIBED = 20
_TRAININGS = [TRAIN_MODEL_GPU, TRAIN_MODEL_CPU]

SESSION_FAILED = "The session failed:"
"""How the error of check_DAG_success begins where the run has failed and its note says why."""

OWN_CODE_COMMAND = ("/bin/sh", f"{SESSION_PATH}/own_code.sh")
"""What runs a person's own code in whatever image: the trainer's `prep` writes the script."""


def check_request(conf: object) -> dict[str, Any]:
    """Check a request again and against the world: data sets exist and match their ids, the GPU works.

    Starts nothing but, for a GPU request, one no-op container that proves the passthrough.

    Returns:
        The request with its defaults filled in, and `base_model` as a version that will not move.

    Raises:
        RequestError: names every bad field.
        RegistryError: the request names something of the registry, which does not answer.
    """
    problems, request = [], None
    try:
        request = parse_request(conf)
    except RequestError as error:
        problems += error.problems
    wrong, base = world_problems(conf, contents=True) if isinstance(conf, dict) else ([], None)
    problems += wrong
    if problems or request is None:
        raise RequestError(problems)
    log.info("The request is good: %s on %s.", request.model, ", ".join(request.datasets))
    if base != request.base_model:
        log.info("The base model %s is %s.", request.base_model, base)
    return request.model_copy(update={"base_model": base}).model_dump(mode="json")


def needs_network(request: TrainingRequest) -> bool:
    """Tell whether fetching needs a network: something named by the request is not on this machine."""
    libraries = request.run is not None and request.run.requirements is not None and settings().package_index
    return bool(request.on_hub or libraries) or any(
        datasets.is_remote(reference, settings().store_url) for _, reference in datasets.references(request)
    )


def make_session(dag_id: str, run_id: str, request: TrainingRequest) -> Session:
    """Make the session's volume with request.json in it, and settle who trains it.

    Nothing of an earlier run of this name may still run.

    Raises:
        RegistryError: the request has a base model, and the registry does not answer.
    """
    stack = settings()
    name, labels = volume_name(stack.stack, dag_id, run_id), session_labels(stack.stack, dag_id, run_id)
    api = engine.client()
    engine.fence(api, labels)
    engine.create_session_volume(api, name, labels, request.model_dump(mode="json"), stack.trainer_image)
    log.info("The session's volume is %s.", name)
    networks = [stack.egress_network] if needs_network(request) else []
    base = ""
    if request.base_model:
        base = find_base(Registry(), request.base_model).uri
        if not from_weights(request.base_model):
            networks.append(stack.registry_network)
    model = known_entry(request.model, request.parameters, request.base_model)
    session: Session = {
        "volume": name,
        "network": ",".join(networks) or "none",
        # What other trainers prepare has no part in the libraries that own code is trained with.
        "libraries": stack.libraries_volume if request.run is not None else name,
        "base": base,
        "image": trainer_image(request),
        "command": list(model.command),
        "memory_bytes": model.memory_bytes,
        "score": model.score,
        "margin": model.margin,
    }
    if request.run is not None:
        session["training"] = {
            "image": request.run.image or session["image"],
            "command": list(OWN_CODE_COMMAND),
            "memory_bytes": model.memory_bytes,
        }
    return session


def plan_training(request: TrainingRequest, prep: Prepared, session: Session) -> Plan:
    """Say how a session comes to its model: it trains, or it takes what the same training gave before."""
    task = GPU_TRAINING_SENSOR if request.gpu else TRAIN_MODEL_CPU
    train = Plan(task=task, command="train", network="none", cache_key="", cached_run="")
    if prep.parameters is None:
        return train
    image = engine.image_id(engine.client(), session["image"])
    trainer = [image, *session["command"]]
    key = cache_key(request.model_dump(mode="json"), asdict(prep), trainer=trainer, base_uri=session["base"] or None)
    if request.no_cache:
        log.info("The request asks to train anew.")
        return {**train, "cache_key": key}
    before = _find_before(key)
    if before.run is None:
        return {**train, "cache_key": key, "before": before.session}
    log.info("The same training was done before, by %s: its model is taken.", before.session)
    return {
        "task": TRAIN_MODEL_CPU,
        "command": "restore",
        "network": settings().registry_network,
        "cache_key": key,
        "before": before.session,
        "cached_run": f"runs:/{before.run.run_id}",
    }


def _find_before(key: str) -> Before:
    """Look for an earlier training. An unavailable registry costs a training, not the session."""
    try:
        return find_before(Registry(), key)
    except RegistryError as error:
        log.warning("Whether the same training was done before is not known, so it is done now: %s", error)
        return Before()


def delete_session(dag_id: str, run_id: str, request: TrainingRequest | None) -> Deleted:
    """Stop and remove whatever containers the session has left, release what it reserved, then remove its volume.

    Args:
        dag_id, run_id: the session.
        request: the checked one; None: it was refused, and nothing was reserved for it.
    """
    stack = settings()
    api = engine.client()
    fenced = engine.fence(api, session_labels(stack.stack, dag_id, run_id))
    if fenced:
        log.info("Removed the session's containers: %s.", ", ".join(fenced))
    name = volume_name(stack.stack, dag_id, run_id)
    if request:
        with Ledger(stack.database_url) as ledger:
            if _elsewhere_is_empty(ledger, SessionKey(dag_id, run_id), name) and ledger.end_session(
                SessionKey(dag_id, run_id), "the session was ended"
            ):
                log.warning("The session still held a reservation; it is released.")
    removed = engine.remove_volume(api, name)
    log.info("The session's volume %s is %s.", name, "removed" if removed else "gone already")
    return Deleted(volume=name, removed=removed, fenced=fenced)


def _elsewhere_is_empty(ledger: Ledger, key: SessionKey, volume: str) -> bool:
    """Remove what a session that still holds another machine has there. False: that cannot be done now."""
    held = ledger.reservation(key)
    if held is None or not is_elsewhere(held.host):
        return True
    try:
        remove_from(held.host, session_labels(settings().stack, *key), volume)
    except (ContainerError, OSError) as error:
        log.warning("Host %s does not answer: what the session has there is removed when it does: %s", held.host, error)
        return False
    return True


def register_model(
    run_id: str,
    request: TrainingRequest,
    prep: Prepared,
    plan: Plan,
    saved: Saved,
    scored: Scored,
    session: Mapping[str, Any],
) -> Registered:
    """Register what `save` saved with what `eval` measured; promote it, if the request asks and the rule allows.

    Args:
        session: what create_unique_session_path settled; one of an earlier version says nothing of what ranks a model.

    Raises:
        RequestError: the session does not say what ranks its model, and the catalogue does not have it any more.
        RegistryError, LedgerError: the registry or the history of promotions refused or does not answer.
        NothingToRegisterError: `eval` gave no metric that ranks this model.
    """
    kind, name = request.model, request.registered_name
    trains = architecture(kind, request.parameters, request.base_model)
    score_name, margin = _ranked_by(request, session)
    metrics = dict(scored.metrics)
    if score_name not in metrics:
        raise NothingToRegisterError(
            f"eval_model gave no metric {score_name!r}, only {sorted(metrics)}: nothing is registered."
        )
    registry = Registry()
    # A model that could not be fetched any more was trained after all.
    taken = plan["cached_run"] if tag.CACHED_FROM in registry.run(saved.mlflow_run_id).tags else ""
    same_as = same_model(registry, taken)
    measured = Measured(metrics[score_name], scored.seen, scored.lines)
    evaluation_set = evaluation_set_id(kind, [asdict(one) for one in prep.datasets])
    version = registry.register(
        name=name,
        kind=kind,
        run_id=saved.mlflow_run_id,
        source=saved.model_uri,
        metrics=metrics,
        description=_description(metrics, score_name, same_as, scored),
        tags={
            tag.RUN_ID: run_id,
            tag.MODEL: kind,
            tag.DATA: ", ".join(sorted({one.name for one in prep.datasets})),
            tag.DATASETS: ",".join(one.id for one in prep.datasets),
            tag.EVALUATION_SET: evaluation_set,
            tag.SCORE_NAME: score_name,
            tag.SCORE: repr(measured.score),
            tag.SEEN: repr(measured.seen),
            **({} if scored.lines is None else {tag.EVAL_LINES: str(scored.lines)}),
            **({tag.SAME_AS: same_as} if same_as else {}),
            **({tag.ARCHITECTURE: TRANSFORMER} if trains == TRANSFORMER else {}),
        },
    )
    run_tags = {
        tag.EVALUATION_SET: evaluation_set,
        tag.MODEL_VERSION: f"{name}/{version.version}",
        tag.METRICS: json.dumps(_fitting(metrics, score_name), sort_keys=True),
    }
    if plan["cache_key"] and not taken:
        run_tags[tag.CACHE_KEY] = plan["cache_key"]  # a model that was taken from another run is found there
    registry.tag_run(saved.mlflow_run_id, run_tags)
    recorded = registry.run(saved.mlflow_run_id)
    registry.keep_tables(recorded, "evaluation", scored.tables)
    log.info("Registered %s version %s: %s", name, version.version, version.url)
    if few := doubt(scored.lines):
        log.warning("Of %s %.4f: %s.", score_name, metrics[score_name], few)
    candidate = Candidate(name, version.version, score_name, measured, evaluation_set)
    return {
        "name": name,
        "version": str(version.version),
        "url": version.url,
        "run_url": recorded.url,
        "score_name": score_name,
        "score": metrics[score_name],
        "eval_lines": scored.lines,
        "metrics": metrics,
        "same_as": same_as,
        "trained_before": "" if taken else plan.get("before", ""),
        "promotion": _promote(registry, run_id, request, candidate, _production(scored, score_name), margin),
    }


def _ranked_by(request: TrainingRequest, session: Mapping[str, Any]) -> tuple[str, float]:
    """Return the metric that ranks a session's model, and the margin of the rule: those of when it started."""
    if "score" in session and "margin" in session:
        return str(session["score"]), float(session["margin"])
    model = known_entry(request.model, request.parameters, request.base_model)
    return model.score, model.margin


def _description(metrics: Mapping[str, float], score_name: str, same_as: str, scored: Scored) -> str:
    """Describe a version by its metrics, the one that ranks it first, and the lines that they are from; of many some,
    since MLflow keeps 5,000 characters. Pure."""
    names = [score_name, *(name for name in metrics if name != score_name)]
    told = ", ".join(f"{name[:100]} {metrics[name]:.4f}" for name in names[:_DESCRIBED])
    more = f", and {len(names) - _DESCRIBED} more" if len(names) > _DESCRIBED else ""
    told += more + ("" if scored.lines is None else f", on {counted(scored.lines)}")
    told += "" if scored.interval is None else f"; {scored.interval}"
    if few := doubt(scored.lines):
        told += f". {few[0].upper()}{few[1:]}."
    return (f"The same model as {same_as}. " if same_as else "") + told


def _fitting(metrics: Mapping[str, float], score_name: str) -> dict[str, float]:
    """Return as many metrics as MLflow keeps in a tag, by name, the one that ranks versions in any case: the same of
    the same ones. Pure."""
    kept: dict[str, float] = {}
    size = 2
    for name in [score_name, *sorted(metrics.keys() - {score_name})]:
        size += len(json.dumps({name: metrics[name]}))
        if size > _TAG_CHARACTERS:
            break
        kept[name] = metrics[name]
    return kept


def _production(scored: Scored, score_name: str) -> dict[int, Measured]:
    """Return what `eval` measured of the version in production, by its number, if it did."""
    found = scored.production
    if found is None or score_name not in found.metrics:
        return {}
    return {found.version: Measured(found.metrics[score_name], found.seen)}


def _promote(
    registry: Registry,
    run_id: str,
    request: TrainingRequest,
    candidate: Candidate,
    scores: dict[int, Measured],
    margin: float,
) -> str:
    """Promote a version by the rule if its request says so. Idempotent. Returns what became of it, in one sentence.

    Args:
        scores: what the session measured of the version in production.
        margin: by how much the rule wants a version to be better.
    """
    if request.promote != "auto":
        return "not asked for"
    with Production(settings().database_url, registry) as production:
        decision = production.promote_by_rule(candidate, margin=margin, scores=scores, who=run_id)
    said = f"{'promoted' if decision.promote else 'not promoted'}: {decision.why}"
    log.info("%s version %s is %s.", candidate.model, candidate.version, said)
    return said


def describe_run(dag_run: Any) -> None:
    """Give a run that has no note one that says model, name, data and owner, for the list of runs."""
    if isinstance(dag_run.conf, Mapping):
        text = description(dag_run.conf, dag_run.triggering_user_name)
        change_note(dag_run.run_id, lambda note: run_end.begun_note(note, text))


def judge_run(ti: Any, dag_run: Any, failure: str | None = None) -> str | None:
    """Say why a run failed, and write it into the run's note; None: it succeeded.

    Args:
        ti, dag_run: of the run's last task.
        failure: why that task itself is given up; None: it is not.
    """
    states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id])[ti.run_id]
    first = run_end.failed_first(states)
    said = ti.xcom_pull(task_ids=first, key=run_end.FAILURE_KEY) if first else None
    mark = ti.xcom_pull(task_ids=run_end.MARK_TASK, key=run_end.MARK_KEY)
    marked = run_end.marked_state(mark, dag_run.clear_number)
    cause = run_end.first_cause(states, failure=said, marked=marked)
    if failure and not cause:
        cause = run_end.told(CHECK_DAG_SUCCESS, failure, again=CHECK_DAG_SUCCESS)
    registered = ti.xcom_pull(task_ids=UPDATE_MODEL_METADATA_REGISTRY, key="return_value")
    lacks = run_end.what_it_lacks(states, marked=marked, registered=registered)
    if cause:
        cause = run_end.with_names(cause, dag_run.conf)
    result = run_end.scored_sentence(registered)

    def ended(note: str | None) -> str | None:
        nonlocal cause
        # The note of a run that was cancelled says so already, and who did it.
        if marked == "failed" and (cancelled := cancellation(note)):
            cause = cancelled
            return run_end.waiting_note(note, None)
        return run_end.ended_note(note, cause, lacks, result)

    change_note(dag_run.run_id, ended)
    if cause and marked != "failed" and not any(ti.xcom_pull(task_ids=_TRAININGS, key=MLFLOW_RUN) or ()):
        _note_untrained(SessionKey(ti.dag_id, ti.run_id))
    return cause


def _note_untrained(key: SessionKey) -> None:
    """Have the reaper record in MLflow that a session failed before its training: MLflow may be away now."""
    try:
        with Recordings(settings().database_url) as recordings:
            recordings.add_untrained(key)
    except TarmacError as error:
        log.warning("That the session failed is not recorded in MLflow: %s", error)


def tell_end(context: Context) -> None:
    """Write the note of a run whose last task is given up before it has judged the run; Airflow calls this then."""
    error: Any = context.get("exception")
    if isinstance(error, BaseException) and not str(error).startswith(SESSION_FAILED):
        judge_run(context["ti"], context["dag_run"], run_end.failure_sentence(error))


def change_note(run_id: str, change: Callable[[str | None], str | None]) -> None:
    """Change a run's note; a webserver that does not answer costs the note and nothing else.

    Args:
        change: gives the new note for the old one; None: it stays.
    """
    try:
        api = run_end.open_api()
        note = change(api.run(run_id)["note"])
        if note is not None:
            api.change_run(run_id, note=note)
    except TarmacError as error:
        log.warning("The run's note cannot be written: %s", error)
