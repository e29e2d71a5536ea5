"""From a fact in the databases to a message at a real mail server and a real HTTP receiver, through the outbox."""

from __future__ import annotations

import email
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from support.fleet import DAG_ID, cpu_entry, key, query
from support.postgres import Postgres
from support.stack import free_port
from support.waiting import wait_for
from tarmac.base.errors import AirflowStateError
from tarmac.checks import doctor
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.outbox import Outbox
from tarmac.ledger.promotions import Promotions
from tarmac.ledger.records import Connection
from tarmac.notify import rules, sending
from tarmac.notify.config import Config, Kind, Target
from tarmac.notify.notifier import Finder, Notifier, Sender
from tarmac.reaper.airflow_state import AirflowState

PAGE = "http://localhost:8081"
# Of Airflow's tables, the columns that are read.
TABLES = """
    CREATE TABLE dag_run (id serial, dag_id text, run_id text, state text, start_date timestamptz,
        end_date timestamptz, conf jsonb, triggering_user_name text);
    CREATE TABLE dag_run_note (dag_run_id integer, content text);
    CREATE TABLE task_instance (dag_id text, run_id text, task_id text, state text);
    CREATE TABLE xcom (dag_id text, run_id text, task_id text, map_index integer DEFAULT -1, key text, value jsonb)
"""


class Airflow:
    """Runs as Airflow's tables have them."""

    def __init__(self, url: str) -> None:
        self.url = url

    def end(
        self, run_id: str, state: str = "success", *, owner: str = "anna", note: str = "", ago: float = 0, **tasks: str
    ) -> None:
        query(
            self.url,
            "DELETE FROM dag_run WHERE run_id = %s; DELETE FROM task_instance WHERE run_id = %s",
            2 * (run_id,),
        )
        conf = {"model": "test_model", "name": run_id, "datasets": {"d": {}}}
        at = "clock_timestamp() - make_interval(secs => %s)"
        query(
            self.url,
            f"INSERT INTO dag_run (dag_id, run_id, state, start_date, end_date, conf, triggering_user_name)"
            f" VALUES (%s, %s, %s, {at}, {at}, %s, %s)",
            (DAG_ID, run_id, state, ago + 60, ago, json.dumps(conf), owner),
        )
        query(self.url, "INSERT INTO dag_run_note SELECT id, %s FROM dag_run WHERE run_id = %s", (note, run_id))
        for task, found in tasks.items():
            query(self.url, "INSERT INTO task_instance VALUES (%s, %s, %s, %s)", (DAG_ID, run_id, task, found))

    def leave(self, run_id: str, task: str, value: Any) -> None:
        """What a task returned, as Airflow keeps it."""
        query(
            self.url,
            "INSERT INTO xcom (dag_id, run_id, task_id, key, value) VALUES (%s, %s, %s, 'return_value', %s)",
            (DAG_ID, run_id, task, json.dumps(value)),
        )


@pytest.fixture
def airflow(postgres: Postgres) -> Iterator[Airflow]:
    with postgres.database() as url:
        query(url, TABLES)
        yield Airflow(url)


@dataclass
class Receiver:
    """An HTTP server that keeps what it is sent; `status`: what it answers."""

    port: int
    status: int = 200
    got: list[dict[str, Any]] = field(default_factory=list)

    @property
    def titles(self) -> list[str]:
        return [one["title"] for one in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if found.status == 200:
                found.got.append(body)
            self.send_response(found.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Receiver(server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def mail() -> Iterator[tuple[int, list[EmailMessage]]]:
    got: list[EmailMessage] = []

    class Handler:
        async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802  aiosmtpd's name
            got.append(email.message_from_bytes(envelope.content, EmailMessage, policy=default))
            return "250 taken"

    server = Controller(Handler(), hostname="127.0.0.1", port=free_port())
    server.start()
    yield server.port, got
    server.stop()


@pytest.fixture
def outbox(database: str) -> Iterator[Outbox]:
    with Outbox(database) as found:
        found.told_from()
        # What happens in a test happens after people are told.
        query(database, "UPDATE notifier SET told_from = clock_timestamp() - interval '3 days'")
        yield found


def web(receiver: Receiver, name: str = "web", **more: Any) -> Target:
    return Target(name, f"json://127.0.0.1:{receiver.port}/{name}", **more)


Make = Callable[..., Notifier]


@pytest.fixture
def make(outbox: Outbox, airflow: Airflow) -> Iterator[Make]:
    made = []

    def notifier(*targets: Target, **more: Any) -> Notifier:
        state = AirflowState(airflow.url)
        made.append((state, found := Notifier(outbox, state, Config(targets, **more), PAGE)))
        return found

    yield notifier
    for state, found in made:
        found.sender.close()
        state.close()


def rounds(notifier: Notifier, what: str, condition: Callable[[], object]) -> None:
    """Make rounds until something is so."""

    def one() -> object:
        notifier.round()
        return condition()

    wait_for(what, one, every=0.02)


def settled(outbox: Outbox) -> bool:
    return not any(row["open"] for row in outbox.counts())


def due_again(outbox: Outbox, database: str) -> None:
    """Let time pass, as far as the outbox knows."""
    query(database, "UPDATE delivery SET next_at = '-infinity'")


def test_a_session_that_ended_is_told_once_with_its_model_and_score(
    make: Make, airflow: Airflow, outbox: Outbox, receiver: Receiver
):
    airflow.end("one", check_request_body="success")
    airflow.leave("one", "eval_model", {"metrics": {"f1": 0.5}})
    registered = {"name": "one", "version": "4", "score_name": "f1", "score": 0.5}
    airflow.leave("one", "update_model_metadata_registry", registered)
    notifier = make(web(receiver))
    rounds(notifier, "the message", lambda: receiver.got and settled(outbox))
    (message,) = receiver.got
    assert message["title"] == "Finished: one (test_model), data d, by anna"
    assert message["message"].splitlines() == [
        "one/4, f1 0.5000.",
        "It took 1 min 0 s.",
        f"{PAGE}/tarmac/sessions/one",
    ]
    assert message["type"] == "success"
    again = make(web(receiver))  # another process, which finds the same facts
    for _ in range(3):
        again.round()
    assert len(receiver.got) == 1
    airflow.end("one", "failed", note="Failed: eval_model: no memory", eval_model="failed")
    rounds(again, "the end of its second life", lambda: len(receiver.got) == 2)
    assert receiver.got[1]["message"].startswith("It has failed: eval_model: no memory")


def test_a_session_whose_last_tasks_run_is_told_when_they_have_ended(
    make: Make, airflow: Airflow, receiver: Receiver, outbox: Outbox
):
    airflow.end("marked", "failed", ago=7200, check_DAG_success="running")
    airflow.end("later", "success")
    notifier = make(web(receiver))
    rounds(notifier, "the other one", lambda: receiver.titles == ["Finished: later (test_model), data d, by anna"])
    query(airflow.url, "UPDATE task_instance SET state = 'failed' WHERE run_id = 'marked'")
    query(airflow.url, "UPDATE dag_run_note SET content = 'Failed: the run was marked as failed'")
    rounds(notifier, "the marked one", lambda: len(receiver.got) == 2)
    assert "the run was marked as failed" in receiver.got[1]["message"]


@pytest.mark.parametrize("form", ["html", "text"])
def test_people_are_told_by_mail_and_no_name_becomes_markup(
    make: Make, airflow: Airflow, mail: tuple[int, list[EmailMessage]], outbox: Outbox, form: str
):
    port, got = mail
    airflow.end("<b>x</b>", "failed", note="Failed: prep: <script>alert(1)</script>", prep="failed")
    address = "?from=tarmac@example.org&to=anna@example.org&mode=insecure"
    notifier = make(Target("mail", f"mailto://127.0.0.1:{port}{address}&format={form}"))
    rounds(notifier, "the mail", lambda: got and settled(outbox))
    (message,) = got
    assert message["Subject"].startswith("Failed: <b>x</b> (test_model)")
    assert message["To"] == "anna@example.org"
    parts = {part.get_content_type(): part.get_content() for part in message.walk() if not part.is_multipart()}
    if form == "html":
        assert "<script>" not in parts["text/html"]
        assert "&lt;script&gt;alert(1)" in parts["text/html"]
    else:
        assert set(parts) == {"text/plain"}
        assert "It has failed: prep: <script>alert(1)</script>" in parts["text/plain"]


def test_waits_quarantines_and_promotions_are_told_each_once(
    make: Make, ledger: Ledger, outbox: Outbox, airflow: Airflow, receiver: Receiver, database: str
):
    airflow.end("run-1", "running")
    ledger.enqueue(key(1), cpu_entry(1))
    ledger.enqueue(key(2), cpu_entry(1))
    query(database, "UPDATE waiting SET enqueued_at = clock_timestamp() - interval '2 hours' WHERE run_id = 'run-1'")
    ledger.put_devices([("GPU-a", "H100", 0, 2, 1, 0, "", "local")])
    assert ledger.quarantine("GPU-a", "a training hung")
    airflow.end("rule-run", ago=4 * 86400, owner="ben")
    with Promotions(database) as promotions, promotions.transaction():
        promotions.lock("m")
        promotions.add("m", "rule", None, 1, "rule-run", "0.9 is better", "f1", None, 0.9, 0.0, "e")
    notifier = make(web(receiver), web(receiver, "ben", owners=frozenset({"ben"})))
    rounds(notifier, "the messages", lambda: len(receiver.got) >= 4 and settled(outbox))
    assert sorted(receiver.titles) == [
        "GPU in quarantine: H100",
        "In production: m version 1",
        "In production: m version 1",
        "Waits: run-1 (test_model), data d, by anna",
    ]
    for _ in range(3):
        notifier.round()
    assert len(receiver.got) == 4


def test_a_host_is_told_of_when_it_has_been_silent_and_asked_for_long_once(
    make: Make, ledger: Ledger, receiver: Receiver, outbox: Outbox, database: str, monkeypatch: pytest.MonkeyPatch
):
    for name in ("gpu2", "gpu3", "not-asked"):
        assert ledger.add_host(name, Connection(f"ssh://t@{name}", "ssh-ed25519 A", name), (1, 1, 1, 1))
    ledger.host_is_silent("gpu2", "no route to host")
    ledger.host_is_silent("gpu3", "a moment ago")
    query(database, "UPDATE host SET answered_at = clock_timestamp() - interval '9 minutes' WHERE name <> 'gpu3'")
    early = make(web(receiver))
    early.round()
    assert receiver.got == [], "what was not asked for long may answer yet"
    # As if the notifier had run for as long.
    monkeypatch.setattr(Finder, "_asked_for_long", lambda *_: True)
    rounds(early, "the message", lambda: receiver.got and settled(outbox))
    for _ in range(3):
        early.round()
    assert receiver.titles == ["Host does not answer: gpu2"]
    ledger.host_answers("gpu2")
    ledger.host_is_silent("gpu2", "again")
    query(database, "UPDATE host SET answered_at = clock_timestamp() - interval '6 minutes' WHERE name = 'gpu2'")
    rounds(early, "a message of the next silence", lambda: len(receiver.got) == 2)


def test_a_target_that_is_down_delays_no_other_and_loses_nothing_of_its_own(
    make: Make,
    airflow: Airflow,
    outbox: Outbox,
    receiver: Receiver,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(rules, "retry_seconds", lambda attempts: 3600.0)  # until this test says that time has passed
    receiver.status = 503
    up, down = web(receiver, "up"), web(receiver, "down")
    other = Target("gone", f"json://127.0.0.1:{free_port()}/")
    for number in (1, 2, 3):
        airflow.end(f"s{number}", ago=10 - number)
    notifier = make(down, other)
    rounds(notifier, "a failure", lambda: all(row["problem"] for row in outbox.counts()) and outbox.counts())
    assert {row["target"]: row["open"] for row in outbox.counts()} == {"down": 3, "gone": 3}
    assert [one.attempts for one in outbox.pending("down")] == [1, 0, 0], "the second waits for the first"
    assert not outbox.pending("down")[0].due
    found = {one["says"] for one in map(vars, doctor.notifications(outbox.counts()))}
    assert any("down" in says and "503" in says for says in found), found
    receiver.status = 200
    airflow.end("s4")
    both = make(up, down, other)
    rounds(both, "the message to the target that is up", lambda: receiver.titles)
    assert receiver.titles == ["Finished: s4 (test_model), data d, by anna"]
    receiver.got.clear()
    due_again(outbox, database)
    rounds(both, "all messages, in their order", lambda: len(receiver.got) == 4)
    assert [title.split()[1] for title in receiver.titles] == ["s1", "s2", "s3", "s4"]


def test_a_message_is_given_up_after_a_day_and_the_next_one_comes(
    make: Make, airflow: Airflow, outbox: Outbox, receiver: Receiver, database: str
):
    receiver.status = 500
    airflow.end("old", ago=5)
    notifier = make(web(receiver))
    rounds(notifier, "a failure", lambda: outbox.counts() and outbox.counts()[0]["problem"])
    query(database, "UPDATE notice SET made_at = made_at - interval '25 hours'")
    due_again(outbox, database)
    rounds(notifier, "the end of it", lambda: outbox.counts()[0]["given_up"] == 1)
    assert settled(outbox)
    receiver.status = 200
    airflow.end("new")
    rounds(notifier, "the next one", lambda: receiver.got)
    assert receiver.titles == ["Finished: new (test_model), data d, by anna"]
    (finding,) = doctor.notifications(outbox.counts())
    assert "gave up 1" in finding.says


def test_many_at_once_are_one_message(make: Make, airflow: Airflow, outbox: Outbox, receiver: Receiver):
    for number in range(40):
        airflow.end(f"s{number:02}", "failed" if number == 7 else "success", ago=100 - number)
    notifier = make(web(receiver))
    rounds(notifier, "the digest", lambda: receiver.got and settled(outbox))
    assert receiver.titles == ["40 messages: 39 finished, 1 failed"]
    airflow.end("next")
    rounds(notifier, "the next one alone", lambda: len(receiver.got) == 2)


def test_after_enough_messages_the_rest_is_held_and_comes_as_one(
    make: Make, airflow: Airflow, outbox: Outbox, receiver: Receiver, database: str
):
    notifier = make(web(receiver), at_once=2)
    for number in range(2):
        airflow.end(f"s{number}")
        rounds(notifier, f"message {number}", lambda number=number: len(receiver.got) == number + 1 and settled(outbox))  # type: ignore[misc]
    for number in range(2, 6):
        airflow.end(f"s{number}")
        notifier.round()
    assert len(receiver.got) == 2
    assert outbox.counts()[0]["open"] == 4
    query(database, "UPDATE delivery SET sent_at = sent_at - interval '10 minutes' WHERE sent_at IS NOT NULL")
    rounds(notifier, "the digest", lambda: settled(outbox))
    assert receiver.titles[2:] == ["4 messages: 4 finished"]


def test_what_was_before_people_are_told_is_not_told(database: str, airflow: Airflow, receiver: Receiver):
    airflow.end("before", ago=60)
    with Outbox(database) as outbox:
        finder = Finder(outbox, AirflowState(airflow.url), Config((web(receiver),)), PAGE)
        assert finder.round() == 0
        airflow.end("after")
        assert finder.round() == 1


def test_a_process_that_is_killed_between_sending_and_noting_sends_again(
    outbox: Outbox, receiver: Receiver, database: str
):
    target = web(receiver)
    outbox.add("f", "finished", "a title", "a body", [target.name])
    killed = Sender(outbox, Config((target,)))
    killed.round()
    wait_for("the message", lambda: receiver.got)
    killed.close()  # it has not noted the arrival
    other = Sender(outbox, Config((target,)))
    other.round()
    wait_for("the same once more", lambda: len(receiver.got) == 2)

    def noted() -> bool:
        other.round()
        return settled(outbox)

    wait_for("its arrival in the ledger", noted)
    assert receiver.titles == ["a title", "a title"]


def test_of_two_notifiers_one_sends(make: Make, airflow: Airflow, outbox: Outbox, database: str, receiver: Receiver):
    notifier = make(web(receiver))
    notifier.round()
    airflow.end("one")
    with Outbox(database) as second:
        assert not second.claim()
        other = Notifier(second, AirflowState(airflow.url), Config((web(receiver),)), PAGE)
        other.round()
        assert outbox.counts() == []
        outbox.close()  # the first one is gone
        rounds(other, "the message by the other", lambda: receiver.got)


def test_while_airflow_s_database_is_away_what_is_known_is_sent(outbox: Outbox, receiver: Receiver):
    target = web(receiver)
    outbox.add("f", "finished", "a title", "a body", [target.name])
    notifier = Notifier(outbox, AirflowState("postgresql://127.0.0.1:1/none"), Config((target,)), PAGE)

    def one() -> bool:
        with pytest.raises(AirflowStateError):
            notifier.round()
        return settled(outbox)

    wait_for("the message", one, every=0.02)
    assert receiver.titles == ["a title"]


def test_a_target_that_is_taken_out_of_the_file_gets_nothing_and_is_forgotten_in_time(
    make: Make, outbox: Outbox, receiver: Receiver, database: str
):
    outbox.add("f", "finished", "a title", "a body", ["removed"])
    outbox.add("g", "finished", "a title", "a body", ["web"])
    query(database, "UPDATE notice SET made_at = clock_timestamp() - interval '31 days'")
    receiver.status = 500
    notifier = make(web(receiver))
    notifier.round()
    assert query(database, "SELECT fact FROM notice") == [("g",)], "what waits for a target is kept"


def test_a_message_that_a_target_refuses_says_why_and_no_secret(receiver: Receiver):
    receiver.status = 403
    target = Target("web", f"json://anna:secretword@127.0.0.1:{receiver.port}/hook/abcdef")
    said = sending.send(target, Kind.FAILED, "title", "body")
    assert "403" in said
    assert not any(word in said for word in ("secretword", "abcdef"))
    receiver.status = 200
    assert sending.send(target, Kind.FAILED, "title", "body") == ""
    assert receiver.got[0]["type"] == "failure"


def test_retries_are_tried_for_a_day():
    total = tries = 0.0
    while total < rules.TRIED_SECONDS:
        total += rules.retry_seconds(int(tries))
        tries += 1
    assert 100 < tries < 200
