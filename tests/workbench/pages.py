"""Helpers for tests of the page in a real browser."""

import time
from contextlib import contextmanager

from .. import browser
from .conftest import served

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


def drag(page, source, target) -> None:
    """By the events that a hand makes: on a busy machine a browser sometimes takes the hand's for a click."""
    assert source.get_attribute("draggable") == "true"
    carried = page.evaluate_handle("new DataTransfer()")
    for place, event in ((source, "dragstart"), (target, "dragover"), (target, "drop")):
        place.dispatch_event(event, {"dataTransfer": carried})


def press(page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def kind(page) -> str:
    return page.evaluate("import('./store.js').then(module => module.store.view.kind)")


def rows(page) -> list[int]:
    return page.evaluate("import('./store.js').then(module => [...module.store.rows])")


def ticked(page, name: str, on: bool) -> None:
    with repainted(page):
        page.get_by_role("checkbox", name=name, exact=True).set_checked(on)
