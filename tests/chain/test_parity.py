"""The chain against plain computations of the same, written with open_clip, torchvision and torch alone."""

import csv
import math

import open_clip
import pytest
import torch
from natsort import natsorted
from PIL import Image
from torchvision import transforms as T

from pipeline.chain import classes as chain_classes
from pipeline.chain import ensemble
from pipeline.chain import features as chain_features
from pipeline.chain import probs as chain_probs
from pipeline.chain import text as chain_text
from pipeline.chain.main_job import submit
from pipeline.chain.stage import made

from ..conftest import IMAGES, SIZE, fresh, prompt_set, write_yaml

TEMPLATES = ["{}", "a photo of a {}", "a blurry {}.", "an image of a {}"]


def winners_labels(task, checkpoints, threshold: float) -> list[int]:
    """Seed 004's algorithm as its notebook states it (equal prompt counts, reshape, one weight each)."""
    class_names = list(task.class_names)
    prompts = [template.format(name) for name in class_names for template in TEMPLATES]
    blended = 0
    for name, sharpness, weight in (("vit", 1.0, 0.5), ("vit2", 2.3, 0.5)):
        model = open_clip.create_model(f"local-dir:{checkpoints / name}")
        mean, std = model.visual.preprocess_cfg["mean"], model.visual.preprocess_cfg["std"]
        transform = T.Compose(
            [
                T.Resize((SIZE, SIZE), T.InterpolationMode.BICUBIC),
                T.CenterCrop((SIZE, SIZE)),
                T.Lambda(lambda image: image.convert("RGB")),
                T.RandomAdjustSharpness(sharpness, p=1),
                T.ToTensor(),
                T.Normalize(mean, std),
            ]
        )
        files = natsorted((task.project.root / "data" / "tiny").glob("*.jpg"))
        pixels = torch.stack([transform(Image.open(file)) for file in files])
        with torch.no_grad():
            text = model.encode_text(open_clip.get_tokenizer("ViT-B-32")(prompts))
            text /= text.norm(dim=-1, keepdim=True)
            image = model.encode_image(pixels)
            image /= image.norm(dim=-1, keepdim=True)
            blended = blended + weight * (model.logit_scale.exp() * image @ text.T).softmax(dim=-1)
    blended = torch.where(blended > threshold, blended, 0)
    return blended.reshape(len(blended), len(class_names), -1).mean(dim=-1).argmax(dim=-1).tolist()


@pytest.mark.parametrize("limit", [0.0, 0.002, 0.1])
def test_labels_equal_the_winners_algorithm(project_root, checkpoints, limit):
    write_yaml(project_root / "prompts" / "tiny" / "_shared.yaml", {"templates": TEMPLATES})
    for name in ("cats", "dogs", "big_birds"):
        write_yaml(project_root / "prompts" / "tiny" / f"{name}.yaml", {})
    members = {"vit": 1, "vit2@tiny-sharp": 1}
    write_yaml(project_root / "ensembles" / "both.yaml", {"members": members, "threshold": limit})
    task = fresh(project_root)
    path = submit(task, "both")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    expected = winners_labels(task, checkpoints, limit)
    assert [int(row["label"]) for row in rows] == expected
    assert [row["id_idx"] for row in rows] == [str(n) for n in range(IMAGES)]
    assert len(set(expected)) > 1, "labels that are all equal would prove nothing"


def test_mean_text_embedding_equals_open_clips_classifier(project_root, checkpoints):
    for name in ("cats", "dogs", "big_birds"):
        write_yaml(project_root / "prompts" / "tiny" / f"{name}.yaml", {})
    write_yaml(project_root / "ensembles" / "standard.yaml", {"members": {"vit": 1}, "pooling": "embedding"})
    task = fresh(project_root)
    decision = chain_classes.decide(task, "standard")
    model = open_clip.create_model(f"local-dir:{checkpoints / 'vit'}")
    templates = [lambda name, t=t: t.format(name) for t in ("{}", "a photo of a {}", "a blurry {}.")]
    classifier = open_clip.build_zero_shot_classifier(
        model, open_clip.get_tokenizer("ViT-B-32"), task.class_names, templates
    )
    features = chain_features.stage(task, task.project.member("vit@tiny")).rows("features", 0, IMAGES).float()
    expected = (20 * features @ classifier).softmax(dim=-1)
    torch.testing.assert_close(decision.pooled, expected, atol=2e-5, rtol=1e-3)


def test_image_features_equal_open_clips_own_preprocessing(task, checkpoints):
    chain_probs.of_member(task, task.project.member("vit@tiny"))
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{checkpoints / 'vit'}")
    pixels = torch.stack([transform(Image.open(path)) for path in task.images.paths()])
    with torch.no_grad():
        expected = model.eval().encode_image(pixels, normalize=True)
    features = chain_features.stage(task, task.project.member("vit@tiny")).rows("features", 0, IMAGES)
    torch.testing.assert_close(features.float(), expected, atol=1e-3, rtol=1e-2)


def test_an_ensemble_of_one_is_its_member(task):
    blended = made(ensemble.stage(task, "one"))
    member = chain_probs.of_member(task, task.project.member("vit@tiny"))
    assert torch.equal(blended.rows("probs", 0, IMAGES), member.rows("probs", 0, IMAGES))


def test_the_logit_scale_is_the_checkpoints(task):
    text, _ = chain_text.of_prompts(task, "vit", prompt_set(("a cat",)))
    assert math.isclose(text.logit_scale, 20.0, rel_tol=1e-5)
