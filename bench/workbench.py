"""From an edit in the browser to painted labels, flips and histogram, beside the same edit through `make submit`.

8,100 photographs of ../shared/data/scene (rendered scenes where that is absent) x 312 prompts x 2 demo models, features
cached; then 100,000 and 1,000,000 images that exist as features only, drawn around the demo's. Headless Chromium.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SCENE = ROOT.parent / "shared" / "data" / "scene" / "images"
EDITS = 50
PROMPTS = 15  # edits that meet the text towers, of the 8,100 images
SUBMITS = 5
MEMBERS = ("demo-vit@demo-sharp", "demo-resnet@demo")
TITLE = "### An edit in the browser (bench/workbench.py)"
SIZES = {100_000: 20, 1_000_000: 8}  # images: edits

WAIT = """new Promise(done => {
  const root = document.documentElement, before = root.dataset.painted;
  const seen = new MutationObserver(() => { if (root.dataset.painted !== before) { seen.disconnect(); done(); } });
  seen.observe(root, { attributes: true, attributeFilter: ["data-painted"] });
})"""
SLIDE = f"""async ([name, value]) => {{
  const slider = document.querySelector(`input[type=range][aria-label="${{name}}"]`);
  const painted = {WAIT};
  const began = performance.now();
  slider.value = value;
  slider.dispatchEvent(new Event("input", {{ bubbles: true }}));
  await painted;
  return performance.now() - began;
}}"""
SWITCH = f"""async number => {{
  const box = document.querySelectorAll(".prompt input[type=checkbox]")[number];
  const painted = {WAIT};
  const began = performance.now();
  box.click();
  await painted;
  return performance.now() - began;
}}"""
TYPE = f"""async text => {{
  const field = document.querySelector("input.add[aria-label='New whole sentence of Glacier']");
  const painted = {WAIT};
  const began = performance.now();
  field.value = text;
  field.dispatchEvent(new Event("change", {{ bubbles: true }}));
  await painted;
  return performance.now() - began;
}}"""
SCROLL = """async () => {
  const grid = document.getElementById("grid"), times = [];
  grid.scrollTop = 0;
  for (let frame = 0; frame < 180; frame += 1) {
    grid.scrollTop += 40;
    times.push(await new Promise(requestAnimationFrame));
  }
  return times.slice(1).map((time, at) => time - times[at]);
}"""
LOADED = """() => {
  const sheets = performance.getEntriesByType("resource").filter(one => one.name.includes("/sheet/"));
  const busy = [...document.querySelectorAll(".tile")].length === 0 || sheets.length === 0;
  return busy ? 0 : Math.max(...sheets.map(one => one.responseEnd));
}"""


def project(folder: Path) -> Path:
    """A copy of this project's recipes with a competition `bench`."""
    for name in ("preprocess", "ensembles", "prompts", "competitions"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "models.yaml", folder)
    (folder / "demo").symlink_to(ROOT / "demo")
    images = SCENE if SCENE.is_dir() else ROOT / "demo" / "images"
    text = f"images: {images}\nclasses: [Buildings, Forests, Glacier, Mountains, Sea, Street]\nprompts: scene\n"
    (folder / "competitions" / "bench.yaml").write_text(
        f"{text}ensemble: demo\ncolumns: {{id_idx: position, label: label}}\n"
    )
    return folder


class Drawn:
    """Images that exist as features only; each is a plain colour."""

    def __init__(self, count: int):
        self.ids, self.folder, self.left_out = tuple(f"{n}.jpg" for n in range(count)), Path("drawn"), ()

    def contents(self, digests):
        return [""] * len(self.ids)

    def open(self, row, draft_size=None, policy=None):
        from PIL import Image

        from pipeline.images.decoding import Decoded

        return Decoded(Image.new("RGB", (8, 8), (row * 37 % 256, row * 101 % 256, row * 17 % 256)))


def serve(folder: Path, count: int) -> None:
    """A workbench of `bench`, or of so many images that exist as features only. Runs in a process of its own."""
    from pipeline.chain import features
    from pipeline.chain.task import CompetitionTask
    from pipeline.recipes import Project
    from pipeline.workbench import server
    from pipeline.workbench.session import Session

    class Task(CompetitionTask):
        @cached_property
        def images(self):
            return Drawn(count)

    kind = Task if count else CompetitionTask
    os.chdir(folder)
    project = Project(".")
    task = kind(project, "bench", dtype_name="fp32", keep_towers=True)
    if count:
        for member in MEMBERS:
            draw_features(features.stage(task, project.member(member)), project, member)
    server.serve(Session(task, "demo", None, {}), server.bound(None))


def draw_features(stage, project, member: str) -> None:
    """Features of images that were never there: the demo's, each with some noise."""
    import torch

    from pipeline.chain import features
    from pipeline.chain.task import CompetitionTask

    demo, _ = features.of_member(CompetitionTask(project, "demo", dtype_name="fp32"), project.member(member))
    known = demo.rows("features", 0, len(demo.ids)).float()
    torch.manual_seed(0)
    for start, stop in stage.missing(stage.task.shard_rows):
        some = known[torch.randint(len(known), (stop - start,))] + 0.04 * torch.randn(stop - start, known.shape[1])
        stage.save(start, stop, features=torch.nn.functional.normalize(some, dim=1).half())


class Page:
    """A workbench in a process of its own, and its page in a browser."""

    def __init__(self, folder: Path, count: int = 0):
        from playwright.sync_api import sync_playwright

        from tests.browser import FLAGS, NAMES

        command = [sys.executable, __file__, "serve", str(folder), str(count)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = next(filter(None, (re.search(r"http://\S+", line) for line in self.process.stdout)))[0]
        self.playwright = sync_playwright().start()
        executable = next(filter(None, map(shutil.which, NAMES)))
        self.browser = self.playwright.chromium.launch(executable_path=executable, args=FLAGS)
        self.page = None

    def opened(self) -> float:
        """Milliseconds until labels are painted and the first thumbnails are there."""
        if self.page:
            self.page.close()  # a second tab would be painted as well
        page = self.page = self.browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(self.url + '#view={"kind":"uncertain"}')
        until(page, "Number(document.documentElement.dataset.painted || 0) > 0")
        until(page, f"({LOADED})() > 0")
        page.wait_for_timeout(300)
        return page.evaluate(LOADED)

    def processor(self) -> tuple[float, float]:
        """Milliseconds of processor time so far, of the server and of the page."""
        spent = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        session = self.page.context.new_cdp_session(self.page)
        session.send("Performance.enable")
        known = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        ticks = 1000 / os.sysconf("SC_CLK_TCK")
        return (int(spent[11]) + int(spent[12])) * ticks, known["ProcessTime"] * 1000

    def memory(self) -> float:
        """The server's peak so far, in GB, without pages of files that are mapped."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        anonymous = int((re.search(r"RssAnon:\s+(\d+)", status) or re.search(r"VmRSS:\s+(\d+)", status))[1])
        return anonymous / 1e6

    def peak(self) -> float:
        return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1]) / 1e6

    def close(self) -> None:
        self.browser.close()
        self.playwright.stop()
        self.process.terminate()
        self.process.wait(60)


def until(page, expression: str, seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        if time.monotonic() > end:
            raise SystemExit(f"never: {expression}")
        page.wait_for_timeout(50)


def slides(page, edits: int, pause: int) -> list[float]:
    """Milliseconds of edits of a slider, with what follows in idle time in between."""
    found = []
    for number in range(edits):
        found.append(page.evaluate(SLIDE, [f"Weight of {MEMBERS[number % 2]}", 0.05 + (number * 0.37) % 0.95]))
        page.wait_for_timeout(pause)
    return found


def submit(folder: Path, weight: float) -> float:
    """Seconds of the same edit through the file and `make submit`."""
    path = folder / "ensembles" / "demo.yaml"
    path.write_text(re.sub(r"(demo-sharp: ).*", rf"\g<1>{weight}", path.read_text()))
    command = [sys.executable, "-m", "pipeline", "submit", "COMPETITION=bench", "DTYPE=fp32"]
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    return time.perf_counter() - began


def row(what: str, milliseconds: list[float], target: str) -> str:
    """Median and p95 of some measurements."""
    ordered = sorted(milliseconds)
    high = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return f"| {what} | {statistics.median(ordered):,.0f} | {high:,.0f} | {len(ordered)} | {target} |"


def photographs(folder: Path) -> list[str]:
    """Lines about the 8,100 images."""
    page = Page(folder)
    page.opened()
    until(page.page, "document.documentElement.dataset.effects")
    while not list((folder / "cache" / "bench" / "workbench").glob("map-*.npy")):  # drawn once, in the first minutes
        time.sleep(1)
    lines = [
        row("8,100 images: open, until the first thumbnails are there", [page.opened() for _ in range(5)], "2,000")
    ]
    until(page.page, "document.documentElement.dataset.effects")
    slides(page.page, 5, 200)
    lines.append(
        row("8,100: a member's slider to painted labels, flips, histogram", slides(page.page, EDITS, 300), "100")
    )
    before = page.processor()
    lines.append(row("8,100: the same, drawn without a pause", slides(page.page, EDITS, 0), "100"))
    server, shown = ((after - old) / EDITS for after, old in zip(page.processor(), before, strict=True))
    what = "processor time of one such edit, in the server and in the page"
    lines.append(f"| 8,100: {what} | {server:.0f} + {shown:.0f} | | {EDITS} | |")
    found = []
    for number in range(EDITS):
        found.append(page.page.evaluate(SWITCH, number % 40))
        page.page.wait_for_timeout(300)
    lines.append(row("8,100: a template switched off or on", found, "100"))
    page.page.locator("summary", has_text="Glacier").click()
    page.page.get_by_label("New whole sentence of Glacier").wait_for()
    found = []
    for number in range(PROMPTS + 1):
        found.append(page.page.evaluate(TYPE, f"A photo of blue ice number {number} {time.time()}"))
        page.page.wait_for_timeout(300)
    lines.append(row("8,100: a new prompt, both text towers loaded", found[1:], "300"))
    lines.append(row("8,100: a frame while scrolling", page.page.evaluate(SCROLL), "17"))
    page.close()
    times = [1000 * submit(folder, 0.1 + number / 10) for number in range(SUBMITS)]
    return [*lines, row("8,100: the same edit of a weight through `make submit`", times, "")]


def features_only(folder: Path, count: int, edits: int) -> list[str]:
    """Lines about images that exist as features only."""
    shutil.rmtree(folder / "submissions", ignore_errors=True)
    page = Page(folder, count)
    page.opened()
    slides(page.page, 2, 1000)
    target = {100_000: "500", 1_000_000: "3,000"}[count]
    lines = [row(f"{count:,}: a member's slider to painted", slides(page.page, edits, 1000), target)]
    whole = f"memory of the server, GB, without files that are mapped (with: {page.peak():.1f})"
    lines.append(f"| {count:,}: {whole} | {page.memory():.1f} | | | 4 |")
    page.close()
    shutil.rmtree(folder / "cache" / "bench", ignore_errors=True)
    return lines


def main(counts: Sequence[int] = (0, *SIZES)) -> str:
    """Measure, and return the Markdown table; 0 stands for the photographs."""
    if not SCENE.is_dir():
        print(f"bench: {SCENE} is absent, the demo's 600 images stand for them")
    lines = []
    with tempfile.TemporaryDirectory() as place:
        folder = project(Path(place))
        for count in counts:
            lines += features_only(folder, count, SIZES[count]) if count else photographs(folder)
            print("\n".join(lines), flush=True)
    load = f"Load average of the machine: {os.getloadavg()[1]:.0f}, on {os.cpu_count()} cores."
    head = ["| milliseconds | median | p95 | of | target |", "|---|---|---|---|---|"]
    return "\n".join([TITLE, "", __doc__.strip(), load, "", *head, *lines])


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        print(main([int(count) for count in sys.argv[1:]] or (0, *SIZES)))
