"""Writes what is in each image as CycloneDX JSON, one file an image: Debian's packages and Python's.

    python tests/tools/sbom.py FOLDER [IMAGE ...]     images as the engine knows them; by default those of the stack

What is listed is what dpkg and Python's own metadata say inside of the image; nothing is looked up elsewhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

_DEBIAN = ["-W", "-f", "${Package}\t${Version}\t${Architecture}\n"]
_PYTHON = """
import importlib.metadata as m, json
found = []
for one in m.distributions():
    if one.metadata["Name"] and "/usr/lib/python3/" not in str(one._path):
        text = one.metadata.get("License-Expression") or one.metadata.get("License") or ""
        found.append([one.metadata["Name"], one.version, text.splitlines()[0] if text else ""])
print(json.dumps(found))
"""


class Package(NamedTuple):
    """One installed package. `kind` is deb or pypi; `arch` and `license` may be empty."""

    kind: str
    name: str
    version: str
    arch: str = ""
    license: str = ""


def installed(image: str) -> list[Package]:
    """Ask an image for its packages, in containers without a network.

    Raises:
        subprocess.CalledProcessError: there is no such image, or no dpkg in it.
    """
    lines = _run(image, "dpkg-query", *_DEBIAN).splitlines()
    found = [Package("deb", name, version, arch) for name, version, arch in (line.split("\t") for line in lines)]
    python = "/opt/venv/bin/python"
    if _run(image, "sh", "-c", f"test ! -x {python} || echo yes"):
        rows = json.loads(_run(image, python, "-c", _PYTHON))
        found += [Package("pypi", name, version, license=license) for name, version, license in rows]
    return sorted(set(found))


def _run(image: str, program: str, *arguments: str) -> str:
    command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", program, image, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def document(image: str, digest: str, packages: Iterable[Package]) -> str:
    """Make the CycloneDX document of an image, checked against its schema. Reads the clock for its date.

    Raises:
        ValueError: it does not follow the schema.
    """
    bom = Bom()
    bom.metadata.component = Component(name=image, version=digest, type=ComponentType.CONTAINER, bom_ref=image)
    for package in packages:
        bom.components.add(_component(package))
    bom.register_dependency(bom.metadata.component, bom.components)
    text: str = JsonV1Dot6(bom).output_as_string(indent=1)
    if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"The document of {image} is no CycloneDX 1.6: {problem}")
    return text


def _component(package: Package) -> Component:
    if package.kind == "deb":
        where: Any = {"namespace": "debian", "qualifiers": {"arch": package.arch}}
    else:
        where = {}
    name = package.name.lower().replace("_", "-") if package.kind == "pypi" else package.name
    purl = PackageURL(type=package.kind, name=name, version=package.version, **where)
    licenses = [DisjunctiveLicense(name=package.license)] if package.license else []
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=licenses,
    )


def images_of_the_stack() -> list[str]:
    """Name the images that a stack runs: built ones by TARMAC_REGISTRY and TARMAC_TAG, and Postgres.

    The trainer of transformers is among them where it was built.
    """
    registry, tag = os.environ.get("TARMAC_REGISTRY") or "tarmac", os.environ.get("TARMAC_TAG") or "latest"
    ours = [f"{registry}/{name}:{tag}" for name in ("airflow", "mlflow", "trainer")]
    tuned = f"{registry}/trainer-torch:{tag}"
    if not subprocess.run(["docker", "image", "inspect", tuned], capture_output=True).returncode:
        ours.append(tuned)
    return [*ours, "postgres:17-trixie"]


def main(folder: str, *images: str) -> None:
    """Write a document for each image into a folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for image in images or images_of_the_stack():
        shown = subprocess.run(
            ["docker", "image", "inspect", "--format", "{{.Id}}", image], capture_output=True, text=True
        )
        if shown.returncode:
            sys.exit(f"There is no image {image}: run `make up` first.")
        packages = installed(image)
        name = image.split("/")[-1].split(":")[0]
        path = Path(folder) / f"{name}.cdx.json"
        path.write_text(document(image, shown.stdout.strip(), packages))
        counts = {kind: sum(1 for package in packages if package.kind == kind) for kind in ("deb", "pypi")}
        print(f"{path}: {counts['deb']} packages of Debian, {counts['pypi']} of Python")


if __name__ == "__main__":
    main(*sys.argv[1:])
