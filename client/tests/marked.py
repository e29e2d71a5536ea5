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


def of_one_label(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return lines without their labels; a line that has a label has its number as its class, too."""
    for line in lines:
        assert "labels" not in line or (len(line["labels"]) == 1 and "sentiment" in line), line
    return [{key: value for key, value in line.items() if key != "labels"} for line in lines]
