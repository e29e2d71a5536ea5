"""The models this trainer knows, by the names that a request calls them by."""

import importlib
from typing import Any

from tarmac_trainer.model import SMALL, Model
from tarmac_trainer.runtime.errors import RequestError

# A module for each, so that a step loads what its own model needs and nothing more.
_MODULES = {
    "collaborative_filtering": "collaborative_filtering",
    "named_entity_recognition": "named_entity_recognition",
    "part_of_speech_tagging": "part_of_speech_tagging",
    "relation_extraction": "relation_extraction",
    "coreference_resolution": "coreference_resolution",
    "keyphrase_extraction": "keyphrase_extraction",
    "sentiment_analysis_binary": "sentiment_analysis",
    "sentiment_analysis_categorical": "sentiment_analysis",
    "test_model": "test_model",
}


def names() -> list[str]:
    """The models that a request may name. Pure."""
    return sorted(_MODULES)


_FINE_TUNED = "fine_tuned"
"""The module of those that are transformers."""


def get(name: str, architecture: str = SMALL) -> Model[Any]:
    """Load a model by its name.

    Args:
        name: as a request calls it.
        architecture: small, or transformer.

    Raises:
        RequestError: there is no such model; names those there are.
    """
    if name not in _MODULES:
        raise RequestError(f'unknown model "{name}"; this trainer knows {", ".join(names())}')
    module = importlib.import_module(
        f"tarmac_trainer.models.{_MODULES[name] if architecture == SMALL else _FINE_TUNED}"
    )
    if name not in module.MODELS:
        raise RequestError(f"parameters.architecture: {name} is not trained by fine-tuning a transformer")
    model: Model[Any] = module.MODELS[name]
    return model
