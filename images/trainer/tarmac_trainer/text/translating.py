"""How good translations are, in sacreBLEU's chrF and BLEU, beside what needs no network: the text itself and a table of
words."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tarmac_trainer.model import Counts, Parts, Scores

ROUNDS = 5
"""Rounds of the word table's learning."""

MOST_PAIRS, MOST_WORDS = 5_000, 60
"""So many pairs, and so many words of each of their texts, teach the word table: enough to compare with."""

LEAST_CHANCE = 0.01
"""Of a translation of a word that the learning goes on with."""

_WORD = re.compile(r"\w+|[^\w\s]")
_BY_CHARACTER = ("ja", "km", "lo", "my", "th")
"""Languages without blanks between words, for which BLEU counts characters; of Chinese it has a rule of its own."""


def words_of_text(text: str) -> list[str]:
    """The words and the punctuation marks of a text. Pure."""
    return _WORD.findall(text)


def word_table(pairs: Sequence[tuple[str, str]], tick: Callable[[], Any] = lambda: None) -> dict[str, str]:
    """Learn from pairs of texts which word each word mostly becomes (IBM's model 1). Pure.

    Args:
        pairs: texts and their translations; the first `MOST_PAIRS` are learned from.
        tick: is called in each round, for signs of life.
    """
    cut = [(words_of_text(one)[:MOST_WORDS], words_of_text(other)[:MOST_WORDS]) for one, other in pairs[:MOST_PAIRS]]
    chance: dict[str, dict[str, float]] = {}
    for _ in range(ROUNDS):
        counts: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        for source, target in cut:
            for word in target:
                # At first any word may become any other; a name, a number or a full stop is likelier to stay.
                weights = [chance[one].get(word, 0.0) if chance else 1.0 + (one == word) for one in source]
                total = sum(weights)
                for one, weight in zip(source, weights, strict=True):
                    if weight:
                        counts[one][word] += weight / total
        chance = {one: _shares(found) for one, found in counts.items()}
        tick()
    return {one: max(sorted(found), key=found.__getitem__) for one, found in sorted(chance.items())}


def _shares(counts: Mapping[str, float]) -> dict[str, float]:
    total = sum(counts.values())
    shares = {word: count / total for word, count in counts.items()}
    return {word: share for word, share in shares.items() if share >= LEAST_CHANCE} or shares


def by_words(table: Mapping[str, str], text: str) -> str:
    """Translate word by word, in the same order; a word that the table does not have stays. Pure."""
    return " ".join(table.get(word, word) for word in words_of_text(text))


def scores(
    sources: Sequence[str],
    told: Sequence[str],
    wanted: Sequence[str],
    by_table: Sequence[str],
    language: str,
    rows: Sequence[int],
    lines: int,
) -> Scores:
    """Compare translations with those wanted; every number is sacreBLEU's, from 0 to 1.

    Args:
        sources, told, wanted, by_table: texts, what the model says, the lines' own, and what the word table says.
        language: of the translations.
        rows: the number of the eval line of each.
        lines: how many eval lines there are.
    """
    from sacrebleu.metrics import BLEU, CHRF

    # Forced: the word table puts a blank before a full stop, which sacreBLEU takes for a mistake and says so.
    chrf, bleu = CHRF(), BLEU(tokenize=_tokenizer(language), force=True)
    overall: dict[str, float] = {}
    for name, texts in (("", told), ("copy_", sources), ("word_table_", by_table)):
        for what, metric in (("chrf", chrf), ("bleu", bleu)):
            overall[f"{name}{what}"] = metric.corpus_score(list(texts), [list(wanted)]).score / 100 if wanted else 0.0
    overall["exact"] = sum(one == other for one, other in zip(told, wanted, strict=True)) / max(len(wanted), 1)
    counted: list[Counts] = [{}] * lines
    # What corpus_score adds up and computes with: there is no public way to it.
    statistics = chrf._extract_corpus_statistics(list(told), [list(wanted)]) if wanted else []
    for row, numbers in zip(rows, statistics, strict=True):
        counted[row] = {place: number for place, number in enumerate(numbers) if number}
    size = len(statistics[0]) if statistics else 0

    def measure(counts: Counts) -> float:
        return float(chrf._compute_score_from_stats([int(counts.get(place, 0)) for place in range(size)]).score) / 100

    reason = None
    if not wanted:
        reason = f"chrf is 0: no eval line has a translation into {language!r}"
    elif not overall["chrf"]:
        reason = "chrf is 0: no translation has anything in common with the one that is wanted"
    details = {"sacrebleu": {"chrf": str(chrf.get_signature()), "bleu": str(bleu.get_signature())}} if wanted else {}
    return Scores(overall, reason=reason, details=details, parts=Parts(counted, measure) if wanted else None)


def _tokenizer(language: str) -> str:
    """How BLEU cuts texts of a language into words. Pure."""
    code = re.split("[-_]", language.lower())[0]
    return "zh" if code == "zh" else "char" if code in _BY_CHARACTER else "13a"
