"""env/host/secrets.sh: secrets are made once, never changed, readable by their owner only."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Values = dict[str, str]


@pytest.fixture
def folder(repository: Path, tmp_path: Path) -> Path:
    """A copy of the examples; the repository's own env files are never touched."""
    for example in (repository / "env").glob("*.env.example"):
        shutil.copy(example, tmp_path)
    return tmp_path


@pytest.fixture
def generate(repository: Path, folder: Path) -> Callable[[], subprocess.CompletedProcess[str]]:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [repository / "env" / "host" / "secrets.sh", folder],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def values(folder: Path, name: str) -> Values:
    lines = (folder / f"{name}.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.env")}


def test_every_example_becomes_a_file_for_its_owner_alone(folder: Path, generate: Callable):
    assert generate().returncode == 0
    examples = {path.name.removesuffix(".example") for path in folder.glob("*.env.example")}
    assert set(contents(folder)) == examples
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.env")} == {0o600}
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    for name, content in contents(folder).items():
        assert b"<generated:" not in content, name
        assert b"<same:" not in content, name


def test_secrets_are_fresh_and_as_long_as_asked(folder: Path, generate: Callable):
    generate()
    airflow, postgres = values(folder, "airflow"), values(folder, "postgres")
    assert re.fullmatch(r"[0-9a-f]{128}", airflow["AIRFLOW__API_AUTH__JWT_SECRET"])
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}=", airflow["AIRFLOW__CORE__FERNET_KEY"])
    assert len(set(postgres.values())) == len(postgres) == 4
    first = contents(folder)
    for path in folder.glob("*.env"):
        path.unlink()
    generate()
    assert values(folder, "postgres")["POSTGRES_PASSWORD"] != postgres["POSTGRES_PASSWORD"]
    assert contents(folder)["airflow.env"] != first["airflow.env"]


def test_the_login_is_the_one_that_people_know(folder: Path, generate: Callable):
    generate()
    assert values(folder, "login") == {"TARMAC_UI_USER": "airflow", "TARMAC_UI_PASSWORD": "airflow"}


def test_a_second_run_changes_not_one_byte(folder: Path, generate: Callable):
    generate()
    first = contents(folder)
    again = generate()
    assert again.returncode == 0
    assert again.stderr == ""
    assert contents(folder) == first


def test_what_one_file_copies_from_another_is_the_same(folder: Path, generate: Callable):
    generate()
    postgres, mlflow, registry = values(folder, "postgres"), values(folder, "mlflow"), values(folder, "registry")
    assert f":{postgres['AIRFLOW_DB_PASSWORD']}@" in values(folder, "airflow")["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    assert f":{postgres['MLFLOW_DB_PASSWORD']}@" in mlflow["MLFLOW_BACKEND_STORE_URI"]
    assert mlflow["PGPASSWORD"] == postgres["MLFLOW_DB_PASSWORD"]
    assert mlflow["MLFLOW_AUTH_ADMIN_PASSWORD"] == registry["MLFLOW_TRACKING_PASSWORD"]


def test_an_edited_value_is_kept_and_copied(folder: Path, generate: Callable):
    generate()
    registry = folder / "registry.env"
    edited = re.sub(r"(?m)^MLFLOW_TRACKING_PASSWORD=.*$", "MLFLOW_TRACKING_PASSWORD=my own", registry.read_text())
    registry.write_text(edited)
    (folder / "mlflow.env").unlink()
    generate()
    assert registry.read_text() == edited
    assert values(folder, "mlflow")["MLFLOW_AUTH_ADMIN_PASSWORD"] == "my own"


def test_a_key_that_an_example_gained_is_added_below_with_its_comment(folder: Path, generate: Callable):
    generate()
    before = (folder / "postgres.env").read_text()
    with (folder / "postgres.env.example").open("a") as example:
        example.write("# For reports.\nREPORTS_DB_PASSWORD=<generated:hex8>\n")
    answer = generate()
    after = (folder / "postgres.env").read_text()
    assert after.startswith(before)
    assert re.fullmatch(r"# For reports\.\nREPORTS_DB_PASSWORD=[0-9a-f]{16}\n", after.removeprefix(before))
    assert "REPORTS_DB_PASSWORD" in answer.stderr
    assert values(folder, "postgres")["REPORTS_DB_PASSWORD"] not in answer.stderr
    assert (folder / "postgres.env").stat().st_mode & 0o777 == 0o600


def test_a_key_is_added_behind_a_file_without_a_line_end(folder: Path, generate: Callable):
    (folder / "login.env").write_text("TARMAC_UI_USER=me")
    generate()
    assert values(folder, "login") == {"TARMAC_UI_USER": "me", "TARMAC_UI_PASSWORD": "airflow"}


def test_two_starts_at_once_make_one_set_of_secrets(repository: Path, folder: Path):
    script = repository / "env" / "host" / "secrets.sh"
    both = [subprocess.Popen([script, folder], stderr=subprocess.PIPE) for _ in range(4)]
    assert [process.wait(60) for process in both] == [0] * 4
    for process in both:
        process.communicate()
    postgres, mlflow = values(folder, "postgres"), values(folder, "mlflow")
    assert mlflow["PGPASSWORD"] == postgres["MLFLOW_DB_PASSWORD"]
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


BROKEN = {
    "an unknown kind of secret": ("x", "KEY=<generated:rot13>", "KEY: '<generated:rot13>' must be one of"),
    "a secret inside a value": ("x", "KEY=a<generated:hex8>", "must be the whole value"),
    "a copy of a key that is nowhere": ("x", "KEY=<same:postgres:NOTHING>", "there is no NOTHING in postgres.env"),
    "a copy of a file that is nowhere": ("x", "KEY=<same:nothing:KEY>", "there is no KEY in nothing.env"),
}


@pytest.mark.parametrize(("name", "line", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_example_is_explained(folder: Path, generate: Callable, name: str, line: str, message: str):
    (folder / f"{name}.env.example").write_text(f"{line}\n")
    answer = generate()
    assert answer.returncode == 1
    assert message in answer.stderr
    assert not (folder / f"{name}.env").exists()


def test_a_folder_that_is_not_there_is_named(repository: Path, tmp_path: Path):
    answer = subprocess.run(
        [repository / "env" / "host" / "secrets.sh", tmp_path / "none"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert f"there is no folder '{tmp_path}/none'" in answer.stderr
