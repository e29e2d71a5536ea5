"""The request: what the user asked for, checked as far as this trainer uses it."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tarmac_trainer.runtime import files
from tarmac_trainer.runtime.errors import RequestError

MAX_SEED = 2**32 - 1  # what numpy takes


@dataclass(frozen=True)
class Dataset:
    """A named data set: where its train and its eval split are, an id below the store or a URL.

    `eval` None means that a part of `train` is held out.
    """

    name: str
    train: str
    eval: str | None


OWN_CODE = "own_code"
"""The kind of model that a person's own code trains; it alone has `run`."""


@dataclass(frozen=True)
class OwnRun:
    """What trains in place of a trainer: a command, the reference of the code that it is run in, and an image.

    `code` None: all is in the image. `image` None: this trainer's. `git`: where the code came from, for the record.
    `requirements`: the path in the code of a file that names libraries, and `python` for which Python; None: this
    trainer's.
    """

    command: tuple[str, ...]
    code: str | None = None
    image: str | None = None
    git: str | None = None
    requirements: str | None = None
    python: str | None = None


@dataclass(frozen=True)
class Request:
    """A checked request; `parameters` are as sent, for the model to check. `script` is the reference of a user's own
    code in the store, None to train with the model's.

    `name` is that of the registered model; `base_model` is what it trains on from, None: from nothing; `promote`
    tells whether the model is to be compared with the one in production.
    """

    model: str
    datasets: tuple[Dataset, ...]
    gpu: bool
    seed: int
    parameters: Mapping[str, Any]
    name: str
    script: str | None = None
    base_model: str | None = None
    promote: bool = False
    run: OwnRun | None = None

    @property
    def architecture(self) -> str:
        """What is asked to be trained: `small`, or `transformer`. Pure."""
        asked = self.parameters.get("architecture")
        if asked is None:
            return "transformer" if (self.base_model or "").startswith(("weights:", "hf://")) else "small"
        return "transformer" if asked == "transformer" else "small"


def read_request(session: Path) -> Request:
    """Read `request.json` of a session.

    Raises:
        RequestError: it is missing, no JSON, or a field is wrong; names every wrong field.
    """
    path = session / "request.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except FileNotFoundError:
        raise RequestError(f"there is no request: {path} does not exist") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path} is not JSON: {error}") from error
    return parse_request(raw)


def parse_request(raw: Any) -> Request:
    """Check the JSON value of a request. Pure.

    Keys that only concern the pipeline are ignored: the pipeline has refused unknown ones before.

    Raises:
        RequestError: names every wrong field in one message.
    """
    if not isinstance(raw, dict):
        raise RequestError("the request must be a JSON object")
    problems: list[str] = list(_not_storable(raw, ""))
    model = raw.get("model")
    if not isinstance(model, str) or not model:
        problems.append("model: must be the name of a model")
    datasets = _datasets(raw.get("datasets"), problems)
    gpu = raw.get("gpu", False)
    if not isinstance(gpu, bool):
        problems.append("gpu: must be true or false")
    seed = raw.get("seed", 0)
    if seed is None:
        seed = 0
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        problems.append(f"seed: must be a whole number from 0 to {MAX_SEED}")
    parameters = raw.get("parameters")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        problems.append("parameters: must be an object")
    script, name, base_model = raw.get("script"), raw.get("name"), raw.get("base_model")
    if script is not None and not isinstance(script, str):
        problems.append("script: must be the reference of a stored script, or null")
    for key, value in (("name", name), ("base_model", base_model)):
        if value is not None and (not isinstance(value, str) or not value):
            problems.append(f"{key}: must be a name or null")
    promote = raw.get("promote", "never")
    if promote not in ("never", "auto"):
        problems.append("promote: must be never or auto")
    run = _own_run(raw.get("run"), own=model == OWN_CODE, problems=problems)
    if problems:
        raise RequestError("the request is wrong: " + "; ".join(problems))
    return Request(
        model=str(model),
        datasets=datasets,
        gpu=gpu,
        seed=seed,
        parameters=parameters,
        name=name or str(model),
        script=script,
        base_model=base_model,
        promote=promote == "auto",
        run=run,
    )


def _own_run(raw: Any, *, own: bool, problems: list[str]) -> OwnRun | None:
    """Check `run`, adding what is wrong to `problems`."""
    if raw is None:
        if own:
            problems.append(f"run: the model {OWN_CODE} needs it: an object with a command")
        return None
    if not own:
        problems.append(f"run: only the model {OWN_CODE} takes it")
    if not isinstance(raw, dict):
        problems.append("run: must be an object with a command")
        return None
    command, texts = raw.get("command"), {key: raw.get(key) for key in _OWN_TEXTS}
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        problems.append("run.command: must be a list of words")
        command = []
    for key, value in texts.items():
        if value is not None and (not isinstance(value, str) or not value):
            problems.append(f"run.{key}: must be a text or null")
    requirements, python = texts["requirements"], texts["python"]
    if isinstance(requirements, str) and (requirements.startswith("/") or ".." in requirements.split("/")):
        problems.append("run.requirements: must be a path in the code")
    if isinstance(python, str) and not re.fullmatch(r"3\.[0-9]{1,2}", python):
        problems.append("run.python: must be the version of a Python, such as 3.11")
    return OwnRun(tuple(command), **texts)


_OWN_TEXTS = ("code", "image", "git", "requirements", "python")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if (twice := files.repeated_key(pairs)) is not None:
        raise RequestError(f"the request is wrong: the key {json.dumps(twice)} is there twice")
    return dict(pairs)


def _not_storable(value: Any, where: str) -> Iterator[str]:
    """Name each field of a request with a zero byte or half a surrogate pair, which cannot be stored. Pure."""
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            yield f"{where}: holds a zero byte or half of a surrogate pair ({json.dumps(value)[:60]})"
    elif isinstance(value, dict):
        for key, item in value.items():
            inner = f"{where}.{key}" if where else key
            yield from _not_storable(key, f"{where or 'the request'}, a key")
            yield from _not_storable(item, inner)
    elif isinstance(value, list):
        for item in value:
            yield from _not_storable(item, where)


def _datasets(raw: Any, problems: list[str]) -> tuple[Dataset, ...]:
    """Check `datasets`, adding what is wrong to `problems`."""
    if not isinstance(raw, dict) or not raw:
        problems.append("datasets: must be an object with at least one named data set")
        return ()
    datasets = []
    for name, splits in raw.items():
        if not isinstance(splits, dict):
            problems.append(f"datasets.{name}: must be an object with train and eval")
            continue
        unknown = sorted(set(splits) - {"train", "eval"})
        if unknown:
            problems.append(f"datasets.{name}: unknown key {', '.join(unknown)}")
        train, evaluation = splits.get("train"), splits.get("eval")
        if not isinstance(train, str) or not train:
            problems.append(f"datasets.{name}.train: must be a data set id or a URL")
        if evaluation is not None and (not isinstance(evaluation, str) or not evaluation):
            problems.append(f"datasets.{name}.eval: must be a data set id, a URL, or null")
        datasets.append(Dataset(name=name, train=str(train), eval=evaluation))
    return tuple(datasets)
