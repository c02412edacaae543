"""The page in a real browser: by mouse and by keyboard alone."""

import io
import json
import shutil

import numpy as np
import pytest
import timm
import torch
import yaml
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from safetensors.torch import save_file

from pipeline.chain import features
from pipeline.cli import workbench
from pipeline.cli._options import parse, runtime_of
from pipeline.workbench.session import Session

from ..conftest import ROOT, SIZE, fresh, write_yaml
from .conftest import session_of
from .pages import PAINTED, drag, kind, page_of, press, repainted, rows, shown, slide, ticked, wait
from .test_session import NET, allow_the_test_set


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
        with repainted(page):
            drag(page, page.locator(".handle").nth(0), page.locator(".prompt").nth(2))
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
        assert page.get_by_text("zpe (uses the unlabelled test images, which competitions/tiny.yaml forbids)").count()
        with repainted(page):
            page.locator("#pooling").select_option("embedding")
        page.locator("#blend").select_option("classes")
        wait(page, "document.getElementById('status').textContent.includes('threshold')")
        assert session.task.project.ensemble("both").blend == "prompts"


@pytest.mark.slow
def test_a_witness_is_chosen_where_there_is_a_step(root):
    torch.manual_seed(2)
    save_file(timm.create_model("mobilenetv2_050", pretrained=False).state_dict(), root / "m.safetensors")
    more = {"size": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    write_yaml(root / "models.local.yaml", {"net": NET | more})
    allow_the_test_set(root)
    features.of_member(task := fresh(root), task.project.member("net"))
    with session_of(root) as session, page_of(session) as page:
        choice = page.get_by_label("Witness of the refinement", exact=True)
        assert choice.is_disabled()
        assert (
            "net@tiny"
            not in page.get_by_label("Add a member whose features are cached").locator("option").all_inner_texts()
        )
        with repainted(page):
            page.get_by_label("Add a refinement step", exact=True).select_option("recommended")
        assert choice.locator("option").all_inner_texts() == ["none", "net@tiny", "vit2@tiny-sharp", "vit@tiny"]
        with repainted(page):
            choice.select_option("net@tiny")
        assert session.task.project.ensemble("both").witness == "net@tiny"
        with repainted(page):
            choice.select_option("")
        assert session.task.project.ensemble("both").witness is None


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
        press(page, "Escape", "m", "+", "-", "G", "g")
        with repainted(page):
            press(page, "f")
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
        seen(other, False)
        while len(page.serving.hub.awake) == 2:
            page.wait_for_timeout(20)
        painted = other.evaluate(PAINTED)
        with repainted(page):
            slide(page, "Threshold", 0.02)
        assert other.evaluate(PAINTED) == painted
        with repainted(other):
            seen(other, True)
        assert shown(other) == session.seen.labels.tolist()
        assert other.get_by_role("slider", name="Threshold").input_value() == "0.02"
        other.close()


SEEN = """seen => {
  Object.defineProperty(document, "hidden", { value: !seen, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def seen(page, now: bool) -> None:
    """As if a tab were hidden, or shown again: a browser without a window never hides one."""
    page.evaluate(SEEN, now)


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


OPENED = {"page": (), "image": ("i", "Enter"), "keys": ("?",), "submissions": ("p",), "diff": ("s",)}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 800])
def test_nothing_is_wider_than_the_window_or_out_of_reach(root, width, scheme):
    """axe-core finds nothing serious in any panel or dialog; half of the prompts are open, one step is refused."""
    with session_of(root) as session, page_of(session, width, scheme, '#view={"kind":"all"}&map=1') as page:
        wait(page, "document.documentElement.dataset.effects", 30)
        page.locator("summary", has_text="Dogs").click()
        page.locator("summary", has_text="prompts").first.click()
        with repainted(page):
            slide(page, "Weight of vit@tiny", 0)
        page.get_by_label("New template", exact=True).fill("no braces")
        page.keyboard.press("Enter")
        wait(page, "document.getElementById('status').classList.contains('forbidden')")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(TOO_WIDE) == []
        for panel, keys in OPENED.items():
            press(page, "Escape")
            page.locator("#grid").focus()
            press(page, *keys)
            page.wait_for_timeout(400)
            assert page.locator("dialog").is_visible() == (panel != "page")
            found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
            serious = [one for one in found if one["impact"] in ("serious", "critical")]
            assert [(panel, one["id"], [node["html"] for node in one["nodes"]][:3]) for one in serious] == []


# what is wider than the box it stands in
TOO_WIDE = """[...document.querySelectorAll("#numbers table, #recipe .box > *")]
  .filter(one => !one.closest(".scroll"))
  .filter(one => one.getBoundingClientRect().right > one.closest(".box").getBoundingClientRect().right)
  .map(one => one.outerHTML.slice(0, 80))"""


@pytest.mark.slow
def test_one_image_and_what_is_exported(root, tmp_path):
    with session_of(root) as session, page_of(session, fragment='#view={"kind":"all"}') as page:
        wide = page.locator(".tile").first.bounding_box()["width"]
        press(page, "i", "+")
        page.wait_for_timeout(200)
        assert page.locator(".tile").first.bounding_box()["width"] > wide
        page.locator("#query").fill("7")
        with repainted(page):
            page.locator("#query").press("Enter")
        assert (kind(page), rows(page)[0]) == ("like", 7)
        with repainted(page):
            press(page, "j", "Space")
        with repainted(page):
            page.locator("#view").select_option("marked")
        assert rows(page) == session.marked
        page.locator(".tile").first.dblclick()
        one = page.locator("dialog .one")
        one.wait_for()
        assert one.locator("h3").all_inner_texts() == [
            *("Classes", "vit@tiny", "vit2@tiny-sharp", "In the submissions", "Nearest")
        ]
        assert one.locator("figcaption").all_inner_texts() == ["tiny", "tiny-sharp"]
        wait(page, "[...document.querySelectorAll('dialog img')].every(image => image.naturalWidth > 0)")
        before = page.locator("#dialog-title").inner_text()
        one.locator(".near button").first.click()
        wait(page, f"document.getElementById('dialog-title').textContent !== {json.dumps(before)}")
        press(page, "Escape")
        with page.expect_download() as found:
            page.locator("#csv").click()
        found.value.save_as(tmp_path / "marked.csv")
        assert len((tmp_path / "marked.csv").read_text().splitlines()) == 2


def strong_dots(page) -> int:
    """Pixels of the map in the full colour of a class; those of images outside the view are pale."""
    picture = np.array(Image.open(io.BytesIO(page.locator("#plane").screenshot())).convert("RGB")).astype(int)
    return int((picture.max(axis=2) - picture.min(axis=2) > 90).sum())


@pytest.mark.slow
def test_the_map_follows_the_view(root):
    with session_of(root) as session, page_of(session, fragment='#view={"kind":"all"}&map=1') as page:
        wait(page, "import('./store.js').then(module => module.store.points !== null)", 60)
        page.wait_for_timeout(500)
        every = strong_dots(page)
        with repainted(page):
            page.locator("#by").select_option("name")
            page.locator("#query").fill("2.jpg")
            page.locator("#query").press("Enter")
        page.wait_for_timeout(300)
        assert 0 < strong_dots(page) < every / 2


@pytest.mark.slow
def test_a_labelled_data_set(tmp_path, monkeypatch):
    """The demo's own, as `make workbench DATASET=demo ENSEMBLE=demo` opens it."""
    for name in ("preprocess", "ensembles", "prompts", "datasets"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "models.yaml", tmp_path)
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    monkeypatch.chdir(tmp_path)
    args = parse(["workbench", "DATASET=demo", "ENSEMBLE=demo", "DTYPE=fp32"])
    task, name, truth = workbench._dataset(runtime_of(args), args)
    session = Session(task, name, truth, {})
    try:
        with page_of(session) as page:
            wait(page, "document.documentElement.dataset.effects", 60)
            assert page.locator("#accuracy").inner_text() == f"{100 * (session.seen.labels == truth).mean():.2f} %"
            assert page.get_by_label("Reliability: share of right labels by certainty").is_visible()
            assert page.locator("#submit, #submissions").evaluate_all("all => all.every(one => one.hidden)")
            with repainted(page):
                page.locator("#view").select_option("wrong")
            assert rows(page) == [row for row in range(len(truth)) if session.seen.labels[row] != truth[row]]
            with repainted(page):
                slide(page, "Weight of demo-vit@demo-sharp", 0)
            assert page.locator("#accuracy").inner_text() == f"{100 * (session.seen.labels == truth).mean():.2f} %"
            page.locator("#save").click()
            with repainted(page):
                page.locator("#write").click()
            assert "demo-vit@demo-sharp: 0" in (tmp_path / "ensembles/demo.yaml").read_text()
    finally:
        session.held.close()
