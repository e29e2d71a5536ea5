"""The commands of the contract, one function each: read, do, leave behind, return the result."""

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tarmac_trainer import models
from tarmac_trainer.data import asked, hub, overlap, readers, splits, store, weights
from tarmac_trainer.data.readers import BrokenLineError
from tarmac_trainer.model import (
    ALWAYS,
    MOST_TYPES,
    NEVER,
    SMALL,
    TRANSFORMER,
    Model,
    Scores,
    check_parameters,
    shortened,
)
from tarmac_trainer.runtime import events, files, memory, own_code, scripts
from tarmac_trainer.runtime.counting import counted
from tarmac_trainer.runtime.errors import DataError, InputError, RequestError, SessionError
from tarmac_trainer.runtime.request import Request, read_request

_NAMED = {SMALL: "small model", TRANSFORMER: "transformer"}


def prep(session: Path) -> dict[str, Any]:
    """Check the request, then fetch and check its data sets into `data/`, and its base model into `base/`.

    Raises:
        TrainerError: see `errors`; nothing is trained with a wrong request or wrong data.
    """
    request, model, parameters = _begin(session, "prep")
    store_url = os.environ.get("TARMAC_STORE") or store.DEFAULT_STORE
    prepared = splits.prepare(request, session, model=model, store_url=store_url)
    installed: list[str] = []
    if request.script is not None:
        target = scripts.path(session, request.script)
        fetched = store.fetch(request.script, target, name="script", store=store_url)
        events.say(f"script: {fetched.bytes:,} bytes, {fetched.id}")
        scripts.check(target)
    if request.run is not None:
        archive = None
        if request.run.code is not None:
            archive = session / "code.tar"
            fetched = store.fetch(request.run.code, archive, name="code", store=store_url)
            events.say(f"code: {fetched.bytes:,} bytes, {fetched.id}")
        installed = own_code.prepare(
            session, request.run, request.seed, archive, index=os.environ.get("TARMAC_PACKAGE_INDEX", "")
        )
    lines = splits.read_prepared(session, "train", model)
    model.check(lines)
    if not request.gpu:
        _check_memory(model, lines)
    remarks = {what: count for what, count in model.remark(lines).items() if count}
    for what, count in remarks.items():
        events.say(f"in the train lines: {count:,} {what}")
    found = model.familiar(lines, splits.read_prepared(session, "eval", model))
    if found is not None:
        events.say(
            f"of the {found.total:,} {found.what} in the eval lines, {found.known:,} ({found.known / found.total:.0%}) "
            "occur in the train lines, too; new ones are harder to find"
        )
    base = os.environ.get("TARMAC_BASE_MODEL")
    if base and base.startswith(weights.PREFIX):
        weights.fetch(base, session / "base", store_url=store_url)
    elif base and base.startswith(hub.PREFIX):
        hub.fetch(base, session / "base", hub_url=os.environ.get("TARMAC_HUB_URL", ""))
    elif base:
        from tarmac_trainer.mlflow_io import fetching, predicting

        fetching.fetch_base(session, base)
        is_one = predicting.saved_architecture(session / "base")
        if is_one != model.architecture:
            raise RequestError(
                f"base_model: it is a {_NAMED[is_one]}, and this request trains a {_NAMED[model.architecture]}: set "
                f"parameters.architecture to {is_one!r}, or name another model"
            )
    gpu = model.gpu_need(session / "base" if base else None, lines, parameters) if request.gpu else None
    if gpu is not None:
        events.say(f"it will hold about {memory.in_words(gpu.bytes)} of a GPU: {gpu.why}")
    if doubt := splits.doubt(prepared.eval_lines):
        events.say(f"warning: {doubt}")
    known = overlap.count(session, model, overlap.trained_on(session, model))
    if known.get("eval_lines_seen"):
        events.say(
            f"{known['eval_lines_seen']:,} of {prepared.eval_lines:,} eval lines are among those that it is trained on"
            f"{', or its base model was' if base else ''}: its metrics will be better than it is"
        )
    return {
        # All parameters are a promise that equal trainings give equal models, which nobody gives for a person's code.
        **({} if request.run is not None else {"parameters": parameters}),
        "datasets": [
            {key: entry[key] for key in ("name", "split", "id", "bytes", "lines")} for entry in prepared.datasets
        ],
        "train_lines": prepared.train_lines,
        "eval_lines": prepared.eval_lines,
        "skipped_lines": prepared.skipped_lines,
        **known,
        **({"remarks": remarks} if remarks else {}),
        **({"libraries": installed} if installed else {}),
        **({} if found is None else {"familiar": vars(found)}),
        **({} if gpu is None else {"gpu_need": vars(gpu)}),
    }


def _check_memory(model: Model[Any], lines: Sequence[Any]) -> None:
    """Refuse a training that the container's memory does not hold.

    Raises:
        DataError: says what needs how much.
    """
    needed, limit = model.needs(lines), memory.limit_bytes()
    if needed is not None and limit is not None and needed[1] > limit:
        raise DataError(
            f"{needed[0]} in the train lines need about {memory.in_words(needed[1])} of memory to train on a CPU, and "
            f"the limit is {memory.in_words(limit)} (TARMAC_TRAINER_MEMORY): use fewer, or raise the limit"
        )


def train(session: Path) -> dict[str, Any]:
    """Train on `data/` and leave the best model in `model/`.

    Raises:
        TrainerError: see `errors`.
    """
    from tarmac_trainer.runtime import checkpoint, device, health, training

    heartbeat = health.Heartbeat(session, "cuda" if os.environ.get("TARMAC_DEVICE") == "cuda" else "cpu")
    heartbeat.restart()
    try:
        request, model, parameters = _begin(session, "train")
        train_lines = splits.read_prepared(session, "train", model)
        eval_lines = splits.read_prepared(session, "eval", model)
        model.check(train_lines)
        held_out = splits.read_prepared(session, splits.HELD_OUT, model) if parameters.get("refit") == ALWAYS else []
        where = device.activate(spacy_on_gpu=model.spacy_on_gpu, on_torch=model.on_torch)
        heartbeat.beat(0, 0)
        events.say(
            f"training {model.name} on {where.name}: {len(train_lines):,} train lines, "
            f"{len(eval_lines):,} eval lines, seed {request.seed}"
        )
        base = session / "base"

        ours = request.script is None and request.run is None

        def score(predictor: Any, tick: Callable[[], Any]) -> Mapping[str, float]:
            scores = model.score(predictor, eval_lines, tick=tick).overall
            # What is not ours is scored once: its other scores are no curves.
            return scores if ours else {model.score_name: scores[model.score_name]}

        run = training.Training(
            session=session,
            score=score,
            score_name=model.score_name,
            # A script knows what the request says, and none of the model's defaults.
            parameters=parameters if request.script is None else dict(request.parameters),
            seed=request.seed,
            train=train_lines,
            eval=eval_lines,
            heartbeat=heartbeat,
            device=where,
            base=base if base.is_dir() else None,
            about="then again on all lines" if held_out else None,
        )
        if request.script is None:  # a script's checkpoint is its own
            run.resume(checkpoint.key(session))
        with where.guarded():
            if run.chosen is not None:
                run.train = [*train_lines, *held_out]
            elif request.script is None:
                model.train(run)
            else:
                script = scripts.path(session, request.script)
                scripts.train(run, script, kind=model.name, load=model.load)
            if held_out and run.chosen is None:
                scored = _scored(session, model, run.partial, eval_lines)
                run.train_again([*train_lines, *held_out], scored)
                events.say(
                    f"{len(held_out):,} held-out lines are given back: training again on all {len(run.train):,} as "
                    f"{run.best_named or f'at step {run.best_step}'}; the scores are those of the model that did not "
                    "know them"
                )
            if held_out:
                model.train(run)
        overlap.write(session, model, run.partial, held_out=bool(held_out))
        result = run.finish()
    except Exception:
        heartbeat.fail()
        raise
    best = run.best_named or f"step {run.best_step}"
    events.say(f"best {run.score_name} {run.best_score:.4f}, of {best}, on {len(eval_lines):,} eval lines")
    return result


def _scored(session: Path, model: Model[Any], folder: Path, lines: Sequence[Any]) -> dict[str, Any]:
    """The scores of a predictor that is trained again afterwards, for `evaluate`, and of which lines they are."""
    scores = model.score(model.load(folder), lines)
    known = overlap.count(session, model, overlap.trained_on(session, model))
    told = {name: value for name, value in vars(scores).items() if name != "parts"}
    return {"eval": splits.digest(session, "eval"), "scores": told, **_interval(session, model, scores), **known}


def _interval(session: Path, model: Model[Any], scores: Scores) -> dict[str, Any]:
    """The interval of the number that ranks models, as the contract's `interval`; empty: it cannot be told."""
    from tarmac_trainer.data import interval

    found = None if scores.parts is None else interval.of(scores.parts, splits.read_groups(session))
    if found is None:
        return {}
    return {"interval": {"metric": model.score_name, "low": round(found[0], 4), "high": round(found[1], 4)}}


def scored_before(session: Path) -> dict[str, Any] | None:
    """What the training kept of scores on these very eval lines, since its model was trained on some of them later.

    None: it was not, or these are other lines.
    """
    try:
        scored: dict[str, Any] | None = files.read_json(session / "training.json", made_by="train").get("scored")
    except SessionError:
        return None
    return scored if scored and scored["eval"] == splits.digest(session, "eval") else None


def restore(session: Path) -> dict[str, Any]:
    """Leave what `train` would leave, fetched from the MLflow run that `TARMAC_CACHED_RUN` names. Idempotent.

    Raises:
        TrainerError: see `errors`.
    """
    _, model, _ = _begin(session, "train")
    from tarmac_trainer.mlflow_io import fetching

    return fetching.fetch_cached(session, os.environ.get("TARMAC_CACHED_RUN", ""), model.load)


def evaluate(session: Path) -> dict[str, Any]:
    """Score `model/` on the eval lines and write `metrics.json`; score the model in `production/`, too. Idempotent.

    Raises:
        TrainerError: see `errors`.
    """
    from tarmac_trainer.runtime import device

    _, model, _ = _begin(session, "eval")
    lines = splits.read_prepared(session, "eval", model)
    where = device.activate(spacy_on_gpu=model.spacy_on_gpu, on_torch=model.on_torch)
    before = scored_before(session)
    with where.guarded():
        predictor = load_model(session, model)
        if before is None:
            scores = model.score(predictor, lines)
            chance = _interval(session, model, scores)
        else:
            scores = Scores(**before["scores"])
            chance = {key: before[key] for key in ("interval",) if key in before}
        production = _score_production(session, model, lines)
    result: dict[str, Any] = {
        "metrics": scores.overall,
        **shortened(scores),
        "eval_lines": len(lines),
        **seen(session, model),
        **chance,
    }
    if "per_type_left_out" in result:
        events.say(f"of {len(scores.per_type):,} types the numbers of the {MOST_TYPES} most frequent are kept")
    events.say(f"scored on {len(lines):,} eval lines")
    if doubt := splits.doubt(len(lines)):
        events.say(f"warning: {doubt}")
    if scores.reason:
        events.say(scores.reason)
        result["reason"] = scores.reason
    for name, value in result["metrics"].items():
        events.metric(name, value)
    if chance:
        found = chance["interval"]
        events.say(
            f"{found['metric']} {scores.overall[found['metric']]:.4f} on these lines means {found['low']:.2f} to "
            f"{found['high']:.2f} on others like them (95 % interval)"
        )
    if production is not None:
        result["production"] = production
    files.write_json(session / "metrics.json", {**result, "per_type": scores.per_type, **scores.details})
    return result


def seen(session: Path, model: Model[Any]) -> dict[str, int]:
    """How many eval lines the model was trained on that was scored, as the contract's `eval_lines_seen`."""
    before = scored_before(session)
    if before is None:
        return overlap.count(session, model, overlap.read(session / "model"))
    return {key: before[key] for key in ("eval_lines_seen",) if key in before}


def _score_production(session: Path, model: Model[Any], lines: Sequence[Any]) -> dict[str, Any] | None:
    """Score the model in production on the same lines; None: there is none, or this trainer cannot load it."""
    folder = session / "production"
    if not folder.is_dir():
        return None
    from tarmac_trainer.mlflow_io.predicting import saved_architecture

    version = files.read_json(folder / "version.json", made_by="save")["version"]
    try:
        # It may be of the other architecture, which only the larger of the two images can load.
        other = models.get(model.name, saved_architecture(folder / "model"))
        predictor = load_model(folder, other)
    except (SessionError, RequestError) as error:
        events.say(f"version {version}, which is in production, cannot be scored: {error}")
        return None
    metrics = model.score(predictor, lines).overall
    events.say(f"version {version}, in production: {model.score_name} {metrics[model.score_name]:.4f}")
    return {"version": version, "metrics": metrics, **overlap.count(session, model, overlap.read(folder / "model"))}


def save(session: Path) -> dict[str, Any]:
    """Record `model/` and its training in MLflow, unregistered; fetch the model in production into `production/`
    if the request asks to compare. Idempotent for one TARMAC_RUN_ID.

    Raises:
        TrainerError: see `errors`.
    """
    request, model, _ = _begin(session, "save")
    from tarmac_trainer.mlflow_io import fetching, saving

    if request.run is not None:
        own_code.check_left(session / "model")
    result = saving.save(session, request, model, load_model(session, model), seen(session, model))
    # A person's code measures itself: the model in production cannot be measured on the same lines.
    if request.promote and request.run is None:
        result["production"] = fetching.fetch_production(session, request.name)
    return result


def fetch(session: Path) -> dict[str, Any]:
    """Fetch the model that `TARMAC_MODEL_URI` names from MLflow into `model/`, and run nothing of it. Idempotent.

    Raises:
        TrainerError: see `errors`.
    """
    from tarmac_trainer.mlflow_io import fetching

    return {"bytes": fetching.fetch_model(session, os.environ.get("TARMAC_MODEL_URI", ""))}


def predict(session: Path) -> dict[str, Any]:
    """Predict with `model/` for each line of `lines.jsonl`, blank ones left out. Idempotent.

    Raises:
        TrainerError: see `errors`; a line that cannot be read is named by its number.
    """
    from tarmac_trainer.mlflow_io import predicting
    from tarmac_trainer.runtime import device

    folder = session / "model"
    try:
        model = predicting.saved_kind(folder)
    except SessionError as error:
        raise InputError(
            f"the model was not saved by this trainer, which cannot load it: it has no {predicting.NAME_FILE}"
        ) from error
    numbers, values = asked.read(session / asked.LINES)
    where = device.activate(spacy_on_gpu=model.spacy_on_gpu, on_torch=model.on_torch)
    with where.guarded():
        try:
            predictor = predicting.Predictor(model, model.load(folder))
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise InputError(f"the model cannot be loaded: {error}") from error
        try:
            predictions = predictor.raw(values)
        except BrokenLineError:
            asked.refuse([(numbers[place], why) for place, why in predictor.unreadable(values)])
            raise
    asked.check(predictions, len(values))
    events.say(f"predicted for {counted(len(values), 'line')}")
    return {"predictions": predictions}


def check(session: Path) -> dict[str, Any]:
    """Say which of the lines of `lines.jsonl`, a data set or its beginning, cannot be read for the request's model.

    Raises:
        TrainerError: see `errors`.
    """
    _, model, _ = _begin(session, "check")
    problems = readers.Problems(told=False)
    name = asked.LINES
    try:
        with (session / name).open("rb") as file:
            lines = readers.lines_of(file)
            found = readers.read_lines(lines, name=name, parse=model.read, problems=problems, tags=model.tags_key)
    except FileNotFoundError as error:
        raise SessionError(f"{session / name} does not exist: there is nothing to check") from error
    return {
        "lines": found.lines,
        "skipped": found.skipped,
        "broken": problems.total,
        "problems": [one.removeprefix(f"{name}, ") for one in problems.first],
    }


def cleanup(session: Path) -> dict[str, Any]:
    """Empty the session's folder. Idempotent.

    Raises:
        CleaningError: something could not be removed; the rest is.
    """
    from tarmac_trainer.runtime import cleaning

    removed = cleaning.empty(session)
    events.say(f"removed {counted(removed.files, 'file')}, {counted(removed.bytes, 'byte')}")
    return {"files": removed.files, "bytes": removed.bytes}


def load_model(session: Path, model: Model[Any]) -> Any:
    """Load the predictor that `train` left.

    Raises:
        SessionError: there is none, or it is broken.
    """
    folder = session / "model"
    if not folder.is_dir():
        raise SessionError(f"{folder} does not exist: run `train` first")
    try:
        return model.load(folder)
    except (OSError, ValueError, KeyError) as error:
        raise SessionError(f"{folder} is broken ({error}): run `train` again") from error


def _begin(session: Path, step: str) -> tuple[Request, Model[Any], dict[str, Any]]:
    """Read and check the request, as every step does that works for one."""
    request = read_request(session)
    # An image made from ours may be in the catalogue under a name of its own.
    model = models.get(os.environ.get("TARMAC_KIND") or request.model, request.architecture)
    if request.script is not None and not model.takes_scripts:
        raise RequestError("script: a model of this kind is read as a pickle, which a script could fill with anything")
    parameters = check_parameters(model, request.parameters)
    if "architecture" in parameters:
        parameters["architecture"] = model.architecture
    if model.on_torch and importlib.util.find_spec("torch") is None:
        wanted = "model: this trainer's image has no PyTorch to train it with"
        if model.architecture == TRANSFORMER:
            wanted = "parameters.architecture: this trainer's image has no PyTorch to fine-tune a transformer with"
        raise RequestError(f"{wanted}: run it in the image trainer-torch")
    if model.on_torch and request.script is not None:
        raise RequestError("script: a script trains no transformer; leave script or base_model out")
    if model.architecture == TRANSFORMER and request.base_model is None:
        raise RequestError(
            "parameters.architecture: a transformer starts from weights: set base_model to 'weights:<id>' as "
            "`make weights DIR=...` prints it, or to a registered model that is one"
        )
    if parameters.get("fail") == step:
        raise InputError(f"{step} fails because parameters.fail asks for it")
    if "refit" in parameters:
        parameters["refit"] = refit(parameters["refit"], script=request.script is not None, promote=request.promote)
    return request, model.for_request(parameters, from_base=request.base_model is not None), parameters


def refit(asked: str | None, *, script: bool, promote: bool) -> str:
    """Decide whether a model is trained again with the lines that were held out. Pure.

    Raises:
        RequestError: it is asked for, and a script trains.
    """
    if script:
        if asked == ALWAYS:
            raise RequestError("parameters.refit: a script is called once, with the train lines; leave refit out")
        return NEVER
    # The rule of promotion compares on lines that neither model was trained on: those that are held out from now on.
    return asked or (NEVER if promote else ALWAYS)
