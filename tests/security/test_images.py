"""The images as they were built: the user they run as, and that they hold nothing that only a build or a test needs."""

from __future__ import annotations

import json
import subprocess
from functools import cache

import pytest

from .conftest import TAG

IMAGES = ["airflow", "mlflow", "trainer"]
TOOLS = (
    "gcc", "g++", "cc", "c++", "clang", "ld", "as", "ar", "make", "cmake", "ninja", "cargo", "rustc", "go", "strip",
    "git", "pip", "pip3", "uv", "uvx", "virtualenv", "gdb", "strace", "curl", "wget", "nc", "ncat", "ssh", "docker",
)  # fmt: skip
CACHES = ("/var/lib/apt/lists", "/var/cache/apt/archives", "/root/.cache", "/root/.local", "/build")
INSPECT = r"""
set -f
echo "== tools"; for name in %(tools)s; do
    for folder in /bin /sbin /usr/bin /usr/sbin /usr/local/bin /opt/venv/bin /opt/tarmac/bin; do
        [ ! -e "$folder/$name" ] || echo "$folder/$name"
    done
done
echo "== caches"; for folder in %(caches)s; do find "$folder" -type f -not -name lock 2>/dev/null; done
echo "== privileged"; find / -xdev -type f -perm /6000
echo "== tests"; find /opt / -xdev -type d \( -name tests -o -name test \) -path '*-packages/*' -prune
echo "== installers"; find / -xdev -type d \( -name pip -o -name uv -o -name ensurepip \) -path '*-packages/*'
echo "== writable"; find / -xdev \( -type f -o -type d \) -perm -o+w -not -path '/proc/*' -not -path '/dev/*'
echo "== headers"; find /usr/include -type f 2>/dev/null
echo "== certificates"; find / -xdev -type f -path '/run/secrets/*'
"""


@cache
def look(image: str) -> dict[str, list[str]]:
    script = INSPECT % {"tools": " ".join(TOOLS), "caches": " ".join(CACHES)}
    command = [
        "docker",
        "run",
        "--rm",
        "--network",
        "none",
        "--user",
        "0",
        "--entrypoint",
        "sh",
        f"tarmac/{image}:{TAG}",
    ]
    text = subprocess.run([*command, "-c", script], capture_output=True, text=True, check=False).stdout
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("== "):
            found[line.removeprefix("== ")] = []
        else:
            found[list(found)[-1]].append(line)
    return found


def inspect(image: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(
        subprocess.check_output(["docker", "image", "inspect", f"tarmac/{image}:{TAG}"])
    )[0]
    return found


@pytest.fixture(params=IMAGES)
def image(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_the_search_finds_what_is_there():
    """In the image that tests run in, where there are tools."""
    found = look("test")
    assert "/usr/bin/git" in found["tools"]
    assert found["privileged"], "what was installed after the base has its setuid bits"


# The scheduler reaches other hosts' engines by it (decision 0024).
# `prep` unpacks wheels of own code by it (decision 0031).
WANTED = {
    "airflow": {"/bin/ssh", "/usr/bin/ssh"},
    "trainer": {"/bin/pip", "/usr/bin/pip", "/bin/pip3", "/usr/bin/pip3"},
}
WANTED_INSTALLERS = {"trainer": ["/usr/lib/python3/dist-packages/pip"]}


def test_no_build_tool_and_no_downloader_is_in_it(image: str):
    assert set(look(image)["tools"]) == WANTED.get(image, set())
    assert look(image)["installers"] == WANTED_INSTALLERS.get(image, [])
    assert look(image)["headers"] == []


def test_no_cache_and_no_test_suite_is_in_it(image: str):
    assert look(image)["caches"] == []
    assert look(image)["tests"] == []


def test_no_program_in_it_makes_its_caller_another_user(image: str):
    assert look(image)["privileged"] == []


def test_only_scratch_folders_are_open_to_every_user(image: str):
    assert set(look(image)["writable"]) <= {"/tmp", "/var/tmp", "/run/lock"}


def test_the_proxy_s_certificate_is_in_no_layer(image: str):
    assert look(image)["certificates"] == []


def test_it_runs_as_an_unprivileged_user(image: str):
    config = inspect(image)["Config"]
    assert isinstance(config, dict)
    assert config["User"] not in ("", "0", "root")
    command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "id", f"tarmac/{image}:{TAG}", "-u"]
    assert int(subprocess.check_output(command)) >= 10000


def test_its_code_is_not_its_own_to_change(image: str):
    """With a writable root, too."""
    script = "find /opt /usr /etc -xdev -writable -not -type l 2>/dev/null"
    command = [
        "docker",
        "run",
        "--rm",
        "--network",
        "none",
        "--entrypoint",
        "sh",
        f"tarmac/{image}:{TAG}",
        "-c",
        script,
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    home = "/opt/airflow" if image == "airflow" else "/nowhere"
    assert [path for path in found if not (path == home or path.startswith(f"{home}/"))] == []
