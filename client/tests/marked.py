"""Lines by characters, for tests of the readers of exports."""

from __future__ import annotations

from typing import Any


def marked(text: str, *mentions: tuple[str, str], **more: Any) -> dict[str, Any]:
    """Return a line with these mentions and their labels; each mention is searched behind the one before it."""
    spans, at = list[dict[str, Any]](), 0
    for mention, label in mentions:
        start = text.index(mention, at)
        at = start + len(mention)
        spans.append({"start": start, "end": at, "label": label})
    return {"text": text, "spans": spans, **more}
