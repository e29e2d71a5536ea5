"""The command line as a container runs it, in a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import NINE, Session

from tarmac_trainer.cli import main

COMMAND = [sys.executable, "-P", "-m", "tarmac_trainer"]
HEAVY = ("spacy", "thinc", "numpy", "pandas", "mlflow", "fsspec", "s3fs")


def test_without_a_command_it_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    for command in ("prep", "train", "eval", "save", "cleanup", "health"):
        assert f"    {command} " in out


@pytest.mark.parametrize("command", ["prep", "train", "eval", "save", "cleanup", "health"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert "--session" in capsys.readouterr().out


def test_help_and_health_load_nothing_heavy(tmp_path: Path) -> None:
    code = f"""if True:
        import sys
        from tarmac_trainer.cli import main
        main(["health", "--session", {str(tmp_path)!r}])
        print(",".join(name for name in {HEAVY!r} if name in sys.modules))
    """
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "", done.stderr


def test_the_session_comes_from_the_environment(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "cleanup"],
        env={**os.environ, "TARMAC_SESSION": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_sigterm_ends_a_training_that_writes_a_checkpoint_first(session: Session) -> None:
    session.request({"a": {"train": session.put(NINE), "eval": None}}, parameters={"train_seconds": 600})
    assert session.run("prep").code == 0
    with subprocess.Popen(
        [*COMMAND, "train", "--session", str(session.folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while '"progress"' not in (told := process.stdout.readline()):
            assert told, "it ended by itself"
        assert main(["health", "--session", str(session.folder)]) == 0
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait(30) == 143
    assert "stopped by SIGTERM: writing a checkpoint first\n" in rest
    assert rest.splitlines()[-1].startswith("a checkpoint is written: the next attempt goes on from step ")
    assert main(["health", "--session", str(session.folder)]) == 1


def test_output_is_lines_of_text_or_events(session: Session) -> None:
    session.request({"a": {"train": session.put(NINE), "eval": None}})
    for step in ("prep", "train", "eval", "cleanup"):
        outcome = session.run(step)
        assert outcome.code == 0
        assert outcome.err == ""
        assert len(outcome.of("result")) == 1
