"""Collaborative filtering on real and on degenerate data, beside implicit used directly."""

import json
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import implicit_alone
import numpy as np
import pytest
import scipy.sparse
from conftest import Cupy, Pool, Session
from implicit_alone import DEV, TRAIN
from scipy.sparse import csr_matrix

from tarmac_trainer import models
from tarmac_trainer.data.readers import BrokenLineError
from tarmac_trainer.model import Scores
from tarmac_trainer.recommender import als, neighbours, recommending
from tarmac_trainer.recommender.recommending import Interaction, Recommender

KIND = models.get("collaborative_filtering")
FLOOR = 0.50
"""NDCG@10 on the example; recommending what is popular has 0.34."""


def prepared(session: Session, train: Any = None, dev: Any = None, **more: Any) -> Session:
    """By default the example data; else lines of objects, a tenth of which is held out where there is no dev."""
    sets = {"train": session.put(TRAIN.read_bytes() if train is None else lines_of(train))}
    if train is None:
        sets["eval"] = session.put(DEV.read_bytes())
    else:
        sets["eval"] = dev and session.put(lines_of(dev))
    session.request({"d": sets}, model=KIND.name, **more)
    assert session.run("prep").code == 0
    return session


def lines_of(values: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def trained(session: Session, *data: Any, **more: Any) -> dict[str, Any]:
    return prepared(session, *data, **more).run("train").result


def read(path: Path) -> list[Interaction]:
    return [KIND.read(json.loads(line)) for line in path.read_text().splitlines()]


def test_a_real_training_beats_popularity_and_a_floor(session: Session) -> None:
    prepared(session)
    outcome = session.run("train")
    result = outcome.result
    # 15 iterations of ALS, 15 with half of the factors, and item neighbours.
    assert [step for step, _ in result["curve"]] == [3, 6, 9, 12, 15], "of the first, as many as were asked for"
    told = [event for event in outcome.of("metric") if event["name"] == "loss"]
    assert [event["step"] for event in told] == [3, 6, 9, 12, 15]
    losses = [event["value"] for event in told]
    assert losses == sorted(losses, reverse=True), "what ALS makes small"
    assert len(result["candidates"]) == 6
    assert result["candidates"][-1][0] == "item neighbours"
    assert [event["done"] for event in outcome.of("progress")][-1] == 31
    assert result["chosen"]["method"] in ("als", "neighbours")
    scored = session.run("eval").result
    metrics = scored["metrics"]
    print(metrics)
    assert metrics["ndcg_10"] == pytest.approx(result["best_score"])
    assert metrics["ndcg_10"] > FLOOR > metrics["popularity_ndcg_10"] > 0.3
    assert 0.9 < metrics["auc"] < 1
    assert (scored["scored_pairs"], scored["lines_left_out"], scored["pairs_seen_in_training"]) == (783, 0, 0)
    (answer,) = KIND.predict(KIND.load(session.folder / "model"), [{"user": "u144"}])
    used = {line.item for line in read(TRAIN) if line.user == "u144"}
    assert len(answer["items"]) == 10
    assert not used & set(answer["items"])
    assert answer["scores"] == sorted(answer["scores"], reverse=True)
    assert answer["known_user"]


def test_the_scores_are_those_of_implicit_used_directly(session: Session) -> None:
    trained(session, seed=3, parameters={"iterations": 4, "eval_frequency": 4, "method": "als"})
    ours = session.run("eval").result["metrics"]
    train, dev = implicit_alone.matrices()
    theirs = implicit_alone.scores(implicit_alone.fitted(train, seed=3, iterations=4), train, dev)
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-6)


def test_scores_do_not_depend_on_how_many_users_are_scored_at_once(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(session, parameters={"iterations": 1})
    once = session.run("eval").result["metrics"]
    monkeypatch.setattr(recommending, "SCORES_AT_ONCE", 241 * 7)
    assert session.run("eval").result["metrics"] == pytest.approx(once)


def test_equal_requests_give_equal_models_whatever_the_threads(
    make_session: Callable[[str], Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    def factors(name: str, seed: int) -> np.ndarray:
        session = make_session(name)
        trained(session, seed=seed, parameters={"iterations": 3, "method": "als"})
        return Recommender.from_disk(session.folder / "model").user_factors

    first = factors("a", 1)
    assert np.array_equal(first, factors("b", 1))
    assert not np.array_equal(first, factors("c", 2))
    train, _ = implicit_alone.matrices()
    for threads in (1, 2, 5):
        alone = implicit_alone.fitted(train, seed=1, threads=threads, iterations=3)
        assert np.array_equal(first, alone.user_factors)


# ---- the data -------------------------------------------------------------------------------------------------------

BROKEN = [
    ({"item": "a"}, '"user" is missing'),
    ({"user": None, "item": "a"}, '"user" is missing'),
    ({"user": True, "item": "a"}, '"user" must be a string or a whole number'),
    ({"user": "u", "item": 1.5}, '"item" must be a string or a whole number'),
    ({"user": "u", "item": " "}, '"item" is blank'),
    ({"user": "u\ud800", "item": "a"}, "half of a surrogate pair"),
    *(({"user": "u", "item": "a", "count": count}, '"count" must be a number above 0')
      for count in (0, -1, "3", True, 1e10, float("inf"))),
    ({"user": "u", "item": "a", "rating": -1}, '"rating" must be a number above 0.*leave out the lines of what'),
]  # fmt: skip


@pytest.mark.parametrize(("value", "reason"), BROKEN)
def test_a_broken_line_says_what_is_wrong(value: dict[str, Any], reason: str) -> None:
    with pytest.raises(BrokenLineError, match=reason):
        KIND.read(value)


def test_a_line_is_read() -> None:
    assert KIND.read({"user": 7, "item": "a b", "count": 2}) == Interaction("7", "a b", 2)
    assert KIND.read({"user": "7", "item": "a b"}) == Interaction("7", "a b", 1)
    assert KIND.read({"user": 7.0, "item": "cafe\u0301", "count": None}) == Interaction("7", "caf\u00e9", 1)
    assert KIND.read({"user": "7", "item": "a b", "rating": 4.5}) == Interaction("7", "a b", 4.5)
    assert KIND.read({"user": "7", "item": "a b", "rating": 4.5, "count": 2}) == Interaction("7", "a b", 2)
    assert KIND.read({"user": "7", "item": "a b", "score": 0.5, "weight": 3}) == Interaction("7", "a b", 0.5)
    assert KIND.read({"user": "7", "item": "a b", "weight": 3}) == Interaction("7", "a b", 3)
    assert KIND.read({"sentence": "for another model", "user": "x"}) is None


def test_pairs_that_occur_twice_are_added_up() -> None:
    lines = [Interaction("u", "a", 2), Interaction("v", "b", 1), Interaction("u", "a", 3)]
    assert recommending.matrix(lines, {"u": 0, "v": 1}, {"a": 0, "b": 1}).toarray().tolist() == [[5, 0], [0, 1]]


@pytest.mark.parametrize(
    ("users", "items", "reason"),
    [(1, 9, "at least 2 users to learn from: all of them have the user 'u0'"), (9, 1, "at least 2 items")],
)
def test_data_with_nothing_to_learn_from_is_refused(session: Session, users: int, items: int, reason: str) -> None:
    values = [{"user": f"u{i % users}", "item": f"i{i % items}"} for i in range(22)]
    session.request({"d": {"train": session.put(lines_of(values)), "eval": None}}, model=KIND.name)
    outcome = session.run("prep")
    assert outcome.code == 2
    assert reason in outcome.error["message"]


DEGENERATE = {
    "22 lines, all counts equal": [{"user": f"u{i % 5}", "item": f"i{i % 7}", "count": 4} for i in range(22)],
    "two users, three items": [{"user": f"u{i % 2}", "item": f"i{i // 2 % 3}"} for i in range(22)],
    "every user used everything": [{"user": f"u{i % 4}", "item": f"i{i // 4}"} for i in range(16)],
    "no two users share anything": [{"user": f"u{i}", "item": f"i{i}"} for i in range(22)],
    "counts far apart": [{"user": f"u{i % 5}", "item": f"i{i % 7}", "count": 10.0 ** (i % 10)} for i in range(22)],
}


@pytest.mark.parametrize("regularization", [1e-4, 10])
@pytest.mark.parametrize("values", DEGENERATE.values(), ids=DEGENERATE)
def test_degenerate_data_gives_a_model_with_numbers(session: Session, values: list[Any], regularization: float) -> None:
    trained(session, values, parameters={"regularization": regularization, "factors": 8})
    scored = session.run("eval").result
    assert all(0 <= value <= 1 for value in scored["metrics"].values()), scored
    assert "reason" in scored or scored["metrics"]["ndcg_10"] > 0
    for answer in KIND.predict(KIND.load(session.folder / "model"), [{"user": "u0"}, {"user": "nobody"}]):
        assert np.isfinite(answer["scores"]).all()


def test_what_training_did_not_know_is_counted_and_left_out(session: Session) -> None:
    train = [{"user": f"u{i % 5}", "item": f"i{i % 7}"} for i in range(30)]
    dev = [
        {"user": "u0", "item": "i0"},  # seen
        {"user": "new", "item": "i1"},
        {"user": "u1", "item": "also new"},
        {"user": "new", "item": "i2"},
    ]
    trained(session, train, dev)
    scored = session.run("eval").result
    assert (scored["unknown_users"], scored["unknown_items"], scored["lines_left_out"]) == (1, 1, 3)
    assert (scored["pairs_seen_in_training"], scored["scored_pairs"]) == (1, 0)
    assert "none of the 4 eval lines has a user and an item that are both in the train lines" in scored["reason"]
    assert set(scored["metrics"].values()) == {0}


def test_factors_beyond_all_bounds_are_the_request_s_fault(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(generator: np.random.Generator, rows: int, factors: int) -> np.ndarray:
        return np.full((rows, factors), np.nan, dtype=np.float32)

    monkeypatch.setattr("tarmac_trainer.models.collaborative_filtering._drawn", drawn)
    outcome = prepared(session).run("train")
    assert outcome.code != 0
    assert "lower parameters.alpha" in outcome.error["message"]


# ---- the predictor --------------------------------------------------------------------------------------------------


def small() -> Recommender:
    """Two users; item a is used by both, b by one."""
    return Recommender(
        ["u", "v"],
        ["a", "b", "c", "d"],
        np.array([0, 1, 3], dtype=np.int32),
        np.array([0, 0, 1], dtype=np.int32),
        np.array([[1, 0], [0, 1]], dtype=np.float32),
        np.array([[9, 9], [1, 1], [2, 3], [3, 2]], dtype=np.float32),
    )


def test_what_was_used_is_not_recommended_and_an_unknown_user_gets_what_is_popular(tmp_path: Path) -> None:
    small().to_disk(tmp_path / "model")
    u, v, unknown = KIND.predict(KIND.load(tmp_path / "model"), [{"user": "u"}, {"user": "v"}, {"user": 5}])
    assert u == {"items": ["d", "c", "b"], "scores": [3, 2, 1], "known_user": True}
    assert v == {"items": ["c", "d"], "scores": [3, 2], "known_user": True}
    assert unknown == {"items": ["a", "b", "c", "d"], "scores": [2, 1, 0, 0], "known_user": False}


@pytest.mark.parametrize(
    ("method", "file"), [("als", recommending.ARRAYS_FILE), ("neighbours", neighbours.NEIGHBOURS_FILE)]
)
def test_a_broken_model_is_told(session: Session, method: str, file: str) -> None:
    trained(session, DEGENERATE["22 lines, all counts equal"], parameters={"method": method})
    arrays = session.folder / "model" / file
    arrays.write_bytes(arrays.read_bytes()[:100])
    outcome = session.run("eval")
    assert "is broken" in outcome.error["message"]
    (session.folder / "model" / recommending.NAMES_FILE).write_text('{"users": [], "items": []}')
    assert "is broken" in session.run("eval").error["message"]


def test_a_model_from_mlflow_needs_nothing_but_numpy(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    trained(session)
    saved = session.run("save").result
    uri = saved["model_uri"]
    import mlflow

    card = mlflow.get_run(saved["mlflow_run_id"]).data.tags["mlflow.note.content"]
    assert "to other users it recommends what is popular" in card
    assert "white space" not in card
    code = (
        "import mlflow, sys; sys.modules.update(dict.fromkeys(['implicit', 'scipy', 'spacy', 'threadpoolctl']));"
        "print(mlflow.pyfunc.load_model(sys.argv[1]).predict([{'user': 'u144'}]))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, uri], capture_output=True, text=True)
    assert "'known_user': True" in done.stdout, done.stderr


# ---- starting from another model ------------------------------------------------------------------------------------


def based(make_session: Callable[[str], Session], values: Any, method: str = "als", **parameters: Any) -> Session:
    """A session with the example's model for a base."""
    first, second = make_session("first"), make_session("second")
    trained(first, parameters={"method": method})
    (first.folder / "model").rename(second.folder / "base")
    return prepared(second, values, parameters=parameters)


def test_a_training_starts_where_its_base_ended(make_session: Callable[[str], Session]) -> None:
    warm = based(make_session, None, iterations=1).run("train").result["best_score"]
    cold = trained(make_session("cold"), parameters={"iterations": 1, "method": "als"})["best_score"]
    assert warm > FLOOR > cold


def test_new_users_and_items_are_learned_beside_those_of_the_base(make_session: Callable[[str], Session]) -> None:
    values = [json.loads(line) for line in TRAIN.read_text().splitlines()] + [
        {"user": f"new{i}", "item": f"new{j}"} for i in range(4) for j in range(4)
    ]
    outcome = based(make_session, values, iterations=1).run("train")
    assert outcome.code == 0
    assert "knows 202 of the users and 241 of the items" in outcome.out
    assert "206 users, 245 items" in outcome.out


def test_a_base_that_cannot_be_one_is_refused(make_session: Callable[[str], Session]) -> None:
    session = based(make_session, None, factors=8)
    outcome = session.run("train")
    assert outcome.code == 2
    assert "it has 64 factors; set parameters.factors to 64, not 8" in outcome.error["message"]
    prepared(session, DEGENERATE["no two users share anything"], parameters={})
    for path in (session.folder / "base").iterdir():
        if path.name == recommending.NAMES_FILE:
            names = json.loads(path.read_text())
            path.write_text(json.dumps({key: [f"x{name}" for name in given] for key, given in names.items()}))
    assert "knows none of the users and items" in session.run("train").error["message"]
    (session.folder / "base" / recommending.NAMES_FILE).unlink()
    assert "it is not a model of this kind" in session.run("train").error["message"]


def test_item_neighbours_are_no_base(make_session: Callable[[str], Session]) -> None:
    outcome = based(make_session, None, method="neighbours").run("train")
    assert outcome.code == 2
    assert "it recommends by item neighbours, which have no factors to start from" in outcome.error["message"]


# ---- what is tried, and training again on all pairs ------------------------------------------------------------------

PAIRED = [{"user": f"u{i}", "item": f"i{i // 8 * 8 + j}"} for i in range(40) for j in range(8) if j != i % 8]
"""Five groups of users who share eight items, of which each lacks one: neighbours find it."""


@pytest.mark.parametrize("method", ["als", "neighbours"])
def test_one_way_alone_is_trained_where_the_request_says_so(session: Session, method: str) -> None:
    result = trained(session, PAIRED, parameters={"method": method, "iterations": 6})
    assert result["chosen"]["method"] == method
    assert [step for step, _ in result["curve"]] == ([3, 6] if method == "als" else [1])


def test_the_best_of_three_ways_on_the_held_out_pairs_is_taken(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.1, 0.3, 0.2, 0.3, 0.25])  # ALS, ALS with half of the factors, neighbours; of equals the first

    def scored(*_: Any, **__: Any) -> Scores:
        return Scores({"ndcg_10": next(values, 0.3)})

    monkeypatch.setattr(type(KIND), "score", scored)
    outcome = prepared(session, PAIRED, parameters={"iterations": 6}).run("train")
    assert outcome.result["chosen"] == {"method": "als", "factors": 64, "alpha": 5, "iterations": 6}
    assert "chosen by ndcg_10: ALS with 64 factors, alpha 5, 6 iterations" in outcome.out


def test_neighbours_recommend_what_those_who_used_the_same_have_used(session: Session) -> None:
    trained(session, PAIRED, parameters={"method": "neighbours"})
    for user in (0, 13, 39):
        (answer,) = KIND.predict(KIND.load(session.folder / "model"), [{"user": f"u{user}"}])
        assert answer["items"][0] == f"i{user // 8 * 8 + user % 8}"


@pytest.mark.parametrize("method", [None, "als", "neighbours"])
def test_a_user_is_not_recommended_what_was_used_in_a_held_out_pair(session: Session, method: str | None) -> None:
    outcome = prepared(session, PAIRED, parameters={"method": method}).run("train")
    assert outcome.result["trained_again_on"] == len(PAIRED)
    predictor = KIND.load(session.folder / "model")
    for user in range(40):
        (answer,) = KIND.predict(predictor, [{"user": f"u{user}"}])
        used = {line["item"] for line in PAIRED if line["user"] == f"u{user}"}
        assert not used & set(answer["items"])
    scored = session.run("eval").result
    assert scored["scored_pairs"] > 20  # by the model that did not know them
    assert scored["metrics"]["ndcg_10"] == pytest.approx(outcome.result["best_score"])


# ---- on a GPU: NumPy and SciPy in CuPy's place ----------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [2**24, 64 * 50], ids=["one block", "many blocks"])
def test_the_gpu_s_solver_gives_implicit_s_factors(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(als, "FACTORS_AT_ONCE", at_once)
    # In double precision: in single, what is rounded differently grows to some percent within four iterations.
    train, _ = implicit_alone.matrices()
    model = implicit_alone.fitted(train, seed=5, iterations=4, dtype=np.float64)
    generator = np.random.default_rng(5)
    start = [generator.random((rows, 64)) * 0.01 for rows in train.shape]
    solver = als.Solver(np, scipy.sparse, train * np.float32(5), *start, regularization=10)
    for _ in range(4):
        solver.iterate()
    assert np.allclose(solver.user_factors, model.user_factors, atol=1e-5)
    assert np.allclose(solver.item_factors, model.item_factors, atol=1e-5)
    assert np.abs(model.user_factors).max() > 0.1


@pytest.mark.parametrize("at_once", [2**24, 64 * 50], ids=["one block", "many blocks"])
def test_the_loss_is_implicit_s(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    from implicit.cpu._als import calculate_loss

    monkeypatch.setattr(als, "FACTORS_AT_ONCE", at_once)
    train, _ = implicit_alone.matrices()
    model = implicit_alone.fitted(train, seed=5, iterations=2)
    confidences = train * np.float32(5)
    theirs = calculate_loss(confidences, model.user_factors, model.item_factors, 10)
    found = als.loss(confidences, model.user_factors, model.item_factors, regularization=10)
    assert found == pytest.approx(theirs, rel=1e-4)


def test_a_row_that_has_arrived_stays_and_divides_by_nothing() -> None:
    start = np.zeros((2, 3), dtype=np.float32)
    solver = als.Solver(np, scipy.sparse, csr_matrix(np.eye(2, dtype=np.float32)), start, start, regularization=1)
    with np.errstate(all="raise"):
        solver.iterate()
    assert not solver.user_factors.any()


@pytest.mark.parametrize(
    ("starts", "wanted"),
    [
        ([0, 2, 4, 6], [(0, 2), (2, 3)]),
        ([0, 9, 10, 11], [(0, 1), (1, 3)]),
        ([0, 1, 9, 18], [(0, 1), (1, 2), (2, 3)]),
        ([0, 4, 5], [(0, 1), (1, 2)]),
    ],
)
def test_rows_are_cut_into_blocks_of_so_many_entries(
    monkeypatch: pytest.MonkeyPatch, starts: list[int], wanted: list[tuple[int, int]]
) -> None:
    monkeypatch.setattr(als, "FACTORS_AT_ONCE", 8)
    assert list(als.blocks(np.array(starts), factors=2)) == wanted


@pytest.fixture
def gpu(cupy: Cupy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """the fake CuPy, with NumPy's arrays."""
    module: Any = sys.modules["cupy"]
    module.__getattr__ = lambda name: getattr(np, name)
    module.asnumpy = np.array

    def asarray(array: Any) -> Any:
        cupy.pool.malloc(array.nbytes)
        return np.array(array)

    module.asarray = asarray
    names = {"cupyx": types.ModuleType("cupyx"), "cupyx.scipy": types.ModuleType("cupyx.scipy")}
    names["cupyx"].scipy = names["cupyx.scipy"]  # type: ignore[attr-defined]
    names["cupyx.scipy"].sparse = scipy.sparse  # type: ignore[attr-defined]
    for name, found in {**names, "cupyx.scipy.sparse": scipy.sparse}.items():
        monkeypatch.setitem(sys.modules, name, found)
    monkeypatch.setenv("TARMAC_DEVICE", "cuda")
    return cupy.pool


def test_a_training_on_a_gpu_is_as_good_and_tells_its_peak(session: Session, gpu: Pool) -> None:
    result = trained(session, gpu=True)
    assert result["device"] == "cuda"
    assert result["gpu_peak_bytes"] == gpu.held > 4 * 64 * (202 + 241)
    assert result["best_score"] > FLOOR


def test_a_training_that_does_not_fit_in_its_share_is_told_with_numbers(
    session: Session, gpu: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tarmac_trainer.runtime.device import CUDA_CONTEXT_BYTES

    monkeypatch.setenv("TARMAC_GPU_MEMORY_BYTES", str(CUDA_CONTEXT_BYTES + 50_000))
    outcome = prepared(session, gpu=True).run("train")
    assert outcome.code == 3
    assert outcome.error["code"] == "GPU_OUT_OF_MEMORY"
    assert outcome.error["needed_bytes"] > outcome.error["limit_bytes"] == CUDA_CONTEXT_BYTES + 50_000
