"""make advise: what it counts, and that it is a short table without any label."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml

from pipeline.chain import classes as chain_classes
from pipeline.chain import probs as chain_probs
from pipeline.chain.columns import Columns
from pipeline.chain.main_job import submit
from pipeline.core.errors import Mismatch, NotFound, UserError
from pipeline.maths import zeroshot
from pipeline.maths.refine.guards import Outcome
from pipeline.report import advise, collect, sections
from pipeline.report.prompt_use import PromptUse
from pipeline.report.result import Change, Member, Result

from ..chain.test_submit import competition
from ..conftest import CLASSES, IMAGES, fresh, pipeline, refused, write_yaml
from ..report.test_report import made_up


def whole(project_root, name="both"):
    task = fresh(project_root)
    return task, collect.of_ensemble(task, name, features=False)


def test_members_left_out_one_by_one(project_root):
    task, result = whole(project_root)
    for member in result.members:
        (other,) = [m for m in result.members if m is not member]
        kept = zeroshot.threshold(chain_probs.of_member(task, other.name).rows("probs", 0, IMAGES), 0.002)
        columns = Columns.of(task.prompts)
        pooled = zeroshot.pool(kept, columns.prompt_class, columns.prompt_weight, 3, "mean")
        assert member.flips == (pooled.argmax(dim=1).numpy() != result.labels).sum()
    assert sum(member.flips for member in result.members) > 0


def test_a_lone_member_is_not_left_out(project_root):
    _, result = whole(project_root, "one")
    assert [member.flips for member in result.members] == [None]
    assert not result.dissent.any()
    assert "look at" in "\n".join(advise.blocks(result))


def test_fragile_images_are_those_that_some_prompt_moves(project_root):
    _, result = whole(project_root)
    flips = [use.flips for use in result.prompts]
    assert max(flips) <= result.fragile.sum() <= sum(flips)
    assert result.fragile.any()


def test_disagreement_and_doubt():
    labels = np.array([0, 0, 1, 2])
    shares = np.array([[0.6, 0.3, 0.1], [0.5, 0.45, 0.05], [0.1, 0.8, 0.1], [0.1, 0.44, 0.46]])
    members = [Member("a", 0.75, np.array([0, 1, 1, 1])), Member("b", 0.25, np.array([0, 1, 0, 2]))]
    result = Result("", "", "", "abcd", None, "xyz", labels, shares=shares, members=members)
    assert result.two_way.tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]]
    assert result.dissent.tolist() == [0, 1, 0.25, 0.75]
    assert result.doubtful.tolist() == [1, 3, 0, 2]


def test_prior_and_uniform_hint():
    labels = np.repeat([0, 1], [30, 70])
    known = Result("", "", "", range(100), None, "xy", labels, prior=np.array([0.4, 0.6]))
    assert known.off_prior == pytest.approx([-10 / 24**0.5, 10 / 24**0.5])
    assert known.moved_by_prior == 10
    hint = Result("", "", "", range(100), None, "xy", labels)
    assert hint.moved_by_prior == 20
    assert "hint" in hint.expectation
    assert "hint" not in known.expectation


@pytest.mark.parametrize(
    ("prior", "kind", "parts"),
    [
        ({"Cats": 0.5, "Dogs": 0.5}, Mismatch, ["competitions/tiny.yaml: prior", "['Big Birds']"]),
        ({"Cats": 0.5, "Dogs": 0.25, "Big Bird": 0.25}, NotFound, ["'Big Bird'", "Did you mean 'Big Birds'"]),
        ([0.5, 0.5], Mismatch, ["prior", "2 shares", "3 classes"]),
        ([0.5, 0.5, 0.5], UserError, ["prior", "1.5"]),
        ([1.5, -0.5, 0], UserError, ["prior", "'class: share'"]),
        ("uniform", UserError, ["prior", "'class: share'"]),
    ],
)
def test_wrong_priors(project_root, prior, kind, parts):
    competition(project_root, prior=prior)
    with refused(kind, *parts):
        _ = fresh(project_root).prior


def test_a_prior_by_class_or_by_label(project_root):
    competition(project_root, prior=dict(zip(reversed(CLASSES), [0.2, 0.3, 0.5], strict=True)))
    assert fresh(project_root).prior == (0.5, 0.3, 0.2)
    competition(project_root, prior=[0.5, 0.3, 0.2])
    task, result = whole(project_root)
    assert result.prior.tolist() == list(task.prior) == [0.5, 0.3, 0.2]


def test_changes_against_the_last_and_the_best(project_root):
    submit(fresh(project_root), "both")
    _, same = whole(project_root)
    assert [(change.number, change.flipped) for change in same.changes] == [(1, 0)]
    assert "no label differs" in same.changes[0].seen
    _, other = whole(project_root, "one")
    assert other.changes[0].flipped == (other.labels != same.labels).sum() > 0
    assert other.changes[0].board == 10
    first = collect.of_submission(fresh(project_root), 1)
    assert first.changes == []  # nothing was before it


def changed(flipped: int, images: int, board: int, public: str = "") -> Change:
    return Change(3, "both", public, (np.arange(images) < flipped).astype(int), np.zeros(images, int), board)


def test_what_the_board_can_see():
    few = changed(6, 100, 50)
    assert "too few to be seen" in few.seen
    many = changed(32, 100, 50, "0.9")
    assert "at least 75% of them" in many.seen  # 16 on the board: 12 - 4 = 2 standard errors of 4
    assert many.against == "003 both, public 0.9"


@pytest.mark.parametrize(("classes", "members"), [(2, 1), (6, 2), (100, 12)])
def test_at_most_40_lines(tmp_path, classes, members):
    made = made_up(tmp_path, classes, members, truth=False)
    uses = [PromptUse(f"prompt {n} " * 30, n % classes, 1.0, n, 0.1, n, None) for n in range(50)]
    changes = [changed(20, 60, 30) for _ in (1, 2)]
    result = Result(**vars(made) | {"prompts": uses, "changes": changes})
    text = "\n\n".join(block for block in advise.blocks(result) if block)
    assert len(text.splitlines()) < 40
    assert "look at" in text


def test_from_the_command_line_and_in_the_report(project_root):
    competition(project_root, prior=[0.5, 0.3, 0.2])
    said = pipeline(project_root, "advise", "--competition", "tiny")
    assert said.returncode == 0, said.stderr
    for text in (
        "labels that flip without it",
        "label \\ a member says",
        "flip without it",
        "by the stated prior",
        "look at: ",
        "no label looked at",
    ):
        assert text in said.stdout
    assert len(said.stdout.splitlines()) < 60  # with what the stages say
    _, result = whole(project_root)
    section = next(section for section in sections.every(result) if section.title == "Advice")
    assert [block.kind for block in section.blocks] == ["table", "matrix", "grid"]


def test_class_means_have_no_prompts_to_leave_out(project_root):
    write_yaml(project_root / "ensembles" / "one.yaml", {"members": {"vit": 3}, "pooling": "embedding"})
    _, result = whole(project_root, "one")
    assert result.fragile is None
    assert result.prompts == []
    assert advise.blocks(result)[2] == ""


class TestWhetherRecommendedWouldBeKept:
    @pytest.fixture
    def allowed(self, project_root):
        path = project_root / "competitions" / "tiny.yaml"
        path.write_text(path.read_text() + "\nrules: {test_set: true}\n")
        return project_root

    def test_it_is_what_becomes_of_the_step(self, allowed):
        written = yaml.safe_load((allowed / "ensembles" / "both.yaml").read_text())
        write_yaml(allowed / "ensembles" / "refined.yaml", {**written, "refine": ["recommended"]})
        (outcome,) = chain_classes.decide(fresh(allowed), "refined").outcomes
        assert advise.refinement(fresh(allowed), "both") == f"refine: [recommended] {advise.in_words(outcome)}"
        assert advise.refinement(fresh(allowed), "refined") == ""

    def test_in_words(self):
        kept = Outcome("recommended", (5, 5), (4, 6), 1200, withheld=3)
        held = "hold back 3 changes that similar images speak against"
        assert advise.in_words(kept) == f"would change 1,200 labels, and {held}"
        assert advise.in_words(replace(kept, withheld=0)) == "would change 1,200 labels"
        assert advise.in_words(replace(kept, refused="no reason")) == "would not be kept: no reason"

    def test_rules_that_forbid_it_are_named(self, project_root):
        whole(project_root)
        assert "competitions/tiny.yaml forbids" in advise.refinement(fresh(project_root), "both")

    def test_nothing_is_encoded_for_it(self, allowed, capsys):
        whole(allowed)
        shutil.rmtree(allowed / "cache" / "tiny" / "features")
        capsys.readouterr()
        assert advise.refinement(fresh(allowed), "both") == "" and "encoding" not in capsys.readouterr().out
