"""The models this trainer knows, by the names that a request calls them by."""

import importlib
import os
from types import ModuleType
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
    "text_classification": "text_classification",
    "translation": "translation",
    "own_code": "own_code",
    "test_model": "test_model",
}


KINDS_VARIABLE = "TARMAC_KINDS"
"""Names modules with more kinds, with commas between: those of an image that is made from this one (own_kind.py)."""


def names() -> list[str]:
    """The models that a request may name."""
    return sorted({*_MODULES, *(name for module in _own_modules() for name in module.MODELS)})


_FINE_TUNED = "fine_tuned"
"""The module of those that are transformers."""


def get(name: str, architecture: str = SMALL, module: str | None = None) -> Model[Any]:
    """Load a model by its name.

    Args:
        name: as a request calls it.
        architecture: small, or transformer.
        module: which has it, where that is known; None: one of this trainer's or of `TARMAC_KINDS`.

    Raises:
        RequestError: there is no such model; names those there are.
    """
    if module is not None:
        found = importlib.import_module(module)
    elif name in _MODULES:
        found = importlib.import_module(
            f"tarmac_trainer.models.{_MODULES[name] if architecture == SMALL else _FINE_TUNED}"
        )
        if name not in found.MODELS:
            raise RequestError(f"parameters.architecture: {name} is not trained by fine-tuning a transformer")
    else:
        having = [one for one in _own_modules() if name in one.MODELS]
        if not having:
            raise RequestError(f'unknown model "{name}"; this trainer knows {", ".join(names())}')
        found = having[0]
    model: Model[Any] = found.MODELS[name]
    return model


def own_module(model: Model[Any]) -> ModuleType | None:
    """The module of `TARMAC_KINDS` that a model is of; None: it is this trainer's own."""
    return next((one for one in _own_modules() if one.MODELS.get(model.name) is model), None)


def _own_modules() -> list[ModuleType]:
    wanted = os.environ.get(KINDS_VARIABLE, "").split(",")
    return [importlib.import_module(name.strip()) for name in wanted if name.strip()]
