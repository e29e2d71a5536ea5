"""What people are told, of what, and when: env/notify.toml, the words, the digest. Nothing is sent here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tarmac.base.errors import NotifyError
from tarmac.base.session import cancelled_note
from tarmac.cli import main as commands
from tarmac.cli.remedies import Remedy, rows
from tarmac.ledger.outbox import Pending
from tarmac.notify import facts, rules, sending
from tarmac.notify.config import USUAL, Config, Kind, Target, configured, read
from tarmac.reaper.airflow_state import Session
from tarmac.reaper.supervisor import helpers

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
PAGE = "http://localhost:8081"
SECRET = "hooktoken123"
TARGET = '[[target]]\nname = "ops"\nurl = "json://example.org/x"\n'


# ---- env/notify.toml -------------------------------------------------------------------------------------------------


def test_a_file_says_who_is_told_what():
    found = read(
        'waits_longer_than = "30m"\nat_once = 3\nat_once_within = "1h"\npage = "https://t.example.org/"\n'
        f'[teams]\nnlp = ["anna", "ben"]\n{TARGET}'
        '[[target]]\nname = "nlp"\nurl = "json://a"\nteams = ["nlp"]\nowners = ["eve"]\nevents = ["failed"]\n'
    )
    assert (found.wait_seconds, found.at_once, found.window_seconds) == (1800, 3, 3600)
    assert found.page == "https://t.example.org"
    everyone, team = found.targets
    assert everyone.wants(Kind.QUARANTINE, "")
    assert everyone.wants(Kind.FINISHED, "anybody")
    assert not everyone.wants(Kind.CANCELLED, "anybody"), "who cancels a session knows"
    assert [team.wants(Kind.FAILED, who) for who in ("anna", "ben", "eve", "mallory", "")] == [True] * 3 + [False] * 2
    assert not team.wants(Kind.FINISHED, "anna")


def test_no_file_is_no_target():
    assert configured({}) == Config()


def test_the_example_is_right_as_it_is_and_with_all_its_examples(repository: Path):
    text = (repository / "env/notify.toml.example").read_text()
    assert read(text) == Config(), "what it shows as usual is what counts without it"
    whole = "\n".join(
        line.removeprefix("# ")
        if line.startswith(("# [", '# name = "', "# url", "# nlp", "# teams", "# owners", "# events", "# page"))
        else line
        for line in text.splitlines()
    )
    found = read(whole)
    assert len(found.targets) == 3
    sending.check(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("waits", "is not TOML: "),
        ("wait = 3", "wait: is not known; known are waits_longer_than, "),
        ("waits_longer_than = 30", "waits_longer_than: 30 is not a length of time: write for example"),
        ('at_once_within = "soon"', "at_once_within: 'soon' is not a length of time"),
        ("at_once = 0", "at_once: 0 is not a whole number from 1 to 1000."),
        ('page = "tarmac.example.org"', "page: 'tarmac.example.org' is not an address"),
        ("teams = 3", "teams: must be a table"),
        ("[teams]\nnlp = 'anna'", "teams.nlp: 'anna' is not a list of accounts"),
        ("[target]\nname = 'a'", "target: must be written [[target]]"),
        ("[[target]]\nurl = 'json://a'", "target number 1: name: must be a text of 1 to 100 characters"),
        ("[[target]]\nname = 'a'", "target 'a': url: must be an address for Apprise"),
        (TARGET + "event = ['failed']", "target 'ops': event: is not known; known are name, url, events"),
        (TARGET + "events = ['fail']", "target 'ops': events: ['fail'] must be a list of some of: finished, failed"),
        (TARGET + "events = [[]]", "target 'ops': events: [[]] must be a list of some of"),
        (TARGET + "owners = 'anna'", "target 'ops': owners: 'anna' must be a list of names"),
        (TARGET + "teams = ['nlp']", "target 'ops': teams: there is no team 'nlp' under [teams]; there are: none."),
        (TARGET + TARGET, "target 'ops': is there twice"),
    ],
)
def test_a_wrong_entry_is_named(text: str, said: str):
    with pytest.raises(NotifyError) as error:
        read(text)
    assert [one.startswith(said) for one in error.value.problems] == [True], error.value.problems


def test_all_wrong_entries_are_named_at_once_and_no_address_is_shown():
    with pytest.raises(NotifyError) as error:
        read(
            f"at_once = 'x'\n[[target]]\nname = 'a'\nurl = 'json://h/{SECRET}'\nevents = 3\n"
            "[[target]]\nname = ''\nurl = ''"
        )
    assert len(error.value.problems) == 4
    assert SECRET not in str(error.value)


def test_apprise_understands_each_address_of_the_docs(repository: Path):
    table = (repository / "docs/notifications.md").read_text().partition("| service | `url` |")[2].partition("\n\n")[0]
    urls = re.findall(r"\| `([^`]+)`", table)
    assert len(urls) == 5
    sending.check(Config(tuple(Target(url, url) for url in urls)))


def test_no_other_module_imports_apprise(repository: Path):
    found = [path for path in (repository / "plugins").rglob("*.py") if "import apprise" in path.read_text()]
    assert [path.name for path in found] == ["sending.py"]


def test_the_notifier_runs_where_the_file_is_and_only_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TARMAC_NOTIFY", raising=False)
    usual = [one.module for one in helpers()]
    monkeypatch.setenv("TARMAC_NOTIFY", TARGET)
    assert [one.module for one in helpers()] == [*usual, "tarmac.notify.notifier"]


@pytest.mark.parametrize("url", [f"nosuchservice://h/{SECRET}", "json://", f"slack://{SECRET}"])
def test_an_address_that_apprise_does_not_understand_is_named_without_its_secret(url: str):
    with pytest.raises(NotifyError) as error:
        sending.check(read(f"{TARGET}[[target]]\nname = 'a'\nurl = '{url}'\n"))
    (problem,) = error.value.problems
    assert problem.startswith(f"target 'a': url: Apprise makes nothing of this {url.partition(':')[0]}:// address")
    assert SECRET not in problem


def test_the_command_says_what_is_wrong_and_sends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("TARMAC_NOTIFY", TARGET)
    assert commands.main(["notify-test", "--check"]) == 0
    assert commands.main(["notify-test", "--", "nobody"]) == 2
    assert "TARGET: there is no target 'nobody'; there are: ops." in capsys.readouterr().err
    monkeypatch.setenv("TARMAC_NOTIFY", "at_once = 0")
    assert commands.main(["notify-test", "--check"]) == 2
    assert "at_once: 0 is not a whole number" in capsys.readouterr().err
    monkeypatch.setenv("TARMAC_NOTIFY", "")
    assert commands.main(["notify-test"]) == 2
    assert "there is no [[target]]" in capsys.readouterr().err


# ---- the words -------------------------------------------------------------------------------------------------------


def session(state: str = "success", **fields: Any) -> Session:
    known: dict[str, Any] = {
        "run_id": "manual__1",
        "started": NOON - timedelta(minutes=5),
        "ended": NOON,
        "request": {"model": "named_entity_recognition", "name": "names", "datasets": {"wnut": {"train": "x"}}},
        "owner": "anna",
        "note": "",
        "tasks": {"check_request_body": "success"},
        "results": {},
    }
    return Session(state=state, **(known | fields))


RESULTS: Mapping[str, Any] = {
    "update_model_metadata_registry": {
        "name": "names",
        "version": "3",
        "score_name": "f1",
        "score": 0.71234,
        "eval_lines": 60,
    }
}


def test_a_session_that_ended_well_says_its_model_version_score_and_time():
    found = facts.ended(session(results=RESULTS), (), PAGE)
    assert (found.kind, found.owner) == (Kind.FINISHED, "anna")
    assert found.title == "Finished: names (named_entity_recognition), data wnut, by anna"
    assert found.body.splitlines() == [
        "names/3, f1 0.7123 on 60 evaluation lines.",
        "It took 5 min 0 s.",
        f"{PAGE}/tarmac/sessions/manual__1",
    ]


def test_a_failed_session_says_why_in_a_sentence_and_what_to_do(repository: Path):
    remedies = tuple(rows((repository / "docs/trouble.md").read_text()))
    note = "Failed: train_model_cpu: 40 of 40 lines are unusable\nnames, by anna"
    found = facts.ended(session("failed", note=note, tasks={"train_model_cpu": "failed"}), remedies, PAGE)
    why, *rest = found.body.splitlines()
    assert found.kind is Kind.FAILED
    assert why == "It has failed: train_model_cpu: 40 of 40 lines are unusable"
    todo = next(line for line in rest if line.startswith("To do: "))
    assert '"Run again from where it failed" takes it up again at' in todo
    assert "make " not in todo, "who is told by a message has a browser"


def test_a_remedy_of_the_list_of_troubles_is_told():
    remedy = Remedy(("the moon is in the wrong place",), "it has moved", "wait for a day")
    note = "Failed: eval_model: the moon is in the wrong place"
    found = facts.ended(session("failed", note=note, tasks={"eval_model": "failed"}), (remedy,), PAGE)
    assert "Cause: it has moved." in found.body
    assert "To do: Wait for a day." in found.body


def test_a_cancelled_session_says_who_cancelled_it_and_is_no_failure():
    found = facts.ended(session("failed", note=cancelled_note("ben", NOON)), (), PAGE)
    assert found.kind is Kind.CANCELLED
    assert found.kind not in USUAL
    assert "Cancelled by ben" in found.body


def test_a_session_without_a_word_for_its_end_has_failed_by_airflow():
    assert "took longer than a session may" in facts.ended(session("failed"), (), PAGE).body


def test_a_session_is_settled_when_its_last_task_has_ended():
    assert facts.is_settled(session("failed", tasks={"cleanup": "success", "save_model": "skipped", "x": None}))
    assert not facts.is_settled(session("failed", tasks={"cleanup": "running"}))
    assert not facts.is_settled(session("failed", tasks={"check_DAG_success": "queued"}))
    assert not facts.is_settled(session("running"))


def test_a_session_that_is_run_again_ends_with_another_fact():
    later = session(ended=NOON + timedelta(hours=1))
    assert facts.ended(session(), (), PAGE).fact != facts.ended(later, (), PAGE).fact


def test_a_wait_says_for_what_and_why():
    row = {"run_id": "manual__1", "enqueued_at": NOON, "waited": 7260.0, "on_host": True, "why": "waits for 3 GiB"}
    found = facts.waits(row, session("running", ended=None), PAGE)
    assert (found.kind, found.owner) == (Kind.WAITING, "anna")
    assert found.body.startswith("It has waited for cores and memory for 2.0 h: it waits for 3 GiB.")
    assert '"Change priority" on its page' in found.body
    assert 'the page "Now" shows all that wait' in found.body


def test_a_quarantine_names_the_device_and_how_to_release_it():
    row = {"id": 7, "device_uuid": "GPU-a", "name": "H100", "reason": "a training hung", "since": NOON}
    found = facts.quarantined(row, PAGE)
    assert (found.kind, found.owner, found.title) == (Kind.QUARANTINE, "", "GPU in quarantine: H100")
    assert "`make release-gpu GPU=GPU-a`" in found.body
    assert "Commands and settings are for someone with access to the stack's machine." in found.body


@pytest.mark.parametrize(
    ("sessions", "silent", "said"),
    [
        (0, 400, "No session trains there."),
        (1, 400, "1 session there may go on: they are followed again when it answers, and trained elsewhere if it"),
        (2, 4000, "2 sessions of it are trained elsewhere as soon as there is room."),
    ],
)
def test_a_silent_host_is_told_with_what_becomes_of_its_sessions(sessions: int, silent: float, said: str):
    row = {"name": "gpu2", "trouble": "no route to host", "answered_at": NOON, "silent": silent, "sessions": sessions}
    found = facts.silent(row, 3600, PAGE)
    assert (found.kind, found.owner, found.title) == (Kind.HOST, "", "Host does not answer: gpu2")
    assert said in found.body
    assert "no route to host" in found.body
    assert "`make host-remove NAME=gpu2`" in found.body


@pytest.mark.parametrize(
    ("kind", "before", "after", "who", "title", "how"),
    [
        ("rule", None, 1, "run-1", "In production: m version 1", "The rule decided, of session run-1"),
        ("person", 1, 2, "ben", "In production: m version 2, in place of 1", "ben decided"),
        ("rollback", 2, 1, "ben", "In production: m version 1, in place of 2", "ben took the last promotion back"),
        (
            "version_deleted",
            2,
            None,
            "x",
            "No version of m is in production any more",
            "The version was deleted in MLflow",
        ),
    ],
)
def test_a_step_into_production_says_what_and_who(
    kind: str, before: int | None, after: int | None, who: str, title: str, how: str
):
    row = {"id": 1, "model": "m", "kind": kind, "from_version": before, "to_version": after, "who": who, "why": "why"}
    found = facts.promoted(row, "anna", PAGE)
    assert (found.title, found.owner) == (title, "anna")
    assert found.body.splitlines() == [f"{how}: why", f"{PAGE}/tarmac/models/m"]


@pytest.mark.parametrize("text", ["@everyone look", "<!channel> look", "a\n@here\x1b[2J", "<@U123>"])
def test_no_text_of_others_calls_everyone_or_breaks_a_line(text: str):
    found = facts.ended(session("failed", note=f"Failed: {text}", request={"model": text}), (), PAGE)
    for shown in (found.title, *found.body.splitlines()):
        assert not any(word in shown for word in ("@everyone", "@here", "<!channel", "<@", "\x1b"))


def test_a_long_text_is_cut():
    found = facts.ended(session("failed", note="Failed: " + "x" * 9000, request={"model": "y" * 9000}), (), PAGE)
    assert len(found.title) <= 200
    assert len(found.body) < 3000


# ---- when, and how much at once --------------------------------------------------------------------------------------


def pending(number: int, kind: Kind = Kind.FINISHED, **fields: Any) -> Pending:
    known = {"title": f"title {number}", "body": f"body {number}", "attempts": 0, "due": True, "age": 1.0}
    return Pending(number, kind.value, **(known | fields))


CONFIG = Config(at_once=3)


def ids(found: rules.Message | None) -> tuple[int, ...] | None:
    return found.ids if found else None


def test_few_messages_go_out_one_by_one_in_their_order():
    two = [pending(1), pending(2)]
    assert ids(rules.next_message(two, 0, CONFIG)) == (1,)
    assert ids(rules.next_message(two[1:], 1, CONFIG)) == (2,)
    found = rules.next_message(two, 0, CONFIG)
    assert found is not None
    assert (found.title, found.body) == ("title 1", "body 1")


def test_many_at_once_are_one_message():
    many = [pending(n, Kind.FAILED if n == 3 else Kind.FINISHED) for n in range(1, 31)]
    found = rules.next_message(many, 0, CONFIG)
    assert found is not None
    assert found.ids == tuple(range(1, 31))
    assert found.title == "30 messages: 29 finished, 1 failed"
    assert found.kind is Kind.FAILED
    lines = found.body.splitlines()
    assert lines[:2] == ["title 1", "title 2"]
    assert lines[-1] == "and 10 more: the Tarmac page lists the sessions."


def test_a_target_that_got_enough_waits_for_room_and_then_gets_the_rest_as_one():
    some = [pending(n) for n in range(4, 9)]
    assert rules.next_message(some, 3, CONFIG) is None
    assert ids(rules.next_message(some, 2, CONFIG)) == (4, 5, 6, 7, 8)


def test_what_is_not_due_holds_what_comes_after_it():
    assert rules.next_message([pending(1, due=False), pending(2)], 0, CONFIG) is None


def test_a_message_that_fails_is_tried_again_later_and_later():
    waits = [rules.retry_seconds(n) for n in range(2000)]
    assert waits[:4] == [5, 10, 20, 40]
    assert waits == sorted(waits)
    assert waits[-1] == 600


@pytest.mark.parametrize(
    "url",
    [f"json://user:{SECRET}@example.org/x", f"slack://{SECRET}/b/c", f"json://h/path?token={SECRET}", f"json://h/{SECRET}%2Fz"],
)  # fmt: skip
def test_why_a_message_failed_is_told_without_the_address_s_secrets(url: str):
    assert SECRET not in sending.without_secrets(f"POST {url} failed at {SECRET}: 403", url)


def test_a_host_that_is_no_secret_stays():
    said = sending.without_secrets("no route to example.org", "json://user:hooktoken@example.org/abcdef")
    assert said == "no route to example.org"
