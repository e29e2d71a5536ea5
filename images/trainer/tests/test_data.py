"""prep: combining, holding out, and what it leaves and says."""

import gzip
import json
from collections.abc import Callable

import pytest
from conftest import NINE, Session, line

from tarmac_trainer import models
from tarmac_trainer.data import splits
from tarmac_trainer.text.entities import Sentence


def words(session: Session, split: splits.Split) -> list[str]:
    return [sentence.words[0] for sentence in splits.read_prepared(session.folder, split, models.get("test_model"))]


def test_several_data_sets_are_combined(session: Session) -> None:
    one = line("Eve runs", "B-person O") + line("no tags")
    two = line("Paris", "B-location")
    session.request(
        {
            "own": {"train": session.put(NINE), "eval": None},
            "given": {"train": session.put(one), "eval": session.put(two)},
        },
        model="named_entity_recognition",
    )
    result = session.run("prep").result
    own = [Sentence.load({"words": [f"Ada{i}", "sleeps"], "spans": [[0, 1, "person"]]}) for i in range(9)]
    kept, held = held_out_of(own)
    numbers = (result["train_lines"], result["eval_lines"], result["skipped_lines"])
    assert numbers == (len(kept) + 1, len(held) + 1, 1)
    assert [(d["name"], d["split"], d["lines"]) for d in result["datasets"]] == [
        ("own", "train", 9),
        ("given", "train", 2),
        ("given", "eval", 1),
    ]
    assert set(result["datasets"][0]) == {"name", "split", "id", "bytes", "lines"}
    assert result["datasets"][2]["bytes"] == len(two)
    assert words(session, "eval") == [sentence.words[0] for sentence in held] + ["Paris"]
    assert words(session, "train")[-1] == "Eve"
    assert splits.read_manifest(session.folder)["datasets"][2]["id"] == result["datasets"][2]["id"]
    assert sorted(path.name for path in (session.folder / "data").iterdir()) == [
        "eval.jsonl",
        "held_out.jsonl",
        "manifest.json",
        "train.jsonl",
    ]


def mark(sentence: Sentence) -> bytes:
    return splits.fingerprint(models.get("named_entity_recognition"), splits.as_json(sentence))


def held_out_of(sentences: list[Sentence]) -> tuple[list[Sentence], list[Sentence]]:
    return splits.hold_out(sentences, [mark(sentence) for sentence in sentences])


def numbered(count: int) -> list[Sentence]:
    return [Sentence((str(number),)) for number in range(count)]


@pytest.mark.parametrize("lines", [2, 3, 9, 10, 22, 100, 1000])
def test_about_a_tenth_is_held_out_and_never_trained_on(lines: int) -> None:
    sentences = numbered(lines)
    train, evaluation = held_out_of(sentences)
    assert train
    assert evaluation
    assert abs(len(evaluation) - lines / 10) <= 3 * (lines * 0.09) ** 0.5 + 1
    assert sorted(train + evaluation, key=lambda s: int(s.words[0])) == sentences
    assert held_out_of(sentences) == (train, evaluation)


def test_the_same_lines_are_on_the_same_side() -> None:
    train, evaluation = held_out_of(numbered(50) + numbered(50))
    assert not set(train) & set(evaluation)
    assert len(evaluation) == 2 * len(set(evaluation))


def test_a_line_stays_on_its_side_when_the_file_grows() -> None:
    train, evaluation = held_out_of(numbered(100))
    more_train, more_evaluation = held_out_of(numbered(300))
    assert set(train) < set(more_train)
    assert set(evaluation) < set(more_evaluation)


def grouped(groups: list[str | float | None]) -> str:
    return "".join(line(f"Ada{place} sleeps", "B-person O", group=group) for place, group in enumerate(groups))


def prepare(session: Session, lines: str) -> str:
    session.request({"d": {"train": session.put(lines), "eval": None}}, model="named_entity_recognition")
    outcome = session.run("prep")
    assert outcome.code == 0, outcome.err
    return outcome.out


def test_a_group_is_held_out_as_a_whole(session: Session) -> None:
    groups = [f"document {place % 30}" for place in range(300)]
    said = prepare(session, grouped(groups))
    of_word = {f"Ada{place}": group for place, group in enumerate(groups)}
    train, held = ({of_word[word] for word in words(session, split)} for split in ("train", "eval"))
    assert held
    assert not train & held
    assert f"{10 * len(held)} of 300 lines held out to evaluate, each of the 30 groups as a whole" in said


def test_how_many_entities_to_find_are_known_from_the_train_lines_is_told(session: Session) -> None:
    train = line("Ada Lovelace met Bob", "B-person I-person O B-person")
    evaluation = line("ada lovelace met Ada and Eve", "B-person I-person O B-person O B-person") + line(
        "Bob", "B-place"
    )
    sets = {"d": {"train": session.put(train), "eval": session.put(evaluation)}}
    session.request(sets, model="named_entity_recognition")
    outcome = session.run("prep")
    assert outcome.result["familiar"] == {"what": "entities", "known": 2, "total": 4}
    assert "of the 4 entities in the eval lines, 2 (50%) occur in the train lines, too" in outcome.out


def test_a_group_is_on_its_side_by_its_name_and_lines_without_one_by_what_they_say(
    make_session: Callable[[str], Session],
) -> None:
    one, other = make_session("one"), make_session("other")
    prepare(one, grouped([7, "a ", *[None] * 100]))
    prepare(other, grouped([7.0, "a", *[None] * 100]))
    assert words(one, "eval") == words(other, "eval")
    plain = make_session("plain")
    prepare(plain, grouped([None] * 102))
    assert set(words(plain, "eval")) - {"Ada0", "Ada1"} == set(words(one, "eval")) - {"Ada0", "Ada1"}


def test_lines_of_a_group_that_is_the_only_one_are_held_out(session: Session) -> None:
    said = prepare(session, grouped(["a"] * 100))
    assert 'all lines have the same "group", so that lines of it are held out' in said
    assert not set(words(session, "train")) & set(words(session, "eval"))


@pytest.mark.parametrize(
    ("group", "why"), [("[1]", "must be a string or a whole number, not [1]"), ('" "', "is blank"), ("1.5", "not 1.5")]
)
def test_a_group_that_is_none_is_refused(session: Session, group: str, why: str) -> None:
    lines = NINE + f'{{"sentence": "Eve", "named_entity": ["O"], "group": {group}}}\n'
    session.request({"d": {"train": session.put(lines), "eval": None}}, model="named_entity_recognition")
    failed = session.run("prep")
    assert failed.code == 2
    assert '"group" ' in failed.error["message"]
    assert why in failed.error["message"]


def test_lines_that_are_all_the_same_are_trained_and_evaluated_on() -> None:
    assert held_out_of(2 * numbered(1)) == (2 * numbered(1), 2 * numbered(1))


def test_the_held_out_part_is_the_same_for_another_seed(
    make_session: Callable[[str], Session],
) -> None:
    kept = []
    for seed in (0, 1):
        session = make_session(f"seed{seed}")
        session.request({"a": {"train": session.put(NINE), "eval": None}}, seed=seed)
        assert session.run("prep").code == 0
        kept.append(words(session, "eval"))
    assert kept[0] == kept[1]


def test_one_line_is_trained_and_evaluated_on_and_that_is_said(session: Session) -> None:
    session.request({"a": {"train": session.put(line("Ada", "B-person").strip()), "eval": None}})
    outcome = session.run("prep")
    assert (outcome.result["train_lines"], outcome.result["eval_lines"]) == (1, 1)
    assert "one line only" in outcome.out


@pytest.mark.parametrize(
    ("content", "told"),
    [("", "it is empty"), ("\n \r\n", "it is empty"), (line("a"), 'has the key "named_entity" or "spans"')],
)
def test_a_data_set_without_a_usable_line_is_an_error(session: Session, content: str, told: str) -> None:
    session.request(
        {
            "good": {"train": session.put(NINE), "eval": None},
            "bad": {"train": session.put(NINE), "eval": session.put(content)},
        },
        model="named_entity_recognition",
    )
    outcome = session.run("prep")
    assert outcome.code == 2
    assert outcome.error["message"].startswith("data set bad eval: ")
    assert told in outcome.error["message"]


def test_a_broken_line_of_a_file_that_both_trains_and_evaluates_is_told_once(session: Session) -> None:
    both = session.put(NINE + "{\n" + line("Eve runs", "B-person"))
    session.request({"own": {"train": both, "eval": both}}, model="named_entity_recognition")
    failed = session.run("prep")
    assert failed.error["message"].startswith("2 broken lines in the data: own train, line 10: ")
    assert failed.out.count("line 10: ") == 2, "in the log and in the error"


def test_broken_lines_of_all_data_sets_are_told_in_one_go(session: Session) -> None:
    first, second = session.put(NINE + "{\n"), session.put("[]\n" * 20)
    session.request({"a": {"train": first, "eval": second}}, model="named_entity_recognition")
    outcome = session.run("prep")
    assert outcome.code == 2
    message = outcome.error["message"]
    assert message.startswith("21 broken lines in the data: ")
    assert "a train, line 10: not JSON" in message
    assert "a eval, line 2: not a JSON object" in message
    assert message.endswith("; and 18 more (the log of this step names all of them)")
    assert "a eval, line 20: not a JSON object" in outcome.out
    assert not (session.folder / "data" / "manifest.json").exists()


WRONG_FILES = {
    "gzip": (gzip.compress(NINE.encode()), "it is compressed by gzip, and must be JSON Lines in UTF-8"),
    "a zip archive": (b"PK\x03\x04rest", "it is a zip archive, or a file made like one (xlsx, docx)"),
    "a PDF": (b"%PDF-1.7\n", "it is a PDF document"),
    "UTF-16": (NINE.encode("utf-16"), "it is UTF-16 text"),
    "UTF-32": (NINE.encode("utf-32"), "it is UTF-32 text"),
    "binary": (NINE.encode() + b"\0\1", f"it is binary (byte {len(NINE) + 1} is zero)"),
}


@pytest.mark.parametrize(("content", "told"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_file_that_is_no_text_is_named_for_what_it_is(session: Session, content: bytes, told: str) -> None:
    session.request({"a": {"train": session.put(content), "eval": None}})
    outcome = session.run("prep")
    assert outcome.code == 2
    assert told in outcome.error["message"]
    assert "broken line" not in outcome.error["message"]


def test_train_lines_without_any_entity_are_refused_before_training(session: Session) -> None:
    session.request(
        {"a": {"train": session.put(line("a b", "O O")), "eval": session.put(NINE)}},
        model="named_entity_recognition",
    )
    outcome = session.run("prep")
    assert outcome.code == 2
    assert "no entity in any of the 1 train lines" in outcome.error["message"]


def test_names_cannot_lead_out_of_the_session(session: Session) -> None:
    session.request({"../../../up": {"train": session.put(NINE), "eval": None}})
    assert session.run("prep").code == 0
    assert sorted(p.name for p in session.folder.parent.iterdir()) == ["session", "store"]


def test_a_retry_gives_the_same(session: Session) -> None:
    session.request({"a": {"train": session.put(NINE), "eval": None}})
    first = session.run("prep").result
    before = (session.folder / "data" / "train.jsonl").read_bytes()
    assert session.run("prep").result == first
    assert (session.folder / "data" / "train.jsonl").read_bytes() == before


def test_a_broken_file_of_prep_is_told(session: Session) -> None:
    session.request({"a": {"train": session.put(NINE), "eval": None}})
    assert "run `prep` first" in session.run("train").error["message"]
    session.run("prep")
    (session.folder / "data" / "train.jsonl").write_text(json.dumps({"words": 3}))
    assert "run `prep` again" in session.run("train").error["message"]
