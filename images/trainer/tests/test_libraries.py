"""Libraries that own code asks for: what is taken of a requirements file, what is installed, what is kept."""

import base64
import hashlib
import http.server
import io
import os
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import Session
from test_own_code import code, put, run_script

from tarmac_trainer import models
from tarmac_trainer.mlflow_io import predicting
from tarmac_trainer.runtime import libraries, own_code
from tarmac_trainer.runtime.errors import DataError, InputError, StoreError
from tarmac_trainer.runtime.request import OwnRun


def wheel(name: str, version: str, text: str) -> bytes:
    """A wheel with one module."""
    info = f"{name}-{version}.dist-info"
    members = {
        f"{name}.py": text,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b'=').decode()},"
        f"{len(content)}\n"
        for path, content in members.items()
    )
    members[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for path, content in members.items():
            made.writestr(zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0)), content)
    return out.getvalue()


TIDE = wheel("tide", "2.0", "LEVEL = 7\n")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A package index with the library `tide`, its address, and the paths that were asked of it."""
    root, asked = tmp_path / "index", list[str]()
    (root / "simple/tide").mkdir(parents=True)
    (root / "simple/tide/tide-2.0-py3-none-any.whl").write_bytes(TIDE)
    (root / "simple/source").mkdir()
    (root / "simple/source/source-1.0.tar.gz").write_bytes(b"x")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple", asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """The folders of a session and of its code, and the cache."""
    made = (tmp_path / "session", tmp_path / "session/code", tmp_path / "cache")
    for folder in made:
        folder.mkdir()
    return made


def install(folders: tuple[Path, Path, Path], text: str, index: str, python: str | None = None) -> list[str]:
    session, own, cache = folders
    (own / "requirements.txt").write_text(text)
    return libraries.install(session, own, "requirements.txt", python, index=index, cache=cache)


@pytest.mark.usefixtures("mlruns")
def test_a_program_trains_with_what_prep_installed_and_kept(
    session: Session, index: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address, asked = index
    (cache := tmp_path / "cache").mkdir()
    monkeypatch.setattr(libraries, "CACHE", cache)
    monkeypatch.setenv("TARMAC_PACKAGE_INDEX", address)
    program = (
        "import os, tide\n"
        "open(os.environ['TARMAC_MODEL'] + '/level', 'w').write(str(tide.LEVEL))\n"
        "predict = 'import tide\\ndef predict(folder, rows): return rows'\n"
        "open(os.environ['TARMAC_MODEL'] + '/predict.py', 'w').write(predict)\n"
    )
    archive = code(train__py=program, requirements__txt="tide >= 1  # the sea\n")
    session.request(
        {"d": {"train": session.put('{"a": 1}\n' * 20), "eval": None}},
        model="own_code",
        run={
            "command": ["python3", "train.py"],
            "code": put(session, archive),
            "requirements": "requirements.txt",
            "python": None,
            "git": "https://git.example/x@0123",
        },
    )
    prepared = session.run("prep")
    assert prepared.result["libraries"] == ["tide==2.0"]
    assert "libraries, installed, for Python 3.13: tide==2.0" in prepared.out
    done = run_script(session)
    assert (done.returncode, (session.folder / "model/level").read_text()) == (0, "7"), done.stdout
    session.run("eval")
    saved = session.run("save").result
    import mlflow

    assert mlflow.get_run(saved["mlflow_run_id"]).data.params["libraries"] == "tide==2.0"
    record = mlflow.artifacts.load_dict(f"runs:/{saved['mlflow_run_id']}/tarmac/libraries.json")
    assert record == {"python": "3.13", "libraries": ["tide==2.0"]}
    assert mlflow.pyfunc.get_model_dependencies(saved["model_uri"]).endswith("requirements.txt")
    needed = Path(mlflow.pyfunc.get_model_dependencies(saved["model_uri"])).read_text()
    assert "tide==2.0" in needed.splitlines()
    with pytest.raises(InputError, match=r"No module named 'tide'. `tarmac predict` runs it without .* \(tide==2.0\)"):
        predicting.Predictor(models.get("own_code"), models.get("own_code").load(session.folder / "model")).predict(
            [{}]
        )
    asked.clear()
    again = session.run("prep")
    assert "libraries, kept from a session before, for Python 3.13: tide==2.0" in again.out
    assert asked == [], "the same file gives the same libraries, whatever the index has now"
    assert run_script(session).returncode == 0


def test_another_python_is_refused_before_the_program_runs(folders: tuple[Path, Path, Path]) -> None:
    session, _, _ = folders
    run = OwnRun(("true",), "x", None, None, "requirements.txt", "3.9")
    script = session / own_code.SCRIPT
    script.write_text(own_code.script(run, 0))
    done = subprocess.run(
        ["/bin/sh", str(script), "train"],
        env={"PATH": os.environ["PATH"], "TARMAC_SESSION": str(session)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = "the libraries are for Python 3.9, and the Python of this image is: 3.13 (run.python)\n"
    assert (done.returncode, done.stdout) == (2, said)


def test_a_wheel_of_the_code_needs_no_index_and_its_content_counts(folders: tuple[Path, Path, Path]) -> None:
    _, own, cache = folders
    (own / "wheels").mkdir()
    for level in (7, 8):
        (own / "wheels/tide-2.0-py3-none-any.whl").write_bytes(wheel("tide", "2.0", f"LEVEL = {level}\n"))
        assert install(folders, "./wheels/tide-2.0-py3-none-any.whl\n", "") == ["tide==2.0"]
        assert (folders[0] / "libraries/tide.py").read_text() == f"LEVEL = {level}\n"
    assert len(list(cache.iterdir())) == 2


def test_hashes_are_compared(folders: tuple[Path, Path, Path], index: tuple[str, list[str]]) -> None:
    digest = hashlib.sha256(TIDE).hexdigest()
    assert install(folders, f"tide==2.0 \\\n    --hash=sha256:{digest}\n", index[0]) == ["tide==2.0"]
    with pytest.raises(
        DataError, match=r"requirements.txt, for Python 3.13 and by wheels alone: THESE PACKAGES DO NOT MA"
    ):
        install(folders, f"tide==2.0 --hash=sha256:{'0' * 64}\n", index[0])
    assert not (folders[0] / "libraries").exists()


REFUSED = {
    "another index": (
        "--index-url https://x\ntide\n",
        "line 1: '--index-url https://x' is not a library with its version",
    ),
    "a folder": ("tide\n-e .\n", "line 2: '-e .' is not a library"),
    "an address": ("tide @ https://x/tide.whl\n", "line 1: 'tide @ https://x/tide.whl' is not a library"),
    "git": ("git+https://x/y\n", "is not a library"),
    "a wheel elsewhere": ("../tide-2.0-py3-none-any.whl\n", "is not a library"),
    "a wheel by its whole path": ("/tide-2.0-py3-none-any.whl\n", "is not a library"),
    "another file": ("-r other.txt\n", "is not a library"),
    "nothing": ("# tide\n\n", "requirements.txt names no library"),
    "a wheel that is not there": ("./tide-2.0-py3-none-any.whl\n", "names tide-2.0-py3-none-any.whl, which is not in"),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_taken_is_named_by_its_line(folders: tuple[Path, Path, Path], text: str, said: str) -> None:
    with pytest.raises(DataError) as refused:
        install(folders, text, "")
    assert said in str(refused.value)


def test_what_cannot_be_had_is_named_with_the_remedy(
    folders: tuple[Path, Path, Path], index: tuple[str, list[str]]
) -> None:
    with pytest.raises(DataError, match=r"requirements.txt, for Python 3.11 and by wheels alone: .*tide>=3"):
        install(folders, "tide>=3\n", index[0], "3.11")
    with pytest.raises(DataError, match=r"by wheels alone: .*source"):
        install(folders, "source\n", index[0])
    with pytest.raises(DataError, match=r"This stack asks no package index \(TARMAC_PACKAGE_INDEX\): put wheels into"):
        install(folders, "tide\n", "")
    with pytest.raises(StoreError, match=r"the package index at http://127.0.0.1:9/simple does not answer: .*tide"):
        install(folders, "tide\n", "http://me:secret@127.0.0.1:9/simple")
    with pytest.raises(DataError, match=r"run.requirements: the code has no file other.txt"):
        libraries.install(folders[0], folders[1], "other.txt", None, index="", cache=folders[2])


def test_what_nothing_used_for_long_is_removed(tmp_path: Path) -> None:
    for name, days in (("old", 31), ("new", 29)):
        (tmp_path / name / "inside").mkdir(parents=True)
        os.utime(tmp_path / name, (0, 100 * 86400 - days * 86400))
    libraries.prune(tmp_path, now=100 * 86400)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
