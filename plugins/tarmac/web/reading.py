"""The API's call for files that are not lines yet: tables, label tools' exports, other encodings (docs/exports.md)."""

import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request

from tarmac.base.errors import RequestError
from tarmac.base.units import format_size
from tarmac.web import answers
from tarmac.web.stack import Person

MOST_BYTES = 64 * 1024**2
"""Of a file that is read as a whole. The client reads larger ones on the person's own machine."""

_TAKES_A_FILE = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}
_Column = Annotated[str | None, Query(description="of a table; none: known by its name", max_length=200)]


def reading_calls(
    asked: Callable[..., Awaitable[Any]], starter: Callable[[Request], Awaitable[Person]], prefix: str
) -> APIRouter:
    """Make the call.

    Args:
        asked: asks the checker: method, path, query, and what is sent.
        starter: lets those alone pass who may start sessions.
    """
    router = APIRouter(prefix=f"{prefix}/datasets")
    Starter = Annotated[Person, Depends(starter)]  # noqa: N806

    @router.post("/read", status_code=201, response_model=answers.ReadFile, openapi_extra=_TAKES_A_FILE)
    async def read_file(
        _: Starter,
        request: Request,
        name: Annotated[str, Query(description="of the file, for messages", max_length=250)],
        model: Annotated[str, Query(description="the kind of model that it is for; none: any")] = "",
        text_column: _Column = None,
        label_column: _Column = None,
        between: Annotated[
            str | None, Query(description="the sign between a text's labels; empty: it has one", max_length=10)
        ] = None,
        encoding: Annotated[
            str | None, Query(description="of the text; none: UTF-8, or UTF-16 that says so itself", max_length=40)
        ] = None,
        classes: Annotated[
            str, Query(description='numbers that a file beside it gave, as JSON: {"bad": 0}', max_length=100_000)
        ] = "{}",
    ) -> Any:
        """Read a table, a label tool's export or another encoding as lines, and store those. Idempotent.

        Lines are stored as they are. Refused (400) if it cannot be read, or the trainer of `model` cannot read it.
        """
        options: dict[str, Any] = {"classes": _numbers(classes)}
        given = {"text_column": text_column, "label_column": label_column, "between": between, "encoding": encoding}
        options |= {key: value for key, value in given.items() if value is not None}
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > MOST_BYTES:
                raise HTTPException(
                    413,
                    f"A file that is read as a table or an export has {format_size(MOST_BYTES)} at most; this one has "
                    "more. `tarmac data push FILE` reads it on your own machine (docs/client.md).",
                )
        query = {"name": name, "model": model, "options": json.dumps(options)}
        return await asked("POST", "/read", query, content=bytes(content), size=len(content))

    return router


def _numbers(text: str) -> dict[str, int]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(one, int) and one is not True for one in found.values()):
        raise RequestError([f'classes: must be an object of whole numbers, such as {{"bad": 0}} (got {text[:80]!r}).'])
    return found
