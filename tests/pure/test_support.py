"""The support bundle: secrets are planted in each source, in each form in which a log shows them; none comes out."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from tarmac.cli import support

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "env").glob("*.env.example"))
# As people choose them: short, with signs that addresses and JSON write otherwise, with words in them.
CHOSEN = ('p@ss/wörd "1" \\ %41', "kurz1", "correct horse battery staple", "a+b=c&d;e'f,g")
CONTENT = (
    "about.txt", "machine.txt", "engine.txt", "services.txt", "doctor.json", "sessions.json", "logs/scheduler.log",
    "logs/postgres.log",
)  # fmt: skip
NOTIFY = (
    '[[target]]\nname = "chat"\nurl = "slack://TokenAaaaaa/TokenBbbbbb/TokenCccccc/#tarmac"\n'
    '[[target]]\nname = "mail"\nurl = "mailtos://anna:mail-Passw0rd@mail.example.org?to=nlp@example.org"\n'
)


def env_files() -> dict[str, str]:
    """Each env file as `make up` makes it, with another secret for each value that is generated."""
    found = {}
    for number, path in enumerate(EXAMPLES):
        lines = []
        for row, line in enumerate(path.read_text().splitlines()):
            key, separator, value = line.partition("=")
            if separator and "<" in value and not key.endswith("USERNAME"):
                begin, _, rest = value.partition("<")
                line = f"{key}={begin}{number:02}{row:02}generated0123456789abcdef{rest.rpartition('>')[2]}"
            lines.append(line)
        found[f"secrets/env/{path.name.removesuffix('.example')}"] = "\n".join(lines) + "\n"
        found[f"secrets/examples/{path.name}"] = path.read_text()
    return found


def planted() -> tuple[dict[str, str], set[str]]:
    """What is collected, with every known secret in every form in every file; and the secrets."""
    files = env_files()
    files["secrets/env/login.env"] = f"TARMAC_UI_USER=ada\nTARMAC_UI_PASSWORD={CHOSEN[0]}\n"
    files["secrets/env/object-store.env"] = (
        f'AWS_ACCESS_KEY_ID={CHOSEN[1]}\nAWS_SECRET_ACCESS_KEY="{CHOSEN[2]}"\nAWS_SESSION_TOKEN={CHOSEN[3]}\n'
        "AWS_ENDPOINT_URL=http://minio:in-the-url@store:9000\nAWS_DEFAULT_REGION=us-east-1\nOWN_LINE=of-a-person-99\n"
        'NOTED="with-a-comment-7" # since May\nDOLLAR=two$$dollars-8\n'
    )
    files["secrets/env/stack.env"] += "HTTPS_PROXY=http://me:proxy-pass@proxy:3128\nMY_API_KEY=my-own-key\n"
    files["secrets/notify.toml"] = NOTIFY
    secrets = {*CHOSEN, "in-the-url", "of-a-person-99", "with-a-comment-7", "two$dollars-8", "proxy-pass", "my-own-key"}
    secrets |= {"TokenAaaaaa", "TokenBbbbbb", "TokenCccccc", "mail-Passw0rd"}
    for name, text in files.items():
        if name.startswith("secrets/env/"):
            values = support.settings_of(text).values()
            secrets |= {value for value in values if value[:1] in "01" and "generated" in value}
    assert len(secrets) > 20
    lines = "\n".join(
        f"a line {one} | {quote(one)} | {quote_plus(one)} | {quote(one, safe='')} | {json.dumps(one)} | {one!r} | "
        f"{base64.b64encode(one.encode()).decode()} | end"
        for one in secrets
    )
    for name in CONTENT:
        files[name] = f"before\n{lines}\nafter\n"
    return files, secrets


def test_no_known_secret_comes_out_of_any_source_in_any_form():
    files, secrets = planted()
    found = support.bundle(files)
    assert set(CONTENT) <= found.keys()
    for path, text in found.items():
        for one in secrets:
            coded = base64.b64encode(one.encode()).decode()
            for form in (one, quote(one), quote(one, safe=""), quote_plus(one), json.dumps(one)[1:-1], coded):
                assert form not in text, (path, one)
    for name in CONTENT:
        assert found[name].startswith("before\na line ")
        assert found[name].endswith(" | end\nafter\n")


UNKNOWN = {
    "a login in an address": ("GET http://bob:hunter22@host/x", "hunter22"),
    "an address with a token as user": ("clone https://ghp_abcdef@github.example/x", "ghp_abcdef"),
    "a header": ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
    "a basic login": ("'authorization': 'Basic YWRhOnNlY3JldA=='", "YWRhOnNlY3JldA"),
    "a token of Airflow's": ("cookie _token=eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "eyJzdWIi"),
    "one alone": ("got eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl there", "eyJzdWIi"),
    "a key of a store": ("key AKIAIOSFODNN7EXAMPLE.", "AKIAIOSFODNN7EXAMPLE"),
    "a parameter": ("connect password=geheim7 host=x", "geheim7"),
    "a field of JSON": ('{"client_secret": "geheim7", "b": 1}', "geheim7"),
    "a field of JSON in JSON": (json.dumps({"log": '{"api_key": "geheim7"}'}), "geheim7"),
    "an address's parameter": ("GET /x?token=geheim7&y=1", "geheim7"),
    "a variable": ("  export DB_PASSWORD='geheim7'", "geheim7"),
    "a private key": (
        "x\n-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz\naC1rZXk=\n-----END OPENSSH PRIVATE KEY-----\ny",
        "b3BlbnNz",
    ),
    "a private key whose end was cut off": ("-----BEGIN PRIVATE KEY-----\nMIIEvQ\nIBADAN", "IBADAN"),
    "a private key whose begin was cut off": (f"{'QUJD' * 16}\nQUJE\n-----END PRIVATE KEY-----\ny", "QUJDQUJD"),
}


@pytest.mark.parametrize(("text", "secret"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_what_has_the_form_of_a_secret_goes_too_though_nothing_says_that_it_is_one(text: str, secret: str):
    found = support.bundle({"logs/webserver.log": text})["logs/webserver.log"]
    assert secret not in found
    assert support.REMOVED in found


def test_what_helps_stays():
    log = (
        "2026-11-29 10:48:24,796 reaper: Removed what is over for more than 1 day: 2 runs, 25 rows.\n"
        "GPU-fake-0 has 18.7 GiB free of 78.7 GiB, sha256:0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d\n"
        "connect to postgres:5432 as airflow at http://mlflow:5000/#/models failed\n"
    )
    files = {**env_files(), "logs/scheduler.log": log}
    files["secrets/env/object-store.env"] = "AWS_ACCESS_KEY_ID=\n"
    found = support.bundle(files)
    assert found["logs/scheduler.log"] == log, "a login that is public by default is no secret"
    assert "TARMAC_WEB_PORT=8081" in found["settings/stack.env"]
    assert found["settings/postgres.env"].splitlines()[0] == "POSTGRES_PASSWORD=[removed]"
    assert "AWS_ACCESS_KEY_ID=\n" in found["settings/object-store.env"], "that it is not set helps"


def test_a_long_log_is_cut_to_its_end_after_its_secrets_are_gone():
    secret = "0123456789secret"
    files = {"secrets/env/postgres.env": f"POSTGRES_PASSWORD={secret}\n", "logs/a.log": f"{secret} " * 500_000}
    found = support.bundle(files)["logs/a.log"]
    assert found.startswith("[the first ")
    assert not any(secret[at:] in found for at in range(8))


def test_the_archive_that_comes_out_holds_no_secret_in_its_bytes():
    files, secrets = planted()
    sent = io.BytesIO()
    with tarfile.open(fileobj=sent, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("./logs/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    done = subprocess.run(
        [sys.executable, "-m", "tarmac.cli.support"], input=sent.getvalue(), capture_output=True, check=True, timeout=60
    )
    with tarfile.open(fileobj=io.BytesIO(done.stdout), mode="r:gz") as archive:
        names = archive.getnames()
        texts = [(archive.extractfile(name) or io.BytesIO()).read().decode() for name in names]
    assert "tarmac-support/README.txt" in names
    assert "tarmac-support/settings/login.env" in names
    assert not [name for name in names if "secrets" in name or "link" in name or "notify" in name]
    assert not [one for one in secrets for text in texts if one in text]
