"""Blending: prompt sets and scales of members' own, the space, and that older recipes are untouched."""

import pytest
import torch
import yaml

from pipeline.__main__ import main
from pipeline.chain import classes as chain_classes
from pipeline.chain import ensemble
from pipeline.chain import features as chain_features
from pipeline.chain import probs as chain_probs
from pipeline.chain import text as chain_text
from pipeline.chain.main_job import submit
from pipeline.chain.stage import made
from pipeline.core.digests import FORMAT
from pipeline.core.errors import Mismatch
from pipeline.maths import zeroshot

from ..conftest import CLASSES, IMAGES, fresh, refused, write_yaml

BOTH = {"vit": 0.3, "vit2": 0.7}


def trial(root, members=BOTH, **content):
    write_yaml(root / "ensembles" / "trial.yaml", {"members": members, **content})
    return fresh(root)


def pooled(root, members=BOTH, **content) -> torch.Tensor:
    return chain_classes.decide(trial(root, members, **content), "trial").pooled


def blended(root, members=BOTH, **content) -> torch.Tensor:
    return made(ensemble.stage(trial(root, members, **content), "trial")).rows("probs", 0, IMAGES)


@pytest.fixture
def root(project_root):
    """With rules that allow everything, and prompt set `other` of another number of prompts."""
    path = project_root / "competitions" / "tiny.yaml"
    write_yaml(path, {**yaml.safe_load(path.read_text()), "rules": {"test_set": True, "labels": True}})
    write_yaml(
        project_root / "prompts" / "other" / "_shared.yaml", {"templates": ["one {}", "two {}"], "classes": "any"}
    )
    return project_root


def scaled_copy(root, factor: float) -> None:
    """Model `hot`: the checkpoint of vit with another logit scale."""
    import shutil

    from safetensors.torch import load_file, save_file

    entries = yaml.safe_load((root / "models.yaml").read_text())
    shutil.copytree(entries["vit"]["weights"], root / "hot")
    file = root / "hot" / "open_clip_model.safetensors"
    weights = load_file(file)
    weights["logit_scale"] = weights["logit_scale"] + torch.tensor(factor).log()
    save_file(weights, file)
    write_yaml(root / "models.yaml", {**entries, "hot": {**entries["vit"], "weights": "hot"}})


def test_recipes_without_new_keys_are_made_from_what_they_were(task):
    """The very content that decides the digest, so caches from before are still found."""
    members = [chain_probs.stage(task, task.project.member(name)).digest for name in ("vit@tiny", "vit2")]
    assert ensemble.stage(task, "both").made_from == {
        "stage": "ensemble",
        "format": FORMAT,
        "members": [[members[0], 0.5], [members[1], 0.5]],
    }


def test_what_changes_the_blend_changes_its_digest(root):
    ways = [
        {},
        {"space": "log"},
        {"blend": "classes"},
        {"blend": "classes", "pooling": "max"},
        {"match": "confidence"},
        {"match": "temperature"},
    ]
    members = {"vit": {"weight": 1, "temperature": 2}, "vit2": {"weight": 1, "temperature": 1}}
    digests = [
        ensemble.stage(trial(root, members if "temperature" in way.values() else BOTH, **way), "trial").digest
        for way in ways
    ]
    members = {"vit": {"weight": 1, "temperature": 3}, "vit2": {"weight": 1, "temperature": 1}}
    digests.append(ensemble.stage(trial(root, members, match="temperature"), "trial").digest)
    members = {name: {"weight": weight, "prompts": "other"} for name, weight in BOTH.items()}
    digests.append(ensemble.stage(trial(root, members), "trial").digest)
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("content", [{"space": "log"}, {"match": "confidence"}, {"blend": "classes"}])
def test_one_member_is_itself_and_equal_members_are_one(root, content):
    single = pooled(root, {"vit": 2})
    single = single / single.sum(dim=1, keepdim=True)
    found = pooled(root, {"vit": 2}, **content)
    torch.testing.assert_close(found / found.sum(dim=1, keepdim=True), single)
    scaled_copy(root, 1.0)
    both = pooled(root, {"vit": 2, "hot": 1}, **content)
    torch.testing.assert_close(both / both.sum(dim=1, keepdim=True), single)


@pytest.mark.parametrize(
    "content",
    [
        {"space": "log", "match": "confidence"},
        {"blend": "classes", "space": "log", "match": "confidence"},
        {"blend": "classes", "pooling": "embedding"},
    ],
)
def test_the_order_of_members_is_irrelevant(root, content):
    turned = dict(reversed(BOTH.items()))
    torch.testing.assert_close(pooled(root, BOTH, **content), pooled(root, turned, **content))


def test_members_with_prompt_sets_of_their_own_are_pooled_first(root):
    """Equals the formula written out, with 12 prompts of one member and 6 of the other."""
    members = {"vit": 0.3, "vit2": {"weight": 0.7, "prompts": "other"}}
    found = pooled(root, members, blend="classes")
    task, expected = fresh(root), torch.zeros(IMAGES, 3)
    for member, weight, prompts in (
        (task.project.member("vit@tiny"), 0.3, "tiny"),
        (task.project.member("vit2"), 0.7, "other"),
    ):
        texts = task.prompts_of(prompts)
        text, _ = chain_text.of_prompts(task, member.model, texts)
        features = chain_features.stage(task, member).rows("features", 0, IMAGES).float()
        probs = (text.logit_scale * features @ text.features.T).softmax(dim=1)
        label = torch.tensor(texts.prompt_class)
        means = torch.stack([probs[:, label == c].mean(dim=1) for c in range(3)], dim=1)
        expected += weight * means / means.sum(dim=1, keepdim=True)
    torch.testing.assert_close(found, expected)
    labels = chain_classes.decide(fresh(root), "trial").labels
    assert submit(fresh(root), "trial").read_text().split("\n")[1:-1] == [f"{n},{c}" for n, c in enumerate(labels)]


def test_all_members_may_have_another_prompt_set(root):
    members = {name: {"weight": weight, "prompts": "other"} for name, weight in BOTH.items()}
    assert blended(root, members).shape == (IMAGES, 6)
    own = pooled(root, members, threshold=0.01)
    path = root / "competitions" / "tiny.yaml"
    write_yaml(path, {**yaml.safe_load(path.read_text()), "prompts": "other"})
    assert torch.equal(pooled(root, threshold=0.01), own)


@pytest.mark.parametrize("factor", [0.2, 4.0])
@pytest.mark.parametrize("content", [{}, {"blend": "classes"}, {"pooling": "embedding", "space": "log"}])
def test_matched_confidence_undoes_another_logit_scale(root, factor, content):
    scaled_copy(root, factor)
    alone = [blended(root, members, **content) for members in ({"vit": 1}, {"hot": 1})]
    assert (alone[0] - alone[1]).abs().max() > 0.01, "equal members would prove nothing"
    both = blended(root, {"vit": 0.5, "hot": 0.5}, match="confidence", **content)
    task = fresh(root)
    recipe = task.project.ensemble("trial")
    parts = {member: ensemble.part(task, recipe, member) for member in recipe.members}
    found = ensemble.Blend(task, recipe, parts).temperatures
    assert found["hot@tiny"] / found["vit@tiny"] == pytest.approx(factor, rel=1e-3)
    means = [rows.amax(dim=1).mean().item() for rows in (both, *alone)]
    assert means[0] == pytest.approx((means[1] + means[2]) / 2, abs=1e-5)
    fixed = {"vit": {"weight": 1, "temperature": found["vit@tiny"]}}
    torch.testing.assert_close(blended(root, fixed, match="temperature", **content), both, atol=1e-4, rtol=1e-3)


def test_fixed_temperatures_are_the_members_or_the_entries(root):
    scaled_copy(root, 4.0)
    cold = pooled(root, {"vit": 1})
    torch.testing.assert_close(pooled(root, {"hot": {"weight": 1, "temperature": 4}}, match="temperature"), cold)
    entries = yaml.safe_load((root / "models.yaml").read_text())
    write_yaml(root / "models.yaml", {**entries, "hot": {**entries["hot"], "temperature": 4.0}})
    torch.testing.assert_close(pooled(root, {"hot": 1}, match="temperature"), cold)
    assert chain_classes.decide(trial(root, {"hot": 1}), "trial").pooled.sub(cold).abs().max() > 0.01


def test_matching_does_not_depend_on_shards_nor_change_its_members(root):
    content = {"match": "confidence", "space": "log", "blend": "classes"}
    whole = blended(root, **content)
    task = fresh(root)
    members = [
        chain_probs.stage(task, task.project.member(name)).rows("probs", 0, IMAGES).clone()
        for name in ("vit@tiny", "vit2@tiny-sharp")
    ]
    (root / "cache" / "tiny" / "ensemble").rename(root / "elsewhere")
    parts = made(ensemble.stage(fresh(root, shard_rows=5), "trial"))
    assert len(list(parts.path.glob("*.pt"))) == 5
    torch.testing.assert_close(parts.rows("probs", 0, IMAGES), whole, atol=1e-5, rtol=1e-4)
    for before, name in zip(members, ("vit@tiny", "vit2@tiny-sharp"), strict=True):
        assert torch.equal(chain_probs.stage(fresh(root), task.project.member(name)).rows("probs", 0, IMAGES), before)


def test_uniform_prompt_weights(root):
    cats = root / "prompts" / "tiny" / "cats.yaml"
    plain = pooled(root), pooled(root, pooling="embedding")
    write_yaml(cats, {"prompts": ["The whiskers", "junk"], "weights": {"The whiskers": 9.0, "junk": 0}})
    assert (pooled(root) - plain[0]).abs().max() > 1e-4
    # a prompt that is left out is still a column of the softmax
    again = pooled(root, prompt_weights="uniform", pooling="embedding")
    torch.testing.assert_close(again, plain[1])
    write_yaml(cats, {"prompts": ["The whiskers"], "weights": {"The whiskers": 9.0}})
    assert torch.equal(pooled(root, prompt_weights="uniform"), plain[0])
    with refused(Mismatch, "prompts/tiny", "'mean' or 'embedding', not 'max'"):
        pooled(root, pooling="max")
    assert pooled(root, pooling="max", prompt_weights="uniform").shape == (IMAGES, 3)


def test_evidence_is_of_all_members(root):
    task = trial(root, {"vit": 0.3, "vit2": {"weight": 0.7, "prompts": "other"}}, blend="classes")
    recipe = task.project.ensemble("trial")
    seen = chain_classes.evidence(task, recipe, lambda member: made(ensemble.part(task, recipe, member)))
    cosines = 0
    for member, weight, prompts in (
        (task.project.member("vit@tiny"), 0.3, None),
        (task.project.member("vit2"), 0.7, "other"),
    ):
        features = chain_features.stage(task, member).rows("features", 0, IMAGES).float()
        own = task.prompts_of(prompts or task.prompts_name)
        text, _ = chain_text.of_prompts(task, member.model, own)
        columns = torch.tensor(own.prompt_class), torch.tensor(own.weights), 3
        cosines = cosines + weight * features @ zeroshot.class_text_features(text.features, *columns).T
    found = seen.image_features_ND.float() @ seen.text_features_CD.float().T
    torch.testing.assert_close(found, cosines, atol=2e-3, rtol=0)
    assert seen.widths == (16, 16)
    assert seen.class_names == tuple(CLASSES)
    assert [probs.shape for probs in seen.member_probs] == [(IMAGES, 3)] * 2
    torch.testing.assert_close(
        0.3 * seen.member_probs[0] + 0.7 * seen.member_probs[1], chain_classes.decide(task, "trial").pooled
    )


def test_the_other_verbs_know_prompt_sets_and_ways(root, monkeypatch, capsys):
    members = {"vit": 0.3, "vit2": {"weight": 0.7, "prompts": "other"}}
    trial(root, members, blend="classes", space="log", match="confidence")
    monkeypatch.chdir(root)

    def said(*arguments: str) -> str:
        assert main(arguments) == 0
        return " ".join(capsys.readouterr().out.split())

    tiny = "--competition", "tiny"
    ours = *tiny, "--dtype", "fp32", "--ensemble", "trial"
    assert "vit2 prompts 0 6 prompts" in said("plan", *ours)
    assert "at temperature" in said("submit", *ours)
    assert "0 unused artefacts" in said("clean-cache", "--dry")
    assert "image, test_set" in said("log", *tiny)
    assert "ensemble trial 23 0 images" in said("plan", *ours)
    assert "ensemble trial:" in said("ensemble", *ours)
