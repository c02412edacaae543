"""Takes the picture of the report that the README shows: python tools/picture.py (by hand; needs Chromium).

It clones this checkout into a temporary folder, makes the demo's submission and its report there, and joins the top
of the page and three of its later parts into docs/pictures/report.png, small enough for git.
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.browser import opened  # noqa: E402
from tools.record_session import ROOT, cloned, run  # noqa: E402

PICTURE = ROOT / "docs" / "pictures" / "report.png"
PAGE, SHOWN = 1000, 600  # pixels: how wide the page is opened, and each of the two halves in the picture
HEIGHT = 720  # pixels of the picture
RIGHT = "reliability"  # the section at which the right half starts
COLOURS = 128


def halves(page) -> Image.Image:
    """The top of an opened page, and beside it the page from section RIGHT on."""
    whole = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    tops = page.evaluate("Object.fromEntries([...document.querySelectorAll('section')].map(s => [s.id, s.offsetTop]))")
    if RIGHT not in tops:
        sys.exit(f"the page has no section {RIGHT!r}; there are {list(tops)}")
    tall = HEIGHT * PAGE // SHOWN
    picture = Image.new("RGB", (2 * SHOWN + 8, HEIGHT), "#888888")
    for place, top in ((0, 0), (SHOWN + 8, tops[RIGHT] - 10)):
        part = whole.crop((0, top, PAGE, top + tall)).resize((SHOWN, HEIGHT), Image.Resampling.LANCZOS)
        picture.paste(part, (place, 0))
    return picture


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = cloned(Path(folder))
        run("make report ENSEMBLE=demo", root)
        with opened(next((root / "reports" / "demo").glob("*.html")), PAGE) as page:
            picture = halves(page)
    PICTURE.parent.mkdir(exist_ok=True)
    picture.quantize(COLOURS).save(PICTURE, optimize=True)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
