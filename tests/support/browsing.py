"""Opening a page in Chromium on a machine where containers come and go."""

from __future__ import annotations

from playwright.sync_api import Error, Locator, Page, Request

from support.waiting import wait_for

# Chromium ends all requests under way when a network interface appears or goes, as the one of each container does.
NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"


def open_at(page: Page, address: str, sign: Locator | None = None, through: Locator | None = None) -> None:
    """Open an address and wait until a page shows its sign.

    A page that loses one of its scripts stays broken until somebody loads it again. That is done where the cause is
    that Chromium ended a request for a change of the machine's networks, and for no other cause.

    Args:
        sign: None: the page's load event is enough.
        through: what to click first.
    """
    lost: list[str] = []
    clicked = False

    def failed(request: Request) -> None:
        if request.failure == NETWORK_CHANGED:
            lost.append(request.url)

    def load() -> None:
        nonlocal clicked
        lost.clear()
        clicked = False
        try:
            # From nothing: an address that differs by its fragment alone would not be loaded again.
            page.goto("about:blank")
            page.goto(address)
        except Error as error:
            if NETWORK_CHANGED not in error.message:
                raise
            lost.append(address)

    def shown() -> bool:
        nonlocal clicked
        if sign and sign.is_visible():
            return True
        if lost:
            load()
        if through and not clicked and through.is_visible():
            through.click()
            clicked = True
        return sign is None and not lost

    page.on("requestfailed", failed)
    try:
        load()
        wait_for(f"what {address} shows", shown)
    finally:
        page.remove_listener("requestfailed", failed)
