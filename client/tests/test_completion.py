"""What the shells offer after `tarmac`: asked of each shell that this machine has."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tarmac_client.cli import completion
from tarmac_client.cli.main import parser

LINES: dict[str, tuple[list[str], set[str], set[str]]] = {
    "a verb": (["mod"], {"models"}, {"login"}),
    "all verbs": ([""], {"login", "train", "data", "models", "completion"}, {"push", "rollback"}),
    "a verb of a verb": (["models", "r"], {"rollback", "reproduce", "rm"}, {"retry"}),
    "an option": (["train", "--e"], {"--eval"}, {"--train"}),
    "an option after an argument": (["models", "promote", "ner", "--w"], {"--why"}, {"--at"}),
    "a listed value": (["completion", "f"], {"fish"}, {"bash"}),
}
shells = [pytest.param(shell, marks=pytest.mark.skipif(not shutil.which(shell), reason=f"no {shell} here"))
          for shell in completion.SHELLS]  # fmt: skip


def offered(shell: str, words: list[str]) -> set[str]:
    script = completion.script(parser(), shell)
    line = " ".join(["tarmac", *words])
    if shell == "bash":
        given = " ".join(f"'{word}'" for word in ["tarmac", *words])
        code = f"{script}\nCOMP_WORDS=({given}); COMP_CWORD={len(words)}; _tarmac; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        command = ["bash", "--norc", "-c", code]
    elif shell == "fish":
        command = ["fish", "--no-config", "-c", f"{script}\ncomplete -C '{line}'"]
    else:
        given = " ".join(f"'{word}'" for word in ["tarmac", *words])
        code = (
            "compdef() { :; }; _files() { :; }; compadd() { shift; printf '%s\\n' $@; }\n"
            f"{script}\nwords=({given}); CURRENT={len(words) + 1}; _tarmac"
        )
        command = ["zsh", "-f", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    found = {text.partition("\t")[0] for text in done.stdout.splitlines()}
    return {text for text in found if text.startswith(words[-1])}


@pytest.mark.parametrize("shell", shells)
@pytest.mark.parametrize(("words", "wanted", "others"), LINES.values(), ids=LINES.keys())
def test_a_shell_offers_what_fits(shell: str, words: list[str], wanted: set[str], others: set[str]):
    found = offered(shell, words)
    assert wanted <= found
    assert not others & found
