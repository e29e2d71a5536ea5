"""What can go wrong in a step, and what the pipeline is to make of it.

TrainerError            exit 1, may be retried
├── InputError          exit 2, the same input fails again
│   ├── RequestError    request.json asks for what this trainer does not do
│   └── DataError       a data set is missing, is not what its id says, or cannot be read
├── StoreError          the store did not deliver (network, disk full)
├── SessionError        an earlier step left nothing to work on
├── DeviceError         no usable GPU
├── GpuMemoryError      exit 3, the training needs more GPU memory than it may take
└── RegistryError       MLflow did not take the model
"""


class TrainerError(Exception):
    """A failure that a person can understand; `str()` of it is the whole message."""

    exit_code = 1
    retryable = True


class InputError(TrainerError):
    """The request or its data is wrong: trying again cannot help."""

    exit_code = 2
    retryable = False


class RequestError(InputError):
    """request.json is missing, broken, or asks for something unknown."""


class DataError(InputError):
    """A data set cannot be had or cannot be read."""


class StoreError(TrainerError):
    """The data set store did not deliver this time, or the session's volume is full."""


class SessionError(TrainerError):
    """The session's folder lacks what an earlier step should have left."""


class DeviceError(TrainerError):
    """TARMAC_DEVICE asks for a device that is not there."""


class GpuMemoryError(TrainerError):
    """The training did not fit in the GPU memory it was given."""

    exit_code = 3


class RegistryError(TrainerError):
    """MLflow cannot be reached or refuses what it is sent."""
