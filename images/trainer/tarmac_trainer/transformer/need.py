"""How much memory fine-tuning a transformer takes on a GPU, computed before it ever ran on one. Pure but for reading.

What one line and token keeps in a layer until the gradients are there was measured on a CPU, as the bytes of all
tensors that PyTorch saved for them (float32, networks of random numbers). On a GPU it may be less: computing in
bfloat16 keeps smaller tensors, and some of its kernels keep nothing that grows with the square of the tokens.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tarmac_trainer.model import GpuNeed
from tarmac_trainer.runtime.device import CUDA_CONTEXT_BYTES
from tarmac_trainer.runtime.memory import in_words

BYTES_OF_A_NUMBER = 16
"""Of each number of the weights: itself, its gradient, and the two that AdamW keeps of it, in float32."""

UPDATE_BYTES_OF_A_NUMBER = 20
"""The same while AdamW computes an update; nothing else is kept then."""

_KEPT: dict[str, tuple[int, int, int]] = {
    "albert": (44, 19, 12),
    "modernbert": (77, 8, 1),
    **dict.fromkeys(
        ("bert", "camembert", "deberta-v2", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"),
        (44, 8, 12),
    ),
}
"""Bytes that a layer keeps of a token, by the kind of network: times the width, times the width between the two halves
of a layer, times the heads and the tokens at once."""

_OF_A_DISTANCE = (9, 8)
"""Besides, for each distance that attention tells apart, in both directions: times the heads, and of each line times
the width."""

_MOST_KEPT = (77, 19, 12)
"""Of a kind that was not measured."""

_BYTES_OF_A_LABEL = 12
"""Of each label and token: what the network tells, the loss and the gradient."""

_NAMES = {
    "width": ("hidden_size", "dim", "d_model"),
    "layers": ("num_hidden_layers", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_heads", "num_heads"),
    "between": ("intermediate_size", "hidden_dim", "d_ff"),
}
"""How configurations call what matters here."""


def numbers_of(folder: Path) -> int:
    """How many numbers the weights in a folder have, by the descriptions in their files.

    Raises:
        OSError, ValueError, KeyError, TypeError: one is broken.
    """
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            described = json.loads(opened.read(length))
        for name, table in described.items():
            if name != "__metadata__" and table["dtype"].startswith(("F", "BF")):
                total += math.prod(table["shape"])
    return total


def need(config: Mapping[str, Any], numbers: int, *, lines: int, tokens: int, labels: int) -> GpuNeed | None:
    """Compute what fine-tuning holds on a GPU at most, CUDA's own included. Pure.

    Args:
        config: of the network, as config.json has it.
        numbers: of the weights.
        lines: that are computed at once.
        tokens: of the longest of them, at most.
        labels: that are told.

    Returns:
        None: the configuration does not say how the network is built.
    """
    found = {}
    for what, names in _NAMES.items():
        value = next((config[name] for name in names if isinstance(config.get(name), int)), None)
        if value is None or value < 1:
            return None
        found[what] = value
    of_width, of_between, of_heads = _KEPT.get(str(config.get("model_type")), _MOST_KEPT)
    of_token = of_width * found["width"] + of_between * found["between"] + of_heads * found["heads"] * tokens
    of_heads, of_width = _OF_A_DISTANCE
    of_token += 2 * _distances(config) * (of_heads * found["heads"] + of_width * found["width"] // tokens)
    kept = lines * tokens * (found["layers"] * of_token + _BYTES_OF_A_LABEL * labels)
    weights = numbers * BYTES_OF_A_NUMBER
    total = CUDA_CONTEXT_BYTES + max(weights + kept, numbers * UPDATE_BYTES_OF_A_NUMBER)
    return GpuNeed(
        total,
        f"computed from {numbers:,} numbers with what an update needs of each ({in_words(weights)}), {lines:,} lines "
        f"of {tokens:,} tokens in {found['layers']:,} layers ({in_words(kept)}) and CUDA's own "
        f"({in_words(CUDA_CONTEXT_BYTES)})",
    )


def _distances(config: Mapping[str, Any]) -> int:
    """How many distances DeBERTa's attention tells apart in one direction; 0: of another kind. Pure."""
    if config.get("relative_attention") is not True:
        return 0
    told = [config.get(name) for name in ("position_buckets", "max_relative_positions", "max_position_embeddings")]
    return next((one for one in told if isinstance(one, int) and one > 0), 0)
