"""Makes HTML of the templates beside this file. Pure: every value is escaped, and a missing one is an error."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from tarmac.base.browser import told
from tarmac.base.units import format_cores, format_seconds, format_size

FOLDER = Path(__file__).parent


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a template filled in."""
    return _environment().get_template(template).render(values)


@lru_cache(1)
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "size": format_size,
        "seconds": format_seconds,
        "about": lambda seconds: format_seconds(seconds, about=True),
        "cores": format_cores,
        "instant": instant,
        "code": code,
        "told": told,
        "word": lambda text: quote(str(text), safe=""),
    }
    return made


def code(text: str) -> Markup:
    """Return a sentence with what stands between backticks as code."""
    pieces = str(text).split("`")
    if len(pieces) % 2 == 0:  # one of them is no pair's
        return escape(text)
    made = [Markup("<code>{}</code>").format(one) if number % 2 else escape(one) for number, one in enumerate(pieces)]
    return Markup("").join(made)


def instant(at: datetime) -> str:
    """Return a time as a machine reads it; the browser shows it in its own zone."""
    return at.isoformat(timespec="seconds")
