"""Trouble that lasts is said once."""

from __future__ import annotations

import logging

import pytest

from tarmac.base.trouble import Trouble


def test_trouble_is_said_when_it_begins_and_when_it_is_over(caplog: pytest.LogCaptureFixture):
    trouble = Trouble(logging.getLogger("test"), "Nothing is sent", "All is sent again.")
    for now in ("", "no route", "no answer", "", "", "100 % lost"):
        trouble.note(now)
    assert caplog.messages == ["Nothing is sent: no route", "All is sent again.", "Nothing is sent: 100 % lost"]
