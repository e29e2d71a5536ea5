"""What airflow-init does on every start: migrate, create or update the logins, seed the pools. Idempotent."""

from __future__ import annotations

import os
from typing import Any

from tarmac.base.ids import DAG_ID
from tarmac.base.settings import settings, tower_login
from tarmac.dagfiles.bundles import check_bundles
from tarmac.ledger.database import migrate
from tarmac.tasks.gpu_pools import GPU_POOL

PREFLIGHT_POOL = "gpu_preflight_pool"
TOWER_ROLE = "Tarmac tower"
# How Airflow keeps passwords that people choose: trying many passwords is slow, and so is every login.
_SLOW = "scrypt:32768:8:1"
# 24 random bytes cannot be found by trying, so the service account's password needs no stretching: a session that was
# admitted waits for this login.
_QUICK = "pbkdf2:sha256:1000"


def initialise() -> None:
    """Bring Airflow's database, its logins and its pools to what this version needs, in one process."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from airflow.utils.db import upgradedb

    check_bundles(os.environ.get("TARMAC_DAG_BUNDLES", ""))
    print("Migrating Airflow's database ...", flush=True)
    upgradedb()
    before, after = migrate(settings().database_url)
    if before != after:
        print(f"Migrated the ledger from version {before} to {after}.", flush=True)
    with get_application_builder() as builder:
        manager = builder.sm
        _upsert(manager, *tower_login(), "Tower", _tower_role(manager), method=_QUICK)
        user = os.environ.get("TARMAC_UI_USER", "airflow"), os.environ.get("TARMAC_UI_PASSWORD", "airflow")
        _upsert(manager, *user, "Admin", None, method=_SLOW)
    _seed_pools()
    print("The stack is initialised.", flush=True)


def _upsert(manager: Any, user_name: str, password: str, last_name: str, role: Any, *, method: str) -> None:
    """Create or update a login. `airflow users create` would leave one that exists as it is.

    Args:
        manager: FAB's security manager.
        role: its only role, whatever it had; None: Admin at first, and then what a person gave it.
        method: of hashing its password.
    """
    from werkzeug.security import check_password_hash, generate_password_hash

    found = manager.find_user(username=user_name)
    if found is None:
        hashed = generate_password_hash(password, method=method)
        role = role or manager.find_role("Admin")
        manager.add_user(user_name, "Tarmac", last_name, f"{user_name}@localhost", role, hashed_password=hashed)
        print(f"Created the login {user_name!r}.", flush=True)
        return
    if not found.password.startswith(f"{method}$") or not check_password_hash(found.password, password):
        found.password = generate_password_hash(password, method=method)
        manager.update_user(found)
        print(f"Updated the password of {user_name!r}.", flush=True)
    if role is not None and found.roles != [role]:
        found.roles = [role]
        manager.update_user(found)


def _tower_role(manager: Any) -> Any:
    """Make the role of the service account: it sees, makes and changes pools, and changes runs (their notes)."""
    role = manager.add_role(TOWER_ROLE)
    wanted = [manager.create_permission(action, "Pools") for action in ("can_create", "can_read", "can_edit")]
    # Airflow has no permission for notes alone: who may write one may set a run's state.
    for name in (f"DAG:{DAG_ID}", "DAG Runs"):
        wanted += [manager.create_permission(action, name) for action in ("can_read", "can_edit")]
    for permission in list(role.permissions):
        if permission not in wanted:
            manager.remove_permission_from_role(role, permission)
    for permission in wanted:
        manager.add_permission_to_role(role, permission)
    return role


def _seed_pools() -> None:
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        Pool.create_or_update_pool(
            PREFLIGHT_POOL,
            slots=1,
            description="Every GPU task but the training itself; a queued session holds no slot.",
            include_deferred=False,
            session=session,
        )
        # Resized at run time, so an existing one keeps its size.
        if session.scalar(select(Pool).where(Pool.pool == GPU_POOL["name"])) is None:
            Pool.create_or_update_pool(**GPU_POOL, slots=0, session=session)
