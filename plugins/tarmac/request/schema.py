"""The request: the one definition that the form, the API and check_request_body share."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, cast
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tarmac.base.errors import RequestError
from tarmac.base.settings import matches, settings
from tarmac.base.units import gpu_bytes, host_bytes, millicpus
from tarmac.request.catalogue import (
    HUB,
    KEY_WORDS,
    TRANSFORMER,
    WEIGHTS,
    Catalogue,
    architecture,
    catalogue,
    entry,
    from_weights,
    stored_weights,
)
from tarmac.request.text import key_text, read_json, short, text_problems

MAX_REQUEST_BYTES = 1_000_000
MOST_DATASETS = 32
_MAX_PROBLEMS = 50
_BASE58_CLASS = r"[1-9A-HJ-NP-Za-km-z]"
# SHA-256 as base58 is 44 characters, or 43 for one hash in seventeen.
ID_PATTERN = rf"({_BASE58_CLASS}{{43,44}})/\1\.jsonl"
SCRIPT_PATTERN = rf"({_BASE58_CLASS}{{43,44}})/\1\.(?:py|sh)"
WEIGHTS_PATTERN = rf"({_BASE58_CLASS}{{43,44}})/\1\.weights"
CODE_PATTERN = rf"({_BASE58_CLASS}{{43,44}})/\1\.tar"
OWN_CODE = "own_code"
"""The kind of model that a person's own code trains; it alone has `run`."""
_URL_PATTERN = r"[a-z][a-z0-9+.-]*://[^\s\x00-\x1f\x7f]+"
_NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_NAME_HELP = "letters, digits, '_', '.' and '-' only, at most 64, and starts with a letter or digit"
_HUB_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
HUB_PATTERN = rf"{HUB}(?P<hub>{_HUB_PART}/{_HUB_PART})@(?P<commit>[0-9a-f]{{40}})"
BASE_PATTERN = (
    rf"(?P<name>{_NAME_PATTERN})(?:/(?P<version>[1-9]\d{{0,8}})|@(?P<alias>production))"
    r"|run:(?P<run>[^\s'\"\x00-\x1f\x7f]{1,250})"
    rf"|{WEIGHTS}(?P<weights>{_BASE58_CLASS}{{43,44}})"
    rf"|{HUB_PATTERN}"
)
EXAMPLE_REFERENCE = "<id>/<id>.jsonl"
"""What the forms begin with, for a person to replace."""

_REFERENCE_HELP = (
    "must be '<id>/<id>.jsonl' as `make dataset FILE=...` prints it, or a URL such as s3://bucket/data.jsonl"
)


def _check_reference(value: str) -> str:
    if re.fullmatch(ID_PATTERN, value):
        return value
    if value == EXAMPLE_REFERENCE:
        said = "is still the example: choose a data set, or put the id that `make dataset FILE=...` prints in its place"
        raise PydanticCustomError("dataset_reference", "{said}", {"said": said})
    if re.fullmatch(_URL_PATTERN, value) and _leads_where_it_says(value):
        return value
    if re.fullmatch(_URL_PATTERN, value):
        said = "is a URL that does not lead where it says: write it without '..' and '::', as s3://bucket/data.jsonl"
        raise PydanticCustomError("dataset_reference", "{said}", {"said": said})
    raise PydanticCustomError("dataset_reference", "{said}", {"said": _REFERENCE_HELP + _fault(value, ".jsonl")})


def _fault(value: str, *suffixes: str) -> str:
    """Say what is wrong with a reference that is nearly one, where a message cuts it before that place. Pure."""
    found = re.fullmatch(rf"({_BASE58_CLASS}{{43,44}})(?:/({_BASE58_CLASS}{{43,44}}))?(\.\w+)?", value)
    if found is None:
        return ""
    if found[2] is None:
        return "; the id has to be there twice"
    if found[1] != found[2]:
        return "; the two ids of this one differ"
    return f"; this one ends in {found[3]}" if found[3] else f"; this one lacks its end, {' or '.join(suffixes)}"


def _leads_where_it_says(url: str) -> bool:
    """Tell whether a URL goes down from its host only. fsspec reads `::` as one file system inside another. Pure."""
    try:
        urlsplit(url)
    except ValueError:  # a host in brackets that is no address
        return False
    plain = unquote(url)
    return ".." not in plain.split("/") and "::" not in plain and "\0" not in plain


def _check_name(value: str) -> str:
    if not re.fullmatch(_NAME_PATTERN, value):
        raise PydanticCustomError("dataset_name", "the name may hold " + _NAME_HELP)
    return value


class Dataset(BaseModel):
    """One named data set: what to train on, and what to score on (null: hold out about a tenth of train)."""

    model_config = ConfigDict(extra="forbid")

    train: Annotated[StrictStr, Field(min_length=1, max_length=1024)]
    eval: Annotated[StrictStr, Field(min_length=1, max_length=1024)] | None = None

    @field_validator("train", "eval")
    @classmethod
    def _reference(cls, value: str | None) -> str | None:
        return None if value is None else _check_reference(value)


class Resources(BaseModel):
    """What a session asks for. All optional; what is said of GPUs is only used with gpu: true."""

    model_config = ConfigDict(extra="forbid")

    gpu_memory: Any = Field(
        None,
        title="GPU memory",
        description="Memory on each device, for example '12GiB'; null: estimated from earlier sessions.",
        json_schema_extra={"type": ["string", "integer", "null"]},
    )
    memory: Any = Field(
        None,
        title="Memory",
        description="Memory of the host, for example '4GiB'; null: estimated from earlier sessions.",
        json_schema_extra={"type": ["string", "integer", "null"]},
    )
    cpus: Any = Field(
        None,
        title="Cores",
        description="Cores of the host, for example 2 or 0.5; null: the model's default.",
        json_schema_extra={"type": ["number", "null"]},
    )
    gpus: Annotated[StrictInt, Field(ge=1, le=64)] = Field(1, title="GPUs", description="How many devices.")
    host: Annotated[str, Field(min_length=1, max_length=31)] | None = Field(
        None, title="Host", description="Which host trains, as `make hosts` names it; null: whichever has room first."
    )
    policy: Literal["packed", "spread"] = Field(
        "packed", title="Policy", description="packed: the fullest device it fits on; spread: the emptiest."
    )
    max_wait_seconds: Annotated[StrictInt, Field(ge=1, le=30 * 86400)] = Field(
        8 * 3600,
        title="Longest wait",
        description="Seconds to wait for a device, or for cores and memory, before the session fails.",
    )
    stall_seconds: Annotated[StrictInt, Field(ge=10, le=86400)] = Field(
        300, title="Stall", description="Seconds without progress after which a training counts as hung."
    )

    @field_validator("memory")
    @classmethod
    def _host_memory(cls, value: Any) -> str | int | None:
        if value is not None:
            try:
                host_bytes(value)
            except ValueError as error:
                raise PydanticCustomError(
                    "host_memory", "must be a size such as '4GiB' or '800MiB', or bytes, from 64 MiB to 64 TiB"
                ) from error
        return cast("str | int | None", value)

    @field_validator("cpus")
    @classmethod
    def _cpus(cls, value: Any) -> float | None:
        if value is not None:
            try:
                millicpus(value)
            except ValueError as error:
                raise PydanticCustomError(
                    "cpus", "must be a number of cores such as 2 or 0.5, from 0.1 to 1024"
                ) from error
        return cast("float | None", value)

    @field_validator("gpu_memory")
    @classmethod
    def _memory(cls, value: Any) -> str | int | None:
        if value is not None:
            try:
                gpu_bytes(value)
            except ValueError as error:
                raise PydanticCustomError(
                    "gpu_memory", "must be a size such as '12GiB' or '800MiB', or bytes, from 64 MiB to 1 TiB"
                ) from error
        return cast("str | int | None", value)


class OwnRun(BaseModel):
    """What trains in place of a trainer: a command, in code of one's own, in an image of one's own."""

    model_config = ConfigDict(extra="forbid")

    command: Annotated[list[Annotated[StrictStr, Field(max_length=4096)]], Field(min_length=1, max_length=256)] = Field(
        title="Command", description='The words of the command, for example ["python", "train.py"].'
    )
    code: Annotated[StrictStr, Field(max_length=128)] | None = Field(
        None,
        title="Code",
        description="The folder that the command is run in: '<id>/<id>.tar' as `tarmac data push --code` prints it; "
        "null: an empty one.",
    )
    image: Annotated[StrictStr, Field(max_length=255)] | None = Field(
        None, title="Image", description="An image that TARMAC_RUN_IMAGES allows; null: Tarmac's own trainer."
    )
    git: Annotated[StrictStr, Field(max_length=1024)] | None = Field(
        None,
        title="Git",
        description="Where the client packed the code from, a repository, @ and a commit; for the record alone.",
    )
    requirements: Annotated[StrictStr, Field(max_length=255)] | None = Field(
        None,
        title="Requirements",
        description="The path in the code of a file that names libraries; the task retrieve_resources installs them.",
    )
    python: StrictStr | None = Field(
        None, title="Python", description="For which Python, such as 3.11; null: that of Tarmac's own trainer."
    )

    @field_validator("code")
    @classmethod
    def _stored(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(CODE_PATTERN, value):
            raise PydanticCustomError(
                "code_reference", "must be '<id>/<id>.tar' as `tarmac data push --code FOLDER` prints it"
            )
        return value

    @field_validator("git", "requirements")
    @classmethod
    def _of_code(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("code", "") is None:
            said = f"{info.field_name} is of run.code, which is missing: `tarmac run` packs and stores it"
            raise PydanticCustomError("of_code", "{said}", {"said": said})
        if value is not None and info.field_name == "requirements" and not is_path_inside(value):
            raise PydanticCustomError("path_inside", "must be the path of a file in the code, such as requirements.txt")
        return value

    @field_validator("python")
    @classmethod
    def _version(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and not re.fullmatch(r"3\.[0-9]{1,2}", value):
            raise PydanticCustomError("python", "must be the version of a Python, such as 3.11")
        if value is not None and info.data.get("requirements", "") is None:
            raise PydanticCustomError("of_requirements", "says for which Python run.requirements are; name these too")
        return value

    @field_validator("image")
    @classmethod
    def _allowed(cls, value: str | None) -> str | None:
        allowed = settings().run_images
        if value is None or value == settings().trainer_image or any(matches(value, one) for one in allowed):
            return value
        named = f"allows {', '.join(allowed)}" if allowed else "allows no other image than Tarmac's own trainer"
        said = f"is not allowed: TARMAC_RUN_IMAGES {named}; leave image out, or have it allowed in env/stack.env"
        raise PydanticCustomError("image_allowed", "{said}", {"said": said})


def is_path_inside(path: str) -> bool:
    """Tell whether a path leads to something below the folder that it is relative to. Pure."""
    parts = path.split("/")
    return not {"", ".", ".."} & set(parts) and path.isprintable()


def _advice(model: str, known: Catalogue) -> str:
    advice = f"must be one of {', '.join(known.models)}"
    broken = " ".join(known.problems)
    return f"{advice}. The catalogue has a problem: {broken}" if broken else advice


class TrainingRequest(BaseModel):
    """What a user sends to start a training session. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")

    model: StrictStr = Field(
        title="Model",
        description="What kind of model to train.",
        # Suggestions, asked for each time. No enum: whether a model is known is decided by the catalogue as it is when
        # the request comes, never by a copy of it in Airflow's database.
        json_schema_extra=lambda schema: schema.update(examples=list(catalogue().models)),
    )
    datasets: dict[Annotated[StrictStr, AfterValidator(_check_name)], Dataset] = Field(
        title="Data sets",
        description="Named data sets, combined: {name: {train: '<id>/<id>.jsonl' or a URL, eval: the same or null}}. "
        "`make dataset FILE=...` stores a file and prints its id.",
        min_length=1,
        max_length=MOST_DATASETS,
    )
    gpu: StrictBool = Field(False, title="GPU", description="Train on a GPU; waits until the session fits on one.")
    seed: Annotated[StrictInt, Field(ge=0, le=2**32 - 1)] = Field(
        0, title="Seed", description="The same request, data and seed give the same model on a CPU."
    )
    priority: Annotated[StrictInt, Field(ge=-100, le=100)] = Field(
        0, title="Priority", description="Higher goes first among sessions that wait; equals go by arrival."
    )
    resources: Resources = Field(
        default_factory=lambda: Resources.model_validate({}),
        title="Resources",
        description="What a session asks for: cpus, memory ('4GiB'), max_wait_seconds; on a GPU also gpu_memory "
        "('12GiB'), gpus, policy, stall_seconds.",
    )
    script: Annotated[StrictStr, Field(max_length=128)] | None = Field(
        None,
        title="Script",
        description="Your own code to train with, in place of the trainer's: '<id>/<id>.py' as "
        "`make script FILE=...` prints it. It runs inside the trainer's image.",
    )
    run: OwnRun | None = Field(
        None,
        title="Own code",
        description="With the model own_code: {command, code, image}, what trains in place of a trainer. `tarmac run` "
        "writes it.",
    )
    parameters: dict[StrictStr, Any] = Field(
        default_factory=dict,
        title="Parameters",
        description="Hyperparameters of the model; left out ones take the model's defaults.",
        max_length=64,
    )
    name: StrictStr | None = Field(
        None, title="Name", description="The registered model's name; null: that of the kind of model."
    )
    base_model: StrictStr | None = Field(
        None,
        title="Base model",
        description="Train on from a registered model ('name/3', 'name@production'), from what another run saved "
        "('run:<run id>'), or from a transformer's weights ('weights:<id>', as `make weights DIR=...` prints it, or "
        "'hf://org/name@<commit>').",
    )
    no_cache: StrictBool = Field(
        False, title="No cache", description="Train anew although the same training was done before."
    )
    promote: Literal["never", "auto"] = Field(
        "never",
        title="Promote",
        description="auto: the new version goes into production if it is better by the rule of docs/models.md.",
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_left_out(cls, given: Any) -> Any:
        """Take null for an optional key or a parameter as left out: an emptied field of the form sends it."""
        if not isinstance(given, dict):
            return given
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        kept = {key: value for key, value in given.items() if value is not None or key not in optional}
        if isinstance(parameters := kept.get("parameters"), dict):
            kept["parameters"] = {name: value for name, value in parameters.items() if value is not None}
        return kept

    @field_validator("script")
    @classmethod
    def _stored(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(SCRIPT_PATTERN, value):
            raise PydanticCustomError(
                "script_reference",
                "{said}",
                {
                    "said": "must be '<id>/<id>.py' or '<id>/<id>.sh' as `make script FILE=...` prints it"
                    + _fault(value, ".py", ".sh")
                },
            )
        return value

    @field_validator("model")
    @classmethod
    def _known_model(cls, value: str) -> str:
        known = catalogue()
        if value not in known.models:
            raise PydanticCustomError("unknown_model", "{advice}", {"advice": _advice(value, known)})
        return value

    @field_validator("name")
    @classmethod
    def _registered_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(_NAME_PATTERN, value):
            raise PydanticCustomError("registered_name", "may hold " + _NAME_HELP)
        return value

    @field_validator("base_model")
    @classmethod
    def _base_reference(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(BASE_PATTERN, value):
            raise PydanticCustomError(
                "base_reference",
                "must be 'name/3', 'name@production', 'run:<id of an Airflow run>', 'weights:<id>' or "
                "'hf://org/name@<40 hex digits of a commit>'",
            )
        return value

    @property
    def registered_name(self) -> str:
        """The name under which the model is registered."""
        return self.name or self.model

    @property
    def weights(self) -> str | None:
        """The reference in the store of the weights that `base_model` names; None: it names none."""
        return stored_weights(self.base_model)

    @property
    def on_hub(self) -> bool:
        """Whether `base_model` names weights that are fetched from a hub."""
        return self.base_model is not None and self.base_model.startswith(HUB)


_WORDS = {
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entry",
    "too_long": "must have at most {max_length} entries",
}
"""What pydantic finds, in the words of this project."""


def _problems(error: ValidationError) -> list[str]:
    problems = []
    for item in error.errors(include_url=False):
        # "[key]" is pydantic's way to say that the key itself is bad.
        place = item["loc"][:-1] if item["type"] == "dataset_name" else item["loc"]
        path = ".".join(key_text(p) if isinstance(p, str) else str(p) for p in place) or "request"
        if item["type"] in KEY_WORDS:
            problems.append(f"{path}: {KEY_WORDS[item['type']]}.")
        elif item["type"] in ("model_type", "dict_type"):
            problems.append(f"{path}: must be a JSON object (got {short(item['input'])}).")
        else:
            ours = _WORDS.get(item["type"])
            said = ours.format(**item.get("ctx", {})) if ours else item["msg"][0].lower() + item["msg"][1:]
            problems.append(f"{path}: {said} (got {short(item['input'])}).")
    return problems


def _parameter_problems_of_any(parameters: dict[str, Any]) -> list[str]:
    """Say what is wrong with parameters for every model there is: the model itself is not known. Pure."""
    problems = []
    for name, value in parameters.items():
        path = f"parameters.{key_text(name)}"
        entries = [one for model in catalogue().models.values() for one in (model, model.transformer) if one]
        declared = [one.parameters[name] for one in entries if name in one.parameters]
        if not declared:
            problems.append(f"{path}: no model takes it (got {short(value)}).")
        elif value is not None and all(one.problem(value) for one in declared):
            problems.append(f"{path}: {declared[0].problem(value)} (got {short(value)}).")
    return problems


def _parameter_problems(model: str, parameters: dict[str, Any], base_model: str | None) -> list[str]:
    found = entry(model, parameters, base_model)
    assert found is not None  # noqa: S101  the catalogue has the model
    declared = found.parameters
    tuned = found is catalogue().models[model].transformer
    problems = []
    for name, value in parameters.items():
        path = f"parameters.{key_text(name)}"
        if name not in declared:
            known = ", ".join(declared) or "no parameters"
            what = f"a transformer for {model}" if tuned else model
            problems.append(f"{path}: unknown for {what}, which takes {known}.")
        elif value is not None and (problem := declared[name].problem(value)):
            problems.append(f"{path}: {problem} (got {short(value)}).")
    return problems


def _run_problems(model: str, run: object) -> list[str]:
    if model == OWN_CODE:
        return [] if run is not None else ['run: is required with the model own_code: {"command": ["python", ...]}.']
    if run is None:
        return []
    return [f"run: only the model own_code takes it; leave it out (got {short(run)})."]


def _gpus_problems(model: str, resources: object) -> list[str]:
    """Refuse more GPUs than a model's trainer uses: they would be reserved and idle."""
    most, asked = catalogue().models[model].gpus, resources.get("gpus") if isinstance(resources, dict) else None
    if most is None or not isinstance(asked, int) or asked <= most:
        return []
    uses = "one GPU" if most == 1 else f"{most} GPUs at most"
    return [f"resources.gpus: {model} trains on {uses}, and others would be reserved and idle (got {asked})."]


def _script_problems(model: str, script: object, *, tuned: bool) -> list[str]:
    if script is None or (catalogue().models[model].scripts and not tuned):
        return []
    if tuned:
        return [f"script: a script trains no transformer; leave script or base_model out (got {short(script)})."]
    return [f"script: the trainer of {model} runs no scripts of users; leave it out (got {short(script)})."]


def _architecture_problems(model: str, parameters: dict[str, Any], base_model: str | None) -> list[str]:
    """Say why a model cannot be trained from what it is to start from. Pure but for the catalogue."""
    weights = from_weights(base_model)
    if catalogue().models[model].transformer is None:
        return [f"base_model: {model} is not trained from weights (got {short(base_model)})."] if weights else []
    tuned = architecture(model, parameters, base_model) == TRANSFORMER
    if tuned and base_model is None:
        return [
            "parameters.architecture: a transformer starts from weights: set base_model to 'weights:<id>' as "
            "`make weights DIR=...` prints it, or to a registered model that is one (got 'transformer')."
        ]
    if weights and not tuned:
        return [
            "base_model: weights are a transformer's, and parameters.architecture asks for a small model: leave one of "
            f"the two out (got {short(base_model)})."
        ]
    return []


def parse_request(conf: object) -> TrainingRequest:
    """Check a request as far as that needs nothing but the request itself. Pure.

    Args:
        conf: what JSON gave, of any type.

    Raises:
        RequestError: names every bad field with its value and what to do.
    """
    unkept = text_problems(conf)
    judged: list[str] = []
    request = None
    try:
        request = TrainingRequest.model_validate(conf)
    except ValidationError as error:
        judged += _problems(error)
    if isinstance(conf, dict):
        model, parameters = conf.get("model"), conf.get("parameters")
        known = model if isinstance(model, str) and model in catalogue().models else None
        # Parameters are judged even when other fields are wrong, so that one answer names every bad field.
        asked, base = conf.get("base_model"), None
        if isinstance(asked, str) and re.fullmatch(BASE_PATTERN, asked):
            base = asked
        given = {str(key): value for key, value in parameters.items()} if isinstance(parameters, dict) else {}
        if isinstance(parameters, dict):
            judged += _parameter_problems(known, given, base) if known else _parameter_problems_of_any(given)
        if known:
            tuned = entry(known, given, base) is not catalogue().models[known]
            judged += _script_problems(known, conf.get("script"), tuned=tuned)
            if asked is None or base is not None:
                judged += _architecture_problems(known, given, base)
            judged += _run_problems(known, conf.get("run"))
            if conf.get("gpu") is True and conf.get("script") is None:
                judged += _gpus_problems(known, conf.get("resources"))
    # One sentence a field: a text that cannot be kept is of no known form either.
    named = {problem.partition(": ")[0] for problem in unkept}
    problems = unkept + [problem for problem in judged if problem.partition(": ")[0] not in named]
    if len(problems) > _MAX_PROBLEMS:
        problems[_MAX_PROBLEMS:] = [f"request: {len(problems) - _MAX_PROBLEMS} more problems are not listed."]
    if problems or request is None:
        raise RequestError(problems)
    return request


def request_problems(conf: object) -> list[str]:
    """Say what is wrong with a request by itself, a sentence for each bad field. Pure."""
    try:
        parse_request(conf)
    except RequestError as error:
        return error.problems
    return []


def read_request(text: bytes | str) -> tuple[dict[str, Any], TrainingRequest]:
    """Read a request from its text: JSON whose keys are each there once, then as parse_request. Pure.

    Returns:
        The request as it was sent, and checked with its defaults.

    Raises:
        RequestError: names every bad field with its value and what to do.
    """
    conf, problems = read_json(text, what="request")
    try:
        request = parse_request(conf)
    except RequestError as error:
        problems += error.problems
    if problems:
        raise RequestError(problems)
    return conf, request
