"""The models a request may name, and the parameters each one takes.

The trainer checks parameters again; this copy lets a bad request be refused before anything is started.
A test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Parameter:
    """One hyperparameter. `kind` is int, number or choice; bounds are inclusive; `choices` may hold None."""

    kind: str
    low: float = 0
    high: float = 0
    choices: tuple[str | None, ...] = ()

    def problem(self, value: object) -> str | None:
        """Say what is wrong with a value, or None. Pure."""
        if self.kind == "choice":
            if value in self.choices and not isinstance(value, bool):
                return None
            return "must be one of " + ", ".join("null" if c is None else repr(c) for c in self.choices)
        wanted = "a whole number" if self.kind == "int" else "a number"
        numeric = isinstance(value, int) or (self.kind == "number" and isinstance(value, float))
        if isinstance(value, bool) or not numeric or not self.low <= value <= self.high:  # type: ignore[operator]
            return f"must be {wanted} from {self.low:g} to {self.high:g}"
        return None


@dataclass(frozen=True)
class Model:
    """A kind of model.

    `score` names the metric of `eval` that ranks its versions, higher is better; `margin` is by how much a version has
    to be better to be promoted by the rule. `gpu_memory_bytes` is what a session reserves of a GPU before anything like
    it was measured; None: a whole device.
    """

    title: str
    score: str
    margin: float = 0.005
    gpu_memory_bytes: int | None = None
    parameters: dict[str, Parameter] = field(default_factory=dict)


MODELS: dict[str, Model] = {
    "named_entity_recognition": Model(
        title="Named-entity recognition with spaCy",
        score="f1",
        gpu_memory_bytes=4 * 1024**3,
        parameters={
            "max_steps": Parameter("int", 1, 100_000),
            "patience": Parameter("int", 1, 100_000),
            "eval_frequency": Parameter("int", 1, 100_000),
            "dropout": Parameter("number", 0, 0.9),
            "learn_rate": Parameter("number", 1e-6, 1),
            "batch_size": Parameter("int", 1, 1024),
            "disguise": Parameter("number", 0, 1),
            "plain_share": Parameter("number", 0, 1),
        },
    ),
    "test_model": Model(
        title="A model that trains in under a second, for smoke tests of the pipeline",
        score="f1",
        gpu_memory_bytes=1024**3,
        parameters={
            "train_seconds": Parameter("number", 0, 86_400),
            "fail": Parameter("choice", choices=(None, "prep", "train", "save", "eval")),
            "gpu_memory_mib": Parameter("int", 0, 200_000),
            "hang_after": Parameter("number", 0, 86_400),
            "overrun_mib": Parameter("int", 0, 200_000),
        },
    ),
}
