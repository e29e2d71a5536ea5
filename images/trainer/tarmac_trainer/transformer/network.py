"""A fine-tuned transformer and its tokenizer: made from weights, kept in a folder, used to predict.

Loading asks no network and runs no code of a model's own. PyTorch and transformers are imported inside functions: only
the image with transformers has them.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from typing_extensions import override

from tarmac_trainer.runtime import files
from tarmac_trainer.text.predictors import Rule, TagsWords, TellsClasses, TellsLabels
from tarmac_trainer.transformer.windows import most_of_a_word, windows

FACTS_FILE = "transformer.json"
"""In a predictor's folder, beside the weights: what it was trained to tell."""

TAGS, CLASSES, LABELS = "tags", "classes", "labels"
"""What a transformer tells: a tag for each word, a class for each text, or any number of labels for each text."""

TOKENS_AT_ONCE = 4096
"""Tokens, padding included, that are computed at once to predict."""

_MOST_SAID = 300
"""Characters of what the libraries say is wrong."""

NO_TARGET = -100
"""Of a token that the loss ignores."""

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""How everything is read: from its folder alone, and without code of its own."""

Made = TypeVar("Made")


@dataclass(frozen=True)
class Encoded:
    """Tokens that are read at once, and the target of each, the one of all, or for each label whether all have it."""

    ids: list[int]
    targets: list[int]


@dataclass
class Cut:
    """What was longer than can be read, over all that was encoded."""

    texts: int = 0
    sentences: int = 0
    words: int = 0


def libraries() -> tuple[Any, Any]:
    """Import PyTorch and transformers, cut off from any hub.

    Raises:
        ImportError: they are not in this image.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return torch, transformers


def at_once(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """The places of rows of tokens that are computed at once, the longest first. Pure."""
    places = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    while places:
        number = max(1, min(len(places), TOKENS_AT_ONCE // len(rows[places[-1]])))
        yield places[-number:]
        del places[-number:]


def filled(targets: Sequence[int], width: int) -> list[int]:
    """Targets of a line, and as many that the loss ignores as it has fewer than others. Pure."""
    return [*targets, *[NO_TARGET] * (width - len(targets))]


def summed_loss(logits: Any, wanted: Any, smoothing: float = 0.0) -> Any:
    """The sum of the losses of all targets, one of the network's labels each."""
    import torch

    return torch.nn.functional.cross_entropy(
        logits.float().view(-1, logits.shape[-1]),
        wanted.view(-1),
        ignore_index=NO_TARGET,
        label_smoothing=smoothing,
        reduction="sum",
    )


@dataclass
class Tuned(ABC):
    """A transformer with labels to tell, and what it reads texts with. A predictor.

    Attributes:
        network: of PyTorch.
        tokenizer: of transformers.
        labels: what it tells, by the number that the network gives.
        max_tokens: that are read at once, those that mark a beginning and an end included.
        precision: `float32` or `bfloat16`.
        cut: what was cut since it was loaded.
    """

    task: ClassVar[str]
    network: Any
    tokenizer: Any
    labels: list[str]
    max_tokens: int
    precision: str = "float32"
    cut: Cut = field(default_factory=Cut)

    def __post_init__(self) -> None:
        """Find the tokens that mark a beginning and an end."""
        plain = self._ids(["a"], add_special_tokens=False)[0]
        full = self._ids(["a"], add_special_tokens=True)[0]
        at = next((at for at in range(len(full)) if full[at : at + len(plain)] == plain), len(full))
        self._before, self._after = full[:at], full[at + len(plain) :]
        if self.room < 1:
            raise ValueError(f"{self.max_tokens} tokens leave no room for a text")

    @property
    def room(self) -> int:
        """Tokens of text that are read at once."""
        return self.max_tokens - len(self._before) - len(self._after)

    def _ids(self, texts: Sequence[str], **how: Any) -> list[list[int]]:
        found: list[list[int]] = self.tokenizer(list(texts), **how)["input_ids"]
        return found

    def marked(self, ids: Sequence[int]) -> list[int]:
        """Put the marks of a beginning and an end around tokens. Pure."""
        return [*self._before, *ids, *self._after]

    @property
    def marks_before(self) -> int:
        """How many tokens stand before those of the text."""
        return len(self._before)

    @abstractmethod
    def encode(self, line: Any, targets: Any) -> list[Encoded]:
        """Make what the network trains with of a line, by `targets`, the names of labels."""

    def to_disk(self, folder: Path) -> None:
        """Write weights, tokenizer and labels, for `load`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        files.write_json(folder / FACTS_FILE, self.facts())

    def facts(self) -> dict[str, Any]:
        """What it was trained to tell. Pure."""
        return {"task": self.task, "labels": self.labels, "max_tokens": self.max_tokens}

    def batch(self, rows: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Make tensors of tokens, filled up to the longest row."""
        import torch

        width = max(map(len, rows))
        fill = self.tokenizer.pad_token_id or 0
        ids = [[*row, *[fill] * (width - len(row))] for row in rows]
        mask = [[*[1] * len(row), *[0] * (width - len(row))] for row in rows]
        device = self.network.device
        return {"input_ids": torch.tensor(ids).to(device), "attention_mask": torch.tensor(mask).to(device)}

    def computing(self) -> AbstractContextManager[Any]:
        """The numbers to compute with."""
        import torch

        if self.precision == "float32":
            return nullcontext()
        lower: AbstractContextManager[Any] = torch.autocast(self.network.device.type, torch.bfloat16)
        return lower

    def told(self, rows: Sequence[Sequence[int]]) -> Iterator[tuple[int, Any]]:
        """Give for each row of tokens its place and what the network tells of it, in an order of its own."""
        import torch

        self.network.eval()
        for taken in at_once(rows):
            with torch.inference_mode(), self.computing():
                logits = self.network(**self.batch([rows[place] for place in taken])).logits
            yield from zip(taken, self.read_off(logits), strict=True)

    def loss(self, batch: Sequence[Encoded]) -> Any:
        """The sum of the losses of all targets of a batch."""
        import torch

        read = self.batch([one.ids for one in batch])
        wanted = torch.tensor(self.filled(batch, read["input_ids"].shape[1])).to(self.network.device)
        with self.computing():
            logits = self.network(**read).logits
        return summed_loss(logits, wanted)

    def filled(self, batch: Sequence[Encoded], width: int) -> list[list[int]]:
        """The targets of a batch, equally many of each line; `width`: the tokens of each. Pure."""
        return [one.targets for one in batch]

    def read_off(self, logits: Any) -> list[Any]:
        """What the network tells of each row: the numbers of the likeliest labels."""
        found: list[Any] = logits.argmax(dim=-1).tolist()
        return found


@dataclass
class TunedTagger(Tuned, TagsWords):
    """Tells the tag of each word, by the first of its tokens."""

    task: ClassVar[str] = TAGS

    @override
    def filled(self, batch: Sequence[Encoded], width: int) -> list[list[int]]:
        return [filled(one.targets, width) for one in batch]

    def _tokens(self, words: Sequence[str]) -> list[list[int]]:
        """The tokens of each word, at least one, cut where there are very many."""
        found: list[list[int]] = [[] for _ in words]
        encoded = self.tokenizer(list(words), is_split_into_words=True, add_special_tokens=False)
        for token, word in zip(encoded["input_ids"], encoded.word_ids(), strict=True):
            if word is not None:
                found[word].append(token)
        most, unknown = most_of_a_word(self.room), self.tokenizer.unk_token_id
        self.cut.words += sum(len(tokens) > most for tokens in found)
        return [tokens[:most] or [0 if unknown is None else unknown] for tokens in found]

    def _windows(self, words: Sequence[str]) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
        """The tokens of each window, and of the words that it tells the place and where their first token is."""
        tokens = self._tokens(words)
        cut = windows([len(one) for one in tokens], self.room)
        self.cut.sentences += len(cut) > 1
        for window in cut:
            ids: list[int] = []
            first = []
            for place in range(window.start, window.end):
                if window.own <= place < window.own_end:
                    first.append((place, self.marks_before + len(ids)))
                ids += tokens[place]
            yield self.marked(ids), first

    @override
    def encode(self, line: Sequence[str], targets: Sequence[str]) -> list[Encoded]:
        made = []
        for ids, first in self._windows(line):
            numbers = [NO_TARGET] * len(ids)
            for place, at in first:
                numbers[at] = self.labels.index(targets[place])
            made.append(Encoded(ids, numbers))
        return made

    @override
    def tag_all(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        rows: list[list[int]] = []
        where: list[tuple[int, list[tuple[int, int]]]] = []
        for number, words in enumerate(sentences):
            for ids, first in self._windows(words):
                rows.append(ids)
                where.append((number, first))
        tags = [[""] * len(words) for words in sentences]
        for place, best in self.told(rows):
            number, first = where[place]
            for word, at in first:
                tags[number][word] = self.labels[best[at]]
        return tags


@dataclass
class OfTexts(Tuned):
    """Tells something of each text, by its beginning where it is long."""

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, as the network reads it; those that are cut are counted."""
        rows = self._ids(texts, add_special_tokens=False)
        self.cut.texts += sum(len(row) > self.room for row in rows)
        return [self.marked(row[: self.room]) for row in rows]


@dataclass
class TunedClassifier(OfTexts, TellsClasses):
    """Tells the class of each text."""

    task: ClassVar[str] = CLASSES

    @override
    def encode(self, line: str, targets: str) -> list[Encoded]:
        return [Encoded(row, [self.labels.index(targets)]) for row in self.rows([line])]

    @override
    def tell_all(self, texts: Sequence[str]) -> list[str]:
        found = [""] * len(texts)
        for place, best in self.told(self.rows(texts)):
            found[place] = self.labels[best]
        return found


@dataclass
class TunedLabels(OfTexts, TellsLabels):
    """Tells how likely each label is for each text, and goes by a rule."""

    task: ClassVar[str] = LABELS
    rule: Rule = field(default_factory=Rule)

    @override
    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "rule": asdict(self.rule)}

    @override
    def encode(self, line: str, targets: Collection[str]) -> list[Encoded]:
        wanted = [int(label in targets) for label in self.labels]
        return [Encoded(row, wanted) for row in self.rows([line])]

    @override
    def loss(self, batch: Sequence[Encoded]) -> Any:
        import torch

        wanted = torch.tensor(self.filled(batch, 0)).to(self.network.device)
        with self.computing():
            logits = self.network(**self.batch([one.ids for one in batch])).logits
        return torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), wanted.float(), reduction="sum")

    @override
    def read_off(self, logits: Any) -> list[Any]:
        found: list[Any] = logits.float().sigmoid().tolist()
        return found

    @override
    def tell_likely(self, texts: Sequence[str]) -> np.ndarray:
        found = np.zeros((len(texts), len(self.labels)))
        for place, likely in self.told(self.rows(texts)):
            found[place] = likely
        return found


_TUNED: dict[str, type[Tuned]] = {TAGS: TunedTagger, CLASSES: TunedClassifier, LABELS: TunedLabels}


def load(folder: Path) -> Tuned:
    """Load what `to_disk` wrote.

    Raises:
        OSError, ValueError, KeyError: it is broken, or the libraries are not installed.
    """
    facts = facts_of(folder)
    made = _made(folder, facts["task"], list(facts["labels"]), int(facts["max_tokens"]), fresh=False)
    if isinstance(made, TunedLabels):
        made.rule = Rule(**facts["rule"])
    return made


def facts_of(folder: Path) -> dict[str, Any]:
    """What a predictor in a folder was trained to tell.

    Raises:
        OSError, ValueError, KeyError: it is none.
    """
    facts: dict[str, Any] = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    if facts["task"] not in _TUNED:
        raise ValueError(f"{FACTS_FILE}: the task {facts['task']!r} is not known")
    return facts


def start(folder: Path, task: str, labels: Sequence[str], max_tokens: int) -> Tuned:
    """Make a transformer that is to be trained, from weights or from an earlier predictor in a folder.

    Where an earlier predictor knows all labels, it is gone on with as it is; else what tells them is learned anew, from
    random numbers of PyTorch's generator.

    Raises:
        OSError, ValueError, KeyError: it cannot be loaded.
    """
    if (folder / FACTS_FILE).exists():
        facts = facts_of(folder)
        if facts["task"] == task and set(labels) <= set(facts["labels"]):
            return _made(folder, task, list(facts["labels"]), max_tokens, fresh=False)
    return _made(folder, task, list(labels), max_tokens, fresh=True)


def _made(folder: Path, task: str, labels: list[str], max_tokens: int, *, fresh: bool) -> Tuned:
    return reading(lambda transformers: _read(transformers, folder, task, labels, max_tokens, fresh=fresh))


def reading(read: Callable[[Any], Made]) -> Made:
    """Call what reads a network with the library transformers.

    Raises:
        OSError, ValueError, KeyError: it cannot be loaded, or the libraries are not installed; says why.
    """
    try:
        _, transformers = libraries()
        from safetensors import SafetensorError
    except ImportError as error:
        raise ValueError(f"PyTorch and transformers are not installed ({error})") from error
    try:
        return read(transformers)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{type(error).__name__}: {str(error)[:_MOST_SAID]}") from error
    except ValueError as error:  # of transformers: it may list all networks that there are
        raise ValueError(str(error)[:_MOST_SAID]) from error


def _read(transformers: Any, folder: Path, task: str, labels: list[str], max_tokens: int, *, fresh: bool) -> Tuned:
    config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    config.problem_type = None
    maker = (
        transformers.AutoModelForTokenClassification
        if task == TAGS
        else transformers.AutoModelForSequenceClassification
    )
    network, told = maker.from_pretrained(
        folder,
        config=config,
        use_safetensors=True,
        ignore_mismatched_sizes=fresh,
        dtype="float32",
        output_loading_info=True,
        **LOCAL,
    )
    missing = sum(one.numel() for name, one in network.named_parameters() if name in set(told["missing_keys"]))
    if missing * 2 > network.num_parameters():
        raise ValueError("its weights are not those of the network that config.json describes")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, add_prefix_space=True, **LOCAL)
    if not tokenizer.is_fast:
        raise ValueError("its tokenizer cannot say which word a token is of: a tokenizer.json is needed")
    return _TUNED[task](network, tokenizer, labels, min(max_tokens, _most_tokens(config, tokenizer)))


def _most_tokens(config: Any, tokenizer: Any) -> int:
    """Tokens that a network can read at once, as far as its files say. Pure."""
    most = [int(tokenizer.model_max_length)]
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        # RoBERTa and its like count positions from behind the number of the filling token.
        most.append(positions - (config.pad_token_id + 1 if "roberta" in config.model_type else 0))
    return min(most)
