"""The rules gate: what a recipe uses is declared, refused where it is forbidden, and stamped where it is not."""

import json

import pytest
import yaml

from pipeline.chain import classes as chain_classes
from pipeline.chain import rules, scores
from pipeline.chain.main_job import submit
from pipeline.chain.prompt_weights import WEIGHTINGS
from pipeline.chain.temperatures import MATCHES
from pipeline.core.errors import Forbidden, NotFound, UserError
from pipeline.core.registry import Registry
from pipeline.images.ops import OPS
from pipeline.images.views import VIEWS
from pipeline.labelled.task import DatasetTask
from pipeline.maths import refine
from pipeline.recipes import Project
from pipeline.report import submission

from ..conftest import ROOT, failed, fresh, pipeline, refused, write_yaml


@pytest.fixture
def flip():
    """A registered step that looks at all images."""
    seen = []

    def flip(probs_NC, evidence, by: int = 1):
        """Everyone the next class."""
        seen.append(evidence)
        return probs_NC.roll(by, dims=1)

    refine.STEPS.register(flip, uses="test_set")
    yield seen
    del refine.STEPS["flip"]


def allow(root, **allowed) -> None:
    path = root / "competitions" / "tiny.yaml"
    write_yaml(path, {**yaml.safe_load(path.read_text()), "rules": allowed})


def train(root) -> None:
    entries = yaml.safe_load((root / "models.yaml").read_text())
    write_yaml(root / "trained" / "mine" / "model.yaml", {"mine": {**entries["vit"], "trained_on": ["pets:train"]}})
    write_yaml(root / "ensembles" / "t.yaml", {"members": {"mine": 1}})


def test_everything_registered_says_what_it_uses():
    for registry in (OPS, VIEWS):
        assert {function.uses for function in registry.values()} == {"image"}
    assert {name: function.uses for name, function in MATCHES.items()} == {
        "none": "image",
        "temperature": "image",
        "confidence": "test_set",
    }
    assert WEIGHTINGS["given"].uses == WEIGHTINGS["uniform"].uses == "image"
    for wrong in ({"uses": "everything"}, {}, {"uses": "image", "needs": "a licence"}):
        with pytest.raises(AssertionError):
            Registry("thing", given=0, uses=None).register(recipe, **wrong)


def recipe(root, kind: str) -> tuple[str, ...]:
    """Write a recipe of a kind; what its refusal names: the place and the use, who forbids it, what would allow it."""
    if kind == "labels":
        train(root)
        place = "trained/mine/model.yaml: line 5: trained_on: mine@tiny uses labelled images"
        return place, "competitions/tiny.yaml", "'rules: {labels: true}'"
    way = {"match": "match: confidence", "refine": "refine:\n  - flip: 2"}[kind]
    (root / "ensembles" / "t.yaml").write_text(f"# mine\nmembers: {{vit: 1}}\n{way}\n")
    line, what = {"match": (3, "match: confidence"), "refine": (4, "refine: flip")}[kind]
    place = f"ensembles/t.yaml: line {line}: {what} uses the unlabelled test images"
    return place, "competitions/tiny.yaml", "'rules: {test_set: true}'"


@pytest.mark.parametrize("kind", ["match", "refine", "labels"])
def test_what_is_forbidden_is_refused_before_anything_is_computed(project_root, flip, kind):
    parts = recipe(project_root, kind)
    allow(project_root, **{"labels": True} if kind != "labels" else {"test_set": True})
    before = sorted(project_root.rglob("*"))
    for act in (submit, chain_classes.decide, lambda task, name: submission.write(task, None, name)):
        with refused(Forbidden, *parts):
            act(fresh(project_root), "t")
    assert sorted(project_root.rglob("*")) == before


@pytest.mark.parametrize("verb", ["preprocess", "infer", "ensemble", "threshold", "submit", "plan"])
def test_every_verb_of_the_chain_refuses(project_root, verb, monkeypatch, capsys):
    from pipeline.__main__ import main

    parts = recipe(project_root, "match")
    monkeypatch.chdir(project_root)
    assert main([verb, "--competition", "tiny", "--ensemble", "t"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and all(part in said for part in parts), said
    assert not (project_root / "cache").exists()


def test_refused_as_a_process(project_root):
    parts = recipe(project_root, "labels")
    result = pipeline(project_root, "submit", "--competition", "tiny", "--ensemble", "t")
    failed(result, *parts)
    assert result.stderr.count("\n") == 1


def test_what_was_used_is_stamped_and_shown(project_root, flip, capsys):
    submit(fresh(project_root), "both")
    recipe(project_root, "refine")
    allow(project_root, test_set=True)
    path = submit(fresh(project_root), "t")
    made = json.loads(path.with_suffix(".json").read_text())
    assert made["uses"] == ["image", "test_set"]
    assert made["recipe"]["refine"] == [{"flip": 2}]
    capsys.readouterr()
    scores.show_log(fresh(project_root))
    _, first, second, below = capsys.readouterr().out.splitlines()
    assert first.split()[0] == "1" and second.split()[0] == "2"
    assert below == "    uses image, test_set", "below the second; of the first there is nothing to say"
    page = submission.write(fresh(project_root), 2, None).read_text()
    assert "one image at a time, the unlabelled test images" in page
    assert "[flip: 2]" in page or "[{flip: 2}]" in page


def test_steps_are_applied_in_their_order_with_evidence(project_root, flip):
    allow(project_root, test_set=True)
    write_yaml(
        project_root / "ensembles" / "t.yaml",
        {"members": {"vit": 1}, "refine": ["flip", {"flip": {"by": 2}}], "guards": False},
    )
    decision = chain_classes.decide(fresh(project_root), "t")
    assert (decision.refined == decision.pooled).all(), "three steps around three classes"
    assert len(flip) == 2
    assert flip[0] is flip[1]
    write_yaml(project_root / "ensembles" / "t.yaml", {"members": {"vit": 1}, "refine": ["flip"], "guards": False})
    decision = chain_classes.decide(fresh(project_root), "t")
    assert (decision.refined == decision.pooled.roll(1, dims=1)).all()
    assert decision.labels == decision.refined.argmax(dim=1).tolist()


@pytest.mark.parametrize(
    ("content", "kind", "parts"),
    [
        ({"refine": ["flp"]}, NotFound, ["t.yaml: refine.0", "'flp'", "Did you mean 'flip'"]),
        ({"refine": [{"flip": {"by": "x"}}]}, UserError, ["t.yaml: refine.0: flip: by: "]),
        ({"refine": [{"flip": {"too": 1}}]}, NotFound, ["t.yaml: refine.0: flip", "'too'"]),
    ],
)
def test_mistakes_in_steps_are_told_before_anything_is_computed(project_root, flip, content, kind, parts):
    allow(project_root, test_set=True)
    write_yaml(project_root / "ensembles" / "t.yaml", {"members": {"vit": 1}, **content})
    with refused(kind, *parts):
        submit(fresh(project_root), "t")
    assert not list(project_root.rglob("*.pt"))


def test_labelled_data_allow_everything_and_uses_are_in_order(project_root):
    train(project_root)
    recipes = {"members": {"mine": 1}, "match": "confidence"}
    write_yaml(project_root / "ensembles" / "t.yaml", recipes)
    rules.check(DatasetTask(Project(project_root), "none"), "t")
    assert rules.uses(Project(project_root), "t") == ["image", "test_set", "labels"]
    assert rules.uses(Project(project_root), "both") == ["image"]
    allow(project_root, test_set=True, labels=True)
    rules.check(fresh(project_root), "t")


def test_a_trained_member_of_weight_zero_uses_nothing(project_root):
    train(project_root)
    write_yaml(project_root / "ensembles" / "t.yaml", {"members": {"mine": 0, "vit": 1}})
    rules.check(fresh(project_root), "t")


def test_the_projects_competitions_say_what_they_allow():
    project = Project(ROOT)
    assert project.competition("demo").rules.model_dump() == {"test_set": True, "labels": True}
    assert project.competition("scene").rules.model_dump() == {"test_set": False, "labels": False}
    for name in project.names("ensembles"):
        expected = ["image", "test_set"] if name == "demo-refined" else ["image"]
        assert rules.uses(project, name) == expected, "the recipes that come along use no test set silently"
