"""Who calls, and what that person may do: Airflow's own answers, asked as its endpoints ask them."""

from __future__ import annotations

import base64
import enum
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any, Literal

from tarmac.base.ids import DAG_ID

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser

ADMIN_ROLE = "Admin"
"""Airflow's name for it, in the manager of logins that compose.yaml sets."""

Method = Literal["GET", "POST", "PUT", "DELETE"]


class Right(enum.Enum):
    """What a person may do with sessions: the method under which Airflow asks for it. ADMIN: Airflow's role Admin."""

    READ = "GET"
    START = "POST"
    CHANGE = "PUT"
    DELETE = "DELETE"
    ADMIN = "admin"


async def identify(token: str | None) -> BaseUser:
    """Return whose token it is.

    Raises:
        HTTPException: it is missing or has expired (401), or Airflow did not give it (403).
    """
    from airflow.api_fastapi.core_api.security import resolve_user_from_token

    return await resolve_user_from_token(token)


async def may(user: BaseUser, right: Right) -> bool:
    """Ask Airflow what its endpoint for runs of the pipeline asks: may this person do that?"""
    if right is Right.ADMIN:
        return is_admin(user)
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(
        get_auth_manager().is_authorized_dag,
        method=right.value,
        access_entity=DagAccessEntity.RUN,
        details=DagDetails(id=DAG_ID),
        user=user,
    )


def is_admin(user: Any) -> bool:
    """Tell whether a user has the role Admin itself; rights that another role has in sum do not count. Pure."""
    return any(role.name == ADMIN_ROLE for role in user.roles)


async def may_trigger(headers: Mapping[str, str]) -> bool:
    """Tell whether the caller may start a run.

    Args:
        headers: of the call, by lower-case name.
    """
    from fastapi import HTTPException

    try:
        user = await identify(bearer(headers) or cookie_token(headers))
    except HTTPException:
        return False
    return await may(user, Right.START)


def bearer(headers: Mapping[str, str]) -> str | None:
    """Return the token of the header Authorization. Pure."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() or None if kind.lower() == "bearer" else None


def basic(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Return name and password of the header Authorization, where it has any. Pure."""
    kind, _, coded = headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        name, separator, password = base64.b64decode(coded.strip(), validate=True).decode().partition(":")
    except ValueError:
        return None
    return (name, password) if separator else None


def cookie_token(headers: Mapping[str, str]) -> str | None:
    """Return the token of the cookie that Airflow's UI keeps. Pure."""
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get("_token")
    except CookieError:
        return None
    return cookie.value if cookie else None
