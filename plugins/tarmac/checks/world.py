"""What the world says of a request: are its data sets, its trainer, its base model and a GPU for it there?

Runs where the Docker socket and the credentials are: in the scheduler's container, for the task check_request_body and
for the checker.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tarmac.admission.machines import fits_size
from tarmac.admission.placement import DeviceLoad, HostNeed, Need, NoFit, need_of_host, place
from tarmac.base.errors import ContainerError, RegistryError, UnknownModelError
from tarmac.base.ids import LOCAL_HOST
from tarmac.base.settings import settings
from tarmac.base.units import (
    LEAST_BYTES,
    LEAST_MILLICPUS,
    format_cores,
    format_size,
    gpu_bytes,
    host_bytes,
    millicpus,
)
from tarmac.containers import engine, passthrough
from tarmac.devices import snapshot as devices
from tarmac.hosts.capacity import measure
from tarmac.hosts.kinds import Size
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.records import HostRow
from tarmac.registry.client import Registry
from tarmac.registry.origins import find_base, registry_problems
from tarmac.request import datasets
from tarmac.request.catalogue import OUR_IMAGE, TRANSFORMER, TRANSFORMERS_IMAGE, Model, catalogue, known_entry
from tarmac.request.schema import TrainingRequest
from tarmac.scheduler.cycle import device_statuses

log = logging.getLogger(__name__)

_NO_DATA = {"none": {"train": "file:///files/none"}}


@dataclass(frozen=True)
class Sound:
    """The fields of a request that are good by themselves.

    Attributes:
        request: with its bad fields left out; a model or data sets that are bad or missing are stand-ins.
        model, datasets: whether those are the request's own.
    """

    request: TrainingRequest
    model: bool
    datasets: bool


def sound_part(conf: Mapping[str, Any]) -> Sound:
    """Leave out of a request what is bad by itself, so that the rest can be checked too. Pure."""
    given = {**conf, "datasets": conf.get("datasets", _NO_DATA), "model": conf.get("model")}
    own = {"model", "datasets"} if "datasets" in conf else {"model"}
    while True:
        try:
            return Sound(TrainingRequest.model_validate(given), "model" in own, "datasets" in own)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                _leave_out(given, item["loc"], own)


def _leave_out(given: dict[str, Any], place: tuple[int | str, ...], own: set[str]) -> None:
    field = str(place[0]) if place else ""
    if field == "datasets" and isinstance(given["datasets"], dict) and len(place) > 1 and place[1] in given["datasets"]:
        given["datasets"] = {key: value for key, value in given["datasets"].items() if key != place[1]}
        if given["datasets"]:
            return
    own.discard(field)
    if field == "datasets":
        given["datasets"] = _NO_DATA
    elif field == "model":
        given["model"] = next(iter(catalogue().models))
    else:
        given.pop(field, None)


def world_problems(conf: Mapping[str, Any], *, contents: bool) -> tuple[list[str], str | None]:
    """Say what the world contradicts of a request.

    Starts nothing but, for a GPU session, one no-op container that proves the passthrough.

    Args:
        conf: the request; fields that are bad by themselves are ignored.
        contents: read each stored file and compare its content with its id; False: only whether it is there.

    Returns:
        A sentence for each bad field, and `base_model` as a version that will not move.

    Raises:
        RegistryError: the registry does not answer, and nothing else is wrong.
    """
    part = sound_part(conf)
    request, stack = part.request, settings()
    problems = []
    if part.datasets:
        key = catalogue().models[request.model].reads if part.model else ""
        problems += datasets.check(request, stack.store_url, stack.url_schemes, contents=contents, key=key)
    image = trainer_image(request) if part.model else stack.trainer_image
    missing = _trainer_problems(request.model, image)
    if part.model:
        problems += missing
    if request.run is not None and request.run.image is not None:
        problems += _image_problems(request.run.image)
    of_host = host_problems(request)
    if request.gpu and not any(one.startswith("resources.host:") for one in of_host):
        problems += gpu_problems(request, None if missing else image)
    problems += of_host
    problems += hub_problems(request, stack.hub_url)
    try:
        wrong, base = _registry_problems(request, kind_known=part.model)
    except RegistryError as error:
        if not problems:
            raise
        log.warning("The base model cannot be looked up: %s", error)
        return problems, None
    return problems + wrong, base


def hub_problems(request: TrainingRequest, hub_url: str) -> list[str]:
    """Say that weights of a hub are named, and that this stack fetches from none. Pure."""
    if not request.on_hub or hub_url:
        return []
    return [
        "base_model: this stack fetches from no hub: set TARMAC_HUB_URL in env/stack.env to the hub's address and run "
        "`make up`, or download the model where you can and store it with `make weights DIR=...` (got "
        f"{request.base_model!r})."
    ]


def trainer_image(request: TrainingRequest) -> str:
    """Return the image of the trainer that trains what a request asks for.

    Raises:
        RequestError: the catalogue has no such model any more.
    """
    return image_of(known_entry(request.model, request.parameters, request.base_model))


def image_of(model: Model) -> str:
    """Return the image of a trainer that the catalogue lists, by its name on this machine."""
    stack = settings()
    ours = {OUR_IMAGE: stack.trainer_image, TRANSFORMERS_IMAGE: stack.transformers_image}
    return ours.get(model.image, model.image)


def _trainer_problems(model: str, image: str) -> list[str]:
    try:
        engine.image_id(engine.client(), image)
    except ContainerError:
        if image == settings().transformers_image:
            known = catalogue().models.get(model)
            always = known is not None and known.image == TRANSFORMERS_IMAGE
            field, got = ("model", model) if always else ("parameters.architecture", TRANSFORMER)
            return [
                f"{field}: the trainer of transformers, {image}, is not on this machine: run "
                f"`TARMAC_TRANSFORMERS=yes make up`, which builds it (got {got!r})."
            ]
        return [f"model: the image of its trainer, {image}, is not on this machine: build or load it (got {model!r})."]
    return []


def _image_problems(image: str) -> list[str]:
    try:
        engine.image_id(engine.client(), image)
    except ContainerError:
        return [f"run.image: it is not on this machine: build, pull or load it there (got {image!r})."]
    return []


def _registry_problems(request: TrainingRequest, *, kind_known: bool) -> tuple[list[str], str | None]:
    if not request.name and not request.base_model:
        return [], None
    if kind_known:
        return registry_problems(Registry(), request.model_dump())
    if request.base_model:
        try:
            find_base(Registry(), request.base_model)
        except UnknownModelError as error:
            return [f"base_model: {str(error).rstrip('.')} (got {request.base_model!r})."], None
    return [], None


def other_hosts() -> list[HostRow]:
    """Return the other machines that train."""
    with Ledger(settings().database_url) as ledger:
        return [host for host in ledger.hosts() if host.url]


def _largest_host(memory_bytes: int, cores: int, *, alone: bool) -> tuple[int, int]:
    """Return the most bytes and thousandths of a core that a host offers; others are asked for if this one has less.

    Args:
        alone: this machine is meant, and no other one.
    """
    here = measure(engine.client(), settings())
    offers = [(here.capacity_bytes, here.capacity_millicpus)]
    if not alone and (memory_bytes > here.capacity_bytes or cores > here.capacity_millicpus):
        offers += [(host.capacity_bytes, host.capacity_millicpus) for host in other_hosts()]
    return max(memory for memory, _ in offers), max(cores for _, cores in offers)


def host_problems(request: TrainingRequest) -> list[str]:
    """Say why a session can never get the cores and memory of a host that it asks for; a busy host is no reason."""
    asked = request.resources
    meant: HostRow | None = None
    if asked.host not in (None, LOCAL_HOST):
        known = other_hosts()
        meant = next((host for host in known if host.name == asked.host), None)
        if meant is None:
            names = ", ".join([LOCAL_HOST, *(host.name for host in known)])
            return [f"resources.host: there is no such host; there are: {names} (got {asked.host!r})."]
    if meant is not None:
        most_bytes, most_millicpus = meant.capacity_bytes, meant.capacity_millicpus
    else:
        most_bytes, most_millicpus = _largest_host(
            LEAST_BYTES if asked.memory is None else host_bytes(asked.memory),
            LEAST_MILLICPUS if asked.cpus is None else millicpus(asked.cpus),
            alone=asked.host == LOCAL_HOST,
        )
    machine = "this machine" if meant is None else f"host {meant.name}"
    memory, cores = format_size(most_bytes), format_cores(most_millicpus)
    if not request.gpu and (most_bytes < LEAST_BYTES or most_millicpus < LEAST_MILLICPUS):
        return [
            f"resources: {machine} offers {cores} and {memory} of memory to sessions, too little for any training: "
            "lower TARMAC_HOST_CPU_HEADROOM or TARMAC_HOST_MEMORY_HEADROOM in env/stack.env and run `make up`."
        ]
    if meant is None and asked.host is None:
        need = need_of_host(
            LEAST_BYTES if asked.memory is None else host_bytes(asked.memory),
            LEAST_MILLICPUS if asked.cpus is None else millicpus(asked.cpus),
        )
        too_small = need.host.memory_bytes > most_bytes or need.host.millicpus > most_millicpus
        if too_small and fits_a_kind(need):
            return []
    problems = []
    if asked.memory is not None and host_bytes(asked.memory) > most_bytes:
        problems.append(
            f"resources.memory: {machine} offers {memory} to sessions: ask for less, or train on a larger machine "
            f"(got {asked.memory!r})."
        )
    if asked.cpus is not None and millicpus(asked.cpus) > most_millicpus:
        problems.append(
            f"resources.cpus: {machine} offers {cores} to sessions: ask for fewer, or train on a larger machine "
            f"(got {asked.cpus!r})."
        )
    return problems


def fits_a_kind(need: Need) -> bool:
    """Tell whether a machine that would be started for a session has what it needs."""
    return any(fits_size(need, size) for size in kind_sizes())


def kind_sizes() -> list[Size]:
    """Return what a machine of each declared kind offers to sessions."""
    with Ledger(settings().database_url) as ledger:
        return [size for size, _ in ledger.kind_sizes().values()]


def gpu_problems(request: TrainingRequest, image: str | None) -> list[str]:
    """Say why no host can ever train a GPU session; a device that is only busy, silent or unhealthy is no reason.

    Other machines are looked at where this one alone does not do, by what the ledger knows of them.

    Args:
        image: to prove the passthrough with; None: there is none.
    """
    asked, on = request.resources, request.resources.host
    need = Need(
        None if asked.gpu_memory is None else gpu_bytes(asked.gpu_memory), asked.gpus, host=HostNeed(on=on or "")
    )
    problem, here = _devices_here(image) if on in (None, LOCAL_HOST) else ("", [])
    if here is None or (here and not _never(need, here)):
        return []
    if not on and fits_a_kind(need):
        return []
    elsewhere = [] if on == LOCAL_HOST else [device for device in devices_elsewhere() if on in (None, device.host)]
    if not elsewhere and problem:
        return [problem]
    if not elsewhere and not here:
        return [
            f"resources.host: host {on} has no GPU that is known, see make hosts (got {on!r}). Send gpu: false to "
            "train on its CPU."
        ]
    if why := _never(need, [*here, *elsewhere]):
        return [
            f"resources: this session never fits here: it {why} (got gpu_memory {asked.gpu_memory!r}, "
            f"gpus {asked.gpus}). Ask for less, or train on a larger machine."
        ]
    return []


def _never(need: Need, there: Iterable[DeviceLoad]) -> str:
    """Say why a need never fits on devices; "": it may. Pure."""
    answer = place(need, there)
    return answer.sentence if isinstance(answer, NoFit) and answer.reason.never else ""


def _devices_here(image: str | None) -> tuple[str, list[DeviceLoad] | None]:
    """Look at this machine's devices.

    Returns:
        Why none of them can be used, or ""; and what each offers, None: what the one that cannot be read offers is not
        known.
    """
    instead = "(got true). Send gpu: false to train on the CPU."
    seen = devices.snapshot()
    if seen.state is not devices.State.OK:
        return f"gpu: this machine has no working GPU: {seen.sentence} {instead}", []
    stack = settings()
    labels = passthrough.trial_labels(stack.stack)
    usable = [device.uuid for device in seen.devices if device.usable]
    if usable and image and (problem := passthrough.problem(engine.client(), image, usable[0], labels)):
        return f"gpu: {problem} {instead}", []
    found = device_statuses(seen, [], {}, headroom_bytes=stack.gpu_headroom_bytes)
    if seen.unidentified or any(status.total_bytes <= 0 for status in found):
        return "", None
    return "", [DeviceLoad(status.uuid, status.capacity_bytes, unusable=status.unusable) for status in found]


def devices_elsewhere() -> list[DeviceLoad]:
    """Return what each device of the other machines offers, as the ledger knows it."""
    with Ledger(settings().database_url) as ledger:
        return [
            DeviceLoad(row.uuid, row.capacity_bytes, unusable=row.unusable, host=row.host)
            for row in ledger.devices()
            if row.host != LOCAL_HOST
        ]
