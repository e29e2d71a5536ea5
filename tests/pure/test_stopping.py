"""How long a training is given to write a checkpoint."""

import pytest

from tarmac.containers.engine import seconds_of
from tarmac.reaper import orphans


@pytest.mark.parametrize(
    ("labels", "seconds"),
    [
        ({}, None),
        ({"tarmac.stop_seconds": "30"}, 30),
        ({"tarmac.stop_seconds": "5"}, 5),
        ({"tarmac.stop_seconds": "86400"}, 30),
        ({"tarmac.stop_seconds": "1"}, None),
        ({"tarmac.stop_seconds": "-30"}, None),
        ({"tarmac.stop_seconds": "thirty"}, None),
        ({"tarmac.stop_seconds": "\u0663\u0660"}, None),
    ],
)
def test_an_image_asks_for_time_by_a_label(labels: dict[str, str], seconds: int | None):
    assert seconds_of(labels) == seconds


@pytest.mark.parametrize(
    ("why", "again"), [("its task train_model_cpu was cleared", True), ("its run is over (failed)", False)]
)
def test_only_what_is_begun_once_more_is_waited_for(why: str, again: bool):
    assert orphans.goes_on(why) == again
