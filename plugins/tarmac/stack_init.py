"""What airflow-init does on every start: migrate, create or update the login, seed the pools. Idempotent."""

from __future__ import annotations

import os

PREFLIGHT_POOL = "gpu_preflight_pool"
GPU_POOL = "gpu_pool"
TOWER_ROLE = "Tarmac tower"


def initialise() -> None:
    """Bring Airflow's database, its login and its pools to what this version needs, in one process."""
    from airflow.utils.db import upgradedb

    from tarmac.database import migrate
    from tarmac.settings import settings, tower_login

    print("Migrating Airflow's database ...", flush=True)
    upgradedb()
    before, after = migrate(settings().database_url)
    if before != after:
        print(f"Migrated the ledger from version {before} to {after}.", flush=True)
    _upsert_tower(*tower_login())
    _upsert_login(os.environ.get("TARMAC_UI_USER", "airflow"), os.environ.get("TARMAC_UI_PASSWORD", "airflow"))
    _seed_pools()
    print("The stack is initialised.", flush=True)


def _upsert_login(user_name: str, password: str) -> None:
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from werkzeug.security import check_password_hash

    # `airflow users create` leaves an existing user as it is; a changed password must take effect on `make up`.
    with get_application_builder() as builder:
        manager = builder.sm
        found = manager.find_user(username=user_name)
        if found is None:
            role = manager.find_role("Admin")
            email = f"{user_name}@localhost"
            if not manager.add_user(user_name, "Tarmac", "Admin", email, role, password=password):
                raise RuntimeError(f"The login {user_name!r} could not be created; the lines above say why.")
            print(f"Created the login {user_name!r}.", flush=True)
        elif not check_password_hash(found.password, password):
            manager.reset_password(found.id, password)
            print(f"Updated the password of {user_name!r}.", flush=True)


def _upsert_tower(user_name: str, password: str) -> None:
    """Create or update the service account that resizes gpu_pool: its role may see, make and change pools only."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from werkzeug.security import check_password_hash

    with get_application_builder() as builder:
        manager = builder.sm
        role = manager.add_role(TOWER_ROLE)
        wanted = [manager.create_permission(action, "Pools") for action in ("can_create", "can_read", "can_edit")]
        for permission in list(role.permissions):
            if permission not in wanted:
                manager.remove_permission_from_role(role, permission)
        for permission in wanted:
            manager.add_permission_to_role(role, permission)
        found = manager.find_user(username=user_name)
        if found is None:
            email = f"{user_name}@localhost"
            if not manager.add_user(user_name, "Tarmac", "Tower", email, role, password=password):
                raise RuntimeError(f"The service account {user_name!r} could not be created; the lines above say why.")
            return
        if [one.name for one in found.roles] != [TOWER_ROLE]:
            found.roles = [role]
            manager.update_user(found)
        if not check_password_hash(found.password, password):
            manager.reset_password(found.id, password)


def _seed_pools() -> None:
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        Pool.create_or_update_pool(
            PREFLIGHT_POOL,
            slots=1,
            description="Every GPU task but the training itself; whoever waits holds no slot.",
            include_deferred=False,
            session=session,
        )
        # Resized at run time, so an existing one keeps its size.
        if session.scalar(select(Pool).where(Pool.pool == GPU_POOL)) is None:
            Pool.create_or_update_pool(
                GPU_POOL,
                slots=0,
                description="Trainings that hold a reservation of a GPU; resized by gpu_pool_setup.",
                include_deferred=False,
                session=session,
            )
