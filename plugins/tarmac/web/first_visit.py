"""The first visit of a webserver that starts: it makes that itself, in this process, before it takes calls.

In Airflow the first call of a kind takes longest: the first list of runs takes most of a second, and a visit of the
page needs one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tarmac.base import ids
from tarmac.request.callers import Right, may

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

_RUNS = f"/api/v2/dags/{ids.DAG_ID}/dagRuns"
PATHS = (f"{_RUNS}?limit=1", f"{_RUNS}/~/taskInstances?limit=1", "/tarmac/")
"""What is visited. The page cannot reach Airflow's API before the webserver takes calls, so that one is called, too."""

_TOKEN_SECONDS = 60
_MOST_SECONDS = 30.0


async def visit(app: App, token: Callable[[], Awaitable[str | None]] | None = None) -> None:
    """Make the visit. One that fails is said in the log: the webserver starts all the same.

    Args:
        app: the whole webserver.
        token: makes a token of a person who may see sessions, or returns None if nobody may; None: token_of_a_reader.
    """
    import httpx

    began = time.monotonic()
    try:
        async with asyncio.timeout(_MOST_SECONDS):
            made = await (token or token_of_a_reader)()
            if made is None:
                log.info("The page is not visited before the webserver starts: no login may see sessions yet.")
                return
            transport = httpx.ASGITransport(app=app)
            headers = {"Authorization": f"Bearer {made}", "Cookie": f"_token={made}"}
            async with httpx.AsyncClient(transport=transport, base_url="http://tarmac", headers=headers) as http:
                for path in PATHS:
                    await http.get(path)
    except Exception as error:  # whatever fails of a visit, people may still visit
        log.warning("The page was not visited before the webserver started: %s: %s", type(error).__name__, error)
        return
    log.info("The page was visited once before the webserver started, in %.1f s.", time.monotonic() - began)


async def token_of_a_reader() -> str | None:
    """Make a token of a login that may see sessions, for a minute. It does not leave this process. None: there is none.

    Airflow's own manager of logins makes it, as it does at a login.
    """
    from airflow.api_fastapi.app import get_auth_manager

    manager: Any = get_auth_manager()
    for user in await asyncio.to_thread(manager.security_manager.get_all_users):
        if user.is_active and await may(user, Right.READ):
            made: str = manager.generate_jwt(user, expiration_time_in_seconds=_TOKEN_SECONDS)
            return made
    return None
