"""A registered version as JSON has it. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tarmac.registry import tags as tag
from tarmac.registry.client import Version


def version_facts(version: Version) -> dict[str, Any]:
    """Return what `make models JSON=1` and the API say of a version."""
    return {
        "name": version.name,
        "version": version.version,
        "aliases": list(version.aliases),
        "created": datetime.fromtimestamp(version.created, UTC),
        "same_as": version.tags.get(tag.SAME_AS),
        "mlflow_run": version.run_id,
        "source": version.source,
        "url": version.url,
        "tags": dict(version.tags),
    }
