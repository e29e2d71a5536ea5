"""Fine-tuning: the parameters, the loop, and the batches."""

import math
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tarmac_trainer.model import REFIT, Choice, Number, Parameter
from tarmac_trainer.runtime import events, stopping
from tarmac_trainer.runtime.errors import RequestError
from tarmac_trainer.runtime.training import Training
from tarmac_trainer.transformer import network, state
from tarmac_trainer.transformer.network import Encoded, Tuned

FLOAT32, BFLOAT16 = "float32", "bfloat16"

COMMON: dict[str, Parameter] = {
    "epochs": Number(
        4, 1, 100, "rounds over the train lines at most; the learn rate falls to nothing over them", whole=True
    ),
    "max_steps": Number(
        20_000, 1, 1_000_000, "updates of the weights at most, even if epochs would need more", whole=True
    ),
    "patience": Number(3, 1, 100, "so many scorings without a better score end the training", whole=True),
    "evaluations": Number(2, 1, 20, "scorings on the evaluation lines in each round", whole=True),
    "batch_size": Number(16, 1, 1024, "lines that are computed at once; less needs less memory", whole=True),
    "accumulate": Number(1, 1, 1024, "batches in an update: a large batch in little memory", whole=True),
    "learn_rate": Number(1e-4, 1e-7, 0.01, "how far an update moves the weights (AdamW); less is slower and steadier"),
    "precision": Choice(
        (FLOAT32, BFLOAT16), "number format; default: bfloat16 on a GPU that supports it, else float32"
    ),
    "refit": REFIT,
}
"""What every transformer can be told."""


def most_tokens(where_more: str) -> Number:
    """The parameter `max_tokens`; `where_more` says what becomes of longer texts."""
    text = "tokens that are read at once, at most as many as the model supports; "
    return Number(128, 16, 8192, text + where_more, whole=True)


LOOP = "transformer"
"""By which a checkpoint knows this training."""

WARM_UP = 0.1
"""Share of the updates over which the learn rate rises to what it is to be."""

WEIGHT_DECAY = 0.01
MOST_GRADIENT = 1.0

BATCHES_OF_LIKE_LENGTH = 32
"""So many batches are drawn at once and sorted by length, so that little is computed for filling tokens."""


def train(
    training: Training[Any],
    task: str,
    lines: Sequence[tuple[Any, Any]],
    labels: Sequence[str],
    *,
    begin: Callable[[Tuned], None] = lambda _: None,
    settle: Callable[[Tuned], Mapping[str, Any]] | None = None,
) -> None:
    """Fine-tune what is in the training's `base`; equal requests give equal models on a CPU with equally many threads.

    Args:
        training: whose parameters are `COMMON` and `max_tokens`.
        task: what is to be told, as `network` names it.
        lines: what is read, and the names of its labels.
        labels: all that the lines have.
        begin: changes what is to be trained.
        settle: settles in the end, by the eval lines, how the best is to be read, and returns what it takes to repeat
            that; so read it is a candidate, too.

    Raises:
        RequestError: the base cannot be fine-tuned; says why.
    """
    if training.base is None:
        raise RequestError("base_model: a transformer starts from weights, or from a registered transformer")
    base = training.base

    def start() -> Tuned:
        try:
            tuned = network.start(base, task, labels, training.parameters["max_tokens"])
        except (OSError, ValueError, KeyError) as error:
            raise RequestError(f"base_model: it is not a transformer that can be fine-tuned ({error})") from error
        begin(tuned)
        return tuned

    tuned = fit_to(training, start, lines)
    if settle is not None and training.chosen is None:
        best = network.load(training.partial)
        best.network.to(tuned.network.device)
        best.precision = tuned.precision
        how = {**training.best_how, **settle(best)}
        training.evaluated(best, step=training.best_step, how=how, named="the same network, by another threshold")


def fit_to(training: Training[Any], start: Callable[[], Tuned], lines: Sequence[tuple[Any, Any]]) -> Tuned:
    """Make a network and train it; equal requests give equal models on a CPU with equally many threads.

    Args:
        training: whose parameters `plan` takes.
        start: makes it; PyTorch's generator begins by the training's seed.
        lines: what is read, and what is to be told of it.
    """
    torch, _ = network.libraries()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads):
        torch.set_num_threads(int(threads))
    torch.manual_seed(training.seed)
    tuned = start()
    on_gpu = training.device.name == "cuda"
    if on_gpu:
        tuned.network.to("cuda")
    else:
        torch.use_deterministic_algorithms(True)
    precision = training.parameters.get("precision")
    tuned.precision = precision or (BFLOAT16 if on_gpu and torch.cuda.is_bf16_supported() else FLOAT32)
    encoded = [one for line, targets in lines for one in _encoded(training, tuned, line, targets)]
    _tell(tuned, len(lines))
    fit(training, tuned, encoded, torch)
    return tuned


def _encoded(training: Training[Any], tuned: Tuned, line: Any, targets: Any) -> list[Encoded]:
    training.alive()
    return tuned.encode(line, targets)


def _tell(tuned: Tuned, lines: int) -> None:
    """Say what the network is, and how much it does not read as it stands."""
    labels = f"{len(tuned.labels):,} labels, " if tuned.labels else ""
    events.say(
        f"{tuned.network.config.model_type}: {tuned.network.num_parameters():,} numbers, {labels}"
        f"{tuned.max_tokens} tokens at once, {tuned.precision}"
    )
    if tuned.cut.texts:
        events.say(
            f"{tuned.cut.texts:,} of {lines:,} train texts are longer than that: their beginning is read "
            "(parameters.max_tokens)"
        )
    if tuned.cut.sentences:
        events.say(
            f"{tuned.cut.sentences:,} of {lines:,} train sentences are longer than that: they are read in windows "
            "(parameters.max_tokens)"
        )
    if tuned.cut.words:
        events.say(f"{tuned.cut.words:,} words of the train lines have very many tokens: their beginning is read")


@dataclass(frozen=True)
class Plan:
    """So many updates at most, so many from one scoring to the next, and so many scorings without a better score."""

    updates: int
    every: int
    patience: int


def plan(parameters: Mapping[str, Any], in_a_round: int) -> Plan:
    """Plan a training: what begins from nothing counts updates, and fine-tuning rounds of so many updates. Pure."""
    if "epochs" not in parameters:
        every = parameters["eval_frequency"]
        return Plan(parameters["max_steps"], every, math.ceil(parameters["patience"] / every))
    updates = min(parameters["epochs"] * in_a_round, parameters["max_steps"])
    return Plan(updates, max(1, math.ceil(in_a_round / parameters["evaluations"])), parameters["patience"])


def fit(training: Training[Any], tuned: Tuned, encoded: Sequence[Encoded], torch: Any) -> None:
    """Update a transformer until the rounds are over or the scorings stop improving."""
    parameters = training.parameters
    size, parts = parameters["batch_size"], parameters.get("accumulate", 1)
    intended = plan(parameters, math.ceil(math.ceil(len(encoded) / size) / parts))
    planned, every, last = intended.updates, intended.every, intended.updates
    if training.chosen is not None:  # as many updates as were best, of as many; one candidate, which is kept
        planned, last = training.chosen.how["of"], training.chosen.how["updates"]
        every = last
    optimizer = torch.optim.AdamW(_groups(tuned.network), lr=parameters["learn_rate"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate(planned))
    batches = like_long(encoded, size, seed=training.seed)
    done, without_better, to_be_scored, at_once = 0, 0, False, size
    if (found := training.gone_on(LOOP)) is not None:
        done, told = found.values["at"], found.values["state"]
        for _ in range(done * parts):  # the same draws again
            next(batches)
        try:
            state.put(torch, tuned.network, optimizer, schedule, told["network"], found.arrays)
            without_better, to_be_scored, at_once = told["without_better"], told["to_be_scored"], told["at_once"]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise training.refused(error) from error

    def offer(step: int, *, to_be_scored: bool) -> None:
        def of() -> tuple[dict[str, Any], Any]:
            values, arrays = state.of(torch, tuned.network, optimizer, schedule)
            place = {"without_better": without_better, "to_be_scored": to_be_scored, "at_once": at_once}
            return {"network": values, **place}, arrays

        training.offer(LOOP, step, of)

    training.progress(done, last)
    with stopping.delayed():
        # Where a checkpoint is from before a scoring, that scoring comes first.
        for step in range(done + (not to_be_scored), last + 1):
            if step > done:
                taken = [next(batches) for _ in range(parts)]
                at_once = _update(training, tuned, optimizer, taken, at_once, step, torch)
                schedule.step()
                training.progress(step, last)
            if step % every == 0 or step == last:
                better = training.evaluated(
                    tuned,
                    step=step,
                    how={"updates": step, "of": planned},
                    meanwhile=partial(offer, step, to_be_scored=True),
                )
                without_better = 0 if better else without_better + 1
                if without_better >= intended.patience:
                    events.say(f"no better {training.score_name} in {without_better} scorings: the training ends here")
                    return
            offer(step, to_be_scored=False)


def _update(
    training: Training[Any],
    tuned: Tuned,
    optimizer: Any,
    batches: Sequence[Sequence[Encoded]],
    at_once: int,
    step: int,
    torch: Any,
) -> int:
    """Update the weights once by all lines of some batches, computing at most `at_once` of them together.

    Where a GPU's memory does not hold so many, half as many are computed at once: the sum over all is the same.

    Returns:
        How many were computed at once in the end.

    Raises:
        RequestError: the loss is not finite.
    """
    tuned.network.train()
    told = sum(sum(target != network.NO_TARGET for target in one.targets) for batch in batches for one in batch)
    while True:
        pieces = [batch[at : at + at_once] for batch in batches for at in range(0, len(batch), at_once)]
        try:
            loss = _gradients(training, tuned, pieces, max(told, 1))
            break
        except torch.OutOfMemoryError:
            if at_once == 1:
                raise
        # Outside of the handler, where nothing holds the tensors of the piece any more.
        optimizer.zero_grad(set_to_none=True)
        if tuned.network.device.type == "cuda":
            torch.cuda.empty_cache()
        at_once = math.ceil(min(at_once, max(map(len, batches))) / 2)
        events.say(f"out of GPU memory: {at_once:,} lines are computed at once from here on, for the same updates")
    if not math.isfinite(loss):
        raise RequestError(f"its loss is {loss} after {step:,} updates: lower parameters.learn_rate")
    training.lost(loss)
    torch.nn.utils.clip_grad_norm_(tuned.network.parameters(), MOST_GRADIENT)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return at_once


def _gradients(training: Training[Any], tuned: Tuned, pieces: Sequence[Sequence[Encoded]], told: int) -> float:
    """Add up the gradients of the mean loss of `told` targets; returns that loss."""
    of_all = 0.0
    for piece in pieces:
        loss = tuned.loss(piece) / told
        loss.backward()
        of_all += float(loss.detach())
        training.alive()
    return of_all


def rate(planned: int) -> Callable[[int], float]:
    """What share of the learn rate an update has, by its number from 0: it rises, then falls to nothing. Pure."""
    rising = max(1, round(planned * WARM_UP))

    def share(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return max(0.0, (planned - step) / max(1, planned - rising + 1))

    return share


def _groups(model: Any) -> list[dict[str, Any]]:
    """The numbers of a network, those that shrink and those that do not: biases and what normalizes."""
    shrinking = [one for one in model.parameters() if one.requires_grad and one.ndim > 1]
    others = [one for one in model.parameters() if one.requires_grad and one.ndim <= 1]
    return [{"params": shrinking, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]


def like_long(encoded: Sequence[Encoded], size: int, *, seed: int) -> Iterator[list[Encoded]]:
    """Batches of at most `size`, each of like length, endless; each round has everything once, in a new order."""
    chance = random.Random(seed)
    while True:
        order = list(encoded)
        chance.shuffle(order)
        made = []
        for start in range(0, len(order), size * BATCHES_OF_LIKE_LENGTH):
            drawn = sorted(order[start : start + size * BATCHES_OF_LIKE_LENGTH], key=lambda one: len(one.ids))
            made += [drawn[at : at + size] for at in range(0, len(drawn), size)]
        chance.shuffle(made)
        yield from made
