"""Who may start a run: Airflow's own answer, asked as its endpoint asks it."""

from __future__ import annotations

from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

from tarmac.base.ids import DAG_ID


async def may_trigger(headers: Mapping[str, str]) -> bool:
    """Ask Airflow whether the caller may start a run: the same two questions that its own endpoint asks.

    Args:
        headers: of the call, by lower-case name.
    """
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
    from airflow.api_fastapi.core_api.security import resolve_user_from_token
    from fastapi import HTTPException
    from starlette.concurrency import run_in_threadpool

    try:
        user = await resolve_user_from_token(_token(headers))
    except HTTPException:
        return False
    return await run_in_threadpool(
        get_auth_manager().is_authorized_dag,
        method="POST",
        access_entity=DagAccessEntity.RUN,
        details=DagDetails(id=DAG_ID),
        user=user,
    )


def _token(headers: Mapping[str, str]) -> str | None:
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and token:
        return token.strip()
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get("_token")
    except CookieError:
        return None
    return cookie.value if cookie else None
