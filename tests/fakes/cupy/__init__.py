"""A stand-in for CuPy on a machine whose GPUs are fake: it takes fake memory and computes nothing.

It has what the trainer's device.py and test_model use, and behaves there like CuPy 14: a context of 512 MiB on first
use, with the GPU's device file kept open; a pool with a limit and CuPy's messages; memory past the pool. Not like
CuPy, the pool reuses nothing. `cupyx` is missing on purpose: so thinc takes CuPy for not installed and spaCy stays on
the CPU.
"""

from cupy import cuda
from cupy.cuda.memory import get_default_memory_pool

__version__ = "14.2.0"
__all__ = ["cuda", "get_default_memory_pool", "ndarray"]


class ndarray:  # noqa: N801  CuPy's name
    """Only to be asked about: srsly checks whether what it writes is one."""
