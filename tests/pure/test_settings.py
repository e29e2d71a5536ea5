"""Settings: what `make up` starts needs none; a malformed one is named with its value."""

from datetime import timedelta

import pytest

from tarmac.base.errors import SettingsError
from tarmac.base.settings import matches, read


def test_an_empty_environment_is_a_stack_as_make_up_starts_it():
    stack = read({})
    assert (stack.stack, stack.trainer_image, stack.store_url) == (
        "tarmac",
        "tarmac/trainer:latest",
        "file:///datasets",
    )
    assert stack.trainer_memory_bytes == 4 * 1024**3
    assert stack.url_schemes == ("file", "s3")


def test_an_empty_variable_counts_as_unset():
    assert read({"TARMAC_PROJECT": "", "TARMAC_TRAINER_MEMORY": ""}) == read({})


def test_limits_of_data_go_to_the_trainer_as_they_are_set():
    assert read({"TARMAC_MAX_LABELS": ""}).data_limits == {}
    given = {"TARMAC_MAX_LABELS": "20000", "TARMAC_MAX_CLASSES": "1", "TARMAC_MAX_TEXT_CHARACTERS": "5000000"}
    assert read(given).data_limits == given


def test_the_names_of_volumes_and_networks_follow_the_project():
    stack = read({"TARMAC_PROJECT": "two"})
    assert (stack.datasets_volume, stack.files_volume) == ("two_datasets", "two_files")
    assert (stack.registry_network, stack.egress_network) == ("two_registry", "two_egress")


def test_addresses_lose_their_trailing_slash_and_schemes_their_spaces():
    stack = read(
        {"TARMAC_STORE": "s3://bucket/sets/", "TARMAC_PUBLIC_URL": "http://h:1/", "TARMAC_URL_SCHEMES": " s3, gs ,"}
    )
    assert (stack.store_url, stack.public_url, stack.url_schemes) == ("s3://bucket/sets", "http://h:1", ("s3", "gs"))


def test_images_for_code_of_one_s_own_are_allowed_by_patterns():
    assert read({}).run_images == ()
    allowed = read({"TARMAC_RUN_IMAGES": "team/train:*, pytorch/pytorch:2.8*,"}).run_images
    assert allowed == ("team/train:*", "pytorch/pytorch:2.8*")
    names = {
        "team/train:3": True, "team/train:": True, "team/train": False, "evil/team/train:3": False,
        "pytorch/pytorch:2.8-cuda": True, "pytorch/pytorch:2a8": False, "team/train:3/../x": False,
        "team/train:3\n": False,
    }  # fmt: skip
    assert {name: any(matches(name, one) for one in allowed) for name in names} == names


MALFORMED = {
    "a pattern of images with a blank": ("TARMAC_RUN_IMAGES", "team train"),
    "a size of zero": ("TARMAC_TRAINER_MEMORY", "0"),
    "a size with two points": ("TARMAC_TRAINER_MEMORY", "1.5.0g"),
    "a size in petabytes": ("TARMAC_TRAINER_MEMORY", "1p"),
    "a negative size": ("TARMAC_TRAINER_MEMORY", "-1g"),
    "a size that is a word": ("TARMAC_TRAINER_MEMORY", "much"),
    "a project in capitals": ("TARMAC_PROJECT", "Tarmac"),
    "a project that starts with a dash": ("TARMAC_PROJECT", "-x"),
    "a project of 42 characters": ("TARMAC_PROJECT", "a" * 42),
    "a limit of nothing": ("TARMAC_MAX_LABELS", "0"),
    "a limit in words": ("TARMAC_MAX_CLASSES", "many"),
    "a limit with a comma": ("TARMAC_MAX_TEXT_CHARACTERS", "2,000,000"),
    "a size of /tmp in words": ("TARMAC_TRAINER_TMP", "much"),
    "a hub without http": ("TARMAC_HUB_URL", "hub.example"),
    "a hub with a password": ("TARMAC_HUB_URL", "https://me:secret@hub.example"),
    "a package index without http": ("TARMAC_PACKAGE_INDEX", "index.example/simple"),
    "too few processes": ("TARMAC_TRAINER_PROCESSES", "15"),
    "processes in words": ("TARMAC_TRAINER_PROCESSES", "many"),
    "processes as a superscript digit": ("TARMAC_TRAINER_PROCESSES", "5²"),
    "cores in words": ("TARMAC_HOST_CPUS", "all"),
    "negative cores": ("TARMAC_HOST_CPU_HEADROOM", "-1"),
    "host memory in words": ("TARMAC_HOST_MEMORY", "all"),
    "a headroom without a unit that is none": ("TARMAC_HOST_MEMORY_HEADROOM", "2x"),
    "hours in words": ("TARMAC_SESSION_HOURS", "two"),
    "no hours at all": ("TARMAC_SESSION_HOURS", "0.0"),
    "negative hours": ("TARMAC_SESSION_HOURS", "-1"),
    "hours without end": ("TARMAC_SESSION_HOURS", "inf"),
}


@pytest.mark.parametrize(("variable", "value"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_variable_is_named_with_its_value(variable: str, value: str):
    with pytest.raises(SettingsError) as refused:
        read({variable: value})
    assert variable in str(refused.value)
    assert repr(value) in str(refused.value)


def test_a_session_may_take_for_ever_unless_hours_are_given():
    assert read({"TARMAC_SESSION_HOURS": ""}).session_limit is None
    assert read({"TARMAC_SESSION_HOURS": "0.5"}).session_limit == timedelta(minutes=30)
