"""What can go wrong in a step, and what the pipeline is to make of it.

TrainerError            exit 1, may be retried
├── InputError          exit 2, the same input fails again
│   ├── RequestError    request.json asks for what this trainer does not do
│   ├── DataError       a data set is missing, is not what its id says, or cannot be read
│   └── CachedModelGoneError  the model to take instead of a training is not in MLflow any more
├── StoreError          the store did not deliver (network, disk full)
├── SessionError        an earlier step left nothing to work on; not retried
├── CleaningError       the session's folder cannot be emptied
├── DeviceError         no usable GPU
├── GpuMemoryError      exit 3, the training needs more GPU memory than it may take
└── RegistryError       MLflow did not take the model
    └── ExperimentDeletedError  nor will it, until a person has restored its experiment: waited for
"""

from typing import Any


class TrainerError(Exception):
    """A failure that a person can understand; `str()` of it is the whole message."""

    exit_code = 1
    retryable = True

    def fields(self) -> dict[str, Any]:
        """What the `error` event says besides message and retryable. Pure."""
        return {}


class InputError(TrainerError):
    """The request or its data is wrong: trying again cannot help."""

    exit_code = 2
    retryable = False


class RequestError(InputError):
    """request.json is missing, broken, or asks for something unknown."""


class DataError(InputError):
    """A data set cannot be had or cannot be read."""


class CachedModelGoneError(InputError):
    """The model of the same training, done before, is not in MLflow any more: it has to be trained."""

    code = "CACHED_MODEL_GONE"

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"the model of MLflow run {run_id}, which would be taken instead of a training, is not there any more: "
            "send the request again with no_cache true"
        )

    def fields(self) -> dict[str, Any]:
        """The stable code. Pure."""
        return {"code": self.code}


class StoreError(TrainerError):
    """The data set store did not deliver this time, or the session's volume is full."""


class SessionError(TrainerError):
    """The session's folder lacks what an earlier step should have left: no attempt of this step can bring it."""

    retryable = False

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}. In Airflow, clear the run from retrieve_resources on")


class CleaningError(TrainerError):
    """The session's folder cannot be emptied now."""


class DeviceError(TrainerError):
    """TARMAC_DEVICE asks for a device that is not there."""


class GpuMemoryError(TrainerError):
    """The training did not fit in the GPU memory it was given.

    Attributes:
        needed_bytes: what it would have held at least, CUDA's own memory included; None: not known.
        limit_bytes: the share it had to keep to; None: no limit. A limit that is above
            `needed_bytes` was not the reason: the device was full.
    """

    exit_code = 3
    code = "GPU_OUT_OF_MEMORY"

    def __init__(self, message: str, *, needed_bytes: int | None = None, limit_bytes: int | None = None) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes
        self.limit_bytes = limit_bytes

    def fields(self) -> dict[str, Any]:
        """The stable code, and the numbers that are known. Pure."""
        numbers = {"needed_bytes": self.needed_bytes, "limit_bytes": self.limit_bytes}
        return {"code": self.code, **{name: number for name, number in numbers.items() if number is not None}}


class RegistryError(TrainerError):
    """MLflow cannot be reached or refuses what it is sent."""


class ExperimentDeletedError(RegistryError):
    """The MLflow experiment of this kind of model is deleted. The model is kept until a person has restored it."""

    def __init__(self, name: str) -> None:
        super().__init__(f'the MLflow experiment "{name}" is deleted: restore it, or delete it for good')

    def fields(self) -> dict[str, Any]:
        """The contract's code for what is waited for. Pure."""
        return {"code": "UNAVAILABLE"}
