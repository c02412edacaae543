"""make report: what it shows is what was submitted, and the page works."""

import dataclasses
import shutil

import numpy as np
import pytest

from pipeline.chain.main_job import submit
from pipeline.core.errors import Changed, Mismatch, NotFound, UserError
from pipeline.core.tables import csv_text
from pipeline.images.listing import list_images
from pipeline.report import collect, flips, page, sections, sheet, submission
from pipeline.report.result import Member, Result
from pipeline.report.sections.features import LEAST, embedded
from pipeline.report.sections.labels import DENSE
from pipeline.report.spaces import Space

from ..browser import check, opened
from ..chain.test_submit import competition
from ..conftest import IMAGES, failed, fresh, pipeline, refused, write_images, write_yaml


def solve(root) -> None:
    """Give the competition a solution."""
    rows = [[str(n), str(n % 3)] for n in range(IMAGES)]
    (root / "solution.csv").write_text(csv_text(("id_idx", "label"), rows))
    competition(root, solution="solution.csv")


def made_up(tmp_path, classes: int, members: int, truth: bool, images: int = 60) -> Result:
    """A result of random numbers."""
    write_images(tmp_path / "images", images)
    files = list_images(str(tmp_path / "images"), "x")
    rng = np.random.default_rng(classes)
    shares = rng.dirichlet(np.ones(classes), images)
    return Result(
        "Title",
        "subtitle",
        "stem",
        [f"{n}.jpg" for n in range(images)],
        lambda row, side: files.open(row, side).image,
        [f"A rather long class {c}" for c in range(classes)],
        shares.argmax(axis=1),
        rng.integers(0, classes, images) if truth else None,
        shares,
        [Member(f"m{m}", 1 / members, rng.integers(0, classes, images)) for m in range(members)],
        [Space("m0", np.arange(images), rng.random((images, 8)), rng.random((classes, 8)))],
    )


def titles(result: Result) -> list[str]:
    return [section.title for section in sections.every(result)]


class TestResult:
    def test_measures(self):
        truth, labels = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 1, 2, 0])
        shares = np.full((6, 3), 0.1)
        shares[np.arange(6), labels] = 0.8
        members = [Member("a", 0.5, labels), Member("b", 0.5, truth)]
        result = Result("", "", "", "abcdef", None, "xyz", labels, truth, shares, members)
        assert result.confusion.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]
        assert result.per_class.recall.tolist() == [0.5, 1, 0.5]
        assert result.calibration_error == pytest.approx(0.8 - 4 / 6)
        assert result.disagreement.tolist() == [[0, 2 / 6], [2 / 6, 0]]
        assert result.margin == pytest.approx(np.full(6, 0.7))

    @pytest.mark.parametrize("images", [LEAST, 40])
    def test_texts_lie_among_their_images(self, images):
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(2, 16))
        labels = np.arange(images) % 2
        features = centres[labels] + 0.05 * rng.normal(size=(images, 16)) + 5  # images and texts in different cones
        points, prototypes = embedded(Space("m", np.arange(images), features, centres - 5))
        assert points.shape == (images, 2)
        assert prototypes.shape == (2, 2)
        if images == 40:
            nearest = np.linalg.norm(points[None] - prototypes[:, None], axis=2).argmin(axis=1)
            assert labels[nearest].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("classes", "members", "truth"), [(2, 1, False), (2, 3, True), (100, 2, True), (100, 1, False)]
)
def test_any_number_of_classes_and_members(tmp_path, classes, members, truth):
    result = made_up(tmp_path, classes, members, truth)
    found = titles(result)
    assert ("Confusion" in found) == ("Reliability" in found) == ("Surest mistakes" in found) == truth
    page.write(tmp_path / "x.html", "x", "y", sections.cards(result), sections.every(result))
    assert (tmp_path / "x.html").stat().st_size < 5_000_000
    kinds = [block.kind for section in sections.every(result) for block in section.blocks]
    assert kinds.count("matrix") == (truth and classes <= DENSE) + (members > 1)


def test_little_is_known(tmp_path):
    few = made_up(tmp_path, 3, 1, False, images=4)
    assert "Features" not in titles(few)
    bare = Result("t", "s", "x", few.ids, few.open_image, few.class_names, few.labels, few.labels)
    assert titles(bare) == ["Classes", "Confusion", "Images"]


class TestSubmission:
    def test_the_newest_and_a_number(self, project_root):
        first = submit(fresh(project_root), "both")
        submit(fresh(project_root), "one")
        assert submission.write(fresh(project_root), None, None).name == "002-one.html"
        assert submission.write(fresh(project_root), 1, None).name == "001-both.html"
        result = collect.of_submission(fresh(project_root), 1)
        rows = [line.split(",") for line in first.read_text().splitlines()[1:]]
        assert result.labels.tolist() == [int(label) for _, label in rows]
        assert result.shares.argmax(axis=1).tolist() == result.labels.tolist()
        assert [member.name for member in result.members] == ["vit@tiny", "vit2@tiny-sharp"]
        assert [space.features.shape for space in result.spaces] == [(IMAGES, 16)] * 2
        assert result.spaces[0].prototypes.shape == (3, 16)
        assert result.notes == ()

    def test_prompts_left_out_change_what_leaving_them_out_changes(self, project_root):
        solve(project_root)
        result = collect.of_ensemble(fresh(project_root), "both")
        assert sum(use.largest for use in result.prompts) == IMAGES
        gone = result.prompts[3]
        assert gone.prompt == "The whiskers"
        prompts = project_root / "prompts" / "tiny" / "cats.yaml"
        write_yaml(prompts, {"prompts": ["The whiskers"], "weights": {"The whiskers": 0}})
        without = collect.of_ensemble(fresh(project_root), "both")
        assert gone.flips == (without.labels != result.labels).sum()
        assert gone.gain == without.right.sum() - result.right.sum()
        assert max(use.flips for use in result.prompts) > 0, "no flips at all would prove nothing"

    def test_an_old_one_is_shown_as_it_was(self, project_root):
        submit(fresh(project_root), "both")
        before = collect.of_submission(fresh(project_root), 1)
        write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {"prompts": ["A tail", "Fur"]})
        after = collect.of_submission(fresh(project_root), 1)
        assert [use.prompt for use in after.prompts] == [use.prompt for use in before.prompts]
        assert (after.shares == before.shares).all()
        assert after.notes == ()
        shutil.rmtree(project_root / "cache" / "tiny" / "threshold")
        lost = collect.of_submission(fresh(project_root), 1)
        assert lost.shares is None
        assert lost.labels.tolist() == before.labels.tolist()
        assert "no longer in the cache" in lost.notes[0]

    def test_a_recipe_that_is_unchanged_is_computed_again(self, project_root):
        submit(fresh(project_root), "both")
        before = collect.of_submission(fresh(project_root), 1)
        shutil.rmtree(project_root / "cache")
        after = collect.of_submission(fresh(project_root), 1)
        assert (after.shares == before.shares).all()
        assert len(after.spaces) == 2

    def test_an_older_one_is_shown_with_the_images_it_was_made_from(self, project_root, capsys):
        write_images(project_root / "other", IMAGES, seed=7)
        submit(fresh(project_root, data="other"), "both")
        submit(fresh(project_root), "one")
        capsys.readouterr()
        first = collect.of_submission(fresh(project_root), 1)
        said = capsys.readouterr().out
        assert "other, which submission 1 was made from" in said and first.notes == ()
        theirs = list_images(str(project_root / "other"), "x").open(3, 64).image
        assert np.array_equal(np.asarray(first.open_image(3, 64)), np.asarray(theirs))
        sheet.draw(fresh(project_root), 1)
        flips.write(fresh(project_root), 2, 1)
        said = capsys.readouterr().out
        assert said.count("other, which submission 1 was made from") == 2
        collect.of_submission(fresh(project_root), 2)
        assert "made from" not in capsys.readouterr().out, "of the recipe's own images nothing is said"

    def test_images_that_are_gone_or_others_are_refused(self, project_root):
        write_images(project_root / "other", IMAGES, seed=7)
        submit(fresh(project_root, data="other"), "both")
        (project_root / "other").rename(project_root / "away")
        for show in (collect.of_submission, sheet.draw):
            with refused(NotFound, "submission 1", "other", "DATA="):
                show(fresh(project_root), 1)
        collect.of_submission(fresh(project_root, data="away"), 1)
        write_images(project_root / "other", IMAGES, seed=8)
        for show in (collect.of_submission, sheet.draw):
            with refused(Changed, "other", "submission 1", "DATA="):
                show(fresh(project_root), 1)
        assert "no longer in the cache" in collect.of_submission(fresh(project_root, data="other"), 1).notes[0]
        shutil.rmtree(project_root / "other")
        competition(project_root, images="away")
        assert collect.of_submission(fresh(project_root), 1).notes == (), "they were moved, and the recipe says where"

    def test_class_means_have_no_prompt_columns(self, project_root):
        members = {"vit": 0.5, "vit2@tiny-sharp": 0.5}
        write_yaml(project_root / "ensembles" / "mean.yaml", {"members": members, "pooling": "embedding"})
        result = collect.of_ensemble(fresh(project_root), "mean")
        assert result.prompts == []
        assert result.spaces[0].prototypes.shape == (3, 16)
        assert result.shares.sum(axis=1) == pytest.approx(np.ones(IMAGES))

    def test_mistakes(self, project_root):
        with refused(NotFound, "submissions", "make submit", "ENSEMBLE="):
            submission.write(fresh(project_root), None, None)
        submit(fresh(project_root), "both")
        with refused(UserError, "N=", "ENSEMBLE="):
            submission.write(fresh(project_root), 1, "both")
        with refused(NotFound, "submission 7", "Known: 1"):
            submission.write(fresh(project_root), 7, None)
        write_images(project_root / "other", IMAGES + 1)
        with refused(Mismatch, "001-both.csv", "Give the DATA="):
            submission.write(fresh(project_root, data="other"), 1, None)
        result = pipeline(project_root, "report", "--competition", "tiny", "--ensemble", "nope")
        failed(result, "ensembles/nope.yaml")


@pytest.mark.slow
def test_the_page_in_a_browser(project_root):
    solve(project_root)
    submit(fresh(project_root), "both")
    check(submission.write(fresh(project_root), None, None))


@pytest.mark.slow
def test_a_page_of_a_hundred_long_class_names_in_a_browser(tmp_path):
    result = made_up(tmp_path, 100, 2, True)
    page.write(tmp_path / "x.html", "x" * 90, "y", sections.cards(result), sections.every(result))
    check(tmp_path / "x.html")


@pytest.mark.slow
@pytest.mark.parametrize("classes", [3, 6, 200])
def test_long_names_are_whole_when_enlarged_and_hide_no_numbers(tmp_path, classes):
    """By mouse and by keyboard; in letters of other scripts; on a phone and on a wide screen."""
    known = made_up(tmp_path, classes, 2, truth=True)
    names = [f"Eine überaus lange Klasse über Грибы und 鳥類, Nummer {c}" for c in range(classes)]
    ids = [f"ein sehr langer Name mit 写真 und Ümlauten {n:05d}.jpg" for n in range(60)]
    known = dataclasses.replace(known, class_names=names, ids=ids)
    path = tmp_path / "page.html"
    page.write(path, known.title, known.subtitle, sections.cards(known), sections.every(known))
    for width in (390, 1280, 1920):
        with opened(path, width) as shown:
            assert shown.evaluate("document.documentElement.scrollWidth") == width
            if classes == 6:  # of more there is no matrix; its numbers begin in the first half of the screen
                assert shown.eval_on_selector(".matrix td", "cell => cell.getBoundingClientRect().left") < width * 0.6
            tile = shown.locator("ul.grid li").first
            assert tile.locator("small").is_visible() and tile.locator("small").inner_text() in ids
            small = tile.bounding_box()["width"]
            tile.locator("button").click()
            assert tile.bounding_box()["width"] > 1.5 * small
            whole = "one => one.scrollHeight <= one.clientHeight + 1"
            assert tile.locator("b").evaluate(whole) and tile.locator("small").evaluate(whole)
            for width_now in (small, None):  # Enter closes it and opens it again
                tile.locator("button").focus()
                shown.keyboard.press("Enter")
                assert width_now is None or tile.bounding_box()["width"] == pytest.approx(width_now)
            assert tile.bounding_box()["width"] > 1.5 * small
