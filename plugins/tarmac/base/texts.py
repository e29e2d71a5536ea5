"""Texts of people, trainers and other programs, made fit for one line of a terminal, a note or a table. Pure."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return a number of things: `1 session`, `1,200 sessions`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def visible(text: str) -> str:
    """Return a text with every character written out that is not seen: control characters, halves of characters.

    So a text of a container cannot move the cursor of a terminal, and Postgres can keep it.
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def one_line(text: str) -> str:
    """Return a text with every run of white space as one blank, other control characters written out."""
    return visible(" ".join(text.split()))
