"""What the fine-tuning of a transformer needs to go on as if it had not been interrupted: the weights, what the
optimizer remembers of each, the learn rate's place, the random generators. On a CPU the same numbers come of it, bit by
bit."""

from collections.abc import Mapping
from typing import Any

import numpy as np

_WEIGHTS, _OPTIMIZER, _RANDOM = "weights", "optimizer", "random"


def of(torch: Any, network: Any, optimizer: Any, schedule: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The state, as `Training.offer` takes it. The arrays are views of what the next update changes."""
    arrays = {f"{_WEIGHTS}/{name}": _array(table) for name, table in network.state_dict().items()}
    for place, kept in optimizer.state_dict()["state"].items():
        for name, table in kept.items():
            arrays[f"{_OPTIMIZER}/{place}/{name}"] = _array(table)
    arrays[f"{_RANDOM}/cpu"] = _array(torch.get_rng_state())
    if network.device.type == "cuda":
        arrays[f"{_RANDOM}/cuda"] = _array(torch.cuda.get_rng_state())
    # The functions of the schedule come from the request.
    return {"schedule": {key: one for key, one in schedule.state_dict().items() if key != "lr_lambdas"}}, arrays


def put(
    torch: Any,
    network: Any,
    optimizer: Any,
    schedule: Any,
    values: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Put a network that was just made, its optimizer, its schedule and the generators into a state that `of` told.

    Raises:
        ValueError, KeyError: the state is not one of a network that is built like this one.
    """
    parts: dict[str, dict[str, Any]] = {_WEIGHTS: {}, _OPTIMIZER: {}, _RANDOM: {}}
    for name, array in arrays.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = torch.from_numpy(array)
    memory: dict[int, dict[str, Any]] = {}
    for name, table in parts[_OPTIMIZER].items():
        place, _, what = name.partition("/")
        memory.setdefault(int(place), {})[what] = table
    try:
        network.load_state_dict(parts[_WEIGHTS])
        optimizer.load_state_dict({"state": memory, "param_groups": optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(parts[_RANDOM]["cpu"])
        if network.device.type == "cuda":
            torch.cuda.set_rng_state(parts[_RANDOM]["cuda"])
    except (RuntimeError, TypeError) as error:
        raise ValueError(str(error)) from error
    schedule.load_state_dict({**values["schedule"], "lr_lambdas": [None] * len(optimizer.param_groups)})
    for group, rate in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):
        group["lr"] = rate


def _array(table: Any) -> np.ndarray:
    found: np.ndarray = table.detach().cpu().numpy()
    return found
