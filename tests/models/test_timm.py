"""Family timm: image-only backbones, against timm's own model without its classifier."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from pipeline import models
from pipeline.chain import features as chain_features
from pipeline.chain import probs as chain_probs
from pipeline.core.errors import Mismatch, NotFound, UserError
from pipeline.recipes import ModelEntry

from ..conftest import fresh, refused, write_yaml
from ..tiny import MEAN, STD, pixels, scaled

CPU = torch.device("cpu")
FACTS = {"size": 64, "mean": MEAN, "std": STD, "resize_mode": "squash"}


@pytest.fixture
def weights(tmp_path):
    """Weights of mobilenetv2_050 with TensorFlow's padding, and that model without its classifier."""
    torch.manual_seed(2)
    model = timm.create_model("mobilenetv2_050", pretrained=False, pad_type="same").eval()
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    model.reset_classifier(0)
    return tmp_path / "m.safetensors", model


def entry(path, **more) -> ModelEntry:
    fields = {
        "family": "timm",
        "architecture": "mobilenetv2_050",
        "weights": str(path),
        "preprocess": "tiny",
        "options": {"pad_type": "same"},
        **FACTS,
    }
    return ModelEntry.parse({**fields, **more}, "m")


def test_features_are_timms(weights):
    path, model = weights
    image = models.load("m", entry(path), path.parent, "image", CPU, "fp32")
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(model(scaled(pixels(64))), dim=-1)
    torch.testing.assert_close(image.encode_image(pixels(64)), expected, atol=1e-4, rtol=0)
    other = models.load("m", entry(path, options={}), path.parent, "image", CPU, "fp32")
    assert (other.encode_image(pixels(64)) - expected).abs().max() > 1e-4, "the option reaches timm"


def test_asking_for_text_says_that_there_is_none(weights, project_root):
    path, _ = weights
    with refused(Mismatch, "models.yaml: m", "family timm"):
        models.load("m", entry(path), path.parent, "text", CPU, "fp32")
    fields = {"family": "timm", "architecture": "mobilenetv2_050", "weights": str(path), "preprocess": "tiny"}
    write_yaml(project_root / "models.local.yaml", {"net": {**fields, **FACTS, "size": 32}})
    with refused(Mismatch, "models.local.yaml: net", "family timm"):
        chain_probs.of_member(fresh(project_root), fresh(project_root).project.member("net@tiny"))
    assert not (project_root / "cache/tiny/images").exists(), "told before any work"


def test_its_features_can_be_cached_for_probes(weights, project_root):
    path, _ = weights
    fields = {"family": "timm", "architecture": "mobilenetv2_050", "weights": str(path), "preprocess": "tiny"}
    write_yaml(project_root / "models.local.yaml", {"net": {**fields, **FACTS, "size": 32}})
    features, encoded = chain_features.of_member(fresh(project_root), fresh(project_root).project.member("net@tiny"))
    assert encoded == 23
    assert features.rows("features", 0, 23).shape == (23, 1280)


@pytest.mark.parametrize(
    "more, kind, parts",
    [
        ({"architecture": "mobilenetv2_051"}, NotFound, ["'mobilenetv2_051'"]),
        ({"options": {"pad_typo": "same"}}, UserError, ["options", "'pad_typo'"]),
        ({"architecture": "resnet18", "options": {}}, Mismatch, ["missing keys"]),
        ({"mean": None}, UserError, ["add mean"]),
        ({"architecture": "resnet101", "tag": "tv_in2k"}, NotFound, ["'tv_in2k'", "Did you mean 'tv_in1k'"]),
        (
            {"architecture": "mobilenetv2_100", "tag": "ra_in1k", "size": 224},
            Mismatch,
            ["mean: [0.5, 0.4, 0.3]", "[0.485, 0.456, 0.406]"],
        ),
    ],
)
def test_mistakes_are_told(weights, more, kind, parts):
    path, _ = weights
    with refused(kind, *parts):
        models.load("m", entry(path, **more), path.parent, "image", CPU, "fp32")


def test_convolutions_take_another_size_when_allowed(weights):
    path, model = weights
    smaller = entry(path, size=32, architecture="mobilenetv2_050", allow=["size"])
    image = models.load("m", smaller, path.parent, "image", CPU, "fp32")
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(model(scaled(pixels(32))), dim=-1)
    torch.testing.assert_close(image.encode_image(pixels(32)), expected, atol=1e-4, rtol=0)


def test_convolutions_have_their_channels_last_and_training_has_them_as_files_do(weights):
    path, _ = weights
    image = models.load("m", entry(path), path.parent, "image", CPU, "fp32")
    kernels = [weight for weight in image.module.parameters() if weight.ndim == 4 and min(weight.shape[1:]) > 1]
    assert kernels and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels)
    image.trainable()
    assert all(weight.is_contiguous() for weight in image.module.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [
        "vit_base_patch16_dinov3",
        "vit_base_patch14_reg4_dinov2",
        "vit_base_patch14_reg1_tipsv2",
        "naflexvit_so400m_patch16_radio_v4",
    ],
)
def test_towers_of_late_2026_are_timms(tmp_path, architecture):
    """Two blocks of each, at a size that needs no interpolation."""
    torch.manual_seed(2)
    model = timm.create_model(architecture, pretrained=False, depth=2).eval()
    for value in model.parameters():
        if value.ndim > 1:
            torch.nn.init.normal_(value, std=0.05)
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    model.reset_classifier(0)
    size = model.pretrained_cfg["input_size"][-1]
    fields = entry(tmp_path / "m.safetensors", architecture=architecture, options={"depth": 2}, size=size)
    image = models.load("m", fields, tmp_path, "image", CPU, "fp32")
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(model(scaled(pixels(size, 2))), dim=-1)
    torch.testing.assert_close(image.encode_image(pixels(size, 2)), expected, atol=1e-4, rtol=0)
