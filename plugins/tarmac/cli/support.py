"""Takes the secrets out of what `make support` collected: a tar archive comes in, another one, compressed, goes out.

It runs in a container of its own without a network, so that it works where the stack does not. Known secrets are the
values of env/*.env and env/notify.toml, in each form in which a log may show them; what has the form of a secret goes
too. Both are done to a whole file before it is cut to its end, so that no half of a secret is left.
"""

from __future__ import annotations

import base64
import io
import json
import re
import sys
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from urllib.parse import quote, quote_plus

REMOVED = "[removed]"
FOLDER = "tarmac-support"
_ENV, _EXAMPLES, _NOTIFY = "secrets/env/", "secrets/examples/", "secrets/notify.toml"
_MOST = 4 * 1024**2
# A shorter one is a word of its own where it is one.
_WORD = 8

_NAMED = r"password|passwd|passphrase|secret|token|credential|(?:api|access|fernet|private)[_-]?key"
_NO_SECRET = re.compile(r"(_USER|_USERNAME|_REGION|_ENDPOINT_URL|_TRACKING_URI)$|^PG(HOST|DATABASE|USER|PORT)$")
_USERINFO = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s:@\"']*:([^/\s@\"']+)@")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY-----")
# The last line of a key may be short; a log may have a time before each.
_KEY_LINE = re.compile(r"(?:^|\s)[A-Za-z0-9+/=]+\s*$")
_FORMS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), instead)
    for pattern, instead in (
        (r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", REMOVED),
        (r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)[^/\s@\"']{0,1000}@", rf"\1{REMOVED}@"),
        (r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}", rf"\1 {REMOVED}"),
        (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*", REMOVED),
        (r"\bA(?:KIA|SIA)[0-9A-Z]{16}\b", REMOVED),
        (
            rf"(?i)((?:{_NAMED})[\w-]{{0,60}}(?:\\?[\"'])?\s*[=:]\s*(?:\\?[\"'])?)(?!\[removed\])[^\s\"',;&}}\\]+",
            rf"\1{REMOVED}",
        ),
    )
)

README = f"""The state of a stack of Tarmac, for a person who helps; made by `make support`.

Values of env/*.env and env/notify.toml, and what has the form of a password, a token or a key, are replaced by
{REMOVED}.
Names of people, sessions, models and machines are in here, and what programs printed. Look before you send it.
"""


def settings_of(text: str) -> dict[str, str]:
    """Return the keys and values of an env file. Pure."""
    found = {}
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and not key.startswith("#"):
            found[key.strip()] = value.strip().strip("\"'")
    return found


def secrets_of(files: Mapping[str, str]) -> set[str]:
    """Return the secrets that the collected env files and notify.toml hold. Pure.

    A value that its example has too is public. Of stack.env, which is no secret, only what is named or written like
    one.
    """
    found: set[str] = set()
    for path, text in files.items():
        if not path.startswith(_ENV):
            continue
        name = path.removeprefix(_ENV)
        public = settings_of(files.get(f"{_EXAMPLES}{name}.example", ""))
        for key, value in settings_of(text).items():
            found |= set(_USERINFO.findall(value))
            named = bool(re.search(_NAMED, key, re.IGNORECASE))
            if value and public.get(key) != value and (named or (name != "stack.env" and not _NO_SECRET.search(key))):
                # As Compose reads it: a comment ends it, and a dollar is written twice.
                alone = value.partition(" #")[0].rstrip().rstrip("\"'")
                found |= {value, alone, alone.replace("$$", "$")}
    # Apprise's addresses hold tokens as parts of a path, and messages may show them in another address.
    for address in re.findall(r"[\"']([^\"'\n]*://[^\"'\n]*)[\"']", files.get(_NOTIFY, "")):
        found |= {address, *_USERINFO.findall(address), *(one for one in re.split(r"[/:@?&=#]+", address) if one[7:])}
    return found


def _written(secret: str) -> Iterable[str]:
    """Yield each form in which a log may show a secret."""
    yield from (secret, quote(secret, safe=""), quote_plus(secret), quote(secret), json.dumps(secret)[1:-1])
    yield repr(secret)[1:-1]
    yield base64.b64encode(secret.encode()).decode().rstrip("=")


def remover(secrets: Iterable[str]) -> re.Pattern[str] | None:
    """Return what finds secrets in each form, the longest first; None: there are none. Pure."""
    forms = sorted({form for one in secrets for form in _written(one) if form}, key=lambda one: (-len(one), one))
    parts = [re.escape(one) if len(one) >= _WORD else rf"(?<!\w){re.escape(one)}(?!\w)" for one in forms]
    return re.compile("|".join(parts)) if parts else None


def without_secrets(text: str, known: re.Pattern[str] | None) -> str:
    """Return a text with each secret replaced. Pure.

    Args:
        known: what finds the known ones.
    """
    if known is not None:
        text = known.sub(REMOVED, text)
    for pattern, instead in _FORMS:
        text = pattern.sub(instead, text)
    return _without_ends_of_keys(text)


def _without_ends_of_keys(text: str) -> str:
    """Take out what is left of private keys whose begin was cut off: the lines before their end."""
    if "PRIVATE KEY-----" not in text:
        return text
    kept: list[str] = []
    for line in text.splitlines(keepends=True):
        if _KEY_END.search(line):
            while kept and _KEY_LINE.search(kept[-1]):
                kept.pop()
            line = f"{REMOVED}\n"
        kept.append(line)
    return "".join(kept)


def names_only(text: str) -> str:
    """Return an env file of secrets with each value replaced by whether there is one. Pure."""
    return "".join(f"{key}={REMOVED if value else ''}\n" for key, value in settings_of(text).items())


def bundle(files: Mapping[str, str]) -> dict[str, str]:
    """Return what goes out of what was collected, by path. Pure.

    Args:
        files: by path; those below secrets/ say what is secret, and only the names in them go out.
    """
    known = remover(secrets_of(files))
    found = {"README.txt": README}
    for path, text in sorted(files.items()):
        if path.startswith(_ENV):
            name = path.removeprefix(_ENV)
            found[f"settings/{name}"] = without_secrets(text if name == "stack.env" else names_only(text), known)
        elif not path.startswith("secrets/"):
            clean = without_secrets(text, known)
            cut = f"[the first {len(clean) - _MOST} characters are left out]\n" if len(clean) > _MOST else ""
            found[path] = cut + clean[-_MOST:]
    return found


def main() -> int:
    """Read the one archive from standard input, write the other to standard output."""
    files = {}
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as given:
        for member in given:
            content = given.extractfile(member) if member.isfile() else None
            if content is not None:
                files[str(PurePosixPath(member.name))] = content.read().decode(errors="replace")
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|gz") as out:
        for path, text in bundle(files).items():
            raw = text.encode()
            entry = tarfile.TarInfo(f"{FOLDER}/{path}")
            entry.size, entry.mode = len(raw), 0o600
            out.addfile(entry, io.BytesIO(raw))
    return 0


if __name__ == "__main__":
    sys.exit(main())
