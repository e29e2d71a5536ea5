"""Completion of the command line in bash, zsh and fish: scripts made of the parser. Pure."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

SHELLS = ("bash", "zsh", "fish")
Path = tuple[str, ...]


def verbs_of(parser: argparse.ArgumentParser, before: Path = ()) -> Iterator[tuple[Path, argparse.ArgumentParser, str]]:
    """Give each verb that a parser knows, those that have verbs of their own too, with its parser and help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {one.dest: one.help or "" for one in action._choices_actions}
            for name, below in action.choices.items():
                yield (*before, name), below, helps.get(name, "")
                yield from verbs_of(below, (*before, name))


def options_of(parser: argparse.ArgumentParser) -> list[str]:
    """Return the long options of a verb, and the short ones that have no long name."""
    found = []
    for action in parser._actions:
        found += [max(action.option_strings, key=len)] if action.option_strings else []
    return sorted(found)


def values_of(parser: argparse.ArgumentParser) -> list[str]:
    """Return the values that the place of a verb's first argument may have, where they are listed."""
    return [str(value) for action in parser._actions if not action.option_strings for value in action.choices or ()]


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script that a shell reads; files are completed where no word of the command fits.

    Args:
        parser: of the command `tarmac`.
        shell: one of SHELLS.
    """
    found = [((), parser, ""), *verbs_of(parser)]
    words = {path: [*values_of(one), *options_of(one)] for path, one, _ in found}
    if shell == "fish":
        return _fish(found, words)
    return {"bash": _bash, "zsh": _zsh}[shell](words)


def _path(words: dict[Path, list[str]]) -> str:
    """Shell code that finds, in `given`, which verb the words before the cursor name, as `path`."""
    known = "|".join(f'" {" ".join(path)}"' for path in words if path)
    return f'    for word in "${{given[@]}}"; do case "$path $word" in {known}) path="$path $word" ;; esac; done\n'


def _cases(words: dict[Path, list[str]]) -> str:
    cases = "".join(
        f'        "{" " if path else ""}{" ".join(path)}") words="{" ".join(found)}" ;;\n'
        for path, found in words.items()
    )
    return f'    case "$path" in\n{cases}    esac\n'


def _bash(words: dict[Path, list[str]]) -> str:
    return (
        '# eval "$(tarmac completion bash)", in ~/.bashrc\n'
        "_tarmac() {\n"
        '    local path="" word words="" given=("${COMP_WORDS[@]:1:COMP_CWORD-1}")\n'
        f"{_path(words)}{_cases(words)}"
        '    COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))\n'
        "}\n"
        "complete -o default -F _tarmac tarmac\n"
    )


def _zsh(words: dict[Path, list[str]]) -> str:
    return (
        '# eval "$(tarmac completion zsh)", in ~/.zshrc, after compinit\n'
        "_tarmac() {\n"
        '    local path_of="" word found=""\n'
        "    local -a given=(${words[2,CURRENT-1]})\n"
        f"{_path(words)}{_cases(words)}".replace("path=", "path_of=")
        .replace("$path", "$path_of")
        .replace(') words="', ') found="')
        + "    compadd -- ${=found} || _files\n"
        "}\n"
        "compdef _tarmac tarmac\n"
    )


def _fish(found: list[tuple[Path, argparse.ArgumentParser, str]], words: dict[Path, list[str]]) -> str:
    lines = ["# tarmac completion fish | source, in ~/.config/fish/config.fish"]
    helps = {path: text for path, _, text in found}
    for path, choices in words.items():
        below = [one for one in words if len(one) == len(path) + 1 and one[: len(path)] == path]
        seen = (
            " ".join(f"and __fish_seen_subcommand_from {word}" for word in path)
            .removeprefix("and ")
            .replace(" and", "; and")
        )
        if below:
            names = " ".join(one[-1] for one in below)
            at = f"{seen}; and not __fish_seen_subcommand_from {names}" if seen else "__fish_use_subcommand"
            for one in below:
                text = helps[one].replace("'", "\\'")
                lines.append(f"complete -c tarmac -n '{at}' -f -a {one[-1]} -d '{text}'")
            continue
        for choice in choices:
            if choice.startswith("--"):
                lines.append(f"complete -c tarmac -n '{seen}' -l {choice.removeprefix('--')}")
            elif not choice.startswith("-"):
                lines.append(f"complete -c tarmac -n '{seen}' -f -a {choice}")
    return "\n".join(lines) + "\n"
