"""What a training of a spaCy pipeline needs to go on as if it had not been interrupted: the weights, what the optimizer
remembers of each, the random generators. On a CPU the same numbers come of it, bit by bit."""

import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from spacy.language import Language
    from thinc.api import Model as Network
    from thinc.api import Optimizer

_MEMORIES = ("mom1", "mom2", "averages")
"""What the optimizer keeps for each table of weights."""


def of(nlp: "Language", optimizer: "Optimizer") -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The state, as `Training.offer` takes it.

    The optimizer's own keys hold ids that another process gives to other layers; here a table is known by its place.
    """
    arrays, updates, unseen = {}, {}, {}
    for place, layer in _placed(nlp):
        if "unseen_classes" in layer.attrs:
            unseen[place] = sorted(layer.attrs["unseen_classes"])
        for name in layer.param_names:
            if not layer.has_param(name):
                continue
            table, key = f"{place}/{name}", (layer.id, name)
            arrays[f"weights/{table}"] = layer.ops.to_numpy(layer.get_param(name))
            updates[table] = optimizer.nr_update[key]
            for memory in _MEMORIES:
                kept = getattr(optimizer, memory)
                if kept and key in kept:
                    arrays[f"{memory}/{table}"] = layer.ops.to_numpy(kept[key])
    version, python, gauss = random.getstate()
    kind, numpy, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  the generator that thinc uses
    arrays["random/python"], arrays["random/numpy"] = np.array(python, dtype=np.uint64), np.array(numpy)
    chance = {"python": [version, gauss], "numpy": [kind, int(position), int(has_gauss), float(cached)]}
    return {"updates": updates, "unseen": unseen, "random": chance}, arrays


def put(nlp: "Language", optimizer: "Optimizer", values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Put a pipeline that was just initialised, its optimizer and the random generators into a state that `of` told.

    Raises:
        ValueError: the state is not one of a pipeline that is built like this one.
    """
    tables = {name.partition("/")[2] for name in arrays if name.startswith("weights/")}
    for place, layer in _placed(nlp):
        if place in values["unseen"]:
            layer.attrs["unseen_classes"].clear()
            layer.attrs["unseen_classes"].update(values["unseen"][place])
        for name in layer.param_names:
            if not layer.has_param(name):
                continue
            table, key = f"{place}/{name}", (layer.id, name)
            weights = arrays.get(f"weights/{table}")
            if weights is None or weights.shape != layer.get_param(name).shape:
                raise ValueError(f"it has no weights for the table {table}, or weights of another shape")
            tables.discard(table)
            layer.set_param(name, layer.ops.asarray(weights))
            if values["updates"][table]:
                optimizer.nr_update[key] = values["updates"][table]
            for memory in _MEMORIES:
                if (kept := arrays.get(f"{memory}/{table}")) is not None:
                    getattr(optimizer, memory)[key] = layer.ops.asarray(kept)
    if tables:
        raise ValueError(f"it has weights for the table {min(tables)}, which there is not")
    (version, gauss), numpy = values["random"]["python"], values["random"]["numpy"]
    random.setstate((version, tuple(map(int, arrays["random/python"])), gauss))
    np.random.set_state((numpy[0], arrays["random/numpy"], *numpy[1:]))  # noqa: NPY002


def _placed(nlp: "Language") -> "Iterator[tuple[str, Network[Any, Any]]]":
    """The layers of all networks of a pipeline, each with its place: the same in every process."""
    for name, pipe in nlp.pipeline:
        if hasattr(pipe, "model"):
            for number, layer in enumerate(layers(pipe.model)):
                yield f"{name}/{number}", layer


def layers(network: "Network[Any, Any]") -> "list[Network[Any, Any]]":
    """All layers in a fixed order, those included that a layer only refers to, once each."""
    found: dict[int, Network[Any, Any]] = {}
    waiting = [network]
    while waiting:
        layer = waiting.pop(0)
        if layer.id in found:
            continue
        found[layer.id] = layer
        waiting += layer.layers
        waiting += [layer.get_ref(name) for name in layer.ref_names if layer.maybe_get_ref(name) is not None]
    return list(found.values())
