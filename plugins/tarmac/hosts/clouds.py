"""What libcloud makes a kind's machines of: the table [kind.libcloud] of env/hosts.toml. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver of libcloud as Tarmac uses it.

    Attributes:
        credentials: their names in env/providers.env.
        needs: the entries that must be there.
        lacks: the entries that it has no use for.
    """

    credentials: tuple[str, ...]
    needs: tuple[str, ...]
    lacks: tuple[str, ...] = ()


DRIVERS = {
    "ec2": Driver(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("size", "image", "region"), ("project", "network")),
    "gce": Driver(("GCE_ACCOUNT", "GCE_KEY"), ("size", "image", "region", "project"), ("endpoint",)),
    "openstack": Driver(("OS_USERNAME", "OS_PASSWORD"), ("size", "image", "endpoint", "project"), ("subnet",)),
}
"""Those with which a machine gets labels and user data in a way that is written down in hosts/cloud.py."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """What a kind's machines are made of.

    Attributes:
        driver: one of DRIVERS.
        size, image: as the cloud calls them.
        region: of EC2 and OpenStack; the zone of GCE.
        project: of GCE and OpenStack.
        endpoint: the URL of the cloud's API, where it is not the driver's own.
        network, subnet, security_groups: where the machine is, and what may reach it; of GCE, its network tags.
        public: whether it is reached by its public address.
        user: the account that this stack's key is let into.
        socket: of the engine there; "": the usual one.
        setup: lines of a shell that run as root when the machine starts for the first time.
        tags: that it carries besides Tarmac's.
        connect, create: more arguments of the driver, and of its create_node.
    """

    driver: str
    size: str = ""
    image: str = ""
    region: str = ""
    project: str = ""
    endpoint: str = ""
    network: str = ""
    subnet: str = ""
    security_groups: Sequence[str] = ()
    public: bool = True
    user: str = "tarmac"
    socket: str = ""
    setup: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    connect: Mapping[str, Any] = field(default_factory=dict, hash=False)
    create: Mapping[str, Any] = field(default_factory=dict, hash=False)


_ENTRIES = (
    "driver", "size", "image", "region", "project", "endpoint", "network", "subnet", "security_groups", "address",
    "user", "socket", "setup", "tags", "connect", "create",
)  # fmt: skip
_TEXTS = ("size", "image", "region", "project", "network", "subnet")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_SOCKET = re.compile(r"(/[A-Za-z0-9._-]+){1,10}")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.-]{0,252}(:[1-9][0-9]{0,4})?(?P<path>(/[A-Za-z0-9._~-]+)*)/?")
_TAG = re.compile(r"[a-z][a-z0-9_-]{0,62}")
OURS = "tarmac-"
"""What the tags begin with that Tarmac gives."""
# What Tarmac gives itself, or what is a secret.
_NOT_TO_CONNECT = frozenset({
    "key", "secret", "token", "user_id", "password", "ex_force_auth_token", "host", "port", "secure", "region",
    "project", "datacenter", "credential_file", "timeout", "ex_tenant_name", "ex_force_auth_url",
    "ex_force_service_region",
})  # fmt: skip
_NOT_TO_CREATE = frozenset({
    "name", "size", "image", "location", "auth", "networks", "external_ip", "ex_userdata", "ex_metadata", "ex_labels",
    "ex_tags", "ex_security_groups", "ex_securitygroup", "ex_security_group_ids", "ex_subnet", "ex_subnetwork",
    "ex_network", "ex_assign_public_ip", "ex_terminate_on_shutdown", "ex_mincount", "ex_maxcount", "ex_clienttoken",
    "ex_admin_pass",
})  # fmt: skip


def read(entry: object, wrong: Callable[[str], None]) -> Cloud | None:
    """Read the table of a kind. Pure.

    Args:
        entry: the table.
        wrong: is told a sentence for each entry that is wrong, which begins with the entry's name.

    Returns:
        None: it cannot be read at all.
    """
    if not isinstance(entry, Mapping):
        wrong("libcloud: must be a table: a line [kind.libcloud] below the kind's other entries, then its own.")
        return None
    for key in entry:
        if key not in _ENTRIES:
            wrong(f"libcloud.{key}: is not known; known are {', '.join(_ENTRIES)}.")
    name = entry.get("driver")
    driver = DRIVERS.get(name) if isinstance(name, str) else None
    if driver is None:
        wrong(f"libcloud.driver: {name!r} must be one of: {', '.join(DRIVERS)}. For another cloud use script.")
        return None
    for key in driver.needs:
        if key not in entry:
            wrong(f"libcloud.{key}: is missing; the driver {name} needs it.")
    for key in driver.lacks:
        if key in entry:
            wrong(f"libcloud.{key}: is not for the driver {name}; leave it out.")
    texts = {key: _text(entry, key, wrong) for key in _TEXTS}
    address, user, setup = entry.get("address", "public"), entry.get("user", "tarmac"), entry.get("setup", "")
    if address not in ("public", "private"):
        wrong(f"libcloud.address: {address!r} must be 'public' or 'private': by which the stack reaches the machine.")
    if not isinstance(user, str) or not _USER.fullmatch(user):
        wrong(f"libcloud.user: {user!r} must be the name of an account, such as 'tarmac'.")
    socket = entry.get("socket", "")
    if "socket" in entry and (not isinstance(socket, str) or not _SOCKET.fullmatch(socket) or len(socket) > 100):
        wrong(f"libcloud.socket: {socket!r} must be the path of the engine's socket there, such as '/run/podman.sock'.")
    if not isinstance(setup, str) or len(setup) > 4000:
        wrong("libcloud.setup: must be the lines of a shell, at most 4000 characters.")
    return Cloud(
        driver=str(name),
        **texts,
        endpoint=_endpoint(entry, str(name), wrong),
        security_groups=_groups(entry, str(name), wrong),
        public=address == "public",
        user=str(user),
        socket=str(socket),
        setup=str(setup),
        tags=_tags(entry, wrong),
        connect=_arguments(entry, "connect", _NOT_TO_CONNECT, wrong),
        create=_arguments(entry, "create", _NOT_TO_CREATE, wrong),
    )


def missing(cloud: Cloud, given: Mapping[str, str]) -> list[str]:
    """Return the names of the credentials that env/providers.env lacks. Pure."""
    return [name for name in DRIVERS[cloud.driver].credentials if not given.get(name)]


def written(cloud: Cloud) -> str:
    """Return it as the text that `again` reads. Pure."""
    return json.dumps(asdict(cloud))


def again(text: str) -> Cloud:
    """Read what `written` returned. Pure."""
    return Cloud(**json.loads(text))


def _text(entry: Mapping[str, Any], key: str, wrong: Callable[[str], None]) -> str:
    value = entry.get(key, "")
    if not isinstance(value, str) or len(value) > 300 or not value.isprintable() or (key in entry and not value):
        wrong(f"libcloud.{key}: {value!r} must be a text, as the cloud calls it.")
        return ""
    return value


def _endpoint(entry: Mapping[str, Any], driver: str, wrong: Callable[[str], None]) -> str:
    value = entry.get("endpoint", "")
    if "endpoint" not in entry:
        return ""
    found = _ENDPOINT.fullmatch(value) if isinstance(value, str) else None
    if found is None or (driver == "ec2" and found["path"]):
        path = ", without a path" if driver == "ec2" else ""
        wrong(f"libcloud.endpoint: {value!r} must be the URL of the cloud's API, such as 'https://cloud:5000'{path}.")
        return ""
    return str(value).rstrip("/")


def _groups(entry: Mapping[str, Any], driver: str, wrong: Callable[[str], None]) -> tuple[str, ...]:
    value = entry.get("security_groups", [])
    if not isinstance(value, list) or not all(isinstance(one, str) and one and one.isprintable() for one in value):
        wrong("libcloud.security_groups: must be a list of texts, such as ['ssh-from-the-stack'].")
        return ()
    if driver == "ec2":
        ids = bool(entry.get("subnet"))
        for one in value:
            if one.startswith("sg-") != ids:
                wrong(
                    f"libcloud.security_groups: {one!r} must be "
                    + ("an id (sg-...), as subnet is given." if ids else "a name, or subnet be given, too.")
                )
    return tuple(value)


def _tags(entry: Mapping[str, Any], wrong: Callable[[str], None]) -> dict[str, str]:
    value = entry.get("tags", {})
    if not isinstance(value, Mapping) or not all(
        _TAG.fullmatch(key) and not key.startswith(OURS) and isinstance(text, str) and len(text) <= 63
        for key, text in value.items()
    ):
        wrong(
            f"libcloud.tags: must be a table of short texts, such as {{team = 'nlp'}}; no name begins with {OURS!r}, "
            "or with another character than a-z."
        )
        return {}
    return dict(value)


def _arguments(
    entry: Mapping[str, Any], key: str, ours: frozenset[str], wrong: Callable[[str], None]
) -> dict[str, Any]:
    value = entry.get(key, {})
    try:
        json.dumps(value)
        good = isinstance(value, Mapping)
    except TypeError:  # a date
        good = False
    if not good:
        wrong(f"libcloud.{key}: must be a table of texts, numbers, true and false, and lists of them.")
        return {}
    for name in value:
        if name in ours:
            wrong(
                f"libcloud.{key}: {name!r} is not taken here: Tarmac gives it, of the other entries or, where it is a "
                "secret, of env/providers.env."
            )
    return dict(value)
