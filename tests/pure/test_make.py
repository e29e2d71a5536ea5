"""The Makefile's commands up to the engine: what they hand on, what they refuse, what they leave of standard input.

A fake `docker` (fakes/docker.sh) stands first on PATH. It notes each call with its standard input, and answers as a
stack that runs.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import pwd
import re
import shutil
import stat
import struct
import subprocess
import tarfile
import termios
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest

# What a shell or make would expand, split, or end on.
ODD = """it's `touch done` "$(touch done)" $HOME $5 $$ \\ #1 * ~ é ; & | > x % $(shell touch done) $("""
DASHED = "--help"


class Call(NamedTuple):
    words: list[str]
    stdin: str


class Clone:
    """A copy of what the host's commands are made of, with a fake engine."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self.folder, self.bin, self._calls = folder / "clone", folder / "bin", folder / "calls"
        self.folder.mkdir()
        self.bin.mkdir()
        for name in ("Makefile", "pyproject.toml", "compose.yaml", "compose.workers.yaml", "compose.workers-gpu.yaml"):
            shutil.copy(repository / name, self.folder)
        (self.folder / "examples").mkdir()  # what file:///files/... reads
        shutil.copytree(repository / "env", self.folder / "env", ignore=shutil.ignore_patterns("*.env"))
        shutil.copy(repository / "tests/fakes/docker.sh", self.bin / "docker")
        ours = ("TARMAC_", "COMPOSE_", "DOCKER_", "MAKE", "MFLAGS")
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)} | {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "FAKE_CALLS": str(self._calls),
        }

    def forget(self) -> None:
        """Forget the calls of docker so far."""
        for file in self._calls.parent.glob(f"{self._calls.name}*"):
            file.unlink()

    def run(self, *words: str, stdin: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone, with variables of the environment."""
        self.forget()
        done = subprocess.run(
            words, cwd=self.folder, env=self.environment | variables, text=True, capture_output=True, timeout=60,
            check=False, **({"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}),
        )  # fmt: skip
        assert not (self.folder / "done").exists(), "a value was run as a command"
        return done

    def make(self, *words: str, stdin: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the Makefile."""
        return self.run("make", *words, stdin=stdin, **variables)

    def calls(self) -> list[Call]:
        """Return the calls of docker that the last command made."""
        if not self._calls.exists():
            return []
        noted = iter(self._calls.read_text(errors="surrogateescape").split("\0")[:-1])
        return [self._call(noted, int(count)) for count in noted]

    def _call(self, noted: Iterator[str], count: int) -> Call:
        words, stdin = list(islice(noted, count)), next(noted)
        return Call(words, Path(stdin).read_text() if stdin else "")

    def commands(self) -> list[Call]:
        """Return what the last command ran of `tarmac.cli`, without the words before."""
        marked = [call for call in self.calls() if "tarmac.cli" in call.words]
        return [Call(call.words[call.words.index("tarmac.cli") + 1 :], call.stdin) for call in marked]


@pytest.fixture(scope="module")
def clone(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(repository, tmp_path_factory.mktemp("make"))


def person() -> str:
    name = pwd.getpwuid(os.getuid()).pw_name
    by_sudo = os.environ.get("SUDO_USER", "root")
    return name if os.getuid() or by_sudo == "root" else f"{name} (sudo by {by_sudo})"


@pytest.mark.parametrize("target", ["models", "compare A=a/1 B=a/2", "production MODEL=a", "follow RUN=r", "trainers"])
def test_a_reader_that_has_seen_enough_is_no_error(clone: Clone, target: str):
    done = clone.run("bash", "-o", "pipefail", "-c", f"make {target} | head -n 1", FAKE_ENGINE="talkative")
    assert (done.returncode, done.stdout, done.stderr) == (0, "line 0\n", "")
    whole = clone.run("bash", "-o", "pipefail", "-c", f"make {target} | tail -n 1", FAKE_ENGINE="talkative")
    assert (whole.returncode, whole.stdout) == (0, "line 99999\n")


HELP = re.compile(r"^([a-z-]+):.*?## (.*)$", re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dataset", "FIEL=x"], "FIEL: 'make dataset' does not take it. It takes FILE; 'make help' says what."),
        (["dataset", "file=x"], "file: 'make dataset' does not take it."),
        (["trigger", "CONFIG=x", "NAME=y"], "NAME: 'make trigger' does not take it. It takes CONFIG FOLLOW KEY;"),
        (["ps", "RUN=x"], "RUN: 'make ps' does not take it. It takes JSON;"),
        (["up", "FAST=1"], "FAST: 'make up' does not take it. It takes no value;"),
        (["datset", "FILE=x"], "There is no command 'datset': 'make help' lists them."),
        (["`touch done`"], "There is no command '`touch done`'"),
        (["$(shell touch done)"], "There is no command '"),
    ],
)
def test_a_misspelled_word_is_named_and_nothing_is_done(clone: Clone, words: list[str], said: str):
    done = clone.make(*words)
    assert (done.returncode, done.stdout, clone.calls()) == (2, "", [])
    assert said in done.stderr


def test_settings_and_a_make_within_a_make_are_let_through(clone: Clone):
    assert clone.make("gpus", "TARMAC_PROJECT=other", "HTTPS_PROXY=x").returncode == 0
    assert clone.make("gpus", "K=words", MAKELEVEL="1").returncode == 0


def test_every_value_that_a_command_uses_or_a_page_shows_stands_in_its_help(repository: Path):
    text = (repository / "Makefile").read_text()
    helped = {name: set(re.findall(r"\b[A-Z][A-Z_]*(?==)", said)) for name, said in HELP.findall(text)}
    used: dict[str, set[str]] = {name: set() for name in helped}
    for name, recipe in re.findall(r"^([a-z-]+):.*\n((?:\t.*\n)+)", text, re.MULTILINE):
        whole = recipe.replace("$(PYTEST_ARGS)", '"$$K" "$$ARGS"')
        used[name] = {first or second for first, second in re.findall(r'"\$\$\{?([A-Z]+)|if_given,([A-Z]+)', whole)}
    assert {name: lacking for name, found in used.items() if (lacking := found - helped[name])} == {}
    pages = "\n".join(path.read_text() for path in [*repository.glob("*.md"), *repository.glob("docs/**/*.md")])
    shown = {
        (name, one)
        for name, given in re.findall(r"\bmake ([a-z-]+)((?: [A-Z]+=\S*)+)", pages)
        for one in re.findall(r" ([A-Z]+)=", given)
    }
    assert len(shown) > 30
    assert not {(name, one) for name, one in shown if one not in helped[name]}


BY = f"--by={person()}"
# The words after `make`, and the command that the stack gets.
LITERAL: dict[str, tuple[list[str], list[str]]] = {
    "follow": ([f"RUN={ODD}"], ["follow", "--", ODD]),
    "cancel": ([f"RUN={ODD}"], ["cancel", BY, "--", ODD]),
    "retry": ([f"RUN={ODD}"], ["retry", BY, "--", ODD]),
    "explain": ([f"RUN={ODD}"], ["explain", "--", ODD]),
    "reproduce": ([f"RUN={DASHED}"], ["reproduce", "--", DASHED]),
    "release-gpu": ([f"GPU={ODD}"], ["release-gpu", BY, "--", ODD]),
    "models": ([f"MODEL={ODD}"], ["models", "--", ODD]),
    "compare": ([f"A={ODD}", f"B={DASHED}"], ["compare", "--", ODD, DASHED]),
    "promote": (
        [f"MODEL={DASHED}", f"VERSION={ODD}", f"WHY={ODD}"],
        ["promote", BY, f"--why={ODD}", "--", DASHED, ODD],
    ),
    "rollback": ([f"MODEL={ODD}", f"WHY={DASHED}"], ["rollback", BY, f"--why={DASHED}", "--", ODD]),
    "space": ([f"DAYS={ODD}"], ["space", f"--days={ODD}"]),
    "production": ([f"MODEL={ODD}", f"AT={ODD}"], ["production", f"--at={ODD}", "--", ODD]),
}


@pytest.mark.parametrize(("target", "given", "wanted"), [(name, *row) for name, row in LITERAL.items()], ids=LITERAL)
def test_a_value_arrives_as_it_was_typed(clone: Clone, target: str, given: list[str], wanted: list[str]):
    done = clone.make(target, *given, stdin="of the caller")
    assert done.returncode == 0, done.stderr
    assert clone.commands() == [Call(wanted, "")]


def test_doctor_fix_starts_what_has_stopped_and_no_other(clone: Clone):
    done = clone.make("doctor", "FIX=1", FAKE_ENGINE="with stopped services")
    assert done.returncode == 0, done.stderr
    assert [call.words[1] for call in clone.calls() if call.words[0] == "start"] == ["3", "4"]
    assert "Started the service webserver, which had stopped." in done.stderr
    assert "service mlflow has stopped and does not start: 'make logs SERVICE=mlflow' says why" in done.stderr
    assert [call.words for call in clone.commands()] == [["doctor", "--fix"]]


@pytest.mark.parametrize(
    ("given", "engine"), [("FIX=1", "without a running service"), ("FIX=0", "with stopped services")]
)
def test_a_stack_that_a_person_stopped_stays_so_and_so_does_all_without_fix(clone: Clone, given: str, engine: str):
    assert clone.make("doctor", given, FAKE_ENGINE=engine).returncode == 0
    assert [call for call in clone.calls() if call.words[0] == "start"] == []


LISTS = {
    "doctor": (["FIX=1"], ["doctor", "--fix"]),
    "ps": ([], ["sessions", "--space"]),
    "gpus": ([], ["gpus"]),
    "hosts": ([], ["hosts"]),
    "trainers": ([], ["trainers"]),
    "space": ([], ["space"]),
    "models": (["MODEL=a"], ["models", "--", "a"]),
    "compare": (["A=a/1", "B=b/2"], ["compare", "--", "a/1", "b/2"]),
    "production": (["MODEL=a"], ["production", "--", "a"]),
}


@pytest.mark.parametrize(("target", "given", "wanted"), [(name, *row) for name, row in LISTS.items()], ids=LISTS)
def test_every_list_is_there_as_json(clone: Clone, target: str, given: list[str], wanted: list[str]):
    done = clone.make(target, *given, "JSON=1")
    assert done.returncode == 0, done.stderr
    assert [call.words for call in clone.commands()] == [[wanted[0], "--json", *wanted[1:]]]
    done = clone.make(target, *given, "JSON=perhaps")
    assert done.returncode == 2
    assert "JSON: 'perhaps' is neither 1 nor 0." in done.stderr
    assert clone.make(target, *given).returncode == 0
    assert [call.words for call in clone.commands()] == [wanted]


def test_a_list_is_made_for_the_width_of_the_callers_terminal(clone: Clone):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 87, 0, 0))
    clone.forget()
    subprocess.run(
        ["make", "models"], cwd=clone.folder, env=clone.environment, stdin=subprocess.DEVNULL, stdout=slave, timeout=60,
        check=True,
    )  # fmt: skip
    os.close(slave)
    os.close(master)
    words = clone.calls()[-1].words
    assert words[words.index("-e") + 1] == "COLUMNS=87"
    assert clone.make("models").returncode == 0
    assert not any("COLUMNS" in word for word in clone.calls()[-1].words), "there is no terminal"


@pytest.mark.parametrize("name", [ODD.replace("/", "") + ".py", "-x.py", "two\nlines.py", "ünïcode.py", "a:b.py"])
@pytest.mark.parametrize(
    ("target", "variable", "wanted"),
    [("dataset", "FILE", ["dataset"]), ("script", "FILE", ["dataset", "--suffix=.py"]), ("trigger", "CONFIG", None)],
)
def test_a_file_of_any_name_is_read(clone: Clone, name: str, target: str, variable: str, wanted: list[str] | None):
    file = clone.folder / name
    file.write_text(f"content of {name}")
    try:
        done = clone.make(target, f"{variable}={name}", *(["KEY=" + ODD, "FOLLOW=0"] if wanted is None else []))
    finally:
        file.unlink()
    assert done.returncode == 0, done.stderr
    assert clone.commands() == [Call(wanted or ["trigger", f"--key={ODD}"], f"content of {name}")]


@pytest.mark.parametrize("name", ["-x", "host:x", "$(touch done) `x`"])
def test_of_a_folder_of_any_name_the_chosen_files_are_sent(clone: Clone, name: str):
    folder = clone.folder / name
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "a file $(touch done).bin").write_text("left out")
    (folder / "kept").mkdir()
    (folder / "kept" / "blob").write_text("numbers")
    (folder / "model.safetensors").symlink_to("kept/blob")  # as in a hub's cache
    try:
        done = clone.make("weights", f"DIR={name}")
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    asked, sent = clone.commands()
    assert asked.words == ["weights", "--", "a file $(touch done).bin", "config.json", "model.safetensors"]
    assert sent.words == ["weights"]
    with tarfile.open(fileobj=io.BytesIO(sent.stdin.encode())) as archive:
        assert [(one.name, one.isreg(), one.size) for one in archive] == [
            ("config.json", True, 2),
            ("model.safetensors", True, 7),
        ]


@pytest.mark.parametrize("name", ["-x.tar", "host:x.tar", "$(touch done) `x`.tar"])
def test_a_backup_goes_into_a_file_of_any_name_and_comes_back_from_it(clone: Clone, name: str):
    try:
        done = clone.make("backup", f"FILE={name}")
        assert done.returncode == 0, done.stderr
        assert (clone.folder / name).stat().st_mode & 0o777 == 0o600
        done = clone.make("restore", f"FILE={name}", "YES=1")
        assert done.returncode == 0, done.stderr
        assert "Restored the backup" in done.stderr
    finally:
        (clone.folder / name).unlink(missing_ok=True)


def test_a_service_of_any_name_is_looked_for(clone: Clone):
    assert clone.make("logs", "SERVICE=mlflow").returncode == 0
    assert clone.calls()[-1].words[-4:] == ["--follow", "--tail", "50", "mlflow"]
    done = clone.make("logs", f"SERVICE={ODD}")
    assert done.returncode == 2
    assert f"SERVICE: there is no service '{ODD}'; there are: mlflow scheduler" in done.stderr


def test_a_variable_of_the_environment_is_no_value(clone: Clone):
    environment = {"MODEL": "leak", "WHY": "leak", "FILE": "leak", "KEY": "leak", "USER": "leak", "LOGNAME": "leak"}
    assert clone.make("models", **environment).returncode == 0
    assert clone.commands()[0].words == ["models", "--"]
    assert clone.make("rollback", "MODEL=a", **environment).returncode == 0
    assert clone.commands()[0].words == ["rollback", BY, "--why=", "--", "a"]
    assert "FILE: is missing" in clone.make("dataset", **environment).stderr


def test_nothing_is_removed_because_of_a_variable_of_the_environment(clone: Clone):
    for done in (clone.make("clean", YES="1"), clone.make("clean", "YES=0"), clone.make("clean", "YES=perhaps")):
        assert done.returncode == 2
        assert not any("down" in call.words for call in clone.calls())
    settings = clone.folder / "env/stack.env"
    settings.write_text(settings.read_text().replace("TARMAC_WEB_PORT=8081", "TARMAC_WEB_PORT=9001"))
    (clone.folder / "env/.passwords").mkdir(exist_ok=True)
    for _ in range(2):
        assert clone.make("clean", "YES=1").returncode == 0
        assert any("down" in call.words for call in clone.calls())
        assert [path.name for path in (clone.folder / "env").glob("*.env")] == ["stack.env"]
        assert "TARMAC_WEB_PORT=9001" in settings.read_text()
        assert not (clone.folder / "env/.passwords").exists()
    settings.unlink()


def test_a_key_or_a_time_that_is_given_empty_is_handed_on_to_be_refused(clone: Clone):
    (clone.folder / "request.json").write_text("{}")
    clone.make("trigger", "CONFIG=request.json", "FOLLOW=0", "KEY=")
    assert clone.commands()[0].words == ["trigger", "--key="]
    clone.make("trigger", "CONFIG=request.json", "FOLLOW=0")
    assert clone.commands()[0].words == ["trigger"]
    clone.make("production", "MODEL=a", "AT=")
    assert clone.commands()[0].words == ["production", "--at=", "--", "a"]


def test_support_of_a_session_reads_its_logs_alone_and_takes_its_id_literally(clone: Clone):
    clone.make("up")
    done = clone.make("support", "FILE=of-one.tar.gz", f"RUN={ODD}")
    assert done.returncode == 0, done.stderr
    calls = [call.words for call in clone.calls()]
    (logs,) = [words for words in calls if "tarmac.cli.session_logs" in words]
    assert logs[-1] == ODD
    assert {"--read-only", "none", "tarmac_logs:/opt/airflow/logs:ro"} <= set(logs)
    (clean,) = [words for words in calls if "tarmac.cli.support" in words]
    assert not [word for word in clean if "logs" in word]
    assert [call.words for call in clone.commands() if call.words[0] == "explain"] == [["explain", "--", ODD]]
    assert clone.make("support", "FILE=of-all.tar.gz").returncode == 0
    assert not [call for call in clone.calls() if "tarmac.cli.session_logs" in call.words]


def test_certificates_are_in_a_file_of_the_caller_alone_and_nothing_of_it_is_left_where_they_fail(clone: Clone):
    words = ("host-certs", f"NAME={ODD}", "URL=tcp://gpu3", "FILE=gpu3.tar")
    assert clone.make(*words).returncode == 0
    assert clone.commands()[0].words == ["host-certs", "--", ODD, "tcp://gpu3", "gpu3.tar"]
    assert stat.S_IMODE((clone.folder / "gpu3.tar").stat().st_mode) == 0o600
    (clone.folder / "gpu3.tar").unlink()
    done = clone.make(*words, FAKE_ENGINE="started anew")
    assert done.returncode != 0
    assert not list(clone.folder.glob("gpu3.tar*"))


MISSING = {
    "trigger": "CONFIG: is missing. Say which request to send: make trigger CONFIG=examples/ner-wnut17.json",
    "trigger CONFIG=nowhere": "CONFIG: there is no file 'nowhere'.",
    "trigger CONFIG=pyproject.toml FOLLOW=2": "FOLLOW: '2' is neither 1 nor 0.",
    "dataset": "FILE: is missing.",
    "dataset FILE=env": "FILE: 'env' is a folder.",
    "dataset FILE=/dev/null": "FILE: '/dev/null' is not a regular file.",
    "script FILE=pyproject.toml": "FILE: 'pyproject.toml' must end in .py or .sh",
    "weights": "DIR: is missing. Say which folder has the weights",
    "weights DIR=Makefile": "DIR: 'Makefile' is not a folder",
    "weights DIR=examples": "DIR: 'examples' has no file in it",
    "backup": "FILE: is missing.",
    "support": "FILE: is missing.",
    "support FILE=Makefile": "FILE: 'Makefile' is there already",
    "support FILE=nowhere/x.tgz": "FILE: you cannot write into the folder of 'nowhere/x.tgz'.",
    "backup FILE=Makefile": "FILE: 'Makefile' is there already",
    "backup FILE=nowhere/x.tar": "FILE: you cannot write into the folder of 'nowhere/x.tar'.",
    "restore": "FILE: is missing.",
    "restore FILE=Makefile YES=1": "FILE: 'Makefile' is not a backup",
    "follow": "RUN: is missing. Say which run: make follow RUN=..., one of these:\na list of sessions",
    "cancel": "RUN: is missing. Say which run: make cancel RUN=..., one of these:\na list of sessions",
    "retry": "RUN: is missing. Say which run: make retry RUN=..., one of these:\na list of sessions",
    "explain": "RUN: is missing. Say which run: make explain RUN=..., one of these:\na list of sessions",
    "reproduce": "RUN: is missing.",
    "release-gpu": "GPU: is missing. Say which GPU: make release-gpu GPU=..., one of these:\na list of gpus",
    "compare A=x/1": "A or B: is missing.",
    "promote MODEL=x": "Say what: make promote MODEL=name VERSION=n, one of these:\na list of models",
    "rollback": "MODEL: is missing.",
    "production": "MODEL: is missing.",
    "host-certs": "NAME: is missing. Say which host: make host-certs NAME=gpu3 URL=tcp://gpu3:2376",
    "host-certs NAME=gpu3": "URL: is missing.",
    "host-certs NAME=gpu3 URL=tcp://gpu3": "FILE: is missing. Say where to: make host-certs",
    "host-certs NAME=gpu3 URL=tcp://gpu3 FILE=Makefile": "FILE: 'Makefile' is there already",
    "host-certs NAME=gpu3 URL=tcp://gpu3 FILE=nowhere/x.tar": "FILE: you cannot write into the folder of",
}


@pytest.mark.parametrize(("words", "message"), MISSING.items(), ids=MISSING)
def test_what_is_missing_or_wrong_is_said_with_what_to_write(clone: Clone, words: str, message: str):
    done = clone.make(*words.split())
    assert done.returncode == 2
    assert message in done.stderr
    changes = ("trigger", "dataset", "weights", "promote", "rollback", "cancel", "release-gpu")
    assert not [call for call in clone.commands() if call.words[0] in changes]


@pytest.mark.parametrize("words", ["trigger CONFIG=pyproject.toml", "models", "backup FILE=x.tar", "cancel"])
def test_without_a_stack_a_command_says_in_one_line_what_to_do(clone: Clone, words: str):
    done = clone.make(*words.split(), FAKE_ENGINE="without a stack")
    said = [line for line in done.stderr.splitlines() if not line.startswith(("make:", "RUN: is missing"))]
    assert said == ["The stack is not running: 'make up' starts it."]
    assert "Error 3" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("words", ["trigger CONFIG=pyproject.toml", "models", "down", "clean YES=1"])
def test_without_an_engine_a_command_says_in_one_line_what_to_do(clone: Clone, words: str):
    done = clone.make(*words.split(), FAKE_ENGINE="stopped")
    said = [line for line in done.stderr.splitlines() if not line.startswith(("make:", "RUN: is missing"))]
    assert said == ["error: no Docker Engine answers on this machine: 'make up' starts it, or says what to do."]
    assert "Error 3" in done.stderr


@pytest.mark.parametrize("words", ["follow RUN=one", "cancel RUN=one", "trigger CONFIG=pyproject.toml"])
def test_a_command_whose_container_is_started_anew_says_so(clone: Clone, words: str):
    done = clone.make(*words.split(), FAKE_ENGINE="started anew")
    assert "The command was ended with its container" in done.stderr
    assert "Error 137" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("follow RUN=one", "No longer following; the run goes on. Follow it again: make follow RUN=one"),
        ("cancel RUN=one", "Interrupted. The command may go on in the stack, and nothing that it did is taken back"),
        ("trigger CONFIG=pyproject.toml", "Interrupted. The command may go on in the stack"),
    ],
)
def test_an_interrupt_says_what_goes_on(clone: Clone, words: str, said: str):
    done = clone.make(*words.split(), FAKE_ENGINE="interrupted")
    assert done.stderr.count("nterrupted. ") + done.stderr.count("No longer following") == 1
    assert said in done.stderr
    assert "Error 130" in done.stderr


def test_services_are_started_again_where_a_container_went_away_meanwhile(clone: Clone):
    done = clone.make("up", FAKE_ENGINE="loses a container once")
    assert done.returncode == 0, done.stderr
    assert "starting the services again" in done.stderr
    assert "Tarmac is up" in done.stderr
    done = clone.make("up", FAKE_ENGINE="keeps losing containers")
    assert "error: another command removes containers of this stack" in done.stderr
    assert sum("up" in call.words for call in clone.calls()) == 3


def secrets_of(clone: Clone) -> dict[str, str]:
    """What env/*.env hold that was made for this stack, by file and key."""
    found = {}
    for path in sorted((clone.folder / "env").glob("*.env")):
        example = path.with_name(f"{path.name}.example").read_text()
        for line in path.read_text().splitlines():
            key, _, value = line.partition("=")
            if re.search(rf"^{key}=.*<(generated|same):(?!registry:MLFLOW_TRACKING_USERNAME)", example, re.MULTILINE):
                found[f"{path.stem} {key}"] = value
    return found | {"login TARMAC_UI_PASSWORD": value_in(clone, "login", "TARMAC_UI_PASSWORD")}


def value_in(clone: Clone, name: str, key: str) -> str:
    text = (clone.folder / f"env/{name}.env").read_text()
    (found,) = re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)
    return str(found)


def test_new_passwords_replace_all_that_were_made_and_none_that_a_person_wrote(clone: Clone):
    assert clone.make("up").returncode == 0
    stack_env = clone.folder / "env/stack.env"
    stack_env.write_text(stack_env.read_text().replace("TARMAC_WEB_PORT=8081", "TARMAC_WEB_PORT=9000"))
    tower = clone.folder / "env/tower.env"
    own = "postgresql://tarmac:own@db.example/tarmac"
    tower.write_text(re.sub(r"(?m)^TARMAC_DATABASE_URL=.*$", f"TARMAC_DATABASE_URL={own}", tower.read_text()))
    before = secrets_of(clone)
    assert len(before) >= 15
    asked = clone.make("passwords")
    assert (asked.returncode, secrets_of(clone) == before) == (2, True)
    assert "run 'make passwords YES=1' where there is no terminal" in asked.stderr

    refused = clone.make("passwords", "YES=1", FAKE_ENGINE="with a Postgres that refuses")
    assert "Postgres did not take the new passwords; its last lines are above" in refused.stderr
    assert secrets_of(clone) == before
    started = clone.make("up")
    assert "error: a change of passwords was interrupted: 'make passwords YES=1' ends it" in started.stderr
    waiting = (clone.folder / "env/.passwords/postgres.env").read_text()

    done = clone.make("passwords", "YES=1")
    assert done.returncode == 0, done.stderr
    calls, after = clone.calls(), secrets_of(clone)
    assert {key for key in after if after[key] == before[key]} == {"tower TARMAC_DATABASE_URL"}
    assert after["tower TARMAC_DATABASE_URL"] == own
    assert (clone.folder / "env/postgres.env").read_text() == waiting, "the one that was begun is ended"
    for name in (
        "airflow AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "mlflow PGPASSWORD",
        "mlflow MLFLOW_AUTH_ADMIN_PASSWORD",
    ):
        assert any(value in after[name] for key, value in after.items() if key.startswith(("postgres ", "registry ")))
    assert value_in(clone, "stack", "TARMAC_WEB_PORT") == "9000"
    for path in (clone.folder / "env").glob("*.env"):
        assert path.stat().st_mode & 0o777 == 0o600, path.name
    assert not (clone.folder / "env/.passwords").exists()
    # By standard input: everybody on the machine sees the words of a command.
    (given,) = [call.stdin for call in calls if "postgres" in call.words and "exec" in call.words and call.stdin]
    assert all(after[f"postgres {name}_PASSWORD"] in given for name in ("TARMAC_DB", "AIRFLOW_DB", "POSTGRES"))
    made = {*before.values(), *after.values()} - {"airflow"}
    assert not [call for call in calls for value in made if value in " ".join(call.words)]
    assert f"login airflow / {after['login TARMAC_UI_PASSWORD']}" in done.stderr
    assert clone.make("up").returncode == 0


def test_new_passwords_that_were_interrupted_as_the_services_started_are_ended_by_the_same_command_and_by_up(
    clone: Clone,
):
    for ending in (["passwords", "YES=1"], ["up"]):
        assert clone.make("up").returncode == 0
        before = secrets_of(clone)
        stopped = clone.make("passwords", "YES=1", FAKE_ENGINE="that starts no services")
        assert "the services could not be started" in stopped.stderr
        placed = secrets_of(clone)
        assert placed != before
        done = clone.make(*ending)
        assert done.returncode == 0, done.stderr
        assert "Tarmac is up" in done.stderr
        assert secrets_of(clone) == placed
        assert not (clone.folder / "env/.passwords").exists()


def test_a_container_that_compose_had_half_made_is_removed(clone: Clone):
    done = clone.make("up", FAKE_ENGINE="with a half-made container")
    assert done.returncode == 0, done.stderr
    words = [call.words for call in clone.calls()]
    removed, started = words.index(["rm", "0123456789ab"]), next(at for at, one in enumerate(words) if "up" in one)
    assert removed < started


def test_from_another_folder_a_command_says_how_to_write_it(clone: Clone):
    done = clone.run("make", "-f", str(clone.folder / "Makefile"), "ps", "-C", "/")
    assert "write 'make -C FOLDER' instead of 'make -f FOLDER/Makefile'" in done.stderr


def test_an_engine_that_refuses_the_user_is_explained(clone: Clone):
    done = clone.make("models", FAKE_ENGINE="refusing")
    assert "Error 3" in done.stderr
    assert "may not use its socket" in done.stderr
    assert "sudo usermod -aG docker" in done.stderr


@pytest.mark.parametrize(
    "words",
    ["trigger CONFIG=pyproject.toml", "dataset FILE=pyproject.toml", "script FILE=env/host/up.sh", "trainers", "ps"]
    + ["gpus", "logs", "cancel", "backup FILE=x.tar", "down", "up", "clean YES=1"],
)
def test_a_command_leaves_the_callers_standard_input_alone(clone: Clone, words: str):
    """As in `while read line; do make ...; done <list` and `bash <script`: the shell reads on after the command."""
    (clone.folder / "x.tar").unlink(missing_ok=True)
    done = clone.run("bash", stdin=f"make -s {words}\necho 'the next line'\n")
    (clone.folder / "x.tar").unlink(missing_ok=True)
    assert done.stdout.endswith("the next line\n"), done.stderr
    assert not [call for call in clone.calls() if "the next line" in call.stdin]


def test_a_loop_over_a_list_stores_each_file(clone: Clone):
    names = ["Makefile", "pyproject.toml", "compose.yaml"]
    done = clone.run("bash", "-c", 'while read -r f; do make -s dataset FILE="$f"; done', stdin="\n".join(names) + "\n")
    assert done.returncode == 0, done.stderr
    assert [call.stdin for call in clone.commands()] == [(clone.folder / name).read_text() for name in names]


def test_a_command_works_with_a_standard_input_that_is_closed(clone: Clone):
    assert clone.run("bash", "-c", "make -s trainers <&-").returncode == 0
    assert clone.commands() == [Call(["trainers"], "")]


def test_compose_by_hand_reads_what_it_is_given(clone: Clone):
    done = clone.run("env/host/stack.sh", "exec", "-T", "postgres", "psql", stdin="select 1")
    assert done.returncode == 0, done.stderr
    assert clone.calls()[-1].stdin == "select 1"


@pytest.mark.parametrize(("git", "may"), [("yes", "exec"), ("no", ""), ("", "")])
def test_only_with_git_programs_in_airflow_s_tmp_may_be_run(clone: Clone, git: str, may: str):
    done = clone.run("bash", "-c", '. env/host/stack.sh; echo "may: ${TARMAC_AIRFLOW_TMP:-}"', TARMAC_GIT=git)
    assert (done.returncode, done.stdout) == (0, f"may: {may}\n"), done.stderr


@pytest.mark.parametrize(
    ("given", "files", "tasks"),
    [("2", "compose.yaml compose.workers.yaml", "16"), ("0", "compose.yaml", ""), ("", "compose.yaml", "")],
)
def test_workers_are_added_where_there_are_any(clone: Clone, given: str, files: str, tasks: str):
    script = '. env/host/stack.sh; echo "${_compose_files[@]##*/}" "${TARMAC_TASKS_AT_ONCE:-}"'
    done = clone.run("bash", "-c", script, TARMAC_WORKERS=given, TARMAC_PARALLELISM="8")
    assert done.returncode == 0, done.stderr
    words = [word for word in done.stdout.split() if word != "--file"]
    assert words == [*files.split(), *tasks.split()]


@pytest.mark.parametrize("given", ["abc", "-1", "17", "2.5", "02", "1 2"])
@pytest.mark.parametrize("target", ["up", "ps"])
def test_a_number_of_workers_that_is_none_is_refused_before_anything_is_started(clone: Clone, given: str, target: str):
    done = clone.make(target, TARMAC_WORKERS=given)
    assert done.returncode == 2
    assert f"TARMAC_WORKERS is '{given}', must be a whole number from 0 to 16" in done.stderr
    assert not {"up", "build", "run", "start"} & {word for call in clone.calls() for word in call.words}


def test_workers_that_follow_no_number_of_tasks_are_refused(clone: Clone):
    done = clone.make("ps", TARMAC_WORKERS="2", TARMAC_PARALLELISM="many")
    assert "TARMAC_PARALLELISM is 'many', must be a whole number from 1 to 999" in done.stderr


def test_every_variable_that_the_help_names_is_taken_literally(repository: Path):
    text = (repository / "Makefile").read_text()
    listed = re.search(r"ARGUMENTS := ((?:.*\\\n)*.*)\n", text)
    assert listed
    arguments = set(listed[1].replace("\\\n", "").split())
    named = set(re.findall(r"\b([A-Z_]+)=", " ".join(re.findall(r"## (.*)", text)))) | set(
        re.findall(r'\$\$([A-Z_]+)"', text)
    )
    assert named <= arguments
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert not [line for line in lines if re.search(rf"\$[({{]({'|'.join(arguments)})[)}}]", line)]


def test_a_service_that_has_stopped_is_listed_with_how_it_is_started(clone: Clone):
    done = clone.make("ps", FAKE_ENGINE="with stopped services")
    assert "scheduler      Exited (137) 5 minutes ago" in done.stdout
    assert "a service has stopped: 'make doctor FIX=1' starts it" in done.stderr
    assert [call.words for call in clone.commands()] == [["sessions", "--space"]]
    assert done.returncode == 0
    done = clone.make("ps")
    assert "postgres       Up 2 hours" in done.stdout
    assert "airflow-init" not in done.stdout
    assert "has stopped" not in done.stderr
