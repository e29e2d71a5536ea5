"""What the command does on the machine of the stack alone: it runs programs of the folder of `make up`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tarmac_client.errors import ExitCode, SettingsError

_STDERR = 2
_LOGINS = {
    "airflow": ("login.env", "TARMAC_UI_USER", "TARMAC_UI_PASSWORD"),
    "mlflow": ("registry.env", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
}


def new_passwords(folder: Path, *, ask: bool, quiet: bool) -> int:
    """Give the stack of a folder new passwords and signing keys, as `make passwords` does. Returns its exit code.

    Args:
        ask: ask on the terminal first.
        quiet: print on standard error alone.

    Raises:
        SettingsError: there is no Tarmac in the folder, or no terminal to ask.
    """
    script = folder / "env/host/passwords.sh"
    if not script.is_file():
        raise SettingsError(
            f"There is no Tarmac in {'this folder' if folder == Path() else repr(str(folder))}. New passwords are made "
            "on the machine of the stack: give the command there, in the stack's folder, or name that by --folder."
        )
    if ask and not sys.stdin.isatty():
        raise SettingsError("There is no terminal to ask whether all passwords are to be replaced: give --yes.")
    # The interrupt is for the program, which says how it is gone on with.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with subprocess.Popen([str(script), *([] if ask else ["1"])], stdout=_STDERR if quiet else None) as running:
            code = running.wait()
    except OSError as error:
        raise SettingsError(f"{script} cannot be run: {error.strerror}.") from error
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else ExitCode.INTERRUPTED


def logins(folder: Path) -> dict[str, dict[str, str]]:
    """Return the logins that people use, of Airflow and of MLflow, as the folder of a stack has them.

    Raises:
        SettingsError: a file cannot be read.
    """
    env = Path(os.environ.get("TARMAC_ENV_DIR") or folder / "env")
    found = {}
    for service, (name, user, password) in _LOGINS.items():
        try:
            text = (env / name).read_text(encoding="utf-8")
        except OSError as error:
            raise SettingsError(f"{env / name} cannot be read: {error.strerror}.") from error
        values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
        found[service] = {"user": values.get(user, ""), "password": values.get(password, "")}
    return found
