"""Translation: what is read and refused, and that a small network learns, is saved, and goes on where it was killed."""

import importlib.util
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import Session, predicted_elsewhere
from test_checkpoint import ALWAYS, interrupt

from tarmac_trainer import models
from tarmac_trainer.data.readers import BrokenLineError
from tarmac_trainer.models import translation
from tarmac_trainer.models.translation import LEAST_PAIRS, Pair, Translation
from tarmac_trainer.runtime.errors import DataError
from tarmac_trainer.text import translating

HAS_TORCH = importlib.util.find_spec("torch") is not None
trains = pytest.mark.skipif(not HAS_TORCH, reason="this image has no PyTorch")

COLOURS = {"blue": "bleue", "yellow": "jaune", "pale": "pâle", "square": "carrée", "wide": "large", "thin": "mince",
           "rare": "rare", "calm": "calme", "sad": "triste", "young": "jeune", "odd": "bizarre", "fast": "rapide",
           "weak": "faible", "rich": "riche", "clean": "propre"}  # fmt: skip
THINGS = {"house": "maison", "flower": "fleur", "door": "porte", "car": "voiture", "table": "table", "road": "route",
          "river": "rivière", "song": "chanson", "letter": "lettre", "star": "étoile", "shirt": "chemise",
          "bridge": "passerelle", "ship": "barque", "hand": "main", "town": "ville"}  # fmt: skip
PAIRS = [
    (f"the {colour} {thing} .", f"la {named} {so} .")
    for colour, so in COLOURS.items()
    for thing, named in THINGS.items()
]
QUICK = {"max_steps": 50, "eval_frequency": 25, "dropout": 0, "learn_rate": 0.003, "max_tokens": 16, "refit": "never"}


def lines(pairs: list[tuple[str, str]], language: str = "fr") -> str:
    return "".join(json.dumps({"text": one, "translations": {language: other}}) + "\n" for one, other in pairs)


def begin(session: Session, data: str = "", evaluated: str | None = None, **parameters: Any) -> None:
    train = session.put(data or lines(PAIRS))
    scored = session.put(evaluated or lines(PAIRS[::7]))
    session.request({"d": {"train": train, "eval": scored}}, model="translation", parameters={**QUICK, **parameters})


@trains
@pytest.mark.usefixtures("mlruns")
def test_it_learns_what_no_word_table_does_and_one_line_in_another_process_translates(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    begin(session)
    assert session.run("prep").code == 0
    trained = session.run("train")
    assert "tokens are learned from 225 pairs" in trained.out
    assert trained.result["best_score"] > 0.95
    scored = session.run("eval").result
    assert scored["interval"]["metric"] == "chrf"
    metrics = scored["metrics"]
    # The order of the words is another one.
    assert 0.3 < metrics["word_table_chrf"] < 0.8
    assert metrics["copy_chrf"] < metrics["word_table_chrf"] < metrics["chrf"]
    assert metrics["word_table_bleu"] < metrics["bleu"]
    assert scored["sacrebleu"]["chrf"].startswith("nrefs:1|case:mixed|")
    saved = session.run("save").result
    told = predicted_elsewhere(
        saved["model_uri"], [{"text": "the wide river ."}, {"sentence": "the \u6771 " + "sad " * 50}], tmp_path
    )
    assert told[0] == {"translations": {"fr": "la rivière large ."}}
    assert set(told[1]["translations"]) == {"fr"}


@trains
def test_a_translator_whose_training_was_killed_is_the_one_of_a_training_that_was_not(
    make_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one, other = make_session("one"), make_session("other")
    for session in (one, other):
        # One candidate, of the last step: it is of all draws.
        parameters = {**QUICK, "max_steps": 6, "eval_frequency": 6, "dropout": 0.1}
        reference = session.put(lines(PAIRS))
        session.request({"d": {"train": reference, "eval": None}}, model="translation", parameters=parameters)
        assert session.run("prep").code == 0
    assert one.run("train").result["best_step"] == 6
    interrupt(other, signal.SIGKILL, (5, 1), ALWAYS)
    found = other.run("train").result
    assert found["resumed"]["step"] == 4
    assert apart(one, other) < 2e-5


def apart(one: Session, other: Session) -> float:
    """How far the weights of two models are from each other on average.

    Equal draws give equal weights but for the rounding of sums, which Adam enlarges where a gradient is nearly zero.
    """
    from safetensors.torch import load_file

    first, second = (load_file(session.folder / "model" / "model.safetensors") for session in (one, other))
    assert first.keys() == second.keys()
    found = sum(float((first[name] - second[name]).abs().sum()) for name in first)
    return found / sum(weights.numel() for weights in first.values())


@trains
def test_a_registered_translator_is_trained_on_with_fewer_pairs_and_keeps_its_tokens(
    make_session: Any, monkeypatch: pytest.MonkeyPatch, mlruns: None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    first = make_session("first")
    again = {**QUICK, "max_steps": 2, "eval_frequency": 2, "refit": "always"}
    first.request({"d": {"train": first.put(lines(PAIRS)), "eval": None}}, model="translation", parameters=again)
    assert first.run("prep").code == 0
    assert first.run("train").result["trained_again_on"] == 225
    uri = first.run("save").result["model_uri"]
    few = lines([("the odd ship .", "la barque bizarre .")])
    second = make_session("second")
    begin(second, few, few, max_steps=40, eval_frequency=40)
    request = json.loads((second.folder / "request.json").read_text())
    second.request(**{**request, "base_model": "mine/1"})
    monkeypatch.setenv("TARMAC_BASE_MODEL", uri)
    assert second.run("prep").code == 0
    assert second.run("train").result["best_score"] == 1
    kind = models.get("translation")
    tokens = [len(kind.load(session.folder / "model").tokenizer) for session in (first, second)]
    assert tokens[0] == tokens[1]

    german = lines([("the odd ship .", "das seltsame Schiff .")], "de")
    third = make_session("third")
    begin(third, german, german)
    third.request(**{**json.loads((third.folder / "request.json").read_text()), "base_model": "mine/1"})
    assert third.run("prep").code == 0
    assert "it translates into 'fr', and the train lines into 'de'" in third.run("train").error["message"]


@trains
def test_the_numbers_are_sacrebleus_and_their_parts_add_up_to_them() -> None:
    from sacrebleu.metrics import BLEU, CHRF

    told, wanted = ["la maison bleue .", "la porte est large", ""], ["la maison jaune .", "la porte large", "la main"]
    found = translating.scores(wanted, told, wanted, told, "fr", rows=[0, 2, 3], lines=4)
    assert found.overall["chrf"] == pytest.approx(CHRF().corpus_score(told, [wanted]).score / 100)
    assert found.overall["bleu"] == pytest.approx(BLEU().corpus_score(told, [wanted]).score / 100)
    assert (found.overall["copy_chrf"], found.overall["copy_bleu"]) == pytest.approx((1, 1))
    assert found.parts is not None
    totals: dict[Any, float] = {}
    for row in found.parts.rows:
        for key, number in row.items():
            totals[key] = totals.get(key, 0) + number
    assert found.parts.measure(totals) == pytest.approx(found.overall["chrf"])
    assert [bool(row) for row in found.parts.rows] == [True, False, True, True]


@trains
def test_lines_in_another_language_only_score_zero_and_say_so() -> None:
    found = translating.scores([], [], [], [], "fr", rows=[], lines=2)
    assert found.overall["chrf"] == 0
    assert found.reason == "chrf is 0: no eval line has a translation into 'fr'"


def test_a_word_table_is_learned_from_pairs_and_leaves_what_it_does_not_know() -> None:
    table = translating.word_table(PAIRS)
    assert (table["river"], table["thin"]) == ("rivière", "mince")
    assert translating.by_words(table, "the thin river, 東京") == "la mince rivière , 東京"


def test_lines_are_read_and_those_without_the_language_are_of_no_use() -> None:
    line = {"text": "rain", "translations": {"fr": "pluie", "de": "Regen"}}
    assert Translation().read(line) == Pair("rain", {"de": "Regen", "fr": "pluie"})
    assert Translation("fr").read(line) == Pair("rain", {"fr": "pluie"})
    assert Translation("it").read(line) is None
    assert Translation().read({"text": "rain"}) is None
    assert Translation().read({"text": "rain", "translations": {}}) is None
    assert Translation().read({"sentence": "rain", "translations": {"fr": "pluie"}}) == Pair("rain", {"fr": "pluie"})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"translations": {"fr": "a"}}, '"text" or "sentence" is missing'),
        ({"text": " ", "translations": {"fr": "a"}}, '"text" has no word in it'),
        ({"text": "a", "translations": "b"}, '"translations" must be an object of texts by language, such as'),
        ({"text": "a", "translations": {"fr": 3}}, '"translations.fr" must be a string, not 3'),
        ({"text": "a", "translations": {"fr": " "}}, '"translations.fr" has no word in it'),
        ({"text": "a", "translations": {"in French": "b"}}, '"translations" has the language "in French"'),
    ],
)
def test_lines_that_cannot_be_read_are_refused_by_field(line: dict[str, Any], said: str) -> None:
    with pytest.raises(BrokenLineError) as caught:
        Translation().read(line)
    assert said in str(caught.value)


def test_too_few_pairs_and_several_languages_are_refused_before_a_training() -> None:
    few = [Pair(one, {"fr": other}) for one, other in PAIRS[: LEAST_PAIRS - 1]]
    with pytest.raises(
        DataError, match="there are 199 train pairs, and a translator that begins from nothing needs 200"
    ):
        Translation().check(few)
    Translation(from_base=True).check(few)
    mixed = [Pair(one, {"fr": other, "de": other}) for one, other in PAIRS]
    with pytest.raises(DataError, match=r"into de \(225 lines\), fr \(225 lines\): set parameters.language"):
        Translation().check(mixed)


@trains
def test_the_language_that_a_request_names_is_read_and_lines_without_it_are_counted(session: Session) -> None:
    begin(session, lines(PAIRS) + lines(PAIRS[:5], "de"), language="fr")
    assert session.run("prep").result["skipped_lines"] == 5
    begin(session, lines(PAIRS) + lines(PAIRS[:5], "de"))
    assert "set parameters.language to the one to learn" in session.run("prep").error["message"]
    begin(session, language="it")
    assert 'none of its 225 lines has the key "translations.it"' in session.run("prep").error["message"]
    begin(session, language="in French")
    assert "parameters.language: must be null or a word" in session.run("prep").error["message"]


def test_an_image_without_pytorch_says_which_image_has_it(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    begin(session)
    failed = session.run("prep")
    assert failed.code == 2
    assert failed.error["message"].endswith(
        "model: this trainer's image has no PyTorch to train it with: run it in the image trainer-torch"
    )


def test_the_example_has_the_words_of_the_example_data() -> None:
    assert translation.MODELS["translation"].example["text"].endswith("is expected in the north.")
