"""The topic of a text by a small network of PyTorch: a kind of model of one's own that trains on a GPU, to copy.

{"text": "a goal in the last minute", "topic": "sport"}
"""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tarmac_trainer.model import Number
from tarmac_trainer.own_kind import BrokenLineError, OwnKind, Row
from tarmac_trainer.runtime.training import Training

UNKNOWN = 0


@dataclass
class Fitted:
    """What is kept: the network on the CPU, and what its numbers stand for."""

    network: nn.Module
    words: dict[str, int]
    topics: list[str]


class TopicByMeaning(OwnKind):
    """See the module."""

    name = "topic_by_meaning"
    title = "tells the topic of a text by the mean of its words' vectors (PyTorch)"
    target = "topic"
    example = {"text": "the judge is in the court"}
    parameters = {
        "epochs": Number(20, 1, 1000, "times that each line is learned from", whole=True),
        "learn_rate": Number(0.01, 0.00001, 1, "how far each step goes"),
        "size": Number(32, 1, 4096, "numbers in the vector of a word", whole=True),
    }
    packages = ("torch",)
    on_torch = True  # the GPU is PyTorch's, within the memory that is reserved

    def check_row(self, row: Row) -> None:
        _words(row)

    def fit(self, rows: Sequence[Row], training: Training[Row]) -> Fitted:
        device = torch.device("cuda" if os.environ.get("TARMAC_DEVICE") == "cuda" else "cpu")
        torch.manual_seed(training.seed)
        order = random.Random(training.seed)
        words = {word: number for number, word in enumerate(sorted({w for row in rows for w in _words(row)}), 1)}
        topics = sorted({str(row[self.target]) for row in rows})
        given = training.parameters
        size, epochs = int(given["size"]), int(given["epochs"])
        network = nn.Sequential(nn.EmbeddingBag(len(words) + 1, size), nn.Linear(size, len(topics))).to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=given["learn_rate"])
        read = [([words[word] for word in _words(row)], topics.index(str(row[self.target]))) for row in rows]
        for epoch in range(epochs):
            order.shuffle(read)
            total = 0.0
            for first in range(0, len(read), 64):
                batch = read[first : first + 64]
                wanted = torch.tensor([topic for _, topic in batch], device=device)
                loss = nn.functional.cross_entropy(_scores(network, [text for text, _ in batch], device), wanted)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += float(loss) * len(batch)
            training.measured("loss", total / len(read), epoch + 1)
            training.progress(epoch + 1, epochs)
        return Fitted(network.cpu().eval(), words, topics)

    def answer(self, fitted: Fitted, rows: Sequence[Row]) -> Sequence[Any]:
        if not rows:
            return []
        texts = [[fitted.words.get(word, UNKNOWN) for word in _words(row)] for row in rows]
        with torch.no_grad():
            scores = _scores(fitted.network, texts, torch.device("cpu"))
        return [fitted.topics[place] for place in scores.argmax(dim=1).tolist()]


def _scores(network: nn.Module, texts: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """The score of each topic for each text, which is the numbers of its words."""
    starts = torch.tensor([0, *(len(text) for text in texts[:-1])], device=device).cumsum(0)
    numbers = torch.tensor([number for text in texts for number in text], device=device)
    embed, tell = network
    scores: torch.Tensor = tell(embed(numbers, starts))
    return scores


def _words(row: Row) -> list[str]:
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        raise BrokenLineError('"text" must be a text')
    return text.lower().split()


MODELS = {TopicByMeaning.name: TopicByMeaning()}
