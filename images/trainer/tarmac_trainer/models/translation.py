"""Translations of texts into one language, learned from pairs: a small encoder and decoder, from nothing.

    {"text": "Light rain in the north.", "translations": {"fr": "Pluie faible dans le nord."}}

`"sentence"` may stand in place of `"text"`. Where lines have translations into several languages, a parameter says
which is learned; a line without it is of no use.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from tarmac_trainer.data.readers import BrokenLineError, shown, text_of
from tarmac_trainer.model import COMMON, WORD, Familiar, Model, Number, Scores, Word
from tarmac_trainer.runtime.errors import DataError, RequestError
from tarmac_trainer.runtime.training import Training
from tarmac_trainer.text import translating
from tarmac_trainer.text.offsets import TEXT, given_as_text
from tarmac_trainer.transformer import fitting, translator
from tarmac_trainer.transformer.translator import Translator

KEY = "translations"

LEAST_PAIRS = 200
"""Pairs that a training from nothing needs: a choice, not a measurement."""


@dataclass(frozen=True)
class Pair:
    """A text and its translations, by language."""

    text: str
    translations: dict[str, str]


class Translation(Model[Pair]):
    """See the module."""

    name = "translation"
    title = "translates texts into one language"
    parameters = {
        "language": Word("language to translate into, as the lines call it; default: the only one that they have"),
        **COMMON,
        "dropout": Number(0.1, 0, 0.9, COMMON["dropout"].help),
        "vocabulary": Number(4000, 300, 32_000, "tokens at most: parts of words, learned from the pairs", whole=True),
        "max_tokens": fitting.most_tokens("of longer texts the beginning is read"),
    }
    key = KEY
    score_name = "chrf"
    example = {"text": "Light rain is expected in the north."}
    other_example = {"sentence": "Light rain is expected in the north."}
    limits = "It knows the words of its train lines and no others. Of long texts only the beginning is translated."
    packages = ("torch>=2.6", "transformers", "safetensors", "tokenizers")
    is_spacy = False
    spacy_on_gpu = False
    on_torch = True

    def __init__(self, language: str | None = None, *, from_base: bool = False) -> None:
        """Of a request: the language that it names, or None for the only one; whether it names a base model."""
        self._language, self._from_base = language, from_base
        if language is not None:
            self.key = f"{KEY}.{language}"

    @override
    def for_request(self, parameters: Mapping[str, Any], *, from_base: bool) -> "Translation":
        return Translation(parameters["language"], from_base=from_base)

    @override
    def read(self, value: dict[str, Any]) -> Pair | None:
        if KEY not in value:
            return None
        given = value[KEY]
        if not isinstance(given, dict):
            raise BrokenLineError(
                f'"{KEY}" must be an object of texts by language, such as {{"fr": ...}}, not {shown(given)}'
            )
        for language in given:
            if not WORD.fullmatch(language):
                raise BrokenLineError(
                    f'"{KEY}" has the language {shown(language)}, which is no code such as "fr" or "pt-BR"'
                )
        named = [self._language] if self._language is not None else sorted(given)
        found = {one: text_of({f"{KEY}.{one}": given[one]}, f"{KEY}.{one}") for one in named if one in given}
        return Pair(_text(value), found) if found else None

    @override
    def load_line(self, value: dict[str, Any]) -> Pair:
        return Pair(value["text"], dict(value["translations"]))

    @override
    def check(self, train: Sequence[Pair]) -> None:
        counts = Counter(language for line in train for language in line.translations)
        if len(counts) > 1:
            found = ", ".join(f"{language} ({count:,} lines)" for language, count in sorted(counts.items()))
            raise DataError(
                f"the train lines have translations into {found}: set parameters.language to the one to learn"
            )
        if len(train) < LEAST_PAIRS and not self._from_base:
            raise DataError(
                f"there are {len(train):,} train pairs, and a translator that begins from nothing needs {LEAST_PAIRS}: "
                'add lines, or train on from a registered translator (base_model: "name/version")'
            )

    @override
    def familiar(self, train: Sequence[Pair], lines: Sequence[Pair]) -> Familiar | None:
        known = {word for line in train for word in translating.words_of_text(line.text)}
        there = {word for line in lines for word in translating.words_of_text(line.text)}
        return Familiar("words", len(there & known), len(there)) if there else None

    @override
    def train(self, training: Training[Pair]) -> None:
        language = next(iter(training.train[0].translations))
        pairs = [(line.text, line.translations[language]) for line in training.train]
        parameters = training.parameters

        def start() -> Translator:
            table = translating.word_table(pairs, training.alive)
            if training.base is not None:
                return _trained_on(training.base, language, table, parameters["max_tokens"])
            return translator.new(
                pairs,
                language,
                table,
                vocabulary=parameters["vocabulary"],
                max_tokens=parameters["max_tokens"],
                dropout=parameters["dropout"],
            )

        fitting.fit_to(training, start, pairs)

    @override
    def score(self, predictor: Any, lines: Sequence[Pair], *, tick: Callable[[], Any] = lambda: None) -> Scores:
        language = predictor.language
        rows = [row for row, line in enumerate(lines) if language in line.translations]
        sources = [lines[row].text for row in rows]
        return translating.scores(
            sources,
            predictor.translate_all(sources, tick),
            [lines[row].translations[language] for row in rows],
            [translating.by_words(predictor.table, text) for text in sources],
            language=language,
            rows=rows,
            lines=len(lines),
        )

    @override
    def predict(self, predictor: Any, values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        texts = [_text(dict(value)) for value in values]
        return [{KEY: {predictor.language: told}} for told in predictor.translate_all(texts)]

    @override
    def load(self, folder: Path) -> Translator:
        return translator.load(folder)


def _trained_on(base: Path, language: str, table: dict[str, str], max_tokens: int) -> Translator:
    """Load a translator that is to be trained on.

    Raises:
        RequestError: it cannot be loaded, or translates into another language.
    """
    try:
        found = translator.load(base)
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(f"base_model: it is not a translator that can be trained on ({error})") from error
    if found.language != language:
        raise RequestError(
            f"base_model: it translates into {found.language!r}, and the train lines into {language!r}: name another "
            "model, or leave base_model out"
        )
    found.table, found.max_tokens = table, min(max_tokens, found.max_tokens)
    return found


def _text(value: dict[str, Any]) -> str:
    """The text of a line. Pure.

    Raises:
        BrokenLineError: it has none.
    """
    return text_of(value, TEXT if given_as_text(value) else "sentence")


MODELS = {Translation.name: Translation()}
