"""Training a spaCy pipeline: from nothing or from an earlier one, the loop, and the batches."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tarmac_trainer.runtime import events, files, stopping
from tarmac_trainer.runtime.errors import RequestError
from tarmac_trainer.runtime.training import Training
from tarmac_trainer.text import network_state

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.training import Example
    from thinc.api import Model as Network
    from thinc.api import Optimizer

Line = TypeVar("Line")

LOOP = "network"
"""By which a checkpoint knows this training among those of other parts of a model."""


def train(
    training: Training[Any],
    config: Path,
    example: "Callable[[Language, Line], Example]",
    *,
    lines: Sequence[Line] | None = None,
    batches: Iterator[Sequence[Line]] | None = None,
    prepare: "Callable[[Language], None] | None" = None,
    how: Mapping[str, Any] | None = None,
    behind: float = -1.0,
) -> None:
    """Train a pipeline with the request's parameters; equal requests give equal models on a CPU.

    Args:
        training: whose parameters are `models.COMMON` at least; with a `base`, its weights are the
            start.
        config: of spaCy; only functions that plain spaCy registers, so that the trained model
            loads without this package.
        example: makes what spaCy trains with.
        lines: to train with; None: the train lines themselves.
        batches: of lines to train with, endless; None: all lines in an ever new order.
        prepare: changes the first weights of a pipeline that was just initialised.
        how: what besides the number of updates it takes to repeat a candidate.
        behind: a score; a pipeline that is below it after as many updates as `patience` says is not trained on.

    Raises:
        RequestError: the base is no pipeline of this kind.
    """
    from spacy.util import load_config, load_model_from_config
    from thinc.api import fix_random_seed

    parameters = training.parameters
    fix_random_seed(training.seed)
    loaded = load_config(config, overrides={"training.optimizer.learn_rate": parameters["learn_rate"]})
    loaded["training"].update(
        seed=training.seed,
        dropout=parameters["dropout"],
        max_steps=parameters["max_steps"],
        patience=parameters["patience"],
        eval_frequency=parameters["eval_frequency"],
    )
    nlp = load_model_from_config(loaded, auto_fill=True)
    if lines is None:
        lines = training.train
    examples = [example(nlp, line) for line in lines]

    def initialize(nlp: "Language") -> "Optimizer":
        optimizer = nlp.initialize(lambda: examples)
        if prepare:
            prepare(nlp)
        return optimizer

    optimizer = initialize(nlp)
    if training.base is not None:
        fresh = load_model_from_config(loaded, auto_fill=True, vocab=nlp.vocab)
        optimizer = _start_from(training.base, nlp, fresh, initialize)
        nlp = fresh
    batches = batches or shuffled(lines, parameters["batch_size"], seed=training.seed)
    done = 0
    if (found := training.gone_on(LOOP)) is not None:
        done = found.values["at"]
        for _ in range(done):  # the same draws again; none of them is made by the generators that are put back here
            next(batches)
        try:
            network_state.put(nlp, optimizer, found.values["state"], found.arrays)
        except (ValueError, KeyError, TypeError) as error:
            raise training.refused(error) from error
    examples_of = ([example(nlp, line) for line in batch] for batch in batches)
    fit(training, nlp, optimizer, examples_of, how or {}, behind, done=done)


def fit(
    training: Training[Any],
    nlp: "Language",
    optimizer: "Optimizer",
    batches: "Iterator[list[Example]]",
    how: Mapping[str, Any],
    behind: float,
    *,
    done: int = 0,
) -> None:
    """Update a pipeline until an evaluation stops improving, as spaCy's own loop does.

    spaCy's `train_while_improving` updates once more than `max_steps` and leaves the last updates
    without an evaluation; this one evaluates after each `eval_frequency` updates and after the
    last.

    Args:
        training: gets the progress and the candidates.
        nlp: initialised; holds the last, not the best weights afterwards.
        optimizer: its averages, where it keeps any, are what is evaluated and saved.
        batches: endless; made one by one, inside spaCy's memory zone.
        how, behind: see `train`.
        done: updates that an earlier attempt made.
    """
    parameters = training.parameters
    max_steps, eval_frequency = parameters["max_steps"], parameters["eval_frequency"]
    if training.chosen is not None:  # as many updates as were best; one evaluation, which keeps the pipeline
        max_steps = eval_frequency = training.chosen.how["updates"]
    training.progress(done, max_steps)
    with stopping.delayed():
        for step in range(done + 1, max_steps + 1):
            # Words of the batch are forgotten after it: else invented ones would pile up in the model.
            with nlp.memory_zone():
                losses: dict[str, float] = {}
                nlp.update(next(batches), drop=parameters["dropout"], sgd=optimizer, losses=losses)
            training.lost(sum(losses.values()))
            training.progress(step, max_steps)
            if step % eval_frequency == 0 or step == max_steps:
                with nlp.use_params(optimizer.averages or {}):
                    training.evaluated(nlp, step=step, how={**how, "updates": step})
                if training.chosen is None and (why := _over(training, step, behind)):
                    events.say(why)
                    return
            training.offer(LOOP, step, lambda: network_state.of(nlp, optimizer))


def _over(training: Training[Any], step: int, behind: float) -> str:
    """Why a pipeline is not trained on after an evaluation, "": it is. Pure."""
    patience = training.parameters["patience"]
    if step >= patience and training.best_score < behind:
        return f"the network is behind after {step} steps: its training ends here"
    if step - training.best_step >= patience:
        return f"no better {training.score_name} for {step - training.best_step} steps: the training ends here"
    return ""


def shuffled(lines: Sequence[Line], size: int, *, seed: int) -> Iterator[Sequence[Line]]:
    """Batches of at most `size` lines, endless; each round has every line once, in a new order."""
    chance = random.Random(seed)
    while True:
        order = list(lines)
        chance.shuffle(order)
        for start in range(0, len(order), size):
            yield order[start : start + size]


def _start_from(
    base: Path, trial: "Language", nlp: "Language", initialize: "Callable[[Language], Optimizer]"
) -> "Optimizer":
    """Initialise `nlp`, with the weights of the pipeline in `base` wherever they have the same shape.

    Where the data has no label that the base lacks, the base's labels are kept, and all weights fit;
    else the layers that depend on the labels start from nothing.

    Args:
        base: folder of the earlier pipeline.
        trial: another one like `nlp`, initialised with the examples: it knows which labels they have.
        nlp: not initialised.
        initialize: gives a pipeline the weights to start with that do not come from the base.
    """
    import spacy

    try:
        earlier = spacy.load(base)
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(f"base_model: it is not a pipeline that can be loaded ({error})") from error
    if earlier.pipe_names != nlp.pipe_names:
        raise RequestError(
            f"base_model: it is a pipeline of {', '.join(earlier.pipe_names) or 'nothing'}, this model is one of "
            + ", ".join(nlp.pipe_names)
        )
    new: list[str] = []
    for name, pipe in trial.pipeline:
        if not hasattr(pipe, "label_data"):
            continue
        missing = sorted(set(pipe.labels) - set(earlier.get_pipe(name).labels))
        new += missing
        if not missing:
            # By way of a file, as `spacy init labels` does: a config cannot hold the labels of an entity recogniser.
            labels_file = base / f"{name}.labels.json"
            files.write_json(labels_file, earlier.get_pipe(name).label_data)
            reader = {"@readers": "spacy.read_labels.v1", "path": str(labels_file)}
            nlp.config["initialize"]["components"][name] = {"labels": reader}
    optimizer = initialize(nlp)
    # The trained pipeline does not need what is gone with the session.
    nlp.config["initialize"]["components"] = {}
    kept = total = 0
    for name, pipe in nlp.pipeline:
        if hasattr(pipe, "model"):
            source = earlier.get_pipe(name).model
            if _build(source) != _build(pipe.model):
                raise RequestError(
                    "base_model: its network is not built as this model's is; another version of this trainer may have "
                    "built it: train it anew"
                )
            one, all_ = _copy_weights(source, pipe.model)
            kept, total = kept + one, total + all_
    if not kept:
        raise RequestError("base_model: none of its layers has the shape of this model's")
    labels = f"; new labels: {', '.join(new)}" if new else ""
    events.say(f"starting from base_model: {kept} of {total} weight tables are kept{labels}")
    return optimizer


def _copy_weights(source: "Network[Any, Any]", target: "Network[Any, Any]") -> tuple[int, int]:
    """Copy the tables of equal shape between two that are built alike; returns how many, and how many there are."""
    kept = total = 0
    for theirs, ours in zip(network_state.layers(source), network_state.layers(target), strict=True):
        for name in ours.param_names:
            if not ours.has_param(name):
                continue
            total += 1
            if theirs.has_param(name):
                table = theirs.get_param(name)
                if table.shape == ours.get_param(name).shape:
                    ours.set_param(name, ours.ops.asarray(table.copy()))
                    kept += 1
    return kept, total


def _build(network: "Network[Any, Any]") -> list[tuple[str, tuple[str, ...]]]:
    """What a network consists of: its layers and what tables each has."""
    return [(layer.name, tuple(sorted(layer.param_names))) for layer in network_state.layers(network)]
