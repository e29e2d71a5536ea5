"""The interval of a score: wide where little evaluates, honest where lines belong together."""

import json
from collections import Counter

import numpy as np
import pytest
from conftest import Session

from tarmac_trainer.data import interval, splits
from tarmac_trainer.model import Parts
from tarmac_trainer.text.scoring import LabelCounts, LabelSetCounts, SpanCounts, f1


def accuracy(right: list[bool]) -> Parts:
    counts = LabelCounts()
    for one in right:
        counts.add("yes" if one else "no", "yes")
    return counts.parts(LabelCounts.accuracy)


def test_a_score_of_one_from_three_lines_does_not_look_certain() -> None:
    low, high = interval.of(accuracy([True] * 3)) or (1, 1)
    assert low < 0.5
    assert high == 1


def test_more_lines_of_the_same_score_say_more() -> None:
    few, many = (interval.of(accuracy([True, True, True, False] * times)) for times in (5, 500))
    assert few
    assert many
    assert few[0] < many[0] < 0.75 < many[1] < few[1]


def test_of_single_lines_it_is_wilsons() -> None:
    low, high = interval.of(accuracy([True] * 80 + [False] * 20)) or (0, 0)
    # The spread is drawn, so it is not exactly that of the formula.
    assert (low, high) == pytest.approx(interval.wilson(0.8, 100), abs=0.015)


def test_wilsons_interval_is_that_of_the_books() -> None:
    # Newcombe 1998, table I: 81 of 263.
    assert interval.wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_lines_of_one_group_count_as_one() -> None:
    parts = accuracy(([True] * 10 + [False] * 10) * 5)
    alone = interval.of(parts)
    together = interval.of(parts, [place // 10 for place in range(100)])
    assert alone
    assert together
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_tokens_of_one_sentence_are_drawn_together() -> None:
    counts = LabelCounts()
    for sentence in range(10):
        for _ in range(20):
            counts.add("noun", "noun" if sentence % 2 else "verb")
    alone = interval.of(counts.parts(LabelCounts.accuracy))
    together = interval.of(counts.parts(LabelCounts.accuracy, [20] * 10))
    assert alone
    assert together
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_nothing_to_draw_has_none() -> None:
    assert interval.of(accuracy([])) is None
    spans = SpanCounts()
    spans.add([], [])
    assert interval.of(spans.parts()) is None


def test_spans_and_sets_of_labels_have_the_f1_that_they_tell() -> None:
    spans, sets = SpanCounts(), LabelSetCounts()
    spans.add([(0, 1, "PER"), (3, 4, "LOC")], [(0, 1, "PER")])
    spans.add([], [(5, 6, "ORG")])
    sets.add(["a", "b"], ["a"])
    sets.add([], ["c"])
    for parts in (spans.parts(), sets.parts()):
        total = sum((Counter(row) for row in parts.rows), Counter())
        assert parts.measure(total) == f1({"right": 1, "predicted": 2, "wanted": 2}) == 0.5


def test_it_holds_the_truth_as_often_as_it_says() -> None:
    """F1 of spans in 40 lines, each of which has its own difficulty, against that of 20,000 lines."""
    source = np.random.default_rng(7)

    def draw(lines: int) -> list[dict[str, float]]:
        ease = source.beta(4, 2, size=lines)
        wanted = source.integers(1, 4, size=lines)
        right = source.binomial(wanted, ease)
        wrong = source.binomial(wanted, (1 - ease) / 2)
        rows = zip(right.tolist(), (right + wrong).tolist(), wanted.tolist(), strict=True)
        return [dict(zip(("right", "predicted", "wanted"), row, strict=True)) for row in rows]

    truth = f1(sum((Counter(row) for row in draw(20_000)), Counter()))
    found = [interval.of(Parts(draw(40), f1)) or (2, 2) for _ in range(100)]
    assert 90 <= sum(low <= truth <= high for low, high in found) <= 99


QUICK = {"max_steps": 6, "eval_frequency": 2, "patience": 6}


def sentence(name: str, group: str | None = None) -> str:
    own = {} if group is None else {"group": group}
    return json.dumps({"sentence": f"{name} sleeps .", "named_entity": ["B-PER", "O", "O"], **own})


@pytest.mark.parametrize("refit", ["always", "never"])
def test_an_evaluation_says_the_interval_whichever_model_is_scored(session: Session, refit: str) -> None:
    train = session.put("\n".join(sentence(f"Name{number}") for number in range(30)))
    parameters = {**QUICK, "refit": refit}
    session.request({"d": {"train": train, "eval": None}}, model="named_entity_recognition", parameters=parameters)
    for step in ("prep", "train"):
        assert session.run(step).code == 0
    outcome = session.run("eval")
    found, value = outcome.result["interval"], outcome.result["metrics"]["f1"]
    assert found["metric"] == "f1"
    assert 0 <= found["low"] <= value <= found["high"] <= 1
    assert found["high"] - found["low"] > 0.3
    told = f"means {found['low']:.2f} to {found['high']:.2f} on others like them (95 % interval)"
    assert f"f1 {value:.4f} on these lines {told}" in outcome.out


def test_groups_of_the_eval_lines_are_kept(session: Session) -> None:
    train = session.put("\n".join(sentence(name) for name in "AB"))
    in_groups = "\n".join([sentence("E", "x"), sentence("F"), sentence("G", "x"), sentence("H")])
    for evaluation, groups in ((in_groups, [0, 1, 0, 2]), (sentence("E"), None)):
        session.request({"d": {"train": train, "eval": session.put(evaluation)}}, model="named_entity_recognition")
        assert session.run("prep").code == 0
        assert splits.read_groups(session.folder) == groups
