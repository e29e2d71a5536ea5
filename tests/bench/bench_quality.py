"""Quality of the spaCy models on the example data, beside plain spaCy and a baseline: `make bench-quality`.

MODEL=name for one of them, UPDATES=n for other than 600 of them, SEEDS=n for the means of the seeds 0 to n - 1.

All train with the same lines, seeds, number of updates at most and lines (or pairs) in an update, are scored every 100
updates on the dev file by the metric of the table, and keep the best: so their scores are equally optimistic. "plain
spaCy" is spaCy's own training loop with the config that `spacy init config --optimize efficiency` gives for the
component, but for the batches: it would fill them by words, with a third of the data. That config has a bag of words
for texts and pairs, so there is another rival for them: what spaCy makes of a `textcat` by default, which is nearer to
ours.

Relations and coreference have three plain rivals, by what they read: the text alone, which is the same for all pairs of
it; the text with the two mentions marked in it; and the same as Tarmac's model, which adds some words about the pair.
A rival that reads the same differs in how it is built and trained alone.

The baseline is what counting in the train file gives, see `BASELINES`. Words are tokens of what a model reads; their
time is the processor's, from the start of an update to the start of the next where no evaluation is between.

Runs in the trainer's test image.
"""

import contextlib
import hashlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import base58
import spacy
from spacy.cli.init_config import init_config
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training.initialize import init_nlp
from spacy.training.loop import train as spacy_train

from tarmac_trainer import models
from tarmac_trainer.cli import main
from tarmac_trainer.data import splits
from tarmac_trainer.models import part_of_speech_tagging
from tarmac_trainer.text import categories, labels, spans
from tarmac_trainer.text.categories import Labelled
from tarmac_trainer.text.labels import Text
from tarmac_trainer.text.pairs import Pairs
from tarmac_trainer.text.scoring import LabelSetCounts

EXAMPLES = Path(os.environ.get("EXAMPLES", "examples"))
UPDATES = int(os.environ.get("UPDATES") or 600)
SEEDS = range(int(os.environ.get("SEEDS") or 1))
EVERY = 100

SETS = {
    "named_entity_recognition": ("wnut17", "ner"),
    "part_of_speech_tagging": ("austen-pos", "tagger"),
    "sentiment_analysis_binary": ("vader-tweets", "textcat"),
    "sentiment_analysis_categorical": ("vader-tweets", "textcat"),
    "text_classification": ("wordnet-topics", labels.PIPE),
    "relation_extraction": ("wordnet-relations", "textcat"),
    "coreference_resolution": ("austen-coreference", "textcat"),
    "keyphrase_extraction": ("postgresql-terms", "ner"),
}

# What the models of pairs put into a text: marks of mentions, and after the text what is known of the pair.
MARKS = ("[S:", "[/S]", "[O:", "[/O]", "[1]", "[/1]", "[2]", "[/2]")
ADDED = ("S-O:", "O-S:", "kinds:")


type MakeBaseline = Callable[[str, Sequence[Any]], Callable[[Doc], None]]
"""Makes a baseline of a model's name and train lines: it writes into a text what is in it."""


class Pace:
    """Counts the words of the updates of a spaCy pipeline, and their processor time."""

    def __init__(self) -> None:
        self._words, self._seconds = 0, 0.0
        self._last: tuple[float, int] | None = None

    @property
    def words_a_second(self) -> float:
        return self._words / self._seconds

    def update(self, words: int) -> None:
        """An update begins."""
        now = time.process_time()
        if self._last:
            self._seconds += now - self._last[0]
            self._words += self._last[1]
        self._last = (now, words)

    def pause(self) -> None:
        """Something else begins."""
        self._last = None


@contextlib.contextmanager
def paced(model: Any) -> Iterator[Pace]:
    """Take the pace of what is trained meanwhile, and scored by the model."""
    pace, update, score = Pace(), Language.update, model.score

    def updated(nlp: Any, examples: Any, *args: Any, **kwargs: Any) -> Any:
        pace.update(sum(map(len, examples)))
        return update(nlp, examples, *args, **kwargs)

    def scored(*args: Any, **kwargs: Any) -> Any:
        pace.pause()
        return score(*args, **kwargs)

    with patch.object(Language, "update", updated), patch.object(model, "score", scored):
        yield pace


def ours(name: str, session: Path, seed: int) -> tuple[float, float]:
    """Train by the trainer's own commands; returns the score on dev and the words a second."""
    model = models.get(name)
    store = session.parent / "store"
    session.mkdir()
    references = []
    for part in ("train", "dev"):
        content = (EXAMPLES / f"{SETS[name][0]}.{part}.jsonl").read_bytes()
        data_id = base58.b58encode(hashlib.sha256(content).digest()).decode()
        (store / data_id).mkdir(parents=True, exist_ok=True)
        (store / data_id / f"{data_id}.jsonl").write_bytes(content)
        references.append(f"{data_id}/{data_id}.jsonl")
    request = {
        "model": name,
        "seed": seed,
        "datasets": {"d": {"train": references[0], "eval": references[1]}},
        "parameters": {"max_steps": UPDATES, "patience": UPDATES, "eval_frequency": EVERY},
    }
    (session / "request.json").write_text(json.dumps(request))
    os.environ["TARMAC_STORE"] = store.as_uri()
    with contextlib.redirect_stdout(io.StringIO()), paced(model) as pace:
        for step in ("prep", "train", "eval"):
            if main([step, "--session", str(session)]):
                sys.exit(f"{name}: {step} failed")
    metrics = json.loads((session / "metrics.json").read_text())["metrics"]
    return metrics[model.score_name], pace.words_a_second


def plain(
    name: str, train: Sequence[Any], dev: Sequence[Any], seed: int, *, default: bool = False
) -> tuple[float, float]:
    """Train by spaCy's own loop and recommended config, or its default classifier; returns the same two numbers."""
    model, pipe = models.get(name), SETS[name][1]
    blank = spacy.blank("en")
    blank.add_pipe(pipe)
    make = _example_maker(name, train)
    config = init_config(lang="en", pipeline=[pipe], optimize="efficiency", silent=True)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for part, lines in (("train", train), ("dev", dev)):
            path = folder / f"{part}.spacy"
            docs = [make(blank, one).reference for one in _flat(lines)]
            for doc in docs:
                doc.has_unknown_spaces = True  # or its reader takes the text apart anew, marks and all
            DocBin(docs=docs).to_disk(path)
            config["paths"][part] = str(path)
        config["training"].update(max_steps=UPDATES, max_epochs=0, eval_frequency=EVERY, patience=UPDATES, seed=seed)
        if default:
            config["components"] = {pipe: {"factory": pipe}}
        size = model.parameters["batch_size"].default
        config["training"]["batcher"] = {"@batchers": "spacy.batch_by_sequence.v1", "size": size, "get_length": None}
        nlp = init_nlp(config)

        def evaluate(_: Any) -> dict[str, float]:
            score = model.score(nlp, dev).overall[model.score_name]
            # Their weights add up to 1.
            return dict.fromkeys(nlp.config["training"]["score_weights"], score)

        nlp.evaluate = evaluate
        (folder / "plain").mkdir()
        with paced(model) as pace:
            spacy_train(nlp, folder / "plain", stdout=io.StringIO(), stderr=io.StringIO())
        best = spacy.load(folder / "plain" / "model-best")
        return model.score(best, dev).overall[model.score_name], pace.words_a_second


def rivals(train: Sequence[Any], dev: Sequence[Any]) -> dict[str, tuple[Sequence[Any], Sequence[Any]]]:
    """By what plain spaCy reads: the lines of both files."""
    if not isinstance(train[0], Pairs):
        return {"the same": (train, dev)}
    return {
        reads: ([_read_as(change, line) for line in train], [_read_as(change, line) for line in dev])
        for reads, change in {
            "the text alone": lambda text: [token for token in _marked(text) if not token.startswith(MARKS)],
            "the text, mentions marked": _marked,
            "the same": lambda text: text.split(" "),
        }.items()
    }


def _read_as(change: Callable[[str], Sequence[str]], line: Pairs) -> Pairs:
    return Pairs(tuple(Labelled(" ".join(change(pair.text)), pair.label) for pair in line.pairs))


def _marked(text: str) -> list[str]:
    """The tokens of a pair's text before what is known of the pair."""
    tokens = text.split(" ")
    return tokens[: max(place for place, token in enumerate(tokens) if token.startswith(ADDED))]


def _flat(lines: Sequence[Any]) -> list[Any]:
    """What is an example for spaCy: the pairs of lines that have some, else the lines."""
    return [one for line in lines for one in (line.pairs if isinstance(line, Pairs) else [line])]


def _example_maker(name: str, train: Sequence[Any]) -> Callable[[Any, Any], Any]:
    if SETS[name][1] == labels.PIPE:
        return labels.example(train)
    if SETS[name][1] == "tagger":
        return part_of_speech_tagging.example
    if SETS[name][1] == "ner":
        return spans.example
    doc = categories.at_blanks if isinstance(train[0], Pairs) else categories.tokenized
    return categories.example(_flat(train), doc)


def baseline(name: str, train: Sequence[Any], dev: Sequence[Any]) -> tuple[float, str]:
    """The score of the baseline on dev, and what it is."""
    model = models.get(name)
    if SETS[name][1] == labels.PIPE:
        return _one_label(train, dev), "always the label that is best on train"
    what, make = BASELINES[name] if name in BASELINES else BASELINES[SETS[name][1]]
    return model.score(_pipeline(make(name, train)), dev).overall[model.score_name], what


def _one_label(train: Sequence[Text], dev: Sequence[Text]) -> float:
    def score(label: str, lines: Sequence[Text]) -> float:
        counts = LabelSetCounts()
        for line in lines:
            counts.add([label], line.labels)
        return counts.numbers()["f1"]

    return score(max(labels.names_of(train), key=lambda label: score(label, train)), dev)


def _pipeline(write: Callable[[Doc], None]) -> Language:
    """A pipeline that does to a text what `write` does."""

    def pipe(docs: Iterable[Doc]) -> Iterator[Doc]:
        for doc in docs:
            write(doc)
            yield doc

    nlp = spacy.blank("en")
    nlp.pipe = pipe
    return nlp


def _known_spans(_: str, train: Sequence[Any]) -> Callable[[Doc], None]:
    kinds: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for line in train:
        for start, end, kind in line.spans:
            kinds[line.words[start:end]][kind] += 1
    longest = max(map(len, kinds))
    seen: Counter[tuple[str, ...]] = Counter()
    for line in train:
        for start in range(len(line.words)):
            seen.update(line.words[start:end] for end in range(start + 1, min(start + longest, len(line.words)) + 1))
    usual = {words: found.most_common(1)[0][0] for words, found in kinds.items() if found.total() * 2 > seen[words]}

    def write(doc: Doc) -> None:
        words, found, start = tuple(token.text for token in doc), [], 0
        while start < len(words):
            ends = (end for end in range(start + longest, start, -1) if words[start:end] in usual)
            end = min(next(ends, start + 1), len(words))
            if words[start:end] in usual:
                found.append(Span(doc, start, end, usual[words[start:end]]))
            start = end
        doc.ents = found

    return write


def _usual_tags(_: str, train: Sequence[Any]) -> Callable[[Doc], None]:
    tags: dict[str, Counter[str]] = defaultdict(Counter)
    for line in train:
        for word, tag in zip(line.words, line.tags, strict=True):
            tags[word][tag] += 1
    rare = Counter(tag for found in tags.values() if found.total() == 1 for tag in found).most_common(1)[0][0]
    usual = {word: found.most_common(1)[0][0] for word, found in tags.items()}

    def write(doc: Doc) -> None:
        for token in doc:
            token.tag_ = usual.get(token.text, rare)

    return write


def _one_class(name: str, train: Sequence[Any]) -> Callable[[Doc], None]:
    model = models.get(name)

    def always(label: str) -> Callable[[Doc], None]:
        return lambda doc: doc.cats.update({label: 1.0})

    def on_train(label: str) -> float:
        score: float = model.score(_pipeline(always(label)), train).overall[model.score_name]
        return score

    return always(max(sorted({one.label for one in _flat(train)}), key=on_train))


def _mentions(text: str) -> Hashable:
    """What the two mentions of a pair are called."""
    tokens = text.lower().split(" ")
    return tuple(tuple(tokens[tokens.index(f"[{n}]") : tokens.index(f"[/{n}]")]) for n in "12")


def _types(text: str) -> Hashable:
    """The types of the entities of a pair, in their order, and how far apart they are."""
    tokens = text.split(" ")
    start = len(_marked(text))
    return tuple(tokens[start : start + 2])


def _looked_up(key: Callable[[str], Hashable]) -> MakeBaseline:
    def make(name: str, train: Sequence[Any]) -> Callable[[Doc], None]:
        labels: dict[Hashable, Counter[str]] = defaultdict(Counter)
        for pair in _flat(train):
            labels[key(pair.text)][pair.label] += 1
        otherwise = _one_class(name, train)

        def write(doc: Doc) -> None:
            known = labels.get(key(" ".join(token.text for token in doc)))
            if known:
                doc.cats[known.most_common(1)[0][0]] = 1.0
            else:
                otherwise(doc)

        return write

    return make


BASELINES: dict[str, tuple[str, MakeBaseline]] = {
    "ner": ("what train marks more often than not", _known_spans),
    "tagger": ("each word's most frequent tag", _usual_tags),
    "textcat": ("always the class that is best on train", _one_class),
    "relation_extraction": ("what train says most of such types so far apart", _looked_up(_types)),
    "coreference_resolution": ("what train says most of the two mentions", _looked_up(_mentions)),
}
"""By model, else by component: what the baseline is, and what makes it of the train lines."""


def mean(trained: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """The mean score and the mean of the words a second."""
    scores, paces = zip(*trained, strict=True)
    return statistics.fmean(scores), statistics.fmean(paces)


def rows(name: str) -> Iterator[str]:
    """The rows of the table for a model."""
    model = models.get(name)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        score, pace = mean(ours(name, folder / f"session-{seed}", seed) for seed in SEEDS)
        train, dev = ([*splits.read_prepared(folder / "session-0", part, model)] for part in ("train", "eval"))
        least, how = baseline(name, train, dev)
        found = [(*rival, False) for rival in rivals(train, dev).items()]
        if SETS[name][1] == "textcat":
            found.append(("the same, default classifier", (train, dev), True))
        for reads, lines, default in found:
            their_score, their_pace = mean(plain(name, *lines, seed, default=default) for seed in SEEDS)
            yield (
                f"| `{name}` | {SETS[name][0]} | {model.score_name} | {least:.3f} ({how}) | {score:.3f} "
                f"| {their_score:.3f} | {reads} | {pace / their_pace:.2f} |"
            )


if __name__ == "__main__":
    wanted = os.environ.get("MODEL")
    if wanted and wanted not in SETS:
        sys.exit(f"MODEL: there is no {wanted!r}, only {', '.join(SETS)}.")
    print(f"At most {UPDATES} updates, means of {len(SEEDS)} seed(s), on the dev files of examples/.\n")
    print("| model | data | metric | baseline | Tarmac | plain spaCy | which reads | words a second, Tarmac to plain |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in [wanted] if wanted else SETS:
        for row in rows(name):
            print(row, flush=True)
