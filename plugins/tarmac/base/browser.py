"""What a person with a browser reads where a sentence names a command of a terminal. Pure.

The sentences are made once, with the commands of make or of the client. Here is the button or the page that does the
same; where there is none, a sentence says who can give the command.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

AGAIN = "Run again from where it failed"
ANEW = "Run it again"
CHANGED = "Run again with changes"
"""Buttons of a session's page: of one that failed, of one that was cancelled, and of both. The last one fills the form
of a new session."""

_END = r"(?![\w-])"


_SESSION = r"(?: RUN=(?:<run id>|[^\s`),;]*)| SESSION\b| <run id>| [^\s`),;]+(?=`))?"


def _command(verbs: str, argument: str = _SESSION) -> str:
    """Return the pattern of a command of make or of the client, with backticks or without."""
    return rf"`?\b(?:make|tarmac) (?:{verbs}){_END}{argument}`?"


_NO_ARGUMENT = ""
OF_SERVICES = r"`? shows (?:which|whether|what|the service)|`?(?:,|,? then| and) `?make (?:up|logs)"
"""What follows `make ps` where it is asked for the services, of which neither the client nor the page has a list."""
_INSTEAD: tuple[tuple[str, str], ...] = (
    (r"\bstore it, and send the request again with that\b", f'upload it, and choose it in the form of "{CHANGED}"'),
    (r"\bSend the request again, corrected\b", f'Correct it in the form of "{CHANGED}"'),
    (r"\bsend the request again with that\b", f'choose that in the form of "{CHANGED}"'),
    (r"\bsend the request again\b", f'use "{CHANGED}"'),
    (r"\bSend the request again\b", f'Use "{CHANGED}"'),
    (rf"{_command('retry')} runs it again\b", f'"{ANEW}" runs it'),
    (_command("retry"), f'"{AGAIN}"'),
    (_command("cancel"), '"Cancel" on its page'),
    (_command("explain|follow|status"), "the session's page"),
    (_command("gpus|hosts", _NO_ARGUMENT), 'the page "Now"'),
    (rf"{_command('ls|ps', _NO_ARGUMENT)}(?!{OF_SERVICES})", 'the page "Sessions"'),
    (_command("models promote|promote", r"[^`;,.)]*"), '"Promote" on the model\'s page'),
    (_command("models rollback|rollback", r"(?: MODEL=\S*| [^\s`),;]+)?"), '"Roll back" on the model\'s page'),
    (_command("models production|production", r"(?: MODEL=\S*| [^\s`),;]+)?"), "the model's page"),
    (_command("models reproduce|reproduce"), '"Start another like it"'),
    (_command("models ls|models", r"(?: NAME)?"), 'the page "Models"'),
    (_command("kinds|trainers", _NO_ARGUMENT), 'the form "New session"'),
    (_command("data ls", _NO_ARGUMENT), 'the page "Data sets"'),
    (r"as `?(?:make (?:dataset|script|weights)|tarmac data push)\b[^`]*`? prints it", "as its upload shows it"),
    (
        r"`?\b(?:make (?:dataset|script|weights)\b(?: (?:FILE|DIR)=(?:\.\.\.)?)?"
        r"|tarmac data push (?:--(?:script|code|weights) )?(?:FILE|FOLDER)(?! --))`?",
        'an upload on the page "Data sets"',
    ),
    (_command("dag ls", _NO_ARGUMENT), 'the page "DAG files"'),
    (_command("dag rm", r"(?: [^\s`),;]+)?"), '"Remove" on the page "DAG files"'),
    (_command("dag upload", _NO_ARGUMENT), 'an upload on the page "DAG files"'),
)
_OF_THE_MACHINE = re.compile(
    r"\bmake (?:up|down|logs|doctor|ps|backup|restore|passwords|notify-test|gpu-check|release-gpu|clean|support"
    r"|host-[a-z]+|hosts-check)\b|\bdocker (?:compose|run|ps|system|load)\b|\bnvidia-smi\b|\bmlflow \w+ restore\b"
    r"|\benv/[\w-]+\.(?:env|toml)\b|\bTARMAC_[A-Z_]+=|`make "
)
_OF_THE_CLIENT = re.compile(r"`?\btarmac (?:doctor|predict|login|gpu check|passwords)\b")
FOR_THE_MACHINE = "Commands and settings are for someone with access to the stack's machine."
FOR_THE_CLIENT = "Commands that begin with tarmac are for a terminal with the client (docs/client.md)."


def in_browser(text: str) -> str:
    """Return a sentence with buttons and pages in the place of the commands that do the same."""
    for pattern, instead in _INSTEAD:
        text = re.sub(pattern, instead, text)
    return text


def for_whom(texts: Iterable[str]) -> list[str]:
    """Return sentences that say who can give the commands that are left in some texts; none are left: no sentence."""
    left = list(texts)
    found = [FOR_THE_MACHINE] if any(_OF_THE_MACHINE.search(one) for one in left) else []
    return [*found, FOR_THE_CLIENT] if any(_OF_THE_CLIENT.search(one) for one in left) else found


def told(text: str) -> str:
    """Return a text as a person with a browser reads it: buttons in the place of commands, then who gives others."""
    said = in_browser(text)
    more = for_whom([said])
    stop = "." if more and said and said[-1] not in ".!?" else ""
    return " ".join([f"{said}{stop}", *more])
