"""A container engine in memory, for tests: what docker.APIClient answers, without Docker.

Containers, volumes, images and logs are kept in memory; what a container runs is a process of this machine, in a folder
that stands for its volumes. It shows no sandbox and no limits: that takes a real engine. tests/contract/test_engine.py
runs on both. Like the real one it drops the oldest output beyond `log_bytes`, and a container waits for an attached
reader.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tarfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from docker.errors import APIError, ImageNotFound, NotFound
from docker.types import HostConfig


def _refuse(kind: type[APIError], status: int, text: str) -> APIError:
    response = type("Response", (), {"status_code": status, "reason": text, "url": "memory"})()
    return kind(text, response=response, explanation=text)


class _Container:
    def __init__(self, number: int, options: dict[str, Any]) -> None:
        self.id = hashlib.sha256(str(number).encode()).hexdigest()
        self.number, self.options = number, options
        self.name = options.get("name") or f"nameless_{number}"
        self.networks = {options["host_config"].get("NetworkMode", "default"): {}}
        self.status, self.code = "created", 0
        self.started_at = "0001-01-01T00:00:00Z"
        self.changed = threading.Condition()
        self.log: list[tuple[int, bytes]] = []  # nanoseconds, content
        self.dropped = 0
        self.kept = 0
        self.attached: list[socket.socket] = []
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def mounts(self) -> list[dict[str, Any]]:
        return list(self.options["host_config"].get("Mounts") or [])


class MemoryEngine:
    """See the module. `images`: names of the images there are. `folder`: where volumes are kept."""

    def __init__(self, folder: Path, *images: str, log_bytes: int = 60_000_000) -> None:
        self._folder, self._log_bytes = folder, log_bytes
        self.engine_id = uuid.uuid4().hex
        self.gives_gpus = False
        self._images = {image: f"sha256:{hashlib.sha256(image.encode()).hexdigest()}" for image in images}
        self._containers: dict[str, _Container] = {}
        self._volumes: dict[str, dict[str, str]] = {}
        self._numbers = 0
        self._lock = threading.RLock()

    def info(self) -> dict[str, Any]:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return {
            "ID": self.engine_id,
            "MemTotal": memory,
            "NCPU": len(os.sched_getaffinity(0)),
            "Architecture": os.uname().machine,
            "ServerVersion": "29.0.0",
            "SystemTime": datetime.now(UTC).isoformat(),
        }

    # ---- containers --------------------------------------------------------------------------------------------------

    def _find(self, name: str) -> _Container:
        with self._lock:
            for one in self._containers.values():
                if name in (one.id, one.name) or (len(name) >= 12 and one.id.startswith(name)):
                    return one
        raise _refuse(NotFound, 404, f"No such container: {name}")

    def create_host_config(self, **options: Any) -> dict[str, Any]:
        return dict(HostConfig(version="1.41", **options))

    def create_container(self, image: str, command: Any = None, **options: Any) -> dict[str, Any]:
        self.inspect_image(image)
        options.setdefault("host_config", {})
        with self._lock:
            name = options.get("name")
            if name and any(one.name == name for one in self._containers.values()):
                raise _refuse(APIError, 409, f"Conflict. The container name {name} is already in use")
            self._numbers += 1
            made = _Container(self._numbers, {**options, "image": image, "command": command})
            self._containers[made.id] = made
            for mount in made.mounts:
                if mount["Type"] == "volume":
                    self.create_volume(mount["Source"])
        return {"Id": made.id, "Warnings": []}

    def start(self, container: str) -> None:
        one = self._find(container)
        if one.options["host_config"].get("DeviceRequests") and not self.gives_gpus:
            raise _refuse(APIError, 500, "could not select device driver with capabilities: [[gpu]]")
        words = [*(one.options.get("entrypoint") or []), *(one.options.get("command") or [])]
        folders = {mount["Target"]: str(self._path(mount)) for mount in one.mounts}
        for target in sorted(folders, key=len, reverse=True):
            words = [word.replace(target, folders[target]) for word in words]
        given = one.options.get("environment") or {}
        try:
            one.process = subprocess.Popen(
                words,
                env={"PATH": os.environ["PATH"], **given},
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise _refuse(APIError, 400, f"exec failed: {error}") from error
        one.started_at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"
        one.status = "running"
        threading.Thread(target=self._keep_log, args=(one,), daemon=True).start()
        threading.Thread(target=self._wait, args=(one,), daemon=True).start()

    def _wait(self, one: _Container) -> None:
        assert one.process is not None
        one.process.wait()
        # With process 1 everything ends that it started.
        _signal(one.process.pid, signal.SIGKILL)

    def _keep_log(self, one: _Container) -> None:
        assert one.process is not None
        assert one.process.stdout is not None
        rest = b""
        while chunk := os.read(one.process.stdout.fileno(), 32 * 1024):
            # Into the log first: a reader that reads only so far ahead waits until it was shown.
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._record(one, line + b"\n")
            for reader in list(one.attached):
                try:
                    reader.sendall(struct.pack(">BxxxL", 1, len(chunk)) + chunk)
                except OSError:
                    one.attached.remove(reader)
        if rest:
            self._record(one, rest)
        one.process.wait()
        with one.changed:
            one.code = 128 - one.process.returncode if one.process.returncode < 0 else one.process.returncode
            one.status = "exited"
            one.changed.notify_all()
        one.process.stdout.close()
        for reader in one.attached:
            reader.close()

    def _record(self, one: _Container, line: bytes) -> None:
        with one.changed:
            for start in range(0, len(line), 16 * 1024):
                piece = line[start : start + 16 * 1024]
                one.log.append((time.time_ns(), piece))
                one.kept += len(piece)
            while one.kept > self._log_bytes:
                one.kept -= len(one.log.pop(0)[1])
                one.dropped += 1
            one.changed.notify_all()

    def logs(
        self, container: str, *, follow: bool = False, timestamps: bool = False, since: int | None = None, **_: Any
    ) -> Iterator[bytes]:
        one = self._find(container)
        place = 0
        while True:
            with one.changed:
                place = max(place, one.dropped)
                new = one.log[place - one.dropped :]
                place += len(new)
                if not new:
                    if not follow or one.status != "running":
                        return
                    one.changed.wait(1)
                    self._find(container)
            for at, content in new:
                if since is None or at >= since * 10**9:
                    stamp = datetime.fromtimestamp(at // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
                    yield (f"{stamp}.{at % 10**9:09d}Z ".encode() if timestamps else b"") + content

    def attach_socket(self, container: str, params: dict[str, Any] | None = None) -> socket.socket:
        one = self._find(container)
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        one.attached.append(ours)
        return theirs

    def containers(self, *, all: bool = False, filters: dict[str, list[str]] | None = None) -> list[dict[str, Any]]:
        with self._lock:
            found = sorted(self._containers.values(), key=lambda one: -one.number)
        return [
            {
                "Id": one.id,
                "Names": [f"/{one.name}"],
                "Labels": dict(one.options.get("labels") or {}),
                "State": one.status,
                "Status": f"Exited ({one.code}) now" if one.status == "exited" else one.status,
            }
            for one in found
            if (all or one.status == "running") and _has(one.options.get("labels"), filters)
        ]

    def inspect_container(self, container: str) -> dict[str, Any]:
        one = self._find(container)
        given = one.options.get("environment") or {}
        return {
            "Id": one.id,
            "Name": f"/{one.name}",
            "Image": self.inspect_image(one.options["image"])["Id"],
            "State": {
                "Status": one.status,
                "Running": one.status == "running",
                "ExitCode": one.code,
                "OOMKilled": False,
                "StartedAt": one.started_at,
            },
            "Config": {
                "Labels": dict(one.options.get("labels") or {}),
                "Env": [f"{key}={value}" for key, value in given.items()],
                "User": one.options.get("user", ""),
                "Healthcheck": one.options.get("healthcheck"),
                "StopTimeout": one.options.get("stop_timeout"),
            },
            "HostConfig": one.options["host_config"],
            "NetworkSettings": {"Networks": one.networks},
        }

    def stats(self, container: str, *, stream: bool, one_shot: bool) -> dict[str, Any]:
        """Of the container's first process: memory and CPU are those of /proc."""
        assert one_shot
        assert not stream
        one = self._find(container)
        if one.status != "running" or one.process is None:
            return {"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}}
        fields = Path(f"/proc/{one.process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
        used = ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        memory = {"usage": pages * os.sysconf("SC_PAGE_SIZE"), "stats": {"inactive_file": 0}}
        return {"cpu_stats": {"cpu_usage": {"total_usage": used}}, "memory_stats": memory}

    def connect_container_to_network(self, container: str, net_id: str) -> None:
        self._find(container).networks[net_id] = {}

    def kill(self, container: str, signal_name: str) -> None:
        one = self._find(container)
        assert one.process is not None
        _signal(one.process.pid, getattr(signal, f"SIG{signal_name}"))

    def stop(self, container: str, timeout: int | None = None) -> None:
        one = self._find(container)
        if one.process is None or one.status != "running":
            return
        _signal(one.process.pid, signal.SIGTERM)
        try:
            one.process.wait(10 if timeout is None else timeout)
        except subprocess.TimeoutExpired:
            _signal(one.process.pid, signal.SIGKILL)
        with one.changed:
            one.changed.wait_for(lambda: one.status != "running", 10)

    def remove_container(self, container: str, v: bool = False, force: bool = False) -> None:
        one = self._find(container)
        if one.status == "running":
            if not force:
                raise _refuse(APIError, 409, f"You cannot remove a running container {one.id}")
            assert one.process is not None
            _signal(one.process.pid, signal.SIGKILL)
        with self._lock:
            self._containers.pop(one.id, None)
        with one.changed:
            one.changed.notify_all()

    # ---- files -------------------------------------------------------------------------------------------------------

    def _path(self, mount: dict[str, Any]) -> Path:
        return self._folder / mount["Source"] if mount["Type"] == "volume" else Path(mount["Source"])

    def _host_path(self, one: _Container, path: str) -> Path:
        for mount in one.mounts:
            if path == mount["Target"] or path.startswith(f"{mount['Target']}/"):
                return self._path(mount) / path.removeprefix(mount["Target"]).lstrip("/")
        raise _refuse(NotFound, 404, f"Could not find the file {path} in container {one.id}")

    def get_archive(self, container: str, path: str) -> tuple[Iterator[bytes], dict[str, Any]]:
        file = self._host_path(self._find(container), path)
        if not os.path.lexists(file):
            raise _refuse(NotFound, 404, f"Could not find the file {path} in container {container}")
        kept = io.BytesIO()
        # A volume's folder is called as its target is, not as it is kept here.
        with tarfile.open(fileobj=kept, mode="w") as archive:
            archive.add(file, arcname=path.rstrip("/").rpartition("/")[2])
        content = kept.getvalue()
        return (content[at : at + 4096] for at in range(0, len(content), 4096)), {"name": file.name}

    def put_archive(self, container: str, path: str, data: bytes | Iterable[bytes]) -> bool:
        one = self._find(container)
        whole = data if isinstance(data, bytes) else b"".join(data)
        with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
            for entry in archive:
                target = self._host_path(one, f"{path.rstrip('/')}/{entry.name}")
                if entry.isdir():
                    target.mkdir(exist_ok=True)
                elif entry.issym():
                    target.unlink(missing_ok=True)
                    target.symlink_to(entry.linkname)
                else:
                    found = archive.extractfile(entry)
                    target.write_bytes(found.read() if found else b"")
        return True

    # ---- volumes and images ------------------------------------------------------------------------------------------

    def volumes(self, filters: dict[str, list[str]] | None = None) -> dict[str, Any]:
        found = [{"Name": name, "Labels": labels} for name, labels in self._volumes.items() if _has(labels, filters)]
        return {"Volumes": found or None}

    def inspect_volume(self, name: str) -> dict[str, Any]:
        if name not in self._volumes:
            raise _refuse(NotFound, 404, f"get {name}: no such volume")
        return {"Name": name, "Labels": self._volumes[name], "Mountpoint": str(self._folder / name)}

    def create_volume(self, name: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
        with self._lock:
            self._volumes.setdefault(name, dict(labels or {}))
            (self._folder / name).mkdir(exist_ok=True)
        return self.inspect_volume(name)

    def remove_volume(self, name: str, force: bool = False) -> None:
        self.inspect_volume(name)
        users = [one.id for one in self._containers.values() if any(m["Source"] == name for m in one.mounts)]
        if users:
            raise _refuse(APIError, 409, f"remove {name}: volume is in use - {users}")
        del self._volumes[name]
        shutil.rmtree(self._folder / name)

    def df(self) -> dict[str, Any]:
        found = [
            {"Name": name, "Labels": labels, "UsageData": {"Size": _size(self._folder / name), "RefCount": 0}}
            for name, labels in self._volumes.items()
        ]
        return {"Volumes": found or None}

    def images(self) -> list[dict[str, Any]]:
        return [{"RepoTags": [image], "Size": 1} for image in self._images]

    def inspect_image(self, image: str) -> dict[str, Any]:
        image = next((name for name, known in self._images.items() if known == image), image)
        if image not in self._images:
            raise _refuse(ImageNotFound, 404, f"No such image: {image}")
        return {"Id": self._images[image], "Config": {"Entrypoint": None, "Labels": None}}

    def get_image(self, image: str) -> Iterator[bytes]:
        yield json.dumps({"name": image, "id": self.inspect_image(image)["Id"]}).encode()

    def load_image(self, data: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        given = json.loads(b"".join(data))
        self._images[given["name"]] = given["id"]
        yield {"stream": f"Loaded image: {given['name']}"}

    def close(self) -> None:
        """End what still runs."""
        for one in list(self._containers.values()):
            self.remove_container(one.id, force=True)


def _has(labels: dict[str, str] | None, filters: dict[str, list[str]] | None) -> bool:
    wanted = [pair.partition("=")[::2] for pair in (filters or {}).get("label", [])]
    return all((labels or {}).get(key) == value for key, value in wanted)


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return  # it has ended


def _size(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file()) if folder.exists() else 0
