"""Where the stack is, and the login: from the environment, else from a file that only its owner reads.

The file may leave the password to the system's keyring, where the package keyring is installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tarmac_client.errors import SettingsError

_SERVICE = "tarmac"
_HOW = "run `tarmac login URL`, or set TARMAC_URL, TARMAC_USER and TARMAC_PASSWORD"


@dataclass(frozen=True)
class Login:
    """The address of a stack and a login of its Airflow.

    Attributes:
        url: of the webserver, without a slash at the end.
        user, password: the login; empty where `token` is given.
        token: of Airflow's; "": one is asked for with the login.
        ca_bundle: a file of certificates to trust, for a stack with one of its own; "": those of the system.
    """

    url: str
    user: str = ""
    password: str = ""
    token: str = ""
    ca_bundle: str = ""

    def __repr__(self) -> str:
        """Show it without its secrets."""
        return f"Login(url={self.url!r}, user={self.user!r})"


def check_url(text: str) -> str:
    """Return the address of a stack as it is kept. Pure.

    Raises:
        SettingsError: it is none.
    """
    parts = urlsplit(text.strip().rstrip("/"))
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise SettingsError(f"URL: {text!r} is not the address of a stack: write for example http://localhost:8081.")
    return re.sub(r"/tarmac(/.*)?$", "", parts.geturl())


def is_open(url: str) -> bool:
    """Tell whether a password goes over a network unencrypted. Pure."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1")


def path_of_file(environment: Mapping[str, str]) -> Path:
    """Return where the login is kept: TARMAC_CONFIG, else tarmac/login.json below the user's settings. Pure."""
    if given := environment.get("TARMAC_CONFIG"):
        return Path(given)
    base = environment.get("XDG_CONFIG_HOME") or Path(environment.get("HOME") or Path.home()) / ".config"
    return Path(base) / "tarmac" / "login.json"


def load(environment: Mapping[str, str] | None = None) -> Login:
    """Return the login. A variable of the environment goes before what the file has; another TARMAC_URL is another
    stack, for which the file has no login.

    Raises:
        SettingsError: there is none, or the file is malformed or may be read by others.
    """
    given = os.environ if environment is None else environment
    kept = _read(path_of_file(given))
    url = check_url(given.get("TARMAC_URL") or kept.get("url") or _missing("the stack's address"))
    if url != kept.get("url"):
        kept = {}
    bundle = given.get("TARMAC_CA_BUNDLE") or kept.get("ca_bundle", "")
    if token := given.get("TARMAC_TOKEN"):
        return Login(url, token=token, ca_bundle=bundle)
    user = given.get("TARMAC_USER") or kept.get("user") or _missing("the login's name")
    if user != kept.get("user"):
        kept = {}
    password = given.get("TARMAC_PASSWORD") or kept.get("password") or _of_keyring(kept, url, user)
    return Login(url, user, password or _missing("the password"), ca_bundle=bundle)


def login_of(url: str | None, user: str | None, password: str | None, token: str | None) -> Login:
    """Return the login of what was given, else of the environment and of the file.

    Raises:
        SettingsError: something is missing.
    """
    given = {"TARMAC_URL": url, "TARMAC_USER": user, "TARMAC_PASSWORD": password, "TARMAC_TOKEN": token}
    environment = dict(os.environ)
    if user is not None or password is not None:
        environment.pop("TARMAC_TOKEN", None)
    return load({**environment, **{key: value for key, value in given.items() if value is not None}})


def save(login: Login, *, keyring: bool = False, environment: Mapping[str, str] | None = None) -> Path:
    """Keep a login in the file, readable by its owner only; with `keyring`, its password in the system's keyring.

    Raises:
        SettingsError: the file cannot be written, or there is no keyring.
    """
    path = path_of_file(os.environ if environment is None else environment)
    content = {"url": login.url, "user": login.user, "ca_bundle": login.ca_bundle, "keyring": keyring}
    if keyring:
        _keyring().set_password(_SERVICE, f"{login.user}@{login.url}", login.password)
    else:
        content["password"] = login.password
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=path.parent)  # of mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=2)
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise SettingsError(f"The login cannot be kept in {path}: {error.strerror}. Set TARMAC_CONFIG.") from error
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if os.name == "posix" and mode & 0o077:
                raise SettingsError(f"{path} has a password and may be read by others: chmod 600 {path}")
            found = json.load(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise SettingsError(
            f"{path} is not what `tarmac login` writes ({error}): remove it and log in again."
        ) from error
    if not isinstance(found, dict):
        raise SettingsError(f"{path} is not what `tarmac login` writes: remove it and log in again.")
    return found


def _of_keyring(kept: Mapping[str, Any], url: str, user: str) -> str | None:
    if not kept.get("keyring"):
        return None
    found: str | None = _keyring().get_password(_SERVICE, f"{user}@{url}")
    return found


def _keyring() -> Any:
    try:
        import keyring
    except ImportError as error:
        raise SettingsError(
            "The package keyring is not installed: pip install keyring, or log in without it."
        ) from error
    return keyring


def _missing(what: str) -> str:
    raise SettingsError(f"It is not known which stack to talk to: {what} is missing. {_HOW[0].upper()}{_HOW[1:]}.")
