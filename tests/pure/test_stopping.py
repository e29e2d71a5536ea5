"""How long a training is given to write a checkpoint."""

from unittest.mock import Mock

import pytest
from docker.errors import APIError, NotFound

from tarmac.containers.engine import remove_container, seconds_of
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


def test_a_removal_that_is_under_way_is_waited_for_since_the_name_is_taken_until_then():
    api = Mock()
    api.remove_container.side_effect = APIError("busy", response=Mock(status_code=409))
    api.inspect_container.side_effect = [{}, {}, NotFound("gone")]
    remove_container(api, "a" * 64)
    assert api.inspect_container.call_count == 3
