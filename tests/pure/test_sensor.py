"""Which sessions that hold a reservation are settled, and what is said of those that are not."""

from __future__ import annotations

import pytest

from tarmac.base.states import ContainerHealth
from tarmac.tasks.gpu_sensor import unsettled

SETTLED = [
    (None, "gone"),
    (None, "healthy"),
    ("running", "healthy"),
    *((state, "gone") for state in ("success", "failed", "upstream_failed", "skipped", "removed")),
]


@pytest.mark.parametrize(("state", "health"), SETTLED)
def test_settled(state: str | None, health: str):
    assert unsettled(state, ContainerHealth(health)) is None


OPEN = [
    ("queued", "gone", "its training is queued"),
    ("scheduled", "gone", "its training is scheduled"),
    ("deferred", "gone", "its training is deferred"),
    ("restarting", "healthy", "its training is restarting"),
    ("up_for_retry", "exited", "its training is up for retry"),
    ("running", "gone", "its container is not there yet"),
    ("running", "created", "its container is being started"),
    ("running", "starting", "its container has not passed a health check yet"),
    ("running", "unhealthy", "its container is unhealthy"),
    ("running", "exited", "its container is exited"),
    ("running", "a state of tomorrow", "its container is unknown"),
    ("running", "none", "its container has no health check"),
]


@pytest.mark.parametrize(("state", "health", "words"), OPEN)
def test_a_session_that_still_starts(state: str, health: str, words: str):
    assert unsettled(state, ContainerHealth(health)) == words
