"""Reading lines: what counts as a sentence, and how a broken line is told."""

import functools
import io
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tarmac_trainer import models
from tarmac_trainer.data import readers
from tarmac_trainer.data.readers import BrokenLineError, Problems, json_object, lines_of, read_lines
from tarmac_trainer.runtime.errors import DataError
from tarmac_trainer.text.entities import Sentence, Span, spans_of, tags_of
from tarmac_trainer.text.offsets import OfText

KEY = "named_entity"


MODEL = models.get("named_entity_recognition")


def read(content: bytes, model: str = "named_entity_recognition") -> Any:
    problems = Problems()
    kind = models.get(model)
    lines = content.splitlines(keepends=True)
    result = read_lines(lines, name="d", parse=kind.read, problems=problems, tags=kind.tags_key)
    return result, problems


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("O O", []),
        ("B-x I-x", [(0, 2, "x")]),
        ("B-x B-x", [(0, 1, "x"), (1, 2, "x")]),
        ("I-x I-x", [(0, 2, "x")]),
        ("I-x B-x I-x", [(0, 1, "x"), (1, 3, "x")]),
        ("I-x I-y", [(0, 1, "x"), (1, 2, "y")]),
        ("B-x O I-x", [(0, 1, "x"), (2, 3, "x")]),
        ("B-creative-work I-creative-work", [(0, 2, "creative-work")]),
    ],
)
def test_tags_of_all_three_schemes_are_understood(tags: str, spans: list[Span]) -> None:
    assert spans_of(tags.split()) == spans


@pytest.mark.parametrize("tag", ["B", "I", "B-", "I- ", "X-person", "person", "", "o", "-x"])
def test_a_malformed_tag_is_told(tag: str) -> None:
    with pytest.raises(BrokenLineError, match="tag 2 is"):
        spans_of(["O", tag])


@st.composite
def entities(draw: st.DrawFn) -> tuple[list[Span], int]:
    spans, place = [], 0
    for gap, length, kind in draw(
        st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.sampled_from("xyz")), max_size=6)
    ):
        spans.append((place + gap, place + gap + length, kind))
        place += gap + length
    return spans, place + draw(st.integers(0, 2))


@given(entities())
def test_iob_round_trips(case: tuple[list[Span], int]) -> None:
    spans, length = case
    assert spans_of(tags_of(spans, length, "IOB2")) == spans
    assert spans_of(tags_of(spans, length, "IOB1")) == spans


@given(entities())
def test_io_joins_neighbours_of_one_type(case: tuple[list[Span], int]) -> None:
    spans, length = case
    joined: list[Span] = []
    for start, end, kind in spans:
        if joined and joined[-1][1] == start and joined[-1][2] == kind:
            start = joined.pop()[0]
        joined.append((start, end, kind))
    assert spans_of(tags_of(spans, length, "IO")) == joined


def test_words_are_kept_as_they_are_and_padding_is_ignored() -> None:
    value = {"sentence": "don't  go\u00ad 😂", KEY: ["O", "B-x", "O", None, "PAD"], "other": 1}
    assert MODEL.read(json_object(json.dumps(value).encode())) == Sentence(("don't", "go\u00ad", "😂"), ((1, 2, "x"),))


def tagged(*lines: tuple[str, list[Any]]) -> bytes:
    return "".join(json.dumps({"sentence": sentence, KEY: tags}) + "\n" for sentence, tags in lines).encode()


PADDED = {
    "all lists of one length, one value": [("a b", ["B-x", "O", "PAD"]), ("c", ["O", "PAD", "PAD"])],
    "padded with the tag for nothing": [("a b", ["B-x", "O", "O"]), ("c d e", ["O", "O", "O"])],
    "padded with null": [("a", ["O", None]), ("c d", ["O", "O"])],
    "a value that no word has, though all have equally many words": [("a", ["O", "PAD"]), ("b", ["B-x", "PAD"])],
    "to a length that no line has": [("a", ["O"] * 4), ("b c", ["O"] * 4)],
}
SHIFTED = {
    "two blanks, and tags by single ones": [("Mara  visited Lyon", ["B-x", "O", "O", "B-x"]), ("a b", ["O", "O"])],
    "all of one length, but more than one value": [("a b", ["B-x", "O", "O", "B-x"]), ("c d e f", ["O"] * 4)],
    "two blanks in all lines, which look alike": [("Mara  saw Lyon", ["B-x", "O", "O", "O"])] * 3,
    "two blanks, in lines of one length": [("a  b", ["B-x", "O", "O"]), ("c d e", ["O", "B-x", "O"])],
    "another tokenizer's, lines that look alike": [("it's fine", ["O", "B-x", "O"]), ("she's here", ["O", "B-x", "O"])],
    "one value, but of two lengths": [("a b", ["B-x", "O", "O"]), ("c", ["O"])],
    "one value in each line, but not in all": [("a b", ["B-x", "O", "O"]), ("c d", ["O", "O", "PAD"])],
}


@pytest.mark.parametrize("lines", PADDED.values(), ids=PADDED)
def test_tags_that_fill_up_all_lists_are_padding(lines: list[tuple[str, list[Any]]]) -> None:
    result, problems = read(tagged(*lines))
    assert problems.total == 0
    assert len(result.usable) == len(lines)


@pytest.mark.parametrize("lines", SHIFTED.values(), ids=SHIFTED)
@pytest.mark.parametrize("model", ["named_entity_recognition", "test_model"])
def test_too_many_tags_are_refused_with_both_counts(lines: list[tuple[str, list[Any]]], model: str) -> None:
    _, problems = read(tagged(*lines), model)
    sentence, tags = lines[0]
    words = len(sentence.split())
    told = f"d, line 1: {words} words, as white space separates them, but {len(tags)} tags"
    assert problems.first[0].startswith(told)


def test_too_many_tags_for_parts_of_speech_are_refused_too() -> None:
    content = tagged(("a  b", ["X", "Y", "Z"]), ("c", ["X"])).replace(KEY.encode(), b"pos")
    _, problems = read(content, "part_of_speech_tagging")
    assert problems.total == 1
    assert "2 words" in problems.first[0]


def test_a_key_without_a_value_is_a_key_that_is_not_there() -> None:
    result, problems = read(b'{"sentence": "a", "named_entity": null}\n{"sentence": "a", "named_entity": ["O"]}')
    assert (problems.total, result.skipped, len(result.usable)) == (0, 1, 1)
    assert json_object(b'{"a": {"b": null, "c": [null, {"d": null}]}}') == {"a": {"c": [None, {}]}}


@pytest.mark.parametrize(
    "other", ["I-cafe\u0301", " I-caf\u00e9", "I-caf\u00e9 \n", "I- caf\u00e9", "I-caf\u00e9\u00a0"]
)
def test_labels_that_look_the_same_are_one(other: str) -> None:
    result, _ = read(tagged(("a b", ["B-caf\u00e9", other])))
    assert result.usable == [Sentence(("a", "b"), ((0, 2, "caf\u00e9"),))]


def test_joiners_which_change_what_is_seen_are_part_of_a_label() -> None:
    result, problems = read(tagged(("a", ["B-\u0645\u06cc\u200c\u062e\u0648\u0627\u0646\u0645"])))
    assert problems.total == 0
    assert result.usable[0].spans[0][2] == "\u0645\u06cc\u200c\u062e\u0648\u0627\u0646\u0645"


@pytest.mark.parametrize(
    ("model", "key", "variable", "what"),
    [
        ("named_entity_recognition", KEY, "TARMAC_MAX_LABELS", "entity types"),
        ("part_of_speech_tagging", "pos", "TARMAC_MAX_LABELS", "tags"),
    ],
)
def test_labels_have_a_limit_that_is_named(
    model: str, key: str, variable: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = models.get(model)
    lines = "".join(json.dumps({"sentence": "a", key: [f"B-{number}"]}) + "\n" for number in range(10_001))
    train = read(lines.encode(), model)[0].usable
    kind.check(train[1:])
    told = rf"10,001 different {what} .* such as .*, more than 10,000: use fewer, or raise {variable} in env/stack.env"
    with pytest.raises(DataError, match=told):
        kind.check(train)
    monkeypatch.setenv(variable, "10001")
    kind.check(train)


def test_classes_have_a_limit_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    name, value = "sentiment_analysis_categorical", b'{"sentence": "a", "sentiment": {"categorical": 1001}}\n'
    told = (
        "must be a whole number from 0 to 1000 (TARMAC_MAX_CLASSES in env/stack.env), or the name of a class, not 1001"
    )
    assert told in read(value, name)[1].first[0]
    monkeypatch.setenv("TARMAC_MAX_CLASSES", "1001")
    assert read(value, name)[1].total == 0
    pairs = [
        {"sentence": "a b", "relations": [{"sub": {"entity": "a"}, "obj": {"entity": "b"}, "relation": f"r{number}"}]}
        for number in range(1002)
    ]
    train = read("\n".join(map(json.dumps, pairs)).encode(), "relation_extraction")[0].usable
    with pytest.raises(DataError, match=r"1,002 different classes .* or raise TARMAC_MAX_CLASSES"):
        models.get("relation_extraction").check(train)
    models.get("relation_extraction").check(train[1:])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"user": "u" * 1001, "item": "i"}, '"user" has 1,001 characters, more than 1,000'),
        ({"user": 12345678901234567890.0, "item": "i"}, '"user" must be a string or a whole number, not 1.23'),
        ({"user": True, "item": "i"}, '"user" must be a string or a whole number, not true'),
        ({"user": "u", "item": "i", "count": "3"}, '"count" must be a number above 0, at most 1e+09, not "3"'),
        ({"user": "u", "item": "i", "count": -1}, "not -1"),
        ({"user": "u", "item": "i", "count": True}, "not true"),
    ],
)
def test_names_and_counts_of_the_recommender(value: dict[str, Any], reason: str) -> None:
    assert reason in read(json.dumps(value).encode(), "collaborative_filtering")[1].first[0]


def test_names_of_the_recommender_are_one_with_and_without_blanks_around_them() -> None:
    content = b'{"user": "u1 ", "item": " cafe\xcc\x81"}\n{"user": "u1", "item": "caf\xc3\xa9"}'
    one, other = read(content, "collaborative_filtering")[0].usable
    assert one == other


def test_a_text_of_any_length_that_spacy_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "ab " * 333_333 + "c"
    assert read(tagged((text, ["O"] * 333_334)))[1].total == 0
    _, problems = read(tagged((text + "d", ["O"] * 333_334)))
    assert '"sentence" has 1,000,001 characters, more than 1,000,000' in problems.first[0]
    monkeypatch.setenv("TARMAC_MAX_TEXT_CHARACTERS", "1000001")
    assert read(tagged((text + "d", ["O"] * 333_334)))[1].total == 0


def test_windows_line_ends_bom_empty_lines_and_a_missing_last_line_end() -> None:
    content = (
        b'\xef\xbb\xbf{"sentence": "a b", "named_entity": ["B-x", "O"]}\r\n'
        b"\r\n   \n"
        b'{"sentence": "c"}\r\n'
        b'{"sentence": "d\xe2\x80\xa8e", "named_entity": ["O", "I-y"]}'
    )
    result, problems = read(content)
    assert not problems.total
    assert result.usable == [
        Sentence(("a", "b"), ((0, 1, "x"),)),
        Sentence(("d", "e"), ((1, 2, "y"),)),
    ]
    assert (result.lines, result.skipped) == (3, 1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"3", "not a JSON object"),
        (b'{"sentence": "a", "named_entity": NaN}', "NaN is not a JSON number"),
        (
            b'{"sentence": "a", "x": -Infinity, "named_entity": ["O"]}',
            "-Infinity is not a JSON number",
        ),
        (b'{"sentence": "\xff", "named_entity": ["O"]}', "not UTF-8"),
        (b'{"named_entity": ["O"]}', '"sentence" is missing'),
        (b'{" Sentence": "a", "named_entity": ["O"]}', '"sentence" is missing, and there is " Sentence"'),
        ('{"sentence": "\u200b \u2060", "named_entity": []}'.encode(), '"sentence" has no word in it'),
        ('{"sentence": ["\u65e5\u200b"], "named_entity": []}'.encode(), 'not ["\u65e5\\u200b"]'),
        (b'{"sentence": 3, "named_entity": ["O"]}', '"sentence" must be a string'),
        (b'{"sentence": ["a"], "named_entity": ["O"]}', '"sentence" must be a string'),
        (b'{"sentence": " \\t ", "named_entity": ["O"]}', "has no word"),
        (b'{"sentence": "", "named_entity": []}', "has no word"),
        (b'{"sentence": "a b", "named_entity": ["O"]}', "2 words but 1 tag"),
        (b'{"sentence": "a b", "named_entity": [{"start": 0}]}', 'tag 1 must be a string, not {"start": 0}'),
        (b'{"sentence": "a", "named_entity": "O"}', "must be a list"),
        (b'{"sentence": "a", "named_entity": {}}', "must be a list of tags, not {}"),
        (b'{"sentence": "a", "named_entity": [1]}', "tag 1 must be a string, not 1"),
        (b'{"sentence": "a", "named_entity": ["X-person"]}', 'tag 1 is "X-person"'),
        (b'{"sentence": "\\ud83d", "named_entity": ["O"]}', "surrogate"),
        (b'{"sentence": "a", "named_entity": ["B-\\ud83d"]}', "surrogate"),
        (b'{"sentence": "a", "named_entity": ["B-per\\u0000son"]}', "holds a zero byte"),
        (b'{"sentence": "a\\u0000", "named_entity": ["O"]}', "holds a zero byte"),
        (b'{"sentence": "a", "named_entity": ["O"], "x": {"y": ["\\u0000"]}}', '"x" holds a zero byte'),
        (b'{"sentence": "a", "named_entity": ["O"], "x\\udfff": 1}', "a key of the line holds half"),
        (b'{"sentence": "a", "named_entity": ["B-x\\ty"]}', "a character that is not seen, U+0009"),
        (b'{"sentence": "a", "named_entity": ["B-x\\u2028y"]}', "a character that is not seen, U+2028"),
        (b'{"sentence": "a", "named_entity": ["B-x\\u202ey"]}', "a character that is not seen, U+202E"),
        (b'{"sentence": "a", "named_entity": ["B-x\\u200b"]}', "a character that is not seen, U+200B"),
        (b'{"sentence": "a", "named_entity": ["B-x\\ufeff"]}', "a character that is not seen, U+FEFF"),
        (b'{"sentence": "a", "named_entity": ["B-x\\u001b[31m"]}', "a character that is not seen, U+001B"),
        (b'{"sentence": "a", "named_entity": ["B-' + b"x" * 200 + b'"]}', "has 202 characters, more than 200"),
        (b'{"sentence": "a", "sentence": "b", "named_entity": ["O"]}', 'the key "sentence" is there twice'),
        (b'{"sentence": "a", "named_entity": ["O"], "x": {"y": 1, "y": null}}', 'the key "y" is there twice'),
        (b'{"sentence": "a", "named_entity": ["O"], "x": NaN}', "null says that there is none"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"1" * 10_000 + b"}", "it holds a number of thousands of digits"),
    ],
)
def test_a_broken_line_is_told_with_file_line_and_reason(content: bytes, reason: str) -> None:
    result, problems = read(b'{"sentence": "a", "named_entity": ["O"]}\n' + content)
    assert problems.total == 1
    assert problems.first[0].startswith("d, line 2: ")
    assert reason in problems.first[0]
    assert len(result.usable) == 1


def test_the_first_broken_lines_are_told_where_all_is_read_and_more_in_the_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, problems = read(b"{\n" * 1025)
    told = r"^1,025 broken lines .*line 3: .*; and 1,022 more \(the log of this step names the first 100\)$"
    with pytest.raises(DataError, match=told) as caught:
        problems.check()
    assert "line 4" not in str(caught.value)
    assert len(str(caught.value)) < 600  # what a run's note takes of a cause
    logged = capsys.readouterr().out.splitlines()
    assert (len(logged), logged[-1].startswith("d, line 100: not JSON")) == (100, True)


def test_a_huge_line_is_refused_without_being_read_as_a_whole() -> None:
    huge = b'{"sentence": "' + b"a " * (readers.MAX_LINE // 2) + b'"}\n'
    good = b'{"sentence": "a", "named_entity": ["O"]}\n'
    problems = Problems()
    lines = list(lines_of(io.BytesIO(good + huge + good)))
    assert [len(line) for line in lines] == [len(good), readers.MAX_LINE + 1, len(good)]
    result = read_lines(lines, name="d", parse=MODEL.read, problems=problems, tags=KEY)
    assert problems.first == ["d, line 2: it has more than 64 MiB; write one JSON object a line"]
    assert len(result.usable) == 2


def test_test_model_uses_every_sentence_and_every_text_with_spans() -> None:
    marked = b'{"text": "a Bob.", "spans": [{"start": 2, "end": 5, "label": "x"}]}\n'
    result, problems = read(b'{"sentence": "a b"}\n' + marked + b'{"text": "no spans"}\n', model="test_model")
    assert result.usable == [Sentence(("a", "b")), OfText(("a", "Bob", "."), ((1, 2, "x"),))]
    assert [models.get("test_model").load_line(json.loads(json.dumps(vars(one)))) for one in result.usable]
    assert (result.skipped, problems.total) == (1, 0)


_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_lines = st.fixed_dictionaries(
    {},
    optional={
        "sentence": st.text(max_size=12) | _json,
        KEY: st.lists(st.sampled_from(["O", "B-x", "I-x", "B", "é"]) | _json, max_size=6) | _json,
    },
).map(lambda value: json.dumps(value).encode())


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=40) | _lines, max_size=5).map(b"\n".join))
@example(b'{"sentence": "\x1c", "named_entity": []}')
def test_any_bytes_give_sentences_or_told_problems(content: bytes) -> None:
    result, problems = read(content)
    assert result.lines == len(result.usable) + result.skipped + problems.total
    for sentence in result.usable:
        assert all(word and word == word.strip() for word in sentence.words)
        place = 0
        for start, end, kind in sentence.spans:
            assert place <= start < end <= len(sentence.words)
            assert kind.strip()
            place = end


@functools.cache
def blank() -> Any:
    """One for all examples: making a pipeline takes longer than all the rest."""
    import spacy

    return spacy.blank("en")


@settings(max_examples=100)
@given(st.lists(_lines, max_size=4).map(b"\n".join))
def test_what_is_read_becomes_docs_with_the_same_words_and_entities(content: bytes) -> None:
    from tarmac_trainer.models.named_entity_recognition import example as as_example

    nlp = blank()
    for sentence in read(content)[0].usable:
        doc = as_example(nlp, sentence).reference
        assert tuple(token.text for token in doc) == sentence.words
        assert tuple((e.start, e.end, e.label_) for e in doc.ents) == sentence.spans


def test_a_whole_number_that_a_tool_wrote_as_a_float_is_that_number() -> None:
    result, problems = read(b'{"sentence": "a", "sentiment": {"binary": 1.0}}', "sentiment_analysis_binary")
    assert (problems.first, [line.label for line in result.usable]) == ([], ["1"])
    result, problems = read(b'{"sentence": "a", "sentiment": {"categorical": 4.0}}', "sentiment_analysis_categorical")
    assert (problems.first, [line.label for line in result.usable]) == ([], ["4"])
    result, problems = read(b'{"user": 7.0, "item": 8.0, "count": 2.0}', "collaborative_filtering")
    assert (problems.first, [(line.user, line.item) for line in result.usable]) == ([], [("7", "8")])


@pytest.mark.parametrize("given", ["1.5", '"1"', "true", "-1.0", "1e300", "2.0"])
def test_what_is_no_class_is_refused_with_its_value(given: str) -> None:
    _, problems = read(f'{{"sentence": "a", "sentiment": {{"binary": {given}}}}}'.encode(), "sentiment_analysis_binary")
    assert problems.first == [
        f'd, line 1: "sentiment.binary" must be a whole number from 0 to 1, not {json.dumps(json.loads(given))}'
    ]
