"""What all folders share: pytest's processes agree on a folder, and tests that disturb a stack come last."""

from __future__ import annotations

from typing import Any

import pytest

from support import shared


def pytest_configure(config: pytest.Config) -> None:
    shared.configure(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    shared.configure_node(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    return shared.scheduler(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_collection_finish(session: pytest.Session) -> None:
    shared.note_groups(session.config, session.items)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    shared.put_last(items)


def pytest_unconfigure(config: pytest.Config) -> None:
    shared.finish(config)
