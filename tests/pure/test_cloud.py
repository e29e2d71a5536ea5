"""The provider `libcloud` against moto's EC2 and a fake OpenStack on loopback."""

from __future__ import annotations

import base64
import contextlib
import gzip
import inspect
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, override

import boto3
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key
from libcloud.compute.drivers.gce import GCENodeDriver

from fakes import clouds as fakes
from tarmac.base.errors import ProviderError
from tarmac.base.units import GIB
from tarmac.hosts.cloud import HOST_KEY, LABEL, VERBS, Ec2, Gce, explained, main
from tarmac.hosts.clouds import Cloud, again, written
from tarmac.hosts.kinds import Kind, Kinds, Provider, Size
from tarmac.hosts.providers import CREDENTIALS, Libcloud, Order, provider_of
from tarmac.hosts.ssh import fingerprint

LABELLED = "tarmac-tests"
ORDER = Order("gpu-1", "restrict ssh-ed25519 AAAA tarmac", 1796000000.0, 1796043200.0)
OPENSTACK = Cloud(
    "openstack", "gpu.large", "docker", project="team", network="team", security_groups=("ssh",), public=False
)
AMAZON = {"AWS_ACCESS_KEY_ID": "AKIA-tests", "AWS_SECRET_ACCESS_KEY": "hunter2-secret"}
STACK = {"OS_USERNAME": "tarmac-user", "OS_PASSWORD": "only-for-tests"}


class Quick(Libcloud):
    """The provider without a process for each call."""

    @override
    def _run(self, verb: str, words: Sequence[str], more: Mapping[str, str]) -> str:
        said, complaint = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complaint):
            code = main([verb, *words], self._environment(more))
        if code:
            raise ProviderError(self._failed(verb, code, complaint.getvalue().strip()))
        return said.getvalue()


def kind_of(cloud: Cloud) -> Kind:
    size = Size(1, 80 * GIB, 60 * GIB, 8500)
    return Kind("gpu", Provider.LIBCLOUD, "", "H100", size, 2, 600, 3600, 900, None, 2.5, cloud)


def provider(cloud: Cloud, given: dict[str, str]) -> Libcloud:
    return Quick(kind_of(cloud), LABELLED, given, "EUR")


class Ordered(NamedTuple):
    """A machine as the cloud has it: its tags, and what cloud-init is told there."""

    tags: dict[str, str]
    told: dict[str, Any]


def told(text: str) -> dict[str, Any]:
    packed = base64.b64decode(text)
    data = (gzip.decompress(packed) if packed.startswith(b"\x1f\x8b") else packed).decode()
    assert data.startswith("#cloud-config\n")
    found: dict[str, Any] = json.loads(data.partition("\n")[2])
    return found


class Amazon:
    """EC2, and what it has by another client than the product's."""

    def __init__(self, url: str) -> None:
        self.client: Any = boto3.client(
            "ec2", endpoint_url=url, region_name="eu-central-1", aws_access_key_id="k", aws_secret_access_key="s"
        )
        self.image = self.client.describe_images()["Images"][0]["ImageId"]
        self.cloud = Cloud("ec2", size="g4dn.xlarge", image=self.image, region="eu-central-1", endpoint=url)
        self.given = AMAZON

    def instances(self) -> list[dict[str, Any]]:
        found = [one for row in self.client.describe_instances()["Reservations"] for one in row["Instances"]]
        return [one for one in found if one["State"]["Name"] != "terminated"]

    def attribute(self, number: str, name: str) -> str:
        found = self.client.describe_instance_attribute(InstanceId=number, Attribute=name)
        return str(found[name[0].upper() + name[1:]]["Value"])

    def ordered(self) -> list[Ordered]:
        return [
            Ordered({tag["Key"]: tag["Value"] for tag in one["Tags"]}, told(self.attribute(number, "userData")))
            for number, one in ((one["InstanceId"], one) for one in self.instances())
        ]

    def make_another(self, **tags: str) -> str:
        """Make a machine that is not the stack's."""
        spec = [{"ResourceType": "instance", "Tags": [{"Key": key, "Value": tags[key]} for key in tags]}]
        made = self.client.run_instances(ImageId=self.image, MinCount=1, MaxCount=1, TagSpecifications=spec)
        return str(made["Instances"][0]["InstanceId"])

    def numbers(self) -> list[str]:
        return [one["InstanceId"] for one in self.instances()]


class Nova:
    """OpenStack, and what it has."""

    def __init__(self, fake: fakes.OpenStack) -> None:
        self.fake, self.given = fake, STACK
        self.cloud = replace(OPENSTACK, endpoint=fake.url)

    def ordered(self) -> list[Ordered]:
        return [Ordered(one["metadata"], told(one["ordered"]["user_data"])) for one in self.fake.servers]

    def make_another(self, **tags: str) -> str:
        return str(self.fake.order({"name": tags["Name"], "metadata": tags, "flavorRef": "f-1"})["id"])

    def numbers(self) -> list[str]:
        return [one["id"] for one in self.fake.servers]


@pytest.fixture(scope="module")
def account() -> Iterator[Amazon]:
    with fakes.ec2() as url:
        yield Amazon(url)


@pytest.fixture
def amazon(account: Amazon) -> Iterator[Amazon]:
    yield account
    for number in account.numbers():
        account.client.terminate_instances(InstanceIds=[number])


@pytest.fixture
def nova() -> Iterator[Nova]:
    fake = fakes.OpenStack()
    yield Nova(fake)
    fake.close()


@pytest.fixture(params=["amazon", "nova"])
def there(request: pytest.FixtureRequest) -> Amazon | Nova:
    found: Amazon | Nova = request.getfixturevalue(request.param)
    return found


def test_a_machine_is_made_once_found_by_its_label_and_ended(there: Amazon | Nova):
    cloud = provider(there.cloud, there.given)
    before = there.numbers()
    assert (cloud.offers(), cloud.listed()) == ("", ())
    made = cloud.create(ORDER)
    assert made.name == "gpu-1"
    assert made.url.startswith("ssh://tarmac@")
    assert (cloud.create(ORDER), cloud.listed()) == (made, (made,))
    cloud.terminate("gpu-1", "")
    cloud.terminate("gpu-1", "")
    assert cloud.listed() == ()
    assert there.numbers() == before


def test_what_a_new_machine_is_told(there: Amazon | Nova):
    cloud = replace(there.cloud, user="team", setup="install-docker", tags={"cost": "nlp"})
    made = provider(cloud, there.given).create(ORDER)
    (ordered,) = there.ordered()
    assert ordered.tags[LABEL] == LABELLED
    assert ordered.tags["cost"] == "nlp"
    account = ordered.told["users"][0]
    assert (account["name"], account["groups"]) == ("team", "docker")
    assert account["ssh_authorized_keys"] == [ORDER.ssh_key]
    assert ordered.told["runcmd"][-1] == ["sh", "-c", "install-docker"]
    # The stack knows the host key before the machine shows it.
    keys = ordered.told["ssh_keys"]
    private = load_ssh_private_key(keys["ed25519_private"].encode(), None)
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert (keys["ed25519_public"], fingerprint(public)) == (public, made.host_key)
    assert ordered.tags[HOST_KEY] == made.host_key
    # It ends itself in time, also after a restart, and while the stack is down.
    timer = next(one for one in ordered.told["write_files"] if one["path"].endswith("tarmac-end.timer"))["content"]
    assert "OnCalendar=2026-11-30 12:53:20 UTC\n" in timer
    assert ["systemctl", "enable", "--now", "tarmac-end.timer"] in ordered.told["runcmd"]


def test_a_machine_of_ec2_that_shuts_down_is_terminated(amazon: Amazon):
    made = provider(amazon.cloud, AMAZON).create(ORDER)
    assert amazon.attribute(made.id, "instanceInitiatedShutdownBehavior") == "terminate"


def test_subnet_and_security_groups_reach_ec2(amazon: Amazon):
    subnet = amazon.client.describe_subnets()["Subnets"][0]
    group = amazon.client.create_security_group(GroupName="ssh", Description="x", VpcId=subnet["VpcId"])["GroupId"]
    placed = replace(amazon.cloud, subnet=subnet["SubnetId"], security_groups=(group,), public=False)
    made = provider(placed, AMAZON).create(ORDER)
    (instance,) = [one for one in amazon.instances() if one["InstanceId"] == made.id]
    assert instance["SubnetId"] == subnet["SubnetId"]
    assert [one["GroupId"] for one in instance["SecurityGroups"]] == [group]
    assert made.url == f"ssh://tarmac@{instance['PrivateIpAddress']}"


def test_network_and_security_groups_reach_openstack(nova: Nova):
    made = provider(replace(nova.cloud, socket="/run/x.sock"), STACK).create(ORDER)
    assert made.url == "ssh://tarmac@10.0.0.7/run/x.sock"
    ordered = nova.fake.servers[0]["ordered"]
    assert (ordered["networks"], ordered["security_groups"]) == ([{"uuid": "n-1"}], [{"name": "ssh"}])


def test_a_machine_without_the_label_is_neither_shown_nor_ended(there: Amazon | Nova):
    others = [there.make_another(Name="gpu-1"), there.make_another(Name="gpu-2", **{LABEL: "tarmac-other"})]
    cloud = provider(there.cloud, there.given)
    assert cloud.listed() == ()
    for number in ("", *others):
        cloud.terminate("gpu-1", number)
    assert set(others) <= set(there.numbers())


def test_a_machine_that_openstack_could_not_make_says_why_and_is_ended(nova: Nova):
    nova.fake.fault = "No valid host was found."
    cloud = provider(nova.cloud, STACK)
    assert cloud.create(ORDER).url == ""
    with pytest.raises(
        ProviderError, match=r"^libcloud's create: openstack could not make the machine: No valid host was found\.$"
    ):
        cloud.create(ORDER)
    cloud.terminate("gpu-1", "s-1")
    assert nova.numbers() == []


WRONG: dict[str, tuple[str, dict[str, Any], dict[str, str], str]] = {
    "no such size": ("amazon", {"size": "gpu.huge"}, {}, "region eu-central-1 has no instance type 'gpu.huge'."),
    "no such image": ("amazon", {"image": "ami-1234"}, {}, "ec2 answers: InvalidAMIID"),
    "no such region": ("amazon", {"region": "mars-1"}, {}, "EC2 has no region 'mars-1'; such are eu-central-1"),
    "no such argument": (
        "amazon", {"create": {"ex_spott": True}}, {},
        "libcloud.create in env/hosts.toml: 'ex_spott' is not an argument of ec2; such are: ex_assign_public_ip,",
    ),
    "no such argument of the driver": (
        "nova", {"connect": {"ex_domain": "x"}}, {}, "libcloud.connect in env/hosts.toml: 'ex_domain' is not an",
    ),
    "no such flavor": ("nova", {"size": "small"}, {}, "openstack has no size 'small'; it has: gpu.large"),
    "no such image there": ("nova", {"image": "windows"}, {}, "openstack has no image 'windows'; it has: docker"),
    "wrong password": (
        "nova", {}, {"OS_PASSWORD": "hunter2-wrong"},
        "openstack does not take the credentials: look at OS_USERNAME and OS_PASSWORD in env/providers.env.",
    ),
    "no password": ("nova", {}, {"OS_PASSWORD": ""}, "env/providers.env lacks OS_PASSWORD, which openstack needs."),
    "no key": (
        "nova", {"driver": "gce"}, {"GCE_ACCOUNT": "a@b", "GCE_KEY": '{"private_key": "x"}'},
        "gce does not take the credentials: look at GCE_ACCOUNT and GCE_KEY in env/providers.env.",
    ),
    "no cloud": (
        "nova", {"endpoint": "http://127.0.0.1:1"}, {},
        "openstack cannot be reached: look at libcloud.endpoint in env/hosts.toml, and whether this machine reaches",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "change", "given", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_with_what_to_look_at_and_without_the_credentials(
    name: str, change: dict[str, Any], given: dict[str, str], words: str, request: pytest.FixtureRequest
):
    there: Amazon | Nova = request.getfixturevalue(name)
    known = {**there.given, **given}
    with pytest.raises(ProviderError) as caught:
        provider(replace(there.cloud, **change), known).offers()
    assert str(caught.value).startswith("libcloud's offers: ")
    assert words in str(caught.value)
    assert not [secret for secret in known.values() if secret and secret in str(caught.value)]


class InvalidCredsError(Exception):
    """libcloud's, by its name."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            InvalidCredsError("AuthFailure: x"),
            "ec2 does not take the credentials: look at AWS_ACCESS_KEY_ID and",
        ),
        (
            Exception("UnauthorizedOperation: not ec2:RunInstances"),
            "ec2 does not let this account do that: give",
        ),
        (Exception("InsufficientInstanceCapacity: none now"), "ec2 answers: InsufficientInstanceCapacity: none now"),
        (ConnectionError("Max retries exceeded with url: /?UserData=hunter2"), "exceeded with url$"),
        (KeyError("swap"), "ec2 answers: KeyError: 'swap'"),
    ],
)
def test_what_a_cloud_answers_is_a_sentence(error: Exception, words: str):
    with pytest.raises(ProviderError, match=words), explained(Cloud("ec2")):
        raise error


def test_a_price_that_is_known_is_compared_where_it_is_in_us_dollars(monkeypatch: pytest.MonkeyPatch):
    cloud = Cloud("ec2", size="p4d.24xlarge", region="us-east-1", image="ami-1")
    for name in ("size", "image"):
        monkeypatch.setattr(Ec2, name, lambda self: None)

    def offers(cloud: Cloud, currency: str) -> list[dict[str, Any]]:
        return VERBS["offers"](Ec2(cloud, LABELLED, {**AMAZON, "TARMAC_CURRENCY": currency}))

    assert [one["price_per_hour"] > 1 for one in offers(cloud, "USD")] == [True]
    assert offers(cloud, "EUR") == []
    assert offers(replace(cloud, create={"ex_spot": True}), "USD") == []
    assert offers(replace(cloud, size="p99.metal"), "USD") == []


class FakeNode(NamedTuple):
    id: str
    name: str
    state: str
    public_ips: list[str]
    private_ips: list[str]
    extra: dict[str, Any]


class Google:
    """GCE's driver, as far as a kind of machine needs it: keeps what it is told as GCE does."""

    zone: str | None = "europe-west4-a"

    def __init__(self) -> None:
        self.there: list[FakeNode] = []
        self.given: dict[str, Any] = {}

    def list_sizes(self, zone: str) -> list[FakeNode]:
        return [FakeNode("7", "g2-standard-8", zone, [], [], {})]

    def ex_get_image(self, name: str) -> str:
        return name

    def list_nodes(self) -> list[FakeNode]:
        return self.there

    def create_node(self, **given: Any) -> FakeNode:
        self.given = given
        extra = {"labels": given["ex_labels"], "metadata": given["ex_metadata"]}
        self.there.append(FakeNode("42", given["name"], "running", ["34.1.2.3"], ["10.0.0.2"], extra))
        return self.there[-1]

    def destroy_node(self, node: FakeNode) -> None:
        self.there.remove(node)


def test_gce_gets_labels_user_data_and_network_tags(monkeypatch: pytest.MonkeyPatch):
    driver = Google()
    monkeypatch.setattr(Gce, "connected", lambda self, kind: driver)
    cloud = Cloud(
        "gce", size="g2-standard-8", image="docker", region="europe-west4-a", project="nlp", security_groups=("ssh",),
        create={"ex_on_host_maintenance": "TERMINATE"},
    )  # fmt: skip
    environment = {"GCE_ACCOUNT": "a@b", "GCE_KEY": "{}", "TARMAC_SSH_KEY": "ssh-ed25519 A", "TARMAC_UNTIL": "9"}
    maker = Gce(cloud, LABELLED, environment)
    assert VERBS["offers"](maker) == []
    (made,) = VERBS["create"](maker, "gpu-1")
    assert VERBS["list"](maker) == [made]
    assert (made["id"], made["url"], made["label"]) == ("42", "ssh://tarmac@34.1.2.3", LABELLED)
    assert driver.given["ex_labels"] == {LABEL: LABELLED}
    assert driver.given["ex_tags"] == ["ssh"]
    items = {one["key"]: one["value"] for one in driver.given["ex_metadata"]["items"]}
    assert items["user-data"].startswith("#cloud-config\n")
    assert items[HOST_KEY] == made["host_key"]
    # What is given is what libcloud's own driver takes.
    assert set(driver.given) <= set(inspect.signature(GCENodeDriver.create_node).parameters)
    VERBS["terminate"](maker, "gpu-1", "")
    assert driver.there == []
    driver.zone = None
    with pytest.raises(ProviderError, match="GCE has no zone 'europe-west4-a'"):
        VERBS["offers"](maker)


def test_a_cloud_reaches_the_process_as_it_was_declared():
    cloud = replace(OPENSTACK, endpoint="https://cloud:5000", create={"ex_config_drive": True}, tags={"a": "b"})
    assert replace(again(written(cloud)), security_groups=("ssh",)) == cloud


def test_a_kind_says_what_makes_its_machines():
    kind = kind_of(OPENSTACK)
    kinds = Kinds(LABELLED, 50, "EUR", (kind,))
    made = provider_of(kind, kinds, {CREDENTIALS: "OS_USERNAME=a\nOS_PASSWORD=b"})
    assert isinstance(made, Libcloud)
    assert not isinstance(provider_of(replace(kind, cloud=None, scripts="x"), kinds, {}), Libcloud)


def test_a_process_makes_it_with_an_environment_of_its_own(nova: Nova, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TARMAC_DATABASE_URL", "postgresql://tower:secret@postgres/tarmac")
    monkeypatch.setenv("OS_USERNAME", "another")
    cloud = Libcloud(kind_of(nova.cloud), LABELLED, STACK, "EUR")
    made = cloud.create(ORDER)
    assert (made.name, made.url) == ("gpu-1", "ssh://tarmac@10.0.0.7")
    assert cloud.listed() == (made,)
    with pytest.raises(ProviderError, match=r"^libcloud's offers: env/providers.env lacks OS_USERNAME and OS_PASSWORD"):
        Libcloud(kind_of(nova.cloud), LABELLED, {}, "EUR").offers()
