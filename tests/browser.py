"""A headless Chromium for the pages that the pipeline writes."""

import contextlib
import shutil

import pytest

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextlib.contextmanager
def opened(address, width: int, scheme: str = "light"):
    """The page of a file or an address; what it complained about and asked for: `page.complaints`, `page.requests`."""
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page = context.new_page()
        page.complaints, page.requests = [], []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(address if isinstance(address, str) else address.as_uri())
        yield page
        browser.close()


def check(path) -> None:
    """Nothing is complained of or fetched, images load, tables sort, nothing is wider than the window."""
    for width in (1280, 390):
        with opened(path, width) as page:
            assert page.complaints == []
            assert [url for url in page.requests if not url.startswith("data:")] == [path.as_uri()]
            images = page.eval_on_selector_all("img", "all => all.map(image => image.naturalWidth)")
            assert images, "no images"
            assert min(images) > 0
            assert page.evaluate("document.documentElement.scrollWidth") == width
            if width == 1280:
                check_sorting(page)


# clicks twice on every column's head of every table; [{numeric, ascending: [keys], descending: [keys]}]
CLICK_ALL = """
[...document.querySelectorAll("table.sortable")].flatMap(table => [...table.tHead.rows[0].cells].map((head, column) => {
  const shown = { numeric: head.classList.contains("number") };
  for (const click of [1, 2]) {
    head.firstElementChild.click();
    shown[head.getAttribute("aria-sort")] = [...table.tBodies[0].rows].map(row => row.cells[column].dataset.sort);
  }
  return shown;
}))
"""


def check_sorting(page) -> None:
    """Every table, by every column, down and up again."""
    columns = page.evaluate(CLICK_ALL)
    assert columns, "no tables"
    for shown in columns:
        up, down = shown["ascending"], shown["descending"]
        if shown["numeric"]:
            assert list(map(float, up)) == sorted(map(float, up))
            assert list(map(float, down)) == sorted(map(float, down), reverse=True)
        elif len(set(up)) == len(up):
            assert up == down[::-1]
