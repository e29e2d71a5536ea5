"""env/hosts.toml: what it declares, and a sentence for each entry that is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tarmac.base.errors import HostsFileError, ProviderError
from tarmac.base.units import GIB
from tarmac.hosts.clouds import Cloud
from tarmac.hosts.kinds import VARIABLE, Kinds, Size, declared, lacking, read
from tarmac.hosts.providers import credentials

GOOD = """
label = "tarmac-tests"
money_per_day = 50
currency = "EUR"

[[kind]]
name = "gpu-cloud"
provider = "script"
gpu = "NVIDIA H100 80GB HBM3"
gpu_memory = "80GiB"
cores = 16
memory = "128GiB"
most = 2
idle_minutes = 10
price_per_hour = 2.5
"""


def test_what_a_file_declares():
    (kind,) = read(GOOD).kinds
    assert (kind.name, kind.scripts, kind.size) == ("gpu-cloud", "gpu-cloud", Size(1, 80 * GIB, 128 * GIB, 16000))
    assert (kind.most, kind.idle_seconds, kind.life_seconds, kind.start_seconds) == (2, 600, 12 * 3600, 900)
    assert (kind.after_seconds, kind.price) == (None, 2.5)
    cpu = GOOD.replace('gpu = "NVIDIA H100 80GB HBM3"\ngpu_memory = "80GiB"\n', "")
    assert read(cpu).kinds[0].size == Size(0, 0, 128 * GIB, 16000)


def test_without_a_file_no_kind_is_declared_and_the_example_declares_none_until_it_is_filled_in(repository: Path):
    assert declared({}) == Kinds()
    text = (repository / "env/hosts.toml.example").read_text()
    assert declared({VARIABLE: text}).kinds == ()
    filled = re.sub(r"^# (?=.*=|\[)", "", text, flags=re.MULTILINE)
    with pytest.raises(HostsFileError) as caught:
        read(filled)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["label"], "a person has to choose it"
    kinds = read(filled.replace("change-me", "tarmac-team")).kinds
    assert [kind.provider.value for kind in kinds] == ["libcloud", "script"]


WRONG = {
    "no TOML": ("label =", "label", "is not TOML: "),
    "unknown entry": ("currency", "money", "money: is not known; known are label, money_per_day, currency, kind."),
    "unknown entry of a kind": ("most =", "many =", "many: is not known; known are name, provider,"),
    "no label": ('label = "tarmac-tests"', "", "label: None must be 3 to 40 of a-z, 0-9 and -, such as"),
    "no limit": ("money_per_day = 50", "", "money_per_day: None must be a number from 0 to 1000000"),
    "a name with blanks": ("gpu-cloud", "gpu cloud", "kind 'gpu cloud': name: must be 1 to 20 of a-z, 0-9 and -"),
    "the stack's own name": ("gpu-cloud", "local", "kind 'local': name: must be 1 to 20"),
    "another provider": (
        '"script"', '"magic"', "kind 'gpu-cloud': provider: 'magic' must be one of: script, libcloud.",
    ),
    "libcloud's table": ("most = 2", "most = 2\nlibcloud = {}", "libcloud: is for provider = 'libcloud'; leave it"),
    "a path": ("most = 2", 'most = 2\nscripts = "../x"', "scripts: '../x' must be the name of a folder in env/"),
    "no size": ('"80GiB"', '"much"', "gpu_memory: 'much' must be a size of GPU memory such as '80GiB'."),
    "no memory": ('memory = "128GiB"', "", "kind 'gpu-cloud': memory: None must be a size of memory such as '128GiB'."),
    "no cores": ("cores = 16", "cores = 0", "kind 'gpu-cloud': cores: 0 must be a number of cores from 0.1 to 1024."),
    "too many": ("most = 2", "most = 1000", "kind 'gpu-cloud': most: 1000 must be a whole number from 0 to 100."),
    "half a machine": ("most = 2", "most = 1.5", "kind 'gpu-cloud': most: 1.5 must be a whole number from 0 to 100."),
    "no price": ("price_per_hour = 2.5", "", "price_per_hour: is missing; it must be a number from 0 to 10000."),
    "never idle": ("idle_minutes = 10", "idle_minutes = 0", "idle_minutes: 0 must be a number from 1 to 1440."),
    "one bracket": ("[[kind]]", "[kind]", "kind: must be written [[kind]], with two brackets, once for each."),
    "too dear for a day": (
        "money_per_day = 50", "money_per_day = 29",
        "most_hours: a machine that lives 12 hours costs 30, and money_per_day is 29, so none would ever be started",
    ),
}  # fmt: skip


CLOUD = (
    GOOD.replace('"script"', '"libcloud"')
    + """
[kind.libcloud]
driver = "ec2"
region = "eu-central-1"
size = "g6.2xlarge"
image = "ami-0a1b"
security_groups = ["ssh"]
"""
)
OPENSTACK = """driver = "openstack"
endpoint = "https://cloud.example.org:5000/v3"
project = "nlp"
"""


def test_what_a_kind_of_libcloud_declares():
    cloud = read(CLOUD).kinds[0].cloud
    assert cloud == Cloud("ec2", "g6.2xlarge", "ami-0a1b", "eu-central-1", security_groups=("ssh",))
    stack = read(CLOUD.replace('driver = "ec2"\n', OPENSTACK)).kinds[0].cloud
    assert stack is not None
    assert (stack.endpoint, stack.public, stack.user) == ("https://cloud.example.org:5000/v3", True, "tarmac")
    more = 'subnet = "subnet-1"\naddress = "private"\ncreate = {ex_spot = true}\ntags = {a = "b"}\n'
    placed = read(CLOUD.replace('security_groups = ["ssh"]', more + 'security_groups = ["sg-1"]')).kinds[0].cloud
    assert placed is not None
    assert (placed.public, placed.create, placed.tags) == (False, {"ex_spot": True}, {"a": "b"})


WRONG_CLOUD = {
    "no table": (CLOUD[CLOUD.index("[kind.lib") :], "", "libcloud: must be a table: a line [kind.libcloud] below"),
    "scripts": ("most = 2", 'most = 2\nscripts = "x"', "kind 'gpu-cloud': scripts: is for the provider script;"),
    "unknown entry": ("size =", "flavor =", "libcloud.flavor: is not known; known are driver, size,"),
    "no size": ('size = "g6.2xlarge"\n', "", "kind 'gpu-cloud': libcloud.size: is missing; the driver ec2 needs it."),
    "another driver": ('"ec2"', '"magic"', "libcloud.driver: 'magic' must be one of: ec2, gce, openstack. For"),
    "no text": ('"g6.2xlarge"', "6", "libcloud.size: 6 must be a text, as the cloud calls it."),
    "not for it": ("size =", 'network = "x"\nsize =', "libcloud.network: is not for the driver ec2; leave it out."),
    "no address": ("size =", 'address = "x"\nsize =', "libcloud.address: 'x' must be 'public' or 'private'"),
    "no account": ("size =", 'user = "-o"\nsize =', "libcloud.user: '-o' must be the name of an account, such as"),
    "no path": ("size =", 'socket = "run/x"\nsize =', "libcloud.socket: 'run/x' must be the path of the engine's"),
    "no URL": (
        "size =", 'endpoint = "cloud"\nsize =',
        "libcloud.endpoint: 'cloud' must be the URL of the cloud's API, such as 'https://cloud:5000', without a path.",
    ),
    "an id alone": ('"ssh"', '"sg-1"', "libcloud.security_groups: 'sg-1' must be a name, or subnet be given, too."),
    "a name in a subnet": (
        "size =", 'subnet = "s"\nsize =', "libcloud.security_groups: 'ssh' must be an id (sg-...), as subnet is given.",
    ),
    "no list": ('["ssh"]', '"ssh"', "libcloud.security_groups: must be a list of texts, such as"),
    "a tag of ours": ("size =", 'tags = {tarmac-label = "x"}\nsize =', "libcloud.tags: must be a table of short"),
    "a secret": (
        "size =", 'connect = {secret = "hunter2"}\nsize =',
        "libcloud.connect: 'secret' is not taken here: Tarmac gives it, of the other entries or, where it is a secret",
    ),
    "what Tarmac gives": ("size =", "create = {ex_maxcount = 9}\nsize =", "libcloud.create: 'ex_maxcount' is not"),
    "no values": ("size =", "create = {a = 2026-01-01}\nsize =", "libcloud.create: must be a table of texts, numbers,"),
    "long setup": ("size =", f'setup = "{9000 * "x"}"\nsize =', "libcloud.setup: must be the lines of a shell"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "words"), WRONG_CLOUD.values(), ids=WRONG_CLOUD)
def test_a_wrong_entry_of_libcloud_is_named_and_no_secret_is_shown(old: str, new: str, words: str):
    assert old in CLOUD
    with pytest.raises(HostsFileError) as caught:
        read(CLOUD.replace(old, new, 1))
    assert any(words in problem for problem in caught.value.problems), caught.value.problems
    assert "hunter2" not in str(caught.value)


def test_credentials_that_are_not_there_are_named_before_anything_starts():
    kinds = read(CLOUD).kinds
    assert lacking(kinds, {"AWS_ACCESS_KEY_ID": "a"}) == [
        "kind 'gpu-cloud': env/providers.env lacks AWS_SECRET_ACCESS_KEY, which the driver ec2 needs."
    ]
    assert lacking(kinds, {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}) == []


def test_the_examples_of_the_docs_can_be_copied(repository: Path):
    blocks = re.findall(r"```toml\n(.*?)```", (repository / "docs/hosts.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    head = "label = 'tarmac-tests'\nmoney_per_day = 10000\n"
    drivers = [read(block if "label =" in block else head + block).kinds[0].cloud for block in blocks]
    assert [one.driver if one else "" for one in drivers] == ["", "ec2", "openstack"]


@pytest.mark.parametrize(("old", "new", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_entry_is_named_with_its_value_and_what_to_write(old: str, new: str, words: str):
    assert old in GOOD
    with pytest.raises(HostsFileError) as caught:
        read(GOOD.replace(old, new, 1))
    assert any(words in problem for problem in caught.value.problems), caught.value.problems


def test_two_kinds_of_one_name_are_refused():
    with pytest.raises(HostsFileError, match="kind 'gpu-cloud': is there twice"):
        read(GOOD + GOOD.partition("\n\n")[2])


def test_credentials_are_settings_and_a_line_that_is_none_is_not_shown():
    assert credentials("# of the cloud\nexport A=b\n\nTOKEN='x=y '\n") == {"A": "b", "TOKEN": "x=y "}
    with pytest.raises(ProviderError, match=r"env/providers.env: line 2 must be KEY=value\.") as caught:
        credentials("A=b\nhunter2\n")
    assert "hunter2" not in str(caught.value)
