"""The page in a real browser: by mouse and by keyboard alone."""

import os
import random
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from pipeline.chain import main_job
from pipeline.chain.task import CompetitionTask
from pipeline.recipes import Project
from pipeline.report.collect import read_labels
from pipeline.workbench.session import Session

from .. import browser
from ..conftest import ROOT, write_yaml
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


@pytest.mark.slow
def test_prompts_are_edited_switched_weighed_and_dragged(root):
    shared = "prompts/tiny/_shared.yaml"
    with session_of(root) as session, page_of(session) as page:
        with repainted(page):
            page.get_by_label("New template", exact=True).fill("one {} more")
            page.keyboard.press("Enter")
        assert session.draft.texts[shared].endswith("- one {} more\n")
        ticked(page, "Use {}", False)
        assert session.task.prompts.weights[0] == 0
        with repainted(page):
            page.get_by_label("Weight of a photo of a {}", exact=True).fill("2.5")
        assert session.task.prompts.weights[1] == 2.5
        page.wait_for_timeout(300)
        with repainted(page):
            page.locator(".handle").nth(0).drag_to(page.locator(".prompt").nth(2))
        assert session.draft.texts[shared].splitlines()[-2].strip() == "- '{}'"
        with repainted(page):
            page.get_by_label("template 1", exact=True).focus()
            page.keyboard.press("Alt+ArrowDown")
        with repainted(page):
            page.get_by_label("template 1", exact=True).fill("an {}")
            page.keyboard.press("Enter")
        assert "- an {}" in session.draft.texts[shared]
        page.locator("summary", has_text="Dogs").click()
        with repainted(page):
            page.get_by_label("Name of Dogs in templates").fill("hound")
            page.keyboard.press("Enter")
        assert "one hound more" in session.task.prompts.prompts
        with repainted(page):
            page.get_by_label("New whole sentence of Dogs").fill("<b>a wet dog</b>")
            page.keyboard.press("Enter")
        wait(page, "document.querySelectorAll('[data-columns]').length > 0")
        assert page.locator("#recipe b", has_text="a wet dog").count() == 0
        assert shown(page) == session.seen.labels.tolist()
        for _ in range(len(session.draft.past)):
            with repainted(page):
                page.locator("#undo").click()
        assert session.draft.changed == []


@pytest.mark.slow
def test_what_the_rules_forbid_says_why(root):
    with session_of(root) as session, page_of(session) as page:
        option = page.locator("#prompt_weights option[value=zpe]")
        assert option.is_disabled()
        assert "forbidden" in option.inner_text()
        assert page.get_by_text("zpe uses the unlabelled test images, which competitions/tiny.yaml forbids").count()
        with repainted(page):
            page.locator("#pooling").select_option("embedding")
        page.locator("#blend").select_option("classes")
        wait(page, "document.getElementById('status').textContent.includes('threshold')")
        assert session.task.project.ensemble("both").blend == "prompts"


@pytest.mark.slow
def test_views_search_and_the_map(root):
    with session_of(root) as session, page_of(session) as page:
        wait(page, "document.documentElement.dataset.effects", 30)
        for name in ("uncertain", "disagree", "class", "all", "fragile", "flips"):
            with repainted(page):
                page.locator("#view").select_option(name)
            assert kind(page) == name
        page.locator("#query").fill("a small dog")
        with repainted(page):
            page.keyboard.press("Enter")
        assert (kind(page), len(rows(page))) == ("text", 23)
        with repainted(page):
            press(page, "j", "j", "x")
        assert kind(page) == "like"
        page.locator("#by").select_option("name")
        page.locator("#query").fill("2.jpg")
        with repainted(page):
            page.locator("#query").press("Enter")
        assert rows(page) == [2, 12, 22]
        with repainted(page):
            page.locator("#sort").select_option("least")
        with repainted(page):
            page.locator("#view").select_option("all")
        wait(page, "import('./store.js').then(module => module.store.points !== null)", 60)
        page.locator("#show-map").click()
        for colour in ("flip", "margin", "dissent", "label"):
            page.locator("#colour").select_option(colour)
        box = page.locator("#plane").bounding_box()
        x, y, width, height = (box[key] for key in ("x", "y", "width", "height"))
        page.mouse.move(x + 5, y + 5)
        page.mouse.down()
        for to in ((x + width / 2, y + 5), (x + width / 2, y + height - 5), (x + 5, y + height - 5)):
            page.mouse.move(*to, steps=5)
        with repainted(page):
            page.mouse.up()
        assert 0 < len(rows(page)) < 23
        chosen = rows(page)
        wait(page, "location.hash.includes('region')")
        with repainted(page):
            slide(page, "Weight of vit@tiny", 0.9)
        wait(page, "location.hash.includes('edits')")
        address, labels = page.url, shown(page)
        before = page.evaluate(PAINTED)
        page.reload()
        wait(page, f"{PAINTED} > 0 || {before} < 0")
        assert page.url.partition("#")[0] == address.partition("#")[0]
        assert sorted(rows(page)) == sorted(chosen)
        assert shown(page) == labels
        with repainted(page):
            page.locator("#whole").click()
        assert len(rows(page)) == 23


@pytest.mark.slow
def test_the_keyboard_alone_suffices(root):
    """From an edit to a submission, an image and back, without the mouse."""
    with session_of(root) as session, page_of(session) as page:
        press(page, "e")
        for _ in range(60):
            press(page, "Tab")
            if page.evaluate("document.activeElement.getAttribute('aria-label')") == "Weight of vit@tiny":
                break
        with repainted(page):
            press(page, *["ArrowLeft"] * 5)
        page.wait_for_timeout(300)
        assert session.draft.changed == ["ensembles/both.yaml"]
        press(page, "s")
        page.locator("dialog pre").wait_for()
        assert "-  vit: 0.5" in page.locator("dialog pre").inner_text()
        page.locator("#write").focus()
        with repainted(page):
            press(page, "Enter")
        assert session.draft.changed == []
        press(page, "i", "c")
        wait(page, "import('./store.js').then(module => module.store.view.kind === 'uncertain')")
        with repainted(page):
            press(page, "j", "Space")
        assert session.marked == [rows(page)[1]]
        press(page, "Enter")
        page.locator("dialog .one").wait_for()
        assert page.locator("#dialog-title").inner_text().startswith(f"{rows(page)[1]} ")
        first = page.locator("#dialog-title").inner_text()
        press(page, "j")
        wait(page, f"document.getElementById('dialog-title').textContent !== {first!r}")
        press(page, "Escape", "?")
        assert page.locator("dialog kbd").count() > 10
        press(page, "Escape", "m", "+", "-", "G", "g", "f")
        with repainted(page):
            press(page, "u")
        assert session.draft.changed == ["ensembles/both.yaml"]
        with repainted(page):
            press(page, "r")
        page.locator("#submit").focus()
        press(page, "Enter")
        page.locator("dialog pre", has_text="submit").wait_for()
        press(page, "Escape", "p")
        page.get_by_role("button", name="Pin submission 1").focus()
        with repainted(page):
            press(page, "Enter")
        assert session.baseline.number == 1
        assert session.draft.changed == []


@pytest.mark.slow
def test_a_submission_as_it_was_and_restored(root):
    with session_of(root) as session, page_of(session) as page:
        with repainted(page):
            slide(page, "Weight of vit@tiny", 0)
        page.locator("#submissions").click()
        with repainted(page):
            page.get_by_role("button", name="Open submission 1").click()
        assert shown(page) == session.baseline.labels.tolist()
        with repainted(page):
            page.get_by_role("button", name="Back to the draft").click()
        assert shown(page) == session.seen.labels.tolist()
        page.locator("#submissions").click()
        with repainted(page):
            page.get_by_role("button", name="Restore submission 1").click()
        assert session.draft.changed == []


@pytest.mark.slow
def test_two_tabs_and_an_editor(root):
    path = root / "ensembles" / "both.yaml"
    with session_of(root) as session, page_of(session) as page:
        other = page.context.new_page()
        other.goto(page.serving.guard.url)
        wait(other, f"{PAINTED} > 0")
        with repainted(other):
            slide(page, "Weight of vit@tiny", 0.25)
        assert other.get_by_role("slider", name="Weight of vit@tiny").input_value() == "0.25"
        with repainted(page):
            slide(other, "Threshold", 0.01)
        with repainted(page):
            path.write_text(path.read_text() + "pooling: max\n")
        assert page.locator("#pooling").input_value() == "max"
        page.locator("#save").click()
        with repainted(page):
            page.locator("#write").click()
        assert path.read_text().splitlines()[1:] == [
            *("  vit: 0.25", "  vit2@tiny-sharp: 0.5", "threshold: 0.01", "pooling: max")
        ]
        with repainted(page):
            slide(page, "Weight of vit@tiny", 0.5)
        with repainted(page):
            path.write_text(path.read_text().replace("0.25", "0.125"))
        assert page.get_by_text("was edited elsewhere").is_visible()
        with repainted(page):
            page.get_by_role("button", name="Take the file’s").click()
        assert "vit: 0.125" in session.draft.texts["ensembles/both.yaml"]
        assert not page.locator("#banner").is_visible()
        other.close()


HOSTILE = ["<img src=x onerror=document.title='broken'>", "Dogs & \"cats\" '<'", "Big Birds"]


@pytest.mark.slow
def test_names_are_text_never_markup(root):
    (root / "competitions/tiny.yaml").write_text(
        yaml.safe_dump({**yaml.safe_load((root / "competitions/tiny.yaml").read_text()), "classes": HOSTILE})
    )
    shutil.rmtree(root / "prompts/tiny")
    write_yaml(
        root / "prompts/tiny/_shared.yaml", {"templates": ["{}", "<script>alert(1)</script> {}"], "classes": "any"}
    )
    (root / "data/tiny/0.jpg").rename(root / "data/tiny/0<svg onload=alert(2)>.jpg")
    with session_of(root) as session, page_of(session, fragment='#view={"kind":"all"}') as page:
        page.on("dialog", lambda dialog: page.complaints.append(dialog.message))
        wait(page, "document.documentElement.dataset.effects", 30)
        press(page, "i", "Enter")
        page.locator("dialog .one").wait_for()
        page.wait_for_timeout(300)
        assert page.title() == "tiny · workbench"
        assert page.locator("#numbers img, #recipe img, #grid img, svg[onload], #recipe script").count() == 0
        assert page.get_by_text(HOSTILE[0]).count() > 0
        assert "<svg onload=alert(2)>" in page.locator("#dialog-title").inner_text()
        assert session.marked == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 800])
def test_nothing_is_wider_than_the_window_or_out_of_reach(root, width, scheme):
    axe = os.environ.get("AXE")  # axe.min.js of the npm package axe-core
    with session_of(root) as session, page_of(session, width, scheme, '#view={"kind":"all"}&map=1') as page:
        wait(page, "document.documentElement.dataset.effects", 30)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for keys in ((), ("i", "Enter"), ("Escape", "?"), ("Escape", "p"), ("Escape", "s")):
            press(page, *keys)
            page.wait_for_timeout(400)
            if axe:
                page.evaluate(Path(axe).read_text())
                found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
                serious = [one for one in found if one["impact"] in ("serious", "critical")]
                assert [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in serious] == []


SCENE = ROOT.parent / "shared" / "data" / "scene" / "images"


@pytest.mark.slow
@pytest.mark.skipif(not SCENE.is_dir(), reason="the 8,100 images are not here")
def test_8100_photographs(tmp_path):
    """The page's labels are those of `make submit` after edits in the page; the grid has only what is seen."""
    for name in ("preprocess", "ensembles", "prompts", "competitions"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "models.yaml", tmp_path)
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    task = CompetitionTask(Project(tmp_path), "scene", data=str(SCENE), dtype_name="fp32", keep_towers=True)
    session = Session(task, "demo", None, {})
    choose = random.Random(0)
    try:
        with page_of(session, fragment='#view={"kind":"all"}') as page:
            for number in range(20):
                with repainted(page):
                    slide(
                        page, f"Weight of {choose.choice(['demo-vit@demo-sharp', 'demo-resnet@demo'])}", choose.random()
                    )
                if number % 4 == 0:
                    box = page.locator(".prompt input[type=checkbox]").nth(choose.randrange(40))
                    with repainted(page):
                        box.click()
                assert page.locator(".tile").count() < 120
            page.locator("#grid").evaluate("grid => { grid.scrollTop = grid.scrollHeight / 2; }")
            page.wait_for_timeout(300)
            assert 0 < page.locator(".tile").count() < 120
            page.wait_for_timeout(500)
            labels = shown(page)
        session.save()
        fresh = CompetitionTask(Project(tmp_path), "scene", data=str(SCENE), dtype_name="fp32")
        assert read_labels(fresh, main_job.submit(fresh, "demo")).tolist() == labels
    finally:
        session.held.close()
