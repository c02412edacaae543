"""A witness: an image-only tower whose features take part in refinement, and in nothing else."""

import json

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

from pipeline.chain import classes as chain_classes
from pipeline.chain import ensemble, rules
from pipeline.chain import features as chain_features
from pipeline.chain.main_job import stages, submit
from pipeline.chain.stage import made
from pipeline.core import room
from pipeline.core.errors import Forbidden, Mismatch, NotFound, UserError
from pipeline.labelled.sweep.variants import varied
from pipeline.maths.refine import STEPS
from pipeline.recipes import Ensemble
from pipeline.remote import missing
from pipeline.report import collect
from pipeline.report.sections.provenance import provenance

from ..conftest import IMAGES, SIZE, fresh, refused, write_yaml

NET = {
    "family": "timm",
    "architecture": "mobilenetv2_050",
    "weights": "m.safetensors",
    "preprocess": "tiny",
    "size": SIZE,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "resize_mode": "squash",
}


@pytest.fixture
def root(project_root):
    torch.manual_seed(2)
    save_file(timm.create_model("mobilenetv2_050", pretrained=False).state_dict(), project_root / "m.safetensors")
    write_yaml(project_root / "models.local.yaml", {"net": NET})
    path = project_root / "competitions" / "tiny.yaml"
    write_yaml(path, {**yaml.safe_load(path.read_text()), "rules": {"test_set": True}})
    recipe = {"members": {"vit": 1.0, "vit2@tiny-sharp": 1.0}, "refine": ["recommended"], "guards": False}
    write_yaml(project_root / "ensembles" / "alone.yaml", recipe)
    write_yaml(project_root / "ensembles" / "seen.yaml", {**recipe, "witness": "net"})
    return project_root


def evidence(task, name):
    recipe = task.project.ensemble(name)
    return chain_classes.evidence(task, recipe, lambda member: made(ensemble.part(task, recipe, member)))


@pytest.mark.parametrize("guards", [False, True])
def test_more_than_memory_holds_lies_in_a_file_and_gives_the_same(root, monkeypatch, guards):
    recipe = {"members": {"vit": 1.0, "vit2@tiny-sharp": 1.0}, "refine": ["recommended", "prior"], "guards": guards}
    write_yaml(root / "ensembles" / "seen.yaml", {**recipe, "witness": "net"})
    in_memory = chain_classes.decide(fresh(root, shard_rows=4), "seen")
    asked = []

    def in_file(shape, kind, folder):
        asked.append(tuple(shape))
        return room.room(shape, kind, folder)

    monkeypatch.setattr(room, "SHARE", 0.0)
    monkeypatch.setattr(chain_classes, "room", in_file)
    found = chain_classes.decide(fresh(root, shard_rows=4), "seen")
    assert torch.equal(found.pooled, in_memory.pooled) and torch.equal(found.refined, in_memory.refined)
    assert {(IMAGES, 3), (IMAGES, 32), (IMAGES, evidence(fresh(root), "seen").witness_ND.shape[1])} <= set(asked)


@pytest.mark.parametrize("name", ["transclip", "stata", "propagate"])
def test_a_graph_of_too_many_images_is_refused_before_anything_is_computed(root, monkeypatch, name):
    monkeypatch.setattr(STEPS[name], "most", IMAGES - 1)
    write_yaml(root / "ensembles" / "graph.yaml", {"members": {"vit": 1.0}, "refine": ["prior", name]})
    with refused(UserError, "graph.yaml", "refine.1", name, f"{IMAGES - 1} at most", "'discriminant'"):
        chain_classes.decide(fresh(root), "graph")
    assert not list((root / "cache").rglob("*.pt"))
    monkeypatch.setattr(STEPS[name], "most", IMAGES)
    chain_classes.decide(fresh(root), "graph")


def test_it_takes_part_in_refinement_alone(root):
    task = fresh(root)
    alone, seen = (chain_classes.decide(task, name) for name in ("alone", "seen"))
    assert torch.equal(alone.pooled, seen.pooled) and alone.probs.digest == seen.probs.digest
    assert not torch.allclose(alone.refined, seen.refined)
    features = chain_features.stage(task, task.project.member("net")).rows("features", 0, IMAGES)
    assert torch.equal(evidence(task, "seen").witness_ND, features) and evidence(task, "alone").witness_ND is None
    for key in ("image_features_ND", "text_features_CD"):
        assert torch.equal(getattr(evidence(task, "seen"), key), getattr(evidence(task, "alone"), key))


def test_the_submission_says_who_it_was(root):
    made_from = json.loads(submit(fresh(root), "seen").with_suffix(".json").read_text())
    assert made_from["recipe"]["witness"] == "net@tiny" and made_from["uses"] == ["image", "test_set"]
    (name, facts), *others = made_from["witness"].items()
    assert name == "net@tiny" and facts["model"]["architecture"] == "mobilenetv2_050" and not others
    assert "witness" not in json.loads(submit(fresh(root), "alone").with_suffix(".json").read_text())
    result = collect.of_submission(fresh(root), 1)
    rows = dict(provenance(result).blocks[0].rows)
    assert rows["witness"] == "net@tiny" and facts["digest"] in rows["witness net@tiny"]


def test_its_features_are_a_stage_that_is_computed_once(root, capsys):
    task = fresh(root)
    stage = chain_features.stage(task, task.project.member("net"))
    assert stage.digest in {one.digest for one in stages(task, "seen")}
    assert "net@tiny" in {asked.member for asked in missing.images(task, "seen")}
    assert "net" not in {asked.model for asked in missing.texts(task, "seen", history=False)}
    (asked,) = [asked for asked in missing.images(task, "seen") if asked.member == "net@tiny"]
    assert asked.facts == json.loads(json.dumps(asked.facts)), "what comes back from elsewhere is compared with it"
    submit(task, "seen")
    capsys.readouterr()
    submit(fresh(root), "seen")
    assert "encoding" not in capsys.readouterr().out
    assert not [asked for asked in missing.images(fresh(root), "seen") if asked.member == "net@tiny"]


def test_plan_and_clean_cache_know_it(root, command):
    planned = command(root, "plan", "--competition", "tiny", "--ensemble", "seen", "--dtype", "fp32").stdout
    assert "net@tiny" in planned
    task = fresh(root)
    submit(task, "seen")
    kept = chain_features.stage(task, task.project.member("net@tiny"))
    write_yaml(root / "models.local.yaml", {"net": {**NET, "preprocess": "tiny-sharp"}})
    seen = yaml.safe_load((root / "ensembles" / "seen.yaml").read_text())
    write_yaml(root / "ensembles" / "seen.yaml", {**seen, "witness": "net@tiny"})
    command(root, "clean-cache")
    assert not kept.missing(IMAGES)


def test_a_sweep_without_steps_has_none(root):
    base = fresh(root).project.ensemble("seen")
    for steps, witness in (([], None), (["discriminant"], "net@tiny")):
        assert Ensemble.parse(varied(base, {"refine": steps}), "s.yaml").witness == witness


def test_rules_that_forbid_the_test_set_forbid_it(root):
    path = root / "competitions" / "tiny.yaml"
    write_yaml(path, {**yaml.safe_load(path.read_text()), "rules": {}})
    recipe = fresh(root).project.ensemble("seen")
    found = rules.usages(fresh(root).project, recipe, root / "ensembles" / "seen.yaml")
    assert [(use.use, use.name) for use in found if use.keys[-1] == "witness"] == [("test_set", "net@tiny")]
    with refused(Forbidden, "ensembles/seen.yaml", "uses the unlabelled test images"):
        chain_classes.decide(fresh(root), "seen")


def test_what_cannot_be_a_witness(root):
    where = str(root / "ensembles" / "seen.yaml")
    with refused(UserError, "witness", "refine: [recommended]"):
        Ensemble.parse({"members": {"vit": 1}, "witness": "net"}, "e.yaml")
    written = yaml.safe_load((root / "ensembles" / "seen.yaml").read_text())
    write_yaml(root / "ensembles" / "seen.yaml", {**written, "witness": "nett"})
    with refused(NotFound, f"{where}: witness", "'nett'"):
        fresh(root).project.ensemble("seen")
    write_yaml(
        root / "models.local.yaml",
        {"net": NET, "mine": {"family": "head", "base": "vit", "weights": "m", "preprocess": "tiny"}},
    )
    write_yaml(root / "ensembles" / "seen.yaml", {**written, "witness": "vit"})
    with refused(Mismatch, f"{where}: witness: vit@tiny", "another tower"):
        fresh(root).project.ensemble("seen")
    write_yaml(root / "ensembles" / "seen.yaml", {**written, "witness": "mine"})
    with refused(Mismatch, f"{where}: witness: mine@tiny", "write vit@tiny"):
        fresh(root).project.ensemble("seen")


@pytest.mark.parametrize("to", [[1.0], {"no-such-class": 1.0}, "uniform"])
def test_shares_that_do_not_fit_the_classes_are_told_before_anything_is_computed(root, to):
    write_yaml(root / "ensembles" / "mix.yaml", {"members": {"vit": 1.0}, "refine": [{"prior": {"to": to}}]})
    task = fresh(root)
    if to == "uniform":
        chain_classes.steps(task, task.project.ensemble("mix"), "mix", IMAGES)
        return
    with refused(Mismatch, "ensembles/mix.yaml: refine.0: prior: to"):
        chain_classes.decide(task, "mix")
    assert not (root / "cache").exists()
