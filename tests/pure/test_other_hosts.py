"""Other machines: how one is named, found and judged, why it takes no session, what on it is orphaned."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tarmac.admission.hosts import HostLoad, HostPlacement, host_view, place_on_host, plan_hosts, why_on_host
from tarmac.admission.placement import HostNeed, NoFit, Reason, Waiting, need_of_host
from tarmac.base.errors import HostError
from tarmac.base.session import SessionKey
from tarmac.base.settings import SettingsError, read
from tarmac.base.units import GIB
from tarmac.checks.adding import suits
from tarmac.cli.host_commands import compare_lines
from tarmac.hosts import link
from tarmac.hosts.address import Address, check_name, read_url
from tarmac.hosts.ssh import SshLink, explain, fingerprint
from tarmac.ledger.records import HostRow
from tarmac.reaper.orphans import Container, Run, Task, Volume, find_there
from tarmac.scheduler.board import host_board

NOW = datetime(2026, 11, 28, tzinfo=UTC)
KEY = SessionKey("nlp_model_training", "run-1")
TRAINS = {KEY: Run("running", {"train_model_cpu": Task("running", "2"), "train_model_gpu": Task("skipped")})}
OVER = {KEY: Run("success", {"train_model_cpu": Task("success", "2"), "train_model_gpu": Task("skipped")})}
ONE = Container("c1", "name", KEY, "train_model_cpu", "2", 5.0)
IT = Volume("v", KEY)


def test_a_machine_is_where_its_url_says():
    assert read_url("ssh://tarmac@gpu2") == Address("tarmac", "gpu2")
    assert read_url("ssh://a@10.0.0.2:2222/run/user/1000/docker.sock") == Address(
        "a", "10.0.0.2", 2222, "/run/user/1000/docker.sock"
    )


@pytest.mark.parametrize(
    "url",
    ["gpu2", "ssh://gpu2", "ssh://a@-oProxyCommand=x", "ssh://-l@gpu2", "ssh://a@b:99999",
     "ssh://a@b c", "ssh://a@b\n", "ssh://a@b/x y", "http://a@b", ""],
)  # fmt: skip
def test_what_is_no_machine_is_refused_with_what_to_write(url: str):
    with pytest.raises(HostError, match="URL: .* says no machine: write ssh://user@machine"):
        read_url(url)


@pytest.mark.parametrize("name", ["", "local", "GPU2", "-x", "a/b", "../x", "x" * 32])
def test_a_host_cannot_be_called_anything(name: str):
    with pytest.raises(HostError, match="NAME: .* is not a name for a host"):
        check_name(name)


def test_a_fingerprint_is_the_one_that_ssh_shows():
    key = base64.b64encode(b"a key").decode()
    expected = base64.b64encode(hashlib.sha256(b"a key").digest()).decode().rstrip("=")
    assert fingerprint(f"ssh-ed25519 {key}") == f"SHA256:{expected}"


def test_ssh_asks_nobody_trusts_the_pinned_key_alone_and_takes_no_word_for_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(link, "LINKS", tmp_path)
    words = SshLink("gpu2", Address("tarmac", "gpu2"), "ssh-ed25519 AAAA").command(Path("/l/gpu2.sock"))
    assert words[-2:] == ["--", "tarmac@gpu2"]
    known = tmp_path / "gpu2.known"
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", f"UserKnownHostsFile={known}", "ForwardAgent=no"} <= {*words}
    assert known.read_text() == "gpu2 ssh-ed25519 AAAA\n"
    assert "/l/gpu2.sock:/var/run/docker.sock" in words


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("Host key verification failed.", "shows another host key than the pinned one"),
        ("t@gpu2: Permission denied (publickey).", "add the line of `make host-key` to ~tarmac/.ssh/authorized_keys"),
        ("Error: remote port forwarding failed", "AllowStreamLocalForwarding in its sshd_config must be yes"),
        (
            "ssh: connect to host gpu2 port 22: Connection refused",
            "cannot be reached by SSH: ssh: connect to host gpu2",
        ),
        ("", "cannot be reached by SSH: no answer; an SSH server shuts out"),
    ],
)
def test_what_ssh_says_becomes_a_remedy(said: str, sentence: str):
    assert sentence in explain(said, Address("tarmac", "gpu2"))


NEAR = {"ID": "near", "Architecture": "x86_64"}
FAR: dict[str, Any] = {
    "ID": "far", "Architecture": "x86_64", "ServerVersion": "26.1.5", "NCPU": 8, "MemTotal": 64 * GIB,
    "MemoryLimit": True, "CpuCfsQuota": True, "PidsLimit": True, "SystemTime": NOW.isoformat(),
}  # fmt: skip


def test_a_machine_that_suits_is_described():
    assert suits(FAR, NEAR, "gpu2", NOW) == ["engine 26.1.5 on x86_64, 8 cores, 64.0 GiB", "its clock is right"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ServerVersion": "19.03.1"}, "has version 19.03.1: install Docker Engine 20 or newer"),
        ({"ID": "near"}, "gpu2 is this machine"),
        ({"Architecture": "aarch64"}, "is a machine of kind aarch64 and the trainer's image is for x86_64"),
        ({"MemoryLimit": False}, "cannot limit the memory of a container"),
        ({"CpuCfsQuota": False}, "cannot limit the cores of a container"),
        ({"PidsLimit": False}, "cannot limit the processes of a container"),
    ],
)
def test_a_machine_that_does_not_suit_is_refused(change: dict[str, Any], reason: str):
    with pytest.raises(HostError, match=reason):
        suits(FAR | change, NEAR, "gpu2", NOW)


def test_a_clock_an_hour_off_is_said_and_is_no_reason():
    late = FAR | {"SystemTime": (NOW + timedelta(hours=1)).isoformat()}
    assert "its clock is 1 h 0 min off" in suits(late, NEAR, "gpu2", NOW)[1]


def test_before_a_host_is_added_a_person_reads_what_to_compare_and_to_type():
    lines = compare_lines(
        "gpu2", "ssh://tarmac@gpu2", {"fingerprint": "SHA256:abc", "key_file": "/etc/ssh/k.pub"}, "restrict x"
    )
    assert lines[-1].strip() == "make host-add NAME=gpu2 URL=ssh://tarmac@gpu2 FINGERPRINT=SHA256:abc"
    assert "     ssh-keygen -lf /etc/ssh/k.pub" in lines
    assert "     restrict x" in lines


# ---- placement -------------------------------------------------------------------------------------------------------

NEED = HostNeed(4 * GIB, 1000)
HERE = HostLoad("local", 16 * GIB, 4000)
CLOSED = HostLoad("gpu2", 8 * GIB, 4000, closed="does not answer")


def test_a_host_that_takes_no_session_gets_none_and_the_reason_says_why():
    assert place_on_host(NEED, [HERE, CLOSED]) == HostPlacement("local", NEED, False)
    alone = place_on_host(NEED, [CLOSED])
    assert alone == NoFit(Reason.WAITING_FOR_HOST, "needs 1 core and 4.0 GiB of memory: gpu2 does not answer")
    view = host_view([CLOSED], {}, [])
    assert str(why_on_host("s", NEED, view, 0.0)) == "needs 1 core and 4.0 GiB of memory: gpu2 does not answer"


def test_a_host_that_takes_no_session_is_kept_free_for_none():
    starved = Waiting("large", need_of_host(4 * GIB, 1000), 1, 0)
    assert plan_hosts([starved], [CLOSED], starved_below=5).held == {}


def test_a_snapshot_of_the_version_before_is_read():
    old = '[[["local",17179869184,4000,17179869184,0,0,0]],[],[]]'
    assert "local has 4 of 4 cores" in str(why_on_host("s", NEED, old, 0.0))


def test_the_board_says_since_when_and_why_a_host_is_silent():
    row = HostRow("gpu2", 9 * GIB, 4000, 8 * GIB, 4000, 0, 0, 0, 0, "ssh://a@b", "does not answer", "cut\noff", 90.0)
    lines = host_board([row], [], [], NOW)
    assert lines[1].startswith("  takes no session: it does not answer for 1 min 30 s: cut off")
    drained = HostRow("gpu2", 9 * GIB, 4000, 8 * GIB, 4000, 0, 0, 0, 0, "ssh://a@b", "is drained")
    assert "  takes no session: it is drained" in host_board([drained], [], [], NOW)


# ---- what on another machine is orphaned -----------------------------------------------------------------------------


def test_what_trains_there_is_left_alone():
    assert not find_there("gpu2", {KEY: "gpu2"}, [ONE], [IT], TRAINS)


def test_a_result_that_is_not_kept_yet_keeps_its_container_and_volume():
    assert not find_there("gpu2", {}, [ONE], [IT], TRAINS)


def test_what_trains_elsewhere_now_is_orphaned_here():
    found = find_there("gpu2", {KEY: "local"}, [ONE], [], TRAINS)
    assert found.containers == {ONE: "its session trains on local now"}
    assert find_there("gpu2", {KEY: "local"}, [], [IT], TRAINS).volumes == {IT: "nothing of its session trains there"}


def test_the_end_of_a_run_orphans_all_it_has_there():
    found = find_there("gpu2", {KEY: "gpu2"}, [ONE], [IT], OVER)
    assert found.containers == {ONE: "its task train_model_cpu is over (success)"}
    assert found.reserved == {KEY: "its training is over (success)"}
    assert find_there("gpu2", {}, [], [IT], OVER).volumes == {IT: "nothing of its session trains there"}


def test_what_is_held_of_other_hosts_is_not_judged_here():
    assert not find_there("gpu2", {KEY: "gpu3"}, [], [], {}).reserved


def test_a_limit_that_is_no_number_of_seconds_is_refused():
    with pytest.raises(SettingsError, match="TARMAC_HOST_LOST_AFTER='1h' is not a number of seconds"):
        read({"TARMAC_HOST_LOST_AFTER": "1h"})
