"""prompt_weights: zpe and carprt through the whole chain."""

import pytest
import torch

from pipeline.chain import classes as chain_classes
from pipeline.chain import ensemble
from pipeline.chain import features as chain_features
from pipeline.chain import text as chain_text
from pipeline.chain.prompt_weights import of_member, weighted
from pipeline.chain.stage import made
from pipeline.cli import plan
from pipeline.core.errors import Forbidden, Mismatch
from pipeline.labelled.prompts_rank import rank_prompts as rank
from pipeline.maths import prompt_scores, zeroshot
from pipeline.report import collect, sections

from ..chain.test_submit import competition
from ..conftest import IMAGES, fresh, refused, write_yaml

MEMBERS = {"vit": 0.75, "vit2@tiny-sharp": 0.25}
both = pytest.mark.parametrize("method", ["zpe", "carprt"])


def project(root, method="zpe", **keys):
    """A task of an ensemble `weighed`, where the rules allow it."""
    competition(root, rules={"test_set": True})
    write_yaml(root / "ensembles" / "weighed.yaml", {"members": MEMBERS, "prompt_weights": method, **keys})
    return fresh(root)


def logits(task, member):
    features, _ = chain_features.of_member(task, member)
    text, _ = chain_text.of_prompts(task, member.model, task.prompts)
    return zeroshot.prompt_logits(features.rows("features", 0, IMAGES), text.features, text.logit_scale)


def expected(task, method, member):
    prompts, found = task.prompts, logits(task, member)
    labels, given = torch.tensor(prompts.prompt_class), torch.tensor(prompts.weights)
    return prompt_scores.weights(getattr(prompt_scores, method), lambda: [found], labels, prompts.templates, given, 3)


@both
def test_the_blend_is_pooled_with_the_members_weights(project_root, method):
    task = project(project_root, method)
    by_member = {task.project.member(name): expected(task, method, task.project.member(name)) for name in MEMBERS}
    weights = sum(share * own for share, own in zip(MEMBERS.values(), by_member.values(), strict=True))
    blend = sum(
        share * logits(task, member).softmax(dim=1) for share, member in zip(MEMBERS.values(), by_member, strict=True)
    )
    labels = torch.tensor(task.prompts.prompt_class)
    own = [labels == c for c in range(3)]
    pooled = torch.stack([(blend * weights)[:, of].sum(dim=1) / weights[of].sum() for of in own], dim=1)
    torch.testing.assert_close(chain_classes.decide(task, "weighed").refined, pooled)
    assert weights.std() > 0.01
    result = collect.of_ensemble(task, "weighed")
    assert [use.weight for use in result.prompts] == pytest.approx(weights.tolist())
    table = next(section for section in sections.every(result) if section.title == "Prompts").blocks[0]
    assert table.columns[2] == "weight"


@both
def test_mean_text_features_are_weighted(project_root, method):
    task = project(project_root, method, pooling="embedding")
    member = task.project.member("vit@tiny")
    probs = made(ensemble.part(task, task.project.ensemble("weighed"), member)).rows("probs", 0, IMAGES)
    text, _ = chain_text.of_prompts(task, "vit", task.prompts)
    weights, labels = expected(task, method, member), torch.tensor(task.prompts.prompt_class)
    means = zeroshot.class_text_features(text.features, labels, weights, 3)
    features = chain_features.of_member(task, member)[0].rows("features", 0, IMAGES)
    torch.testing.assert_close(probs, zeroshot.prompt_probs(features, means, text.logit_scale))


def test_small_shards_find_the_same_weights(project_root):
    whole = project(project_root)
    found = weighted(whole, whole.project.ensemble("weighed"))
    parts = fresh(project_root, shard_rows=5)
    assert weighted(parts, parts.project.ensemble("weighed")).weights == pytest.approx(found.weights, rel=1e-5)


def test_an_image_without_a_picture_does_not_count(project_root):
    (project_root / "data" / "tiny" / "5.jpg").write_bytes(b"no picture")
    competition(project_root, damaged_images="fallback")
    task = fresh(project_root, shard_rows=7)
    member = task.project.member("vit@tiny")
    found = torch.tensor(of_member(task, member, task.prompts, "zpe"))
    whole = [row for row in range(IMAGES) if row != 5]
    labels, ones = torch.tensor(task.prompts.prompt_class), torch.ones(len(task.prompts.prompts))
    own = logits(task, member)[whole]
    torch.testing.assert_close(
        found, prompt_scores.weights(prompt_scores.zpe, lambda: [own], labels, task.prompts.templates, ones, 3)
    )


def test_digests_tell_the_weightings_apart_and_need_no_image(project_root):
    digests = {}
    for method in ("given", "uniform", "zpe", "carprt"):
        digests[method] = ensemble.stage(project(project_root, method), "weighed").digest
    assert len({digests["given"], digests["zpe"], digests["carprt"]}) == 3
    assert digests["given"] == digests["uniform"]  # all weights of the files are 1
    assert not list((project_root / "cache").glob("*/features/*"))
    task = project(project_root, "zpe")
    chain_classes.decide(task, "weighed")
    assert ensemble.stage(fresh(project_root), "weighed").digest == digests["zpe"]


def test_plan_computes_nothing(project_root, capsys):
    plan.show(project(project_root), "weighed")
    assert not list((project_root / "cache").glob("*/features/*"))


def test_pooling_must_know_weights(project_root):
    with refused(Mismatch, "weighed.yaml: prompt_weights: zpe", "'mean' or 'embedding'"):
        chain_classes.decide(project(project_root, pooling="median"), "weighed")


def test_rules_that_forbid_the_test_set(project_root):
    project(project_root)
    competition(project_root, rules={"test_set": False})
    with refused(Forbidden, "weighed.yaml: line 4: prompt_weights: zpe"):
        chain_classes.decide(fresh(project_root), "weighed")


def test_prompts_rank_shows_the_weights(project_root):
    task = fresh(project_root)
    member = task.project.member("vit@tiny")
    text = rank(task, member, "mean", labelled=False).read_text()
    zpe = of_member(task, member, task.prompts, "zpe")
    assert "## Weights of templates, mean over classes" in text
    assert f"| Cats | The whiskers | 1.000 | {zpe[3]:.3f} |" in text
