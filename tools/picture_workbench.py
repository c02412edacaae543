"""Takes the picture of the workbench for the README: python tools/picture_workbench.py (by hand; needs Chromium).

It clones this checkout into a temporary folder, submits the demo there, weighs one member more on the page, shows the
map, and takes docs/pictures/workbench.png, small enough for git.
"""

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.browser import opened  # noqa: E402
from tools.record_session import ROOT, cloned, run  # noqa: E402

PICTURE = ROOT / "docs" / "pictures" / "workbench.png"
WIDE, SHOWN, COLOURS = 1440, 1200, 160  # pixels of the window and of the picture; colours of the picture
WEIGH = """() => {
  const slider = document.querySelector("input[type=range][aria-label^='Weight of demo-vit']");
  slider.value = 0.95;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
}"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = cloned(Path(folder))
        run("make submit", root)
        command = [ROOT / ".venv" / "bin" / "python", "-m", "pipeline", "workbench"]
        process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
        try:
            url = next(filter(None, (re.search(r"http://\S+", line) for line in process.stdout)))[0]
            with opened(f"{url}#map=1", WIDE) as page:
                page.wait_for_timeout(15_000)  # the map is drawn
                page.evaluate(WEIGH)
                page.wait_for_timeout(3_000)
                picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        finally:
            process.terminate()
            process.wait()
    picture = picture.resize((SHOWN, picture.height * SHOWN // WIDE), Image.Resampling.LANCZOS)
    picture.quantize(COLOURS).save(PICTURE, optimize=True)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
