"""`weights: auto`: found from the members' labels, told, kept as the guard says, and forbidden where rules forbid."""

import json

import pytest
import torch
import yaml

from pipeline.chain import classes as chain_classes
from pipeline.chain import ensemble, rules
from pipeline.chain.main_job import submit
from pipeline.chain.stage import made
from pipeline.core.errors import Forbidden, UserError
from pipeline.labelled.sweep.in_memory import EnsemblesInMemory
from pipeline.maths import consensus
from pipeline.recipes import Ensemble
from pipeline.report import collect
from pipeline.report.sections.provenance import provenance

from ..conftest import IMAGES, fresh, refused, write_yaml

THREE = {"vit": 1, "vit2": 1, "vit@tiny-sharp": 1}


@pytest.fixture
def root(project_root):
    path = project_root / "competitions" / "tiny.yaml"
    write_yaml(path, {**yaml.safe_load(path.read_text()), "rules": {"test_set": True}})
    for name, content in (("auto", {"weights": "auto"}), ("even", {})):
        write_yaml(project_root / "ensembles" / f"{name}.yaml", {"members": THREE, **content})
    return project_root


def blend_of(task, name="auto") -> ensemble.Blend:
    recipe = task.project.ensemble(name)
    parts = {member: made(ensemble.part(task, recipe, member)) for member in ensemble.members(recipe)}
    return ensemble.Blend(task, recipe, parts)


def own_labels(task) -> torch.Tensor:
    recipe = task.project.ensemble("auto")
    found = []
    for member in ensemble.members(recipe):
        part = made(ensemble.part(task, recipe, member))
        found.append(chain_classes.member_probs(task, recipe, member, part).argmax(dim=1))
    return torch.stack(found)


def test_where_the_guard_does_not_agree_they_are_even_and_it_says_so(root, capsys):
    path = submit(fresh(root), "auto")
    said = " ".join(capsys.readouterr().out.split())
    assert "0.333 vit@tiny + 0.333 vit2@tiny-sharp + 0.333 vit@tiny-sharp (weights: auto: even, as" in said
    assert path.read_bytes() == submit(fresh(root), "even").read_bytes()
    blend = blend_of(fresh(root))
    assert set(blend.weights.values()) == {1 / 3} and blend.why_even
    result = collect.of_submission(fresh(root), 1)
    assert "auto: even, as" in dict(provenance(result).blocks[0].rows)["weights"]


def test_where_it_agrees_they_are_those_found(root, capsys, monkeypatch):
    monkeypatch.setattr(consensus, "FEWEST", 1)
    monkeypatch.setattr(consensus, "CLEARLY", -2.0)
    task = fresh(root)
    found = consensus.dawid_skene(own_labels(task), 3).tolist()
    assert len(set(found)) > 1
    made_from = json.loads(submit(task, "auto").with_suffix(".json").read_text())
    assert made_from["uses"] == ["image", "test_set"]
    assert list(made_from["weights"]["found"].values()) == pytest.approx(found) and not made_from["weights"]["even"]
    assert "(weights: auto: as found)" in " ".join(capsys.readouterr().out.split())
    write_yaml(root / "ensembles" / "written.yaml", {"members": dict(zip(THREE, found, strict=True))})
    written = made(ensemble.stage(fresh(root), "written"))
    blended = made(ensemble.stage(fresh(root), "auto"))
    assert written.digest != blended.digest
    assert torch.allclose(written.rows("probs", 0, IMAGES), blended.rows("probs", 0, IMAGES))
    result = collect.of_submission(fresh(root), 1)
    assert [member.weight for member in result.members] == pytest.approx(found)
    assert dict(provenance(result).blocks[0].rows)["weights"].startswith(f"auto: {found[0]:.3f} vit@tiny, ")
    pooled = EnsemblesInMemory(task).class_probs(task.project.ensemble("auto"))
    assert torch.allclose(pooled, chain_classes.decide(task, "auto").pooled)


def test_with_every_way_to_blend(root):
    for more in ({"blend": "classes"}, {"space": "log"}, {"match": "confidence"}, {"pooling": "max"}):
        write_yaml(root / "ensembles" / "auto.yaml", {"members": THREE, "weights": "auto", **more})
        assert sum(blend_of(fresh(root)).weights.values()) == pytest.approx(1)


def test_of_many_images_some_are_looked_at(root, monkeypatch):
    monkeypatch.setattr(ensemble, "LOOKED_AT", 7)
    blend = blend_of(fresh(root))
    assert len(set(blend._looked_at.tolist())) == 7 and blend._labels([[1, 0, 0]]).shape == (1, 7)
    assert torch.equal(blend._labels(torch.eye(3).tolist()), own_labels(fresh(root))[:, blend._looked_at])


def test_two_members_stay_even(root):
    write_yaml(root / "ensembles" / "auto.yaml", {"members": {"vit": 1, "vit2": 1}, "weights": "auto"})
    assert "fewer than three" in blend_of(fresh(root)).why_even


def test_weights_that_are_written_and_asked_for(root):
    with refused(UserError, "weights: auto", "give each 1"):
        Ensemble.parse({"members": {"vit": 1, "vit2": 2}, "weights": "auto"}, "e.yaml")
    Ensemble.parse({"members": {"vit": 2, "vit2": 2, "x": 0}, "weights": "auto"}, "e.yaml")


def test_rules_that_forbid_the_test_set_forbid_it(root):
    path = root / "competitions" / "tiny.yaml"
    write_yaml(path, {**yaml.safe_load(path.read_text()), "rules": {}})
    assert rules.uses(fresh(root).project, "auto") == ["image", "test_set"]
    with refused(Forbidden, "ensembles/auto.yaml", "uses the unlabelled test images"):
        chain_classes.decide(fresh(root), "auto")
