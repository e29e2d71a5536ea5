"""Where the stack and the login come from."""

from __future__ import annotations

import json
import stat
import sys
import types
from pathlib import Path

import pytest

from tarmac_client import Login, SettingsError, config

URL = "http://localhost:8081"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path)}


def test_a_login_that_is_kept_is_read_again_and_only_by_its_owner(environment: dict[str, str]):
    path = config.save(Login(URL, "ada", "secret"), environment=environment)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = config.load(environment)
    assert (found.url, found.user, found.password) == (URL, "ada", "secret")
    assert "secret" not in repr(found)
    path.chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"):
        config.load(environment)


def test_the_environment_goes_first_and_the_file_s_password_goes_to_no_other_stack(environment: dict[str, str]):
    config.save(Login(URL, "ada", "secret"), environment=environment)
    assert config.load({**environment, "TARMAC_PASSWORD": "other"}).password == "other"
    assert config.load({**environment, "TARMAC_TOKEN": "t"}).token == "t"
    for other in ({"TARMAC_URL": "http://elsewhere:8081"}, {"TARMAC_USER": "bob"}):
        with pytest.raises(SettingsError, match="is missing"):
            config.load({**environment, **other})


def test_what_is_missing_is_named(environment: dict[str, str]):
    with pytest.raises(SettingsError, match="address is missing. Run `tarmac login URL`"):
        config.load(environment)
    with pytest.raises(SettingsError, match="name is missing"):
        config.load({**environment, "TARMAC_URL": URL})


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_file_that_is_something_else_is_named(environment: dict[str, str], content: str):
    path = config.save(Login(URL, "ada", "secret"), environment=environment)
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(SettingsError, match="remove it and log in again"):
        config.load(environment)


def test_the_keyring_keeps_the_password_where_it_is_asked_to(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    kept: dict[tuple[str, str], str] = {}
    ring = types.SimpleNamespace(
        set_password=lambda service, name, password: kept.update({(service, name): password}),
        get_password=lambda service, name: kept.get((service, name)),
    )
    monkeypatch.setitem(sys.modules, "keyring", ring)
    path = config.save(Login(URL, "ada", "secret"), keyring=True, environment=environment)
    assert "secret" not in path.read_text()
    assert config.load(environment).password == "secret"
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(SettingsError, match="pip install keyring"):
        config.load(environment)


def test_a_folder_that_cannot_be_made_is_named(environment: dict[str, str], tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="TARMAC_CONFIG"):
        config.save(Login(URL, "a", "b"), environment={"TARMAC_CONFIG": str(tmp_path / "file" / "l.json")})


def test_addresses():
    assert config.check_url("http://localhost:8081/") == URL
    assert config.check_url("https://x/base/tarmac/api/v1") == "https://x/base"
    for bad in ("localhost:8081", "ftp://x", "http://", "http://u:p@x", ""):
        with pytest.raises(SettingsError, match="URL: "):
            config.check_url(bad)
    assert [config.is_open(url) for url in (URL, "http://host", "https://host")] == [False, True, False]


def test_the_file_is_json_that_a_person_can_read(environment: dict[str, str]):
    path = config.save(Login(URL, "ada", "secret"), environment=environment)
    assert json.loads(path.read_text())["url"] == URL
