"""Real weights, where they are at hand: a dual encoder and an image tower, through entries of models.local.yaml."""

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import models
from pipeline.chain import probs as chain_probs
from pipeline.recipes import Project

from ..conftest import ROOT, fresh, write_yaml

WEIGHTS = ROOT.parent / "shared" / "weights"
LIT, NET = WEIGHTS / "lit_mobilenet_minilm", WEIGHTS / "mobilenetv2_100_imagenet.safetensors"
PHOTOS = ROOT.parent / "shared" / "data" / "few_shot" / "test"
CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(not WEIGHTS.is_dir(), reason="no ../shared/weights here: real weights are not at hand")


@pytest.fixture
def real(project_root, monkeypatch):
    """The tiny project with the real models as local entries; their config names files relative to the project."""
    monkeypatch.chdir(ROOT)
    half = {"mean": [0.5, 0.5, 0.5], "std": [0.5] * 3}
    write_yaml(
        project_root / "models.local.yaml",
        {
            "lit": {"family": "open_clip", "weights": str(LIT), "preprocess": "plain"},
            "net": {
                "family": "timm",
                "architecture": "mobilenetv2_100",
                "weights": str(NET),
                "preprocess": "plain",
                "options": {"pad_type": "same"},
                "size": 224,
                **half,
                "resize_mode": "squash",
            },
        },
    )
    write_yaml(project_root / "preprocess" / "plain.yaml", {"size": 224, "ops": ["resize"]})
    return project_root


def photos(names: list[str], each: int) -> tuple[torch.Tensor, torch.Tensor]:
    files = [(file, label) for label, name in enumerate(names) for file in sorted((PHOTOS / name).iterdir())[:each]]
    images = [Image.open(file).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC) for file, _ in files]
    stacked = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])
    return stacked, torch.tensor([label for _, label in files])


def test_the_dual_encoder_equals_open_clip_and_tells_vehicles_apart(real):
    import open_clip

    entry = Project(real).model("lit")
    image, text = (models.load("lit", entry, real, tower, CPU, "fp32") for tower in ("image", "text"))
    names = ["airplane", "bicycle", "boat", "motorcycle"]
    pixels, labels = photos(names, 5)
    library, _, transform = open_clip.create_model_and_transforms(f"local-dir:{LIT}")
    library.eval()
    words = open_clip.get_tokenizer(f"local-dir:{LIT}")(names)
    scaled = torch.stack([transform(Image.fromarray(p.permute(1, 2, 0).numpy())) for p in pixels])
    with torch.inference_mode():
        of_images, of_names = library.encode_image(scaled, normalize=True), library.encode_text(words, normalize=True)
    found = image.encode_image(pixels), text.encode_text(names)
    torch.testing.assert_close(found[0], of_images, atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1], of_names, atol=1e-4, rtol=0)
    assert text.logit_scale == pytest.approx(40, rel=1e-3)
    assert ((found[0] @ found[1].T).argmax(1) == labels).float().mean() >= 0.7


def test_the_chain_runs_with_the_dual_encoder(real):
    result = chain_probs.of_member(fresh(real), fresh(real).project.member("lit@plain"))
    probs = result.rows("probs", 0, len(result.ids))
    torch.testing.assert_close(probs.sum(1), torch.ones(len(probs)))


def test_the_image_tower_separates_photographs(real):
    entry = Project(real).model("net")
    image = models.load("net", entry, real, "image", CPU, "fp32")
    pixels, labels = photos(["airplane", "bicycle", "motorcycle"], 8)
    features = image.encode_image(pixels)
    assert features.shape == (24, 1280)
    similar = features @ features.T - 2 * torch.eye(24)
    assert (labels[similar.argmax(1)] == labels).float().mean() >= 0.7, "the nearest photograph is of the same class"
