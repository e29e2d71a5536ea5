"""Recommending items to users by what others used: implicit ALS on counts, or item neighbours.

    {"user": "u1", "item": "Dune", "count": 3}

`count` is 1 where it is left out; the first of `WEIGHTS` that a line has stands for it. Pairs that occur more than once
are added up. On a CPU the `implicit` library trains, on a GPU `als` does the same through CuPy; item neighbours are
found on the CPU.

    Hu, Koren, Volinsky: Collaborative filtering for implicit feedback datasets. ICDM 2008.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from tarmac_trainer.data.readers import BrokenLineError, check_storable, composed, shown, whole_number
from tarmac_trainer.model import REFIT, Choice, Model, Number, Scores
from tarmac_trainer.recommender import als, neighbours, recommending
from tarmac_trainer.recommender.recommending import Interaction, Predictor, Recommender, rows_of
from tarmac_trainer.runtime import events, stopping
from tarmac_trainer.runtime.counting import counted
from tarmac_trainer.runtime.errors import DataError, RequestError
from tarmac_trainer.runtime.training import Chosen, Training

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MOST_CHARACTERS = 1000
"""Of a user's or an item's name; what is longer is a text."""

MOST = 1e9
"""The highest count; something else, a time perhaps, got into the field."""

ALS, NEIGHBOURS = "als", "neighbours"
"""What `parameters.method` may be."""

WEIGHTS = ("count", "rating", "score", "weight")
"""Keys of a line that say how much a pair weighs; the first that is there counts."""

START = 0.01
"""Factors start between 0 and this, as implicit's do."""


class CollaborativeFiltering(Model[Interaction]):
    """See the module."""

    name = "collaborative_filtering"
    title = "recommends items to users by what they and others have used"
    key = "item"
    score_name = "ndcg_10"
    example = {"user": "u1"}
    limits = "It knows the users and items of its train lines only; to other users it recommends what is popular."
    packages = ("numpy>=1.24",)  # its arrays are read by any; the newest ones do not run on Python 3.10
    is_spacy = False
    spacy_on_gpu = False
    leaves_out_trained = True
    parameters = {
        "factors": Number(64, 1, 1024, "numbers that describe a user or an item", whole=True),
        "regularization": Number(10, 1e-4, 1e6, "how much large factors cost; more is smoother"),
        "alpha": Number(5, 1e-3, 1e4, "how much a count of 1 weighs against an item that was not used"),
        "iterations": Number(15, 1, 1000, "iterations of alternating least squares", whole=True),
        "eval_frequency": Number(
            3, 1, 1000, "iterations from one scoring on the evaluation lines to the next", whole=True
        ),
        "method": Choice(
            (ALS, NEIGHBOURS),
            "how it learns; default: three ways are tried, and the best on the evaluation lines is taken",
        ),
        "refit": REFIT,
    }

    @override
    def learned(self, line: str) -> str:
        value = json.loads(line)
        return json.dumps([value["user"], value["item"]])  # a pair whatever its count

    @override
    def read(self, value: dict[str, Any]) -> Interaction | None:
        if self.key not in value:
            return None
        return Interaction(_name(value, "user"), _name(value, "item"), _count(value))

    @override
    def load_line(self, value: dict[str, Any]) -> Interaction:
        return Interaction(**value)

    @override
    def check(self, train: Sequence[Interaction]) -> None:
        for what in ("user", "item"):
            names = {getattr(line, what) for line in train}
            if len(names) < 2:
                only = f"all of them have the {what} {names.pop()!r}" if names else "there are none"
                raise DataError(f"the train lines must have at least 2 {what}s to learn from: {only}")

    @override
    def train(self, training: Training[Interaction]) -> None:
        users = sorted({line.user for line in training.train})
        items = sorted({line.item for line in training.train})
        counts = recommending.matrix(training.train, rows_of(users), rows_of(items))
        events.say(
            f"{counted(len(users), 'user')}, {counted(len(items), 'item')}, {counted(counts.nnz, 'pair')} of them"
        )
        base = None if training.base is None else _load_base(training.base)
        ways = _ways(training.parameters, training.chosen, based=base is not None)
        total = sum(way.iterations for way in ways)
        training.progress(0, total)
        done = 0
        for number, way in enumerate(ways):
            beside = number > 0  # the curve is that of the first way
            if way.method == NEIGHBOURS:
                training.progress(done + 1, total)
                training.evaluated(
                    neighbours.found(users, items, counts),
                    step=1,
                    how=way.record(1),
                    named=_said(way.record(1)) if beside else None,
                )
            elif not training.has_ended(loop := f"ALS from {done}"):
                with stopping.delayed():
                    _factorize(
                        training, way, users, items, counts, base, beside=beside, done=done, total=total, loop=loop
                    )
                training.end_loop(loop)
            done += way.iterations
        if len(ways) > 1:
            events.say(f"chosen by {self.score_name}: {_said(training.best_how)}")

    @override
    def score(self, predictor: Any, lines: Sequence[Interaction], *, tick: Callable[[], Any] = lambda: None) -> Scores:
        return recommending.score(predictor, lines, tick=tick)

    @override
    def predict(self, predictor: Any, values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [predictor.recommend(_name(value, "user")) for value in values]

    @override
    def load(self, folder: Path) -> Predictor:
        if (folder / neighbours.NEIGHBOURS_FILE).exists():
            return neighbours.Neighbours.from_disk(folder)
        return Recommender.from_disk(folder)


@dataclass(frozen=True)
class Way:
    """A way to recommend that is tried: item neighbours, or ALS with these numbers."""

    method: str
    factors: int = 0
    alpha: float = 0
    iterations: int = 1

    def record(self, iterations: int) -> dict[str, Any]:
        """What it takes to repeat it, up to an iteration. Pure."""
        return {**vars(self), "iterations": iterations}


def _ways(parameters: Mapping[str, Any], chosen: Chosen | None, *, based: bool) -> list[Way]:
    """What is tried, in this order; of equals the first is taken. Pure.

    ALS as the parameters say suits data with few items; half of the factors and a fifth of `alpha` suit data with many
    pairs for each user, where the first learns by heart; docs/benchmarks.md has the measurements.
    """
    if chosen is not None:
        return [Way(**chosen.how)]
    factors, alpha, iterations = (parameters[name] for name in ("factors", "alpha", "iterations"))
    told = Way(ALS, factors, alpha, iterations)
    if parameters["method"] == NEIGHBOURS:
        return [Way(NEIGHBOURS)]
    if parameters["method"] == ALS or based:  # a base's factors are as many as they are
        return [told]
    return [told, Way(ALS, max(factors // 2, 1), alpha / 5, iterations), Way(NEIGHBOURS)]


def _said(how: Mapping[str, Any]) -> str:
    if how["method"] == NEIGHBOURS:
        return "item neighbours"
    return f"ALS with {how['factors']} factors, alpha {how['alpha']:g}, {how['iterations']} iterations"


def _factorize(
    training: Training[Interaction],
    way: Way,
    users: list[str],
    items: list[str],
    counts: "csr_matrix",
    base: Recommender | None,
    *,
    beside: bool,
    done: int,
    total: int,
    loop: str,
) -> None:
    """Train by ALS and hand over what each `eval_frequency` iterations give, and the last.

    Args:
        training: gets the progress and the candidates.
        way: the numbers of ALS.
        users, items: the names of rows and columns.
        counts: how often each pair occurred.
        base: to start from; None: from nothing.
        beside: another way's curve is drawn.
        done: iterations that were done before in this training.
        total: iterations of the whole training.
        loop: by which a checkpoint knows this way among the others.

    Raises:
        RequestError: the factors are no numbers any more, or the base does not fit.
    """
    regularization = training.parameters["regularization"]
    confidences = counts * np.float32(way.alpha)
    every = training.parameters["eval_frequency"] if training.chosen is None else way.iterations
    generator = np.random.default_rng(training.seed)
    start = Recommender(
        users,
        items,
        counts.indptr,
        counts.indices,
        # In this order, as implicit draws them.
        _drawn(generator, len(users), way.factors),
        _drawn(generator, len(items), way.factors),
    )
    if base is not None:
        _take_over(start, base, way.factors)
    solve = _on_the_cpu if training.device.pool is None else _on_the_gpu
    before = 0
    if (resumed := training.gone_on(loop)) is not None:
        before = resumed.values["at"] - done
        start = replace(start, user_factors=resumed.arrays["users"], item_factors=resumed.arrays["items"])

    def after(iteration: int, user_factors: np.ndarray, item_factors: np.ndarray) -> None:
        iteration += before
        evaluate(iteration, user_factors, item_factors)
        training.offer(loop, done + iteration, lambda: ({}, {"users": user_factors, "items": item_factors}))

    def evaluate(iteration: int, user_factors: np.ndarray, item_factors: np.ndarray) -> None:
        training.device.sample()
        training.progress(done + iteration, total)
        if iteration % every and iteration != way.iterations:
            return
        if not (np.isfinite(user_factors).all() and np.isfinite(item_factors).all()):
            raise RequestError(
                "the factors grew beyond all bounds: lower parameters.alpha, or raise parameters.regularization"
            )
        found = Recommender(users, items, counts.indptr, counts.indices, user_factors, item_factors)
        if not beside and training.chosen is None:  # what is repeated is not scored, and tells no curve
            training.lost(als.loss(confidences, user_factors, item_factors, regularization=regularization))
        how = way.record(iteration)
        training.evaluated(found, step=iteration, how=how, named=_said(how) if beside else None)

    left = replace(way, iterations=way.iterations - before)
    solve(counts, start, left, regularization, after)


After = Callable[[int, np.ndarray, np.ndarray], None]
"""Called after each iteration with its number from 1 and both kinds of factors."""


def _on_the_cpu(counts: "csr_matrix", start: Recommender, way: Way, regularization: float, after: After) -> None:
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    # Implicit's threads work on a row each, so that their number changes nothing; BLAS's own would get in their way.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=way.factors, regularization=regularization, alpha=way.alpha, iterations=way.iterations
        )
        model.user_factors, model.item_factors = start.user_factors, start.item_factors

        def callback(iteration: int, seconds: float, loss: float | None) -> None:
            after(iteration + 1, model.user_factors, model.item_factors)

        model.fit(counts, show_progress=False, callback=callback)


def _on_the_gpu(counts: "csr_matrix", start: Recommender, way: Way, regularization: float, after: After) -> None:
    import cupy
    import cupyx.scipy.sparse

    solver = als.Solver(
        cupy,
        cupyx.scipy.sparse,
        counts * np.float32(way.alpha),
        start.user_factors,
        start.item_factors,
        regularization=regularization,
    )
    for iteration in range(way.iterations):
        solver.iterate()
        after(iteration + 1, cupy.asnumpy(solver.user_factors), cupy.asnumpy(solver.item_factors))


def _drawn(generator: np.random.Generator, rows: int, factors: int) -> np.ndarray:
    return generator.random((rows, factors), dtype=np.float32) * np.float32(START)


def _load_base(folder: Path) -> Recommender:
    if (folder / neighbours.NEIGHBOURS_FILE).exists():
        raise RequestError(
            "base_model: it recommends by item neighbours, which have no factors to start from: leave base_model out, "
            'or name a model that was trained with parameters.method "als"'
        )
    try:
        return Recommender.from_disk(folder)
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(f"base_model: it is not a model of this kind, or it is broken ({error})") from error


def _take_over(start: Recommender, base: Recommender, factors: int) -> None:
    """Start from a base's factors where it knows the user or the item.

    Raises:
        RequestError: the base has another number of factors, or knows none of them.
    """
    had = base.item_factors.shape[1]
    if had != factors:
        raise RequestError(f"base_model: it has {had} factors; set parameters.factors to {had}, not {factors}")
    users = [(row, base.user_rows[name]) for row, name in enumerate(start.users) if name in base.user_rows]
    items = [(row, base.item_rows[name]) for row, name in enumerate(start.items) if name in base.item_rows]
    if not users and not items:
        raise RequestError("base_model: it knows none of the users and items of this data")
    events.say(f"starting from a base model that knows {len(users):,} of the users and {len(items):,} of the items")
    for pairs, own, theirs in (
        (users, start.user_factors, base.user_factors),
        (items, start.item_factors, base.item_factors),
    ):
        for row, other in pairs:
            own[row] = theirs[other]


def _name(value: Mapping[str, Any], key: str) -> str:
    """A user's or an item's name, without blanks around it; a whole number is taken as its digits. Pure.

    Raises:
        BrokenLineError: there is none, or it is too long.
    """
    name = value.get(key)
    if (number := whole_number(name)) is not None:
        return str(number)
    if not isinstance(name, str):
        what = "is missing" if name is None else f"must be a string or a whole number, not {shown(name)}"
        raise BrokenLineError(f'"{key}" {what}')
    check_storable(name, f'"{key}"')
    if not name.strip():
        raise BrokenLineError(f'"{key}" is blank')
    if len(name) > MOST_CHARACTERS:
        raise BrokenLineError(f'"{key}" has {len(name):,} characters, more than {MOST_CHARACTERS:,}')
    return composed(name.strip())


def _count(value: Mapping[str, Any]) -> float:
    key = next((key for key in WEIGHTS if value.get(key) is not None), None)
    count = 1 if key is None else value[key]
    if isinstance(count, bool) or not isinstance(count, (int, float)) or not 0 < count <= MOST:
        dislike = "" if key == "count" else "; leave out the lines of what a user disliked"
        raise BrokenLineError(f'"{key}" must be a number above 0, at most {MOST:g}, not {shown(count)}{dislike}')
    return float(count)


MODELS = {CollaborativeFiltering.name: CollaborativeFiltering()}
