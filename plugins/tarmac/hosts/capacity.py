"""What a host has, as its engine says, and what of it sessions may reserve."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tarmac.base.ids import LOCAL_HOST
from tarmac.base.settings import Settings
from tarmac.containers.calls import EngineCalls
from tarmac.hosts.address import is_elsewhere


@dataclass(frozen=True)
class Capacity:
    """Memory in bytes, cores in thousandths; `capacity_*` is what sessions may reserve in all."""

    total_bytes: int
    total_millicpus: int
    capacity_bytes: int
    capacity_millicpus: int


def measure(api: EngineCalls, stack: Settings, host: str = LOCAL_HOST) -> Capacity:
    """Ask an engine what its machine has. Takes 10 ms.

    TARMAC_HOST_CPUS and TARMAC_HOST_MEMORY are about the stack's own machine, the headroom is that of every host.

    Raises:
        OSError: the engine does not answer.
    """
    info = api.info()
    if is_elsewhere(host):
        stack = replace(stack, host_memory_bytes=None, host_millicpus=None)
    return capacity(int(info["MemTotal"]), 1000 * int(info["NCPU"]), stack)


def capacity(total_bytes: int, total_millicpus: int, stack: Settings) -> Capacity:
    """Say what sessions may reserve of a host. Pure.

    Args:
        total_bytes, total_millicpus: what it has, where the settings say nothing else.
        stack: the settings.
    """
    memory, cores = stack.host_memory_bytes or total_bytes, stack.host_millicpus or total_millicpus
    return Capacity(
        memory,
        cores,
        max(0, memory - stack.host_memory_headroom_bytes),
        max(0, cores - stack.host_headroom_millicpus),
    )
