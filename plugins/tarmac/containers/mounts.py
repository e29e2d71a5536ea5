"""Mounts whose source and target may hold Jinja templates."""

from __future__ import annotations

from typing import Any, Literal

from docker.types import Mount


class TemplatedMount(Mount):
    """A Docker mount for `TrainingContainerOperator.mounts`; `source` and `target` are templated.

    The session's volume, for example:
    `TemplatedMount(source="{{ session_volume(run_id) }}", target="/session")`.

    Args:
        source: volume name or host path, templated.
        target: absolute path inside the container, templated.
        type: volume or bind. Anonymous volumes are refused: nothing would remove them.

    Raises:
        ValueError: source or target is empty.
    """

    template_fields = ("Source", "Target")

    def __init__(
        self,
        *,
        source: str,
        target: str,
        type: Literal["volume", "bind"] = "volume",
        read_only: bool = False,
        **kwargs: Any,
    ) -> None:
        if not source or not target:
            raise ValueError(f"A TemplatedMount needs a source and a target, got {source!r} and {target!r}.")
        super().__init__(target=target, source=source, type=type, read_only=read_only, **kwargs)


def check_rendered(mounts: list[dict[str, Any]]) -> None:
    """Refuse mounts whose templates rendered to nothing. Pure.

    Docker would make an anonymous volume for an empty source, and the step would train on nothing.

    Raises:
        ValueError: names the mount.
    """
    for mount in mounts:
        for key in ("Source", "Target"):
            value = mount.get(key)
            if not value or value == "None" or "{{" in str(value):
                raise ValueError(f"The mount {mount.get('Source')!r} -> {mount.get('Target')!r} has no {key.lower()}.")
