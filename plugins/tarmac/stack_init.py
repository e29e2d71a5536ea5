"""What airflow-init does on every start: migrate, create or update the login, seed the pools. Idempotent."""

from __future__ import annotations

import os

PREFLIGHT_POOL = "gpu_preflight_pool"
GPU_POOL = "gpu_pool"


def initialise() -> None:
    """Bring Airflow's database, its login and its pools to what this version needs, in one process."""
    from airflow.utils.db import upgradedb

    print("Migrating Airflow's database ...", flush=True)
    upgradedb()
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


def _seed_pools() -> None:
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        Pool.create_or_update_pool(
            PREFLIGHT_POOL,
            slots=1,
            description="Every GPU task but the training itself.",
            include_deferred=True,
            session=session,
        )
        # Resized at run time, so an existing one keeps its size.
        if session.scalar(select(Pool).where(Pool.pool == GPU_POOL)) is None:
            Pool.create_or_update_pool(
                GPU_POOL,
                slots=0,
                description="Trainings that hold a reservation of a GPU.",
                include_deferred=True,
                session=session,
            )
