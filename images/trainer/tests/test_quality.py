"""Each spaCy model on real data, a short training on a part of the examples: clearly better than the baseline.

The floors stand between what the baseline, the most frequent answer, gives on the same lines (0 for spans and
relations) and what these few updates reach; `make bench-quality` has the scores of whole trainings.
"""

import itertools

import pytest
from conftest import Session
from paths import EXAMPLES

from tarmac_trainer import models

FLOORS = {
    "named_entity_recognition": ("wnut17", 0.12),
    "part_of_speech_tagging": ("austen-pos", 0.93),
    "sentiment_analysis_binary": ("vader-tweets", 0.75),
    "sentiment_analysis_categorical": ("vader-tweets", 0.50),
    "text_classification": ("wordnet-topics", 0.50),
    "relation_extraction": ("wordnet-relations", 0.60),
    "coreference_resolution": ("austen-coreference", 0.90),
    "keyphrase_extraction": ("postgresql-terms", 0.15),
}


def part(session: Session, name: str, lines: int) -> str:
    with (EXAMPLES / name).open(encoding="utf-8") as content:
        return session.put("".join(itertools.islice(content, lines)))


@pytest.mark.parametrize(
    ("name", "data_set", "floor"), [(name, *row) for name, row in FLOORS.items()], ids=list(FLOORS)
)
def test_a_short_training_on_real_data_beats_its_floor(
    session: Session, name: str, data_set: str, floor: float
) -> None:
    parts = {
        "train": part(session, f"{data_set}.train.jsonl", 800),
        "eval": part(session, f"{data_set}.dev.jsonl", 200),
    }
    session.request({"d": parts}, model=name, parameters={"max_steps": 150, "eval_frequency": 75, "learn_rate": 0.003})
    assert session.run("prep").code == 0
    assert session.run("train").code == 0
    score = session.run("eval").result["metrics"][models.get(name).score_name]
    print(f"{name}: {score:.3f}")
    assert score > floor
