"""The page in a real browser: by mouse and by keyboard alone."""

import time
from contextlib import contextmanager

from .. import browser
from .conftest import served, session_of

PAINTED = "Number(document.documentElement.dataset.painted || 0)"


@contextmanager
def page_of(session, width=1440, scheme="light", fragment=""):
    """The page of a session, painted; it must complain of nothing and ask nobody else."""
    with served(session) as serving, browser.opened(serving.guard.url + fragment, width, scheme) as page:
        page.serving = serving
        wait(page, f"{PAINTED} > 0")
        yield page
        assert page.complaints == []
        mine = (f"http://127.0.0.1:{serving.guard.port}/{serving.guard.token}/", "data:")
        assert [url for url in page.requests if not url.startswith(mine)] == []


def wait(page, expression: str, seconds: float = 20) -> None:
    """Until an expression holds in the page, whose policy lets no script of others wait in it."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


@contextmanager
def repainted(page):
    """Until what is done within is on the screen."""
    before = page.evaluate(PAINTED)
    yield
    wait(page, f"{PAINTED} > {before}")


def shown(page) -> list[int]:
    """The labels that the page has."""
    return page.evaluate("import('./store.js').then(module => [...module.store.labels])")


SLIDE = "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', { bubbles: true })); }"


def slide(page, name: str, value: float) -> None:
    page.get_by_role("slider", name=name, exact=True).evaluate(SLIDE, value)


def test_a_slider_shows_what_submit_would_write(root):
    with session_of(root) as session, page_of(session) as page:
        with repainted(page):
            slide(page, "Weight of vit@tiny", 0)
        labels = session.seen.labels.tolist()
        assert shown(page) == labels
        flips = sum(a != b for a, b in zip(labels, session.baseline.labels.tolist(), strict=True))
        assert page.locator("#flips").inner_text() == str(flips)
        assert page.locator(".tile").count() == flips
        counts = [int(row.get_attribute("data-count")) for row in page.locator("#histogram tr").all()]
        assert counts == [labels.count(label) for label in range(3)]
        with repainted(page):
            page.keyboard.press("Control+z")
        assert page.locator("#flips").inner_text() == "0"
        wait(page, "location.hash.startsWith('#view=')")
