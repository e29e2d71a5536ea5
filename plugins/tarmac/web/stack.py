"""What the API is made on: Airflow's logins and roles, its REST API with the caller's own token, and the checker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import HTTPException, status

from tarmac.base.airflow_api import AirflowApi
from tarmac.base.settings import settings
from tarmac.request import callers
from tarmac.request.callers import Right
from tarmac.request.checker import ask_checker, call_checker

OTHER_KEY = "Token of another key: the stack's keys were changed since, or it is forged"


@dataclass(frozen=True)
class Person:
    """Who calls, and the token that proves it. `user` is Airflow's."""

    name: str
    token: str
    user: Any = None


class Stack(Protocol):
    """What the API needs of a stack. Tests have one of their own."""

    async def identify(self, token: str | None) -> Person:
        """Return the user of a token; HTTPException 401 where it is no valid token."""

    def log_in(self, name: str, password: str) -> str:
        """Return a token for a name and a password; ApiError, where Airflow refuses them or does not answer."""

    async def may(self, person: Person, right: Right) -> bool:
        """Tell what a person may do."""

    def airflow(self, person: Person) -> AirflowApi:
        """Connect to Airflow's API as this person."""

    async def check(self, conf: object) -> list[str]:
        """Return a sentence for each field of a request that the world contradicts."""

    async def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        content: AsyncIterator[bytes] | bytes = b"",
        size: int = 0,
    ) -> tuple[int, Any]:
        """Ask the checker for what the ledger, the registry or the store has."""


class AirflowStack:
    """The stack that this webserver is part of."""

    async def identify(self, token: str | None) -> Person:
        """See Stack."""
        try:
            user = await callers.identify(token)
        except HTTPException as error:
            if error.status_code != status.HTTP_403_FORBIDDEN:
                raise
            # So Airflow answers a token of another signing key. Who has one has to log in anew, and is refused nothing.
            raise HTTPException(status.HTTP_401_UNAUTHORIZED, OTHER_KEY) from error
        return Person(user.get_name(), token or "", user)

    def log_in(self, name: str, password: str) -> str:
        """See Stack."""
        with AirflowApi(settings().airflow_url, name, password) as api:
            return api.token

    async def may(self, person: Person, right: Right) -> bool:
        """See Stack."""
        return await callers.may(person.user, right)

    def airflow(self, person: Person) -> AirflowApi:
        """See Stack."""
        return AirflowApi.with_token(settings().airflow_url, person.token)

    async def check(self, conf: object) -> list[str]:
        """See Stack."""
        return await ask_checker(conf)

    async def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        content: AsyncIterator[bytes] | bytes = b"",
        size: int = 0,
    ) -> tuple[int, Any]:
        """See Stack."""
        return await call_checker(method, path, query, content, size)
