"""Writes THIRD-PARTY-NOTICES.md: the licence of each package that the images carry, and of the example data.

    python tests/tools/notices.py [FILE]        `make notices`

Python packages come from the lock files, their licences from the metadata that each package publishes: pip reads it
from the package index and installs nothing. Debian's packages and their licences come from the copyright files in the
images, which `make up` builds. The file does not contain the date.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
IMAGES = ("airflow", "git", "mlflow", "trainer", "trainer-cuda", "trainer-torch", "trainer-torch-cuda")
"""Our images by the name of their lock file; `git` is what Airflow's has besides, by a setting."""

TRACES = next(path.relative_to(REPOSITORY).parent.as_posix() for path in REPOSITORY.glob("tests/**/traces/README.md"))
"""Where the simulator's samples lie."""

_PIN = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==(\S+)", re.MULTILINE)
_CONDITIONS = re.compile(r"\b[AL]?GPL|\bMPL\b|Mozilla|General Public|Proprietary|NVIDIA|LicenseRef", re.IGNORECASE)
_NAME_LENGTH = 45
"""A licence's name is shorter; what is longer in a copyright file is the first line of its text."""
_NOT_STATED = "not stated in its metadata; see its files"

# In an image: each package of Debian and the licences that its copyright file names, a line each.
_DEBIAN = r"""
for package in $(dpkg-query -W -f '${Package}\n'); do
    file=/usr/share/doc/$package/copyright
    printf '%s\t' "$package"
    if [ -r "$file" ]; then
        sed -n 's/^License: *\([^ ].*\)$/\1/p' "$file" | sort -u | tr '\n' ';'
    fi
    echo
done
"""


@dataclass(frozen=True, order=True)
class Package:
    """A Python package as one lock pins it, with its licence in words."""

    name: str
    version: str
    license: str
    home: str


def pins(lock: str) -> list[tuple[str, str]]:
    """List (name, version) of what a lock file pins. Pure."""
    return _PIN.findall(lock)


def license_of(metadata: Mapping[str, Any]) -> str:
    """Name a package's licence by its metadata: the expression, else the classifiers, else the free text. Pure."""
    if expression := metadata.get("license_expression"):
        return str(expression)
    classified = [line.split(" :: ")[-1] for line in metadata.get("classifier", []) if line.startswith("License :: ")]
    # "OSI Approved" alone says that there is a licence, not which.
    if named := [name for name in classified if name != "OSI Approved"]:
        return "; ".join(named)
    first = next((line.strip() for line in (metadata.get("license") or "").splitlines() if line.strip()), "")
    return first[:100] or _NOT_STATED


def home_of(metadata: Mapping[str, Any]) -> str:
    """Return where a package's sources are, as it says itself; "" where it says nothing. Pure."""
    urls = {}
    for item in metadata.get("project_url", []):
        label, _, url = item.partition(", ")
        urls[label.strip().lower()] = url.strip()
    wanted = ("source", "source code", "repository", "github", "homepage", "home", "documentation")
    return next((urls[label] for label in wanted if label in urls), metadata.get("home_page") or "")


def packages(lock: Path) -> list[Package]:
    """Ask the package index for the metadata of what a lock pins.

    Raises:
        subprocess.CalledProcessError: pip failed; its last words are on stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted, report = Path(folder, "wanted.txt"), Path(folder, "report.json")
        # Without the hashes, so that pip reads the metadata alone and fetches no package of gigabytes.
        wanted.write_text("".join(f"{name}=={version}\n" for name, version in pins(lock.read_text())))
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
        command += ["--quiet", "--only-binary", ":all:", "--python-version", "3.13", "--target", folder]
        command += [
            argument
            for glibc in ("2_40", "2_39", "2_34", "2_28", "2_27", "2_26", "2_24", "2_17", "2_5", "2_12", "1")
            for argument in ("--platform", "manylinux1_x86_64" if glibc == "1" else f"manylinux_{glibc}_x86_64")
        ]
        command += [
            "--platform",
            "manylinux2014_x86_64",
            "--platform",
            "any",
            "--report",
            str(report),
            "-r",
            str(wanted),
        ]
        subprocess.run(command, check=True)
        found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    return sorted(Package(one["name"], one["version"], license_of(one), home_of(one)) for one in found)


def debian(image: str) -> dict[str, str]:
    """Ask an image for Debian's packages in it and the licences that their copyright files name.

    Raises:
        subprocess.CalledProcessError: there is no such image.
    """
    command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", _DEBIAN]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    rows = (line.split("\t") for line in output.splitlines())
    return {
        name: ", ".join(part for part in licenses.split(";") if 0 < len(part) <= _NAME_LENGTH)
        for name, licenses in rows
    }


def document(locked: Mapping[str, Iterable[Package]], installed: Mapping[str, Mapping[str, str]]) -> str:
    """Write the page. Pure.

    Args:
        locked: Python packages by the name of our image.
        installed: Debian's packages and their licences by the name of the image.
    """
    carried: dict[Package, list[str]] = {}
    for image, found in locked.items():
        for package in found:
            carried.setdefault(package, []).append(image)
    python = [
        f"| {_link(one)} | {one.version} | {_cell(one.license)} | {', '.join(images)} |"
        for one, images in sorted(carried.items(), key=lambda item: (item[0].name.lower(), item[0].version))
    ]
    conditions = [
        f"| {one.name} | {_cell(one.license)} | {', '.join(images)} |"
        for one, images in sorted(carried.items(), key=lambda item: (item[0].name.lower(), item[0].version))
        if _CONDITIONS.search(one.license) or one.license == _NOT_STATED
    ]
    names: dict[str, tuple[str, list[str]]] = {}
    for image, licenses in installed.items():
        for name, text in licenses.items():
            names.setdefault(name, (text, []))[1].append(image)
    system = [
        f"| {name} | {_cell(text) or 'see its copyright file'} | {', '.join(images)} |"
        for name, (text, images) in sorted(names.items())
    ]
    return "\n".join(
        [
            _HEAD.format(traces=TRACES),
            "| package | licence | image |\n| --- | --- | --- |",
            *conditions,
            "\n## Python packages\n",
            "| package | version | licence | image |\n| --- | --- | --- | --- |",
            *python,
            _SYSTEM,
            "| package | licences named in its copyright file | image |\n| --- | --- | --- |",
            *system,
            "",
        ]
    )


def _link(package: Package) -> str:
    return f"[{package.name}]({package.home})" if package.home.startswith("http") else package.name


def _cell(text: str) -> str:
    return text.replace("|", r"\|").strip()


_HEAD = """# Third-party notices

`make notices` writes this file. Do not edit it.

Tarmac itself is under the [Apache License 2.0](LICENSE). This page lists the work of others that a copy of Tarmac or of
its images carries.

**In the repository**:

- the data sets in `examples/`: [examples/README.md](examples/README.md) names the origin and licence of each,
  [examples/LICENCES.md](examples/LICENCES.md) holds the notices that go with copies;
- samples of two public GPU traces for the simulator, one under the MIT License and one under the Apache License 2.0,
  with the licence texts beside them: [their README]({traces}/README.md);
- uPlot 1.6.32 under the MIT License, which draws the curves of the page; its licence text is beside it:
  [LICENSE](plugins/tarmac/web/page/static/uplot/LICENSE).

Nothing else in the repository is by others.

**In the images**: the packages below. Their licence texts are inside the images: for Python packages in
`/opt/venv/lib/python3.13/site-packages/<package>.dist-info/` or `/opt/torch/lib/...`, for Debian's packages in
`/usr/share/doc/<package>/copyright`. Keep these files when you pass an image on. Versions of Debian's packages depend
on the day of the build: `make sbom` lists them. `git` stands for what the image `airflow` has besides where
`TARMAC_GIT` is `yes`; of Debian's packages that is Git with what it needs.

## Python packages with conditions on passing them on

Copyleft licences, licences of NVIDIA, and packages whose metadata states no licence. Read these before you pass an
image on. The images `trainer-cuda` and `trainer-torch-cuda` hold NVIDIA's libraries, which are not free
software.
"""

_SYSTEM = """
## Debian's packages

Their sources are at <https://sources.debian.org>. The image `postgres:17-trixie` is not ours: it is pulled from
Docker's official images, or made from Debian's packages where no registry can be reached. It carries PostgreSQL, under
the PostgreSQL Licence, and Debian's packages with their copyright files.
"""


def main(path: str = str(REPOSITORY / "THIRD-PARTY-NOTICES.md")) -> None:
    """Write the page, from the lock files and the images of TARMAC_REGISTRY and TARMAC_TAG."""
    registry, tag = os.environ.get("TARMAC_REGISTRY") or "tarmac", os.environ.get("TARMAC_TAG") or "latest"
    # The CUDA variants have the trainer's packages of Debian.
    images = {name: f"{registry}/{name}:{tag}" for name in ("airflow", "mlflow", "trainer", "trainer-torch")}
    for image in images.values():
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode:
            sys.exit(f"There is no image {image}: run `TARMAC_TRANSFORMERS=yes make up` first.")
    locked = {name: packages(REPOSITORY / f"requirements-{name}.lock") for name in IMAGES}
    installed = {name: debian(image) for name, image in images.items()}
    Path(path).write_text(document(locked, installed))
    counts = ", ".join(f"{name} {len(found)}" for name, found in locked.items())
    print(f"{path}: Python packages: {counts}; Debian's: {len(set().union(*installed.values()))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
