"""Serves the Tarmac page with a ledger and an Airflow that are full of invented sessions, or takes its pictures.

    python tests/tools/page.py                  `make page`: serve at http://localhost:8099/tarmac/ until stopped
    python tests/tools/page.py FOLDER           `make page FILE=FOLDER`: save pictures, light, dark and as on a phone

It needs Postgres' programs; pictures need Chromium too. ROLE=viewer in the environment shows what a Viewer sees.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "plugins"), str(TESTS.parent / "client/src")]

from playwright.sync_api import sync_playwright  # noqa: E402

from fakes.web import Fakes  # noqa: E402
from support import airflow_home  # noqa: E402, F401
from support.fleet import query  # noqa: E402
from support.page_server import FLAGS, PAGES, fill_with_scene, served  # noqa: E402
from support.postgres import local_postgres, postgres_binaries  # noqa: E402
from tarmac.base.settings import settings  # noqa: E402
from tarmac.ledger.database import migrate  # noqa: E402
from tarmac.ledger.ledger import Ledger  # noqa: E402

PORT = 8099
ROLE = os.environ.get("ROLE", "user")
SIZES = {"": (1400, 900), "-phone": (390, 844)}


@contextmanager
def invented() -> Iterator[str]:
    """Serve the page on a Postgres of its own; give its address."""
    binaries = postgres_binaries()
    if binaries is None:
        sys.exit("Postgres' programs are missing (apt-get install postgresql).")
    with local_postgres(binaries) as postgres, tempfile.TemporaryDirectory() as store:
        url = postgres.url("postgres")
        os.environ |= {"TARMAC_DATABASE_URL": url, "TARMAC_STORE": f"file://{store}/store"}
        settings.cache_clear()
        migrate(url)
        with served(ROLE, PORT, fill=for_people) as address:
            yield address


def for_people(ledger: Ledger, fakes: Fakes) -> None:
    """Put the scene into a ledger and an Airflow, without the hostile names that the tests look for."""
    fill_with_scene(ledger, fakes)
    fakes.airflow_api.runs["pos"]["conf"]["name"] = "verbs, second try"
    fakes.airflow_api.log = fakes.airflow_api.log[:-1]
    query(ledger._url, "UPDATE machine SET trouble = ''")


def take_pictures(url: str, folder: Path) -> None:
    """Save a picture of each page in each size, light and dark."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        for suffix, (width, height) in SIZES.items():
            for scheme in ("light", "dark"):
                context = browser.new_context(
                    viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
                )
                page = context.new_page()
                page.on("console", lambda message: print(message.text, file=sys.stderr))
                for name, path in PAGES.items():
                    page.goto(url + path)
                    page.wait_for_load_state("networkidle")
                    dark = "-dark" if scheme == "dark" else ""
                    page.screenshot(path=str(folder / f"page-{name}{suffix}{dark}.png"), full_page=True)
                context.close()
        browser.close()


def main() -> None:
    """Serve, or take pictures."""
    with invented() as url:
        if len(sys.argv) > 1:
            folder = Path(sys.argv[1])
            folder.mkdir(parents=True, exist_ok=True)
            take_pictures(url, folder)
            return
        print(f"{url}/ as {ROLE}; stop with Ctrl-C")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
