"""Numbers of things in sentences. Pure."""


def counted(count: int, noun: str) -> str:
    """A number of things: `1 line`, `1,200 lines`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
