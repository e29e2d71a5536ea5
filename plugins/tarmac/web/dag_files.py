"""The API's calls for DAG files that administrators upload: docs/dags.md."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request

from tarmac.dagfiles.folder import MOST_BYTES
from tarmac.web import answers
from tarmac.web.stack import Person

_TAKES_PYTHON = {"requestBody": {"required": True, "content": {"text/x-python": {}}}}


def dag_file_calls(
    asked: Callable[..., Awaitable[Any]], admin: Callable[[Request], Awaitable[Person]], prefix: str
) -> APIRouter:
    """Make the calls.

    Args:
        asked: asks the checker: method, path, query, and what is sent.
        admin: lets administrators alone pass.
    """
    router = APIRouter(prefix=f"{prefix}/dags")
    Admin = Annotated[Person, Depends(admin)]  # noqa: N806
    Name = Annotated[str, Path(description="of the file, without .py", max_length=200)]  # noqa: N806

    @router.get("", response_model=list[answers.DagFile])
    async def list_dag_files(_: Admin) -> Any:
        """List the uploaded DAG files, with what Airflow has of each."""
        return await asked("GET", "/dags", {})

    @router.put("/{name}", response_model=answers.DagFile, openapi_extra=_TAKES_PYTHON)
    async def upload_dag_file(
        person: Admin,
        name: Name,
        request: Request,
        suffix: Annotated[str, Query(description="of a copy with DAG ids of its own", max_length=100)] = "",
        why: Annotated[str, Query(description="the reason: the note of each run has it", max_length=500)] = "",
    ) -> Any:
        """Check a DAG file in a container and store it, where Airflow finds it within seconds. Idempotent.

        Refused (400) if it is wrong, or uploads are off; (409) if another person has uploaded one of this name.
        """
        content = b""
        async for chunk in request.stream():
            content += chunk
            if len(content) > MOST_BYTES:
                raise HTTPException(413, f"A DAG file has {MOST_BYTES // 1024} KiB at most; this one has more.")
        query: Mapping[str, str] = {"name": name, "suffix": suffix, "why": why, "who": person.name}
        return await asked("PUT", "/dag", query, content=content, size=len(content))

    @router.delete("/{name}", response_model=answers.RemovedDagFile)
    async def remove_dag_file(_: Admin, name: Name) -> Any:
        """Remove an uploaded DAG file; its runs stay. Refused (409) while a run of it is under way."""
        return await asked("DELETE", "/dag", {"name": name})

    return router
