"""Makes and ends machines by libcloud: a program with the same calls and answers as the commands of env/providers.

    python -m tarmac.hosts.cloud offers | create NAME | list | terminate NAME ID

The environment says what to make: TARMAC_LIBCLOUD, and the variables that the commands get (docs/hosts.md). The
credentials are there, too. An error is one sentence on standard error. Each verb may be repeated.
"""

from __future__ import annotations

import contextlib
import gzip
import inspect
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, override
from urllib.parse import urlsplit

from tarmac.base.errors import ProviderError
from tarmac.base.texts import one_line
from tarmac.hosts import first_boot
from tarmac.hosts.clouds import DRIVERS, OURS, Cloud, again, missing
from tarmac.hosts.ssh import fingerprint

VARIABLE = "TARMAC_LIBCLOUD"
"""The environment variable that holds a Cloud, as `clouds.written` returns it."""
LABEL, HOST_KEY, ITEM = f"{OURS}label", f"{OURS}host-key", "user-data"
"""The tags of a machine: its label, and the fingerprint of its host key. `ITEM`: GCE's name for user data."""
_TIMEOUT = 25.0
"""Seconds that one call of the cloud's API may take; a verb makes several."""


class Maker:
    """Makes and ends the machines of one kind, by one driver of libcloud.

    Args:
        cloud: what they are made of.
        label: that they carry.
        given: the environment, with the credentials.
    """

    def __init__(self, cloud: Cloud, label: str, given: Mapping[str, str]) -> None:
        if lacking := missing(cloud, given):
            raise ProviderError(f"env/providers.env lacks {' and '.join(lacking)}, which {cloud.driver} needs.")
        self.cloud, self.label, self.given = cloud, label, given
        self.credentials = [given[name] for name in DRIVERS[cloud.driver].credentials]
        kind = self.kind()
        self._refuse_unknown("connect", *(one.__init__ for one in kind.__mro__))
        self._refuse_unknown("create", kind.create_node)
        self.driver: Any = self.connected(kind)

    def kind(self) -> Any:
        """Return libcloud's class of the driver."""
        from libcloud.compute.providers import get_driver

        return get_driver(self.cloud.driver)

    def connected(self, kind: Any) -> Any:
        """Return the driver, with the credentials."""
        raise NotImplementedError

    def nodes(self) -> Iterable[Any]:
        """Return the machines of the account, at least those that carry the label."""
        return self.driver.list_nodes()  # type: ignore[no-any-return]

    def tags(self, node: Any) -> Mapping[str, str]:
        """Return what a machine carries."""
        return node.extra.get("metadata") or {}

    def number(self, node: Any) -> str:
        """Return a machine's id."""
        return str(node.id)

    def size(self) -> Any:
        """Return the size, as the cloud has it."""
        return self._one("size", self.driver.list_sizes())

    def image(self) -> Any:
        """Return the image, as the cloud has it."""
        return self._one("image", self.driver.list_images())

    def price(self) -> float | None:
        """Return what an hour costs in US dollars; None: it is not known."""
        return None

    def arguments(self, tags: Mapping[str, str], told: str) -> dict[str, Any]:
        """Return what create_node gets besides name, size, image and what the kind declares.

        Args:
            tags: that the machine carries.
            told: its user data.
        """
        raise NotImplementedError

    def machines(self) -> list[Any]:
        """Return the machines that carry the label and are not terminated."""
        from libcloud.compute.types import NodeState

        found = [node for node in self.nodes() if self.tags(node).get(LABEL) == self.label]
        return [node for node in found if node.state != NodeState.TERMINATED]

    def shown(self, node: Any) -> dict[str, Any]:
        """Return a machine as hosts/providers.py reads it."""
        tags = self.tags(node)
        found = node.public_ips if self.cloud.public else node.private_ips
        address = next((one for one in found if one and ":" not in one), "")
        return {
            "id": self.number(node),
            "name": node.name,
            "label": tags.get(LABEL),
            "url": f"ssh://{self.cloud.user}@{address}{self.cloud.socket}" if address else "",
            "host_key": tags.get(HOST_KEY, ""),
        }

    def offers(self) -> list[dict[str, Any]]:
        """Look whether size and image are there."""
        self.size()
        self.image()
        price = self.price() if self.given.get("TARMAC_CURRENCY") == "USD" else None
        return [] if price is None else [{"price_per_hour": price}]

    def create(self, name: str) -> list[dict[str, Any]]:
        """Make a machine, unless there is one of this name."""
        if there := [node for node in self.machines() if node.name == name]:
            return [self._made(there[0])]
        key, cloud = first_boot.host_key(), self.cloud
        told = first_boot.user_data(
            cloud.user, self.given["TARMAC_SSH_KEY"], key, float(self.given["TARMAC_UNTIL"]), cloud.setup
        )
        tags = {**cloud.tags, LABEL: self.label, HOST_KEY: fingerprint(key.public)}
        given = {**self.arguments(tags, told), **cloud.create}
        node = self.driver.create_node(name=name, size=self.size(), image=self.image(), **given)
        # What the cloud says at once of a new machine may lack its tags.
        return [{**self.shown(node), "name": name, "label": self.label, "host_key": tags[HOST_KEY]}]

    def _made(self, node: Any) -> dict[str, Any]:
        """Return a machine that was made before; one that failed is no machine yet, and says why."""
        from libcloud.compute.types import NodeState

        if node.state == NodeState.ERROR:
            fault = node.extra.get("fault") or {}
            raise ProviderError(f"{self.cloud.driver} could not make the machine: {fault.get('message', 'no reason')}")
        return self.shown(node)

    def listed(self) -> list[dict[str, Any]]:
        """Show the machines with the label."""
        return [self.shown(node) for node in self.machines()]

    def terminate(self, name: str, machine_id: str) -> list[dict[str, Any]]:
        """End those machines with the label that have this id; without one, this name."""
        for node in self.machines():
            if self.number(node) == machine_id or (not machine_id and node.name == name):
                self.driver.destroy_node(node)
        return []

    def _refuse_unknown(self, entry: str, *functions: Callable[..., Any]) -> None:
        """Refuse arguments that the driver does not take: some drivers would leave them out without a word."""
        known = {name for one in functions for name in inspect.signature(one).parameters}
        for name in getattr(self.cloud, entry):
            if name not in known:
                takes = ", ".join(sorted(one for one in known if one.startswith("ex_")))
                raise ProviderError(
                    f"libcloud.{entry} in env/hosts.toml: {name!r} is not an argument of {self.cloud.driver}; "
                    f"such are: {takes}"
                )

    def _one(self, entry: str, found: Iterable[Any]) -> Any:
        """Return what has the declared id or name."""
        wanted, there = getattr(self.cloud, entry), list(found)
        for one in there:
            if wanted in (one.id, one.name):
                return one
        some = ", ".join(sorted(str(one.name) for one in there)[:10])
        raise ProviderError(
            f"libcloud.{entry} in env/hosts.toml: {self.cloud.driver} has no {entry} {wanted!r}; it has: "
            f"{some or 'none'}"
        )


class Ec2(Maker):
    """Amazon's EC2, and clouds with its API. A machine that shuts down is terminated."""

    @override
    def connected(self, kind: Any) -> Any:
        cloud, where = self.cloud, {}
        if cloud.region not in kind.list_regions():
            raise ProviderError(
                f"libcloud.region in env/hosts.toml: EC2 has no region {cloud.region!r}; such are eu-central-1 and "
                "us-east-1."
            )
        if cloud.endpoint:
            url = urlsplit(cloud.endpoint)
            where = {"host": url.hostname, "port": url.port, "secure": url.scheme == "https"}
        token = self.given.get("AWS_SESSION_TOKEN")
        return kind(*self.credentials, token=token, region=cloud.region, timeout=_TIMEOUT, **where, **cloud.connect)

    @override
    def nodes(self) -> Iterable[Any]:
        return self.driver.list_nodes(ex_filters={f"tag:{LABEL}": self.label})  # type: ignore[no-any-return]

    @override
    def tags(self, node: Any) -> Mapping[str, str]:
        return node.extra.get("tags") or {}

    @override
    def size(self) -> Any:
        from libcloud.compute.base import NodeSize

        # libcloud's own list of sizes is as old as the library: EC2 is asked.
        asked = {"Action": "DescribeInstanceTypeOfferings", "Filter.1.Name": "instance-type"}
        said = self.driver.connection.request("/", params={**asked, "Filter.1.Value.1": self.cloud.size}).object
        if not any(one.text == self.cloud.size for one in said.iter() if one.tag.endswith("}instanceType")):
            raise ProviderError(
                f"libcloud.size in env/hosts.toml: region {self.cloud.region} has no instance type {self.cloud.size!r}."
            )
        return NodeSize(self.cloud.size, self.cloud.size, None, None, None, None, self.driver)

    @override
    def image(self) -> Any:
        found = self.driver.list_images(ex_image_ids=[self.cloud.image])
        return self._one("image", found)

    @override
    def price(self) -> float | None:
        from libcloud.pricing import get_size_price

        # A spot machine is cheaper, and a list of a cloud that is not Amazon's is another one.
        if self.cloud.create.get("ex_spot") or self.cloud.endpoint:
            return None
        return get_size_price("compute", "ec2_linux", self.cloud.size, self.cloud.region)  # type: ignore[no-any-return]

    @override
    def arguments(self, tags: Mapping[str, str], told: str) -> dict[str, Any]:
        from libcloud.compute.drivers.ec2 import EC2NetworkSubnet

        cloud = self.cloud
        # A URL may not be of any length. cloud-init unpacks it.
        packed = gzip.compress(told.encode(), mtime=0)
        given = {"ex_metadata": tags, "ex_userdata": packed, "ex_terminate_on_shutdown": True}
        groups = list(cloud.security_groups)
        if not cloud.subnet:
            return {**given, "ex_security_groups": groups} if groups else given
        subnet = EC2NetworkSubnet(cloud.subnet, cloud.subnet, "available")
        given |= {"ex_subnet": subnet, "ex_assign_public_ip": cloud.public}
        return {**given, "ex_security_group_ids": groups} if groups else given


class OpenStack(Maker):
    """A cloud with OpenStack. A machine that shuts down stays, and may cost money until it is terminated."""

    @override
    def kind(self) -> Any:
        from libcloud.compute.drivers.openstack import OpenStack_2_NodeDriver

        return OpenStack_2_NodeDriver

    @override
    def connected(self, kind: Any) -> Any:
        cloud, region = self.cloud, {}
        if cloud.region:
            region = {"ex_force_service_region": cloud.region}
        # The path is added by libcloud.
        url = cloud.endpoint.removesuffix("/v3")
        known = {"ex_force_auth_url": url, "ex_force_auth_version": "3.x_password", "ex_tenant_name": cloud.project}
        return kind(*self.credentials, timeout=_TIMEOUT, **{**known, **region, **cloud.connect})

    @override
    def arguments(self, tags: Mapping[str, str], told: str) -> dict[str, Any]:
        from libcloud.compute.drivers.openstack import OpenStackSecurityGroup

        given: dict[str, Any] = {"ex_metadata": tags, "ex_userdata": told}
        if self.cloud.network:
            given["networks"] = [self._one("network", self.driver.ex_list_networks())]
        if self.cloud.security_groups:
            groups = [OpenStackSecurityGroup(one, "", one, "", self.driver) for one in self.cloud.security_groups]
            given["ex_security_groups"] = groups
        return given


class Gce(Maker):
    """Google's Compute Engine. A machine that shuts down stays, and costs no more than its disk."""

    @override
    def connected(self, kind: Any) -> Any:
        # The token of an hour is kept nowhere. Without auth_type, libcloud asks the network where it runs.
        known = {"credential_file": os.devnull, "auth_type": "SA", **self.cloud.connect}
        return kind(
            *self.credentials, timeout=_TIMEOUT, project=self.cloud.project, datacenter=self.cloud.region, **known
        )

    @override
    def tags(self, node: Any) -> Mapping[str, str]:
        items = (node.extra.get("metadata") or {}).get("items", ())
        # A fingerprint has other characters than a label may have.
        key = next((one["value"] for one in items if one["key"] == HOST_KEY), "")
        return {**(node.extra.get("labels") or {}), HOST_KEY: key}

    @override
    def size(self) -> Any:
        if self.driver.zone is None:
            raise ProviderError(f"libcloud.region in env/hosts.toml: GCE has no zone {self.cloud.region!r}.")
        return self._one("size", self.driver.list_sizes(self.driver.zone))

    @override
    def image(self) -> Any:
        return self.driver.ex_get_image(self.cloud.image)

    @override
    def arguments(self, tags: Mapping[str, str], told: str) -> dict[str, Any]:
        cloud = self.cloud
        items = {ITEM: told, HOST_KEY: tags[HOST_KEY]}
        given: dict[str, Any] = {
            "ex_labels": {name: text for name, text in tags.items() if name != HOST_KEY},
            "ex_metadata": {"items": [{"key": key, "value": text} for key, text in items.items()]},
            "external_ip": "ephemeral" if cloud.public else None,
            "ex_tags": list(cloud.security_groups),
        }
        given |= {"ex_network": cloud.network} if cloud.network else {}
        return {**given, "ex_subnetwork": cloud.subnet} if cloud.subnet else given


MAKERS: dict[str, type[Maker]] = {"ec2": Ec2, "gce": Gce, "openstack": OpenStack}
VERBS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "offers": Maker.offers, "create": Maker.create, "list": Maker.listed, "terminate": Maker.terminate,
}  # fmt: skip


@contextlib.contextmanager
def explained(cloud: Cloud) -> Iterator[None]:
    """Make a sentence of what libcloud raises.

    Raises:
        ProviderError: with it.
    """
    try:
        yield
    except ProviderError:
        raise
    except Exception as error:
        raise ProviderError(why(cloud, error)) from error


def why(cloud: Cloud, error: Exception) -> str:
    """Say what a cloud's answer means, and what to look at. Pure."""
    name, code = type(error).__name__, getattr(error, "code", None) or getattr(error, "http_code", None)
    # EC2 is told all in the URL, with the machine's private host key.
    words = re.sub(r"\burl: \S+", "url", one_line(str(error)))[:250] or f"HTTP {code}, without a reason"
    if name in ("InvalidCredsError", "GoogleAuthError") or code == 401:
        where = " and ".join(DRIVERS[cloud.driver].credentials)
        return f"{cloud.driver} does not take the credentials: look at {where} in env/providers.env. It says: {words}"
    if code == 403 or re.match("UnauthorizedOperation|AccessDenied", words):
        return (
            f"{cloud.driver} does not let this account do that: give it the rights that docs/hosts.md names, or raise "
            f"its quota. It says: {words}"
        )
    if isinstance(error, OSError):  # requests' errors are
        where = "libcloud.endpoint" if cloud.endpoint else "libcloud.region"
        return (
            f"{cloud.driver} cannot be reached: look at {where} in env/hosts.toml, and whether this machine reaches "
            f"the internet. It says: {words}"
        )
    return f"{cloud.driver} answers: {words if ' ' in words else f'{name}: {words}'}"


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Do one verb; print what it found, a JSON object a line."""
    warnings.simplefilter("ignore")
    verb, *words = arguments
    cloud = again(environment[VARIABLE])
    try:
        with explained(cloud):
            maker = MAKERS[cloud.driver](cloud, environment["TARMAC_LABEL"], environment)
            for one in VERBS[verb](maker, *words):
                print(json.dumps(one))
    except ProviderError as error:
        print(one_line(str(error)), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
