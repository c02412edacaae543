"""Random sequences of clicks and keys, of whatever the left side has: what is shown is what `make submit` writes."""

import random
import shutil

import pytest

from pipeline.chain import main_job
from pipeline.chain.task import CompetitionTask
from pipeline.recipes import Project
from pipeline.report.collect import read_labels
from pipeline.workbench.session import Session

from ..conftest import ROOT, fresh
from .conftest import session_of
from .pages import PAINTED, page_of, repainted, shown, wait

TEXTS = ["a photo of a {}", "{} at night", "small: {}", "#1 {}", "no braces", "yes", "the {} of the {}", "é {}", "'{}'"]
NUMBERS = ["0", "0.5", "1", "2.5", "0.01", "0.25"]


class Hand:
    """Does what a user would, at random; `done` counts it."""

    def __init__(self, page, seed: int):
        self.page, self.choose, self.done = page, random.Random(seed), 0
        self.ways = [self.slide, self.type_number, self.switch, self.switch, self.option, self.retype, self.add]
        self.ways += [self.remove, self.move, self.undo, self.undo, self.redo]

    def any(self, selector: str):
        """One of the controls that can be seen; None where there is none."""
        found = self.page.locator(f"{selector} >> visible=true")
        return found.nth(self.choose.randrange(found.count())) if found.count() else None

    def act(self) -> None:
        self.choose.choice(self.ways)()
        self.done += 1
        settled(self.page)

    def slide(self) -> None:
        self.any("#recipe input[type=range]").focus()
        self.keys(self.choose.choice(["ArrowLeft", "ArrowRight", "Home", "PageUp"]), self.choose.randrange(1, 6))

    def keys(self, key: str, times: int = 1) -> None:
        for _ in range(times):
            self.page.keyboard.press(key)

    def type_number(self) -> None:
        self.any("#recipe input[type=number]").fill(self.choose.choice(NUMBERS))

    def switch(self) -> None:
        self.any(".prompt input[type=checkbox]").click()

    def option(self) -> None:
        control = self.any("#pooling, #blend, #space, #prompt_weights")
        options = control.evaluate("control => [...control.options].filter(one => !one.disabled).map(one => one.value)")
        control.select_option(self.choose.choice(options))

    def retype(self) -> None:
        self.write(self.any(".prompt input[type=text], #recipe input[aria-label^=Name]"))

    def add(self) -> None:
        self.write(self.any("#recipe input.add"))

    def write(self, field) -> None:
        field.fill(self.choose.choice(TEXTS).replace("1", str(self.choose.randrange(9))))
        self.keys("Enter")

    def remove(self) -> None:
        if control := self.any("#recipe .list button"):
            control.click()

    def move(self) -> None:
        if control := self.any(".prompt input[type=text]"):
            control.focus()
            self.keys(self.choose.choice(["Alt+ArrowDown", "Alt+ArrowUp"]))

    def undo(self) -> None:
        if self.choose.random() < 0.5:
            self.page.locator("#grid").focus()
            self.keys(self.choose.choice(["u", "Control+z"]), self.choose.randrange(1, 4))
        elif control := self.any("#undo:enabled"):
            control.click()

    def redo(self) -> None:
        self.page.locator("#grid").focus()
        self.keys(self.choose.choice(["r", "Control+Shift+z"]), self.choose.randrange(1, 3))

    def save(self) -> None:
        """By keys alone, if there is something to save."""
        self.page.locator("#grid").focus()
        self.keys("s")
        self.page.locator("dialog pre").wait_for()
        if self.page.locator("#write").count():
            self.page.locator("#write").focus()
            with repainted(self.page):
                self.keys("Enter")
        else:
            self.keys("Escape")


def settled(page) -> None:
    """Until nothing more comes of what was done."""
    before = None
    while before != (before := page.evaluate(PAINTED)):
        page.wait_for_timeout(120)


def as_the_files_say(page, session) -> None:
    """The page shows what the session has: labels, flips, weights of members and of templates."""
    labels = session.seen.labels
    assert shown(page) == labels.tolist()
    flips = int((labels != session.baseline.labels).sum())
    assert page.locator("#flips").inner_text() == f"{flips:,}"
    for member, use in session.task.project.ensemble(session.name).members.items():
        assert float(page.get_by_label(f"Weight of {member}, as a number").input_value()) == use.weight
    prompts = session.task.prompts
    for place, template in enumerate(page.locator(".prompt input[aria-label^=template]").all()[:8]):
        text = template.input_value()
        own = {weight for weight, by in zip(prompts.weights, prompts.templates, strict=True) if by == text}
        if own and template.get_attribute("aria-label") == f"template {place + 1}":
            box = page.get_by_role("checkbox", name=f"Use {text}", exact=True).first
            assert box.is_checked() == (own != {0.0}), text


def worked_on(page, session, hand: Hand, times: int, submitted) -> None:
    """So many acts; now and then saved and submitted, and reloaded."""
    for number in range(times):
        hand.act()
        if number % 20 == 19 or number == times - 1:
            as_the_files_say(page, session)
            hand.save()
            settled(page)
            assert session.draft.changed == []
            assert shown(page) == submitted()
        if number % 60 == 59:
            page.reload()
            wait(page, f"{PAINTED} > 0")
            as_the_files_say(page, session)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_after_any_clicks_and_keys_the_labels_are_those_of_submit(root, seed):
    def submitted() -> list[int]:
        task = fresh(root)
        return read_labels(task, main_job.submit(task, "both")).tolist()

    with session_of(root) as session, page_of(session) as page:
        page.set_default_timeout(10_000)
        for name in ("Cats", "Dogs", "Big Birds"):
            page.locator("summary", has_text=f"{name} (").click()
        hand = Hand(page, seed)
        worked_on(page, session, hand, 130, submitted)
        assert hand.done == 130
        assert len(session.draft.past) > 30


SCENE = ROOT.parent / "shared" / "data" / "scene" / "images"


@pytest.mark.slow
@pytest.mark.skipif(not SCENE.is_dir(), reason="the 8,100 images are not here")
def test_8100_photographs(tmp_path):
    """The same of real images; the grid has only what is seen."""
    for name in ("preprocess", "ensembles", "prompts", "competitions"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "models.yaml", tmp_path)
    (tmp_path / "demo").symlink_to(ROOT / "demo")

    def task() -> CompetitionTask:
        return CompetitionTask(Project(tmp_path), "scene", data=str(SCENE), dtype_name="fp32", keep_towers=True)

    session = Session(task(), "demo", None, {})
    try:
        with page_of(session, fragment='#view={"kind":"all"}') as page:
            page.locator("summary", has_text="Glacier (").click()
            worked_on(page, session, Hand(page, 5), 40, lambda: _labels(task()))
            page.locator("#grid").evaluate("grid => { grid.scrollTop = grid.scrollHeight / 2; }")
            page.wait_for_timeout(300)
            assert 0 < page.locator(".tile").count() < 120
    finally:
        session.held.close()


def _labels(task: CompetitionTask) -> list[int]:
    return read_labels(task, main_job.submit(task, "demo")).tolist()
