"""Family declip: a tiny file in the published key layout, against an independent construction on open_clip."""

import open_clip
import pytest
import torch
from torch.nn.functional import normalize

from pipeline import models
from pipeline.core.errors import Mismatch, NotFound, PromptsTooLong
from pipeline.recipes import ModelEntry

from ..conftest import refused
from ..tiny import PROMPTS, pixels, scaled

CPU = torch.device("cpu")
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CONFIG = {
    "embed_dim": 48,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 128, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49409, "width": 64, "heads": 1, "layers": 2, "proj_bias": True},
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """(path of a .pth.tar, the model it was made from)."""
    torch.manual_seed(5)
    model = open_clip.CLIP(**CONFIG)
    for value in model.parameters():
        if value.ndim > 1:
            torch.nn.init.normal_(value, std=0.08)
    torch.nn.init.normal_(model.text_projection.bias)
    torch.nn.init.constant_(model.logit_scale, 3.5)
    state = {}
    for key, value in model.state_dict().items():
        text = not key.startswith("visual.") and key != "logit_scale"
        state[f"module.encode_text.{key}" if text else f"module.{key}"] = value
    state["module.logit_scale"] = state["module.logit_scale"].reshape(1)
    for extra in (
        "projector.0.weight",
        "predictor.0.weight",
        "nn_replacer_img.queue",
        "nn_replacer_text.queue",
        "encode_text.text_label_predictor.weight",
    ):
        state[f"module.{extra}"] = torch.zeros(2)
    path = tmp_path_factory.mktemp("declip") / "declip.pth.tar"
    torch.save({"model": state, "epoch": 32, "optimizer": {"state": {}, "param_groups": []}}, path)
    return path, model.eval()


def load(path, tower: str, **more):
    entry = {"family": "declip", "weights": str(path), "preprocess": "x", **more}
    return models.load("d", ModelEntry.parse(entry, "d"), path.parent, tower, CPU, "fp32")


def test_features_equal_an_independent_construction(published):
    path, model = published
    image, text = load(path, "image"), load(path, "text")
    # <|mask|> has id 49406, so the start and the end of a text are 49407 and 49408
    tokens = torch.zeros(len(PROMPTS), 77, dtype=torch.long)
    words = open_clip.SimpleTokenizer()
    for row, prompt in zip(tokens, PROMPTS, strict=True):
        ids = [49407, *words.encode(prompt), 49408]
        row[: len(ids)] = torch.tensor(ids)
    with torch.inference_mode():
        of_images, of_prompts = model.encode_image(scaled(pixels(64), *IMAGENET)), model.encode_text(tokens)
    torch.testing.assert_close(image.encode_image(pixels(64)), normalize(of_images, dim=-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(text.encode_text(PROMPTS), normalize(of_prompts, dim=-1), atol=1e-4, rtol=0)
    assert text.logit_scale == pytest.approx(torch.tensor(3.5).exp().item())
    assert (image.image_size, image.mean, image.std, image.resize_mode) == (64, *IMAGENET, "shortest")


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_is_close(published, dtype):
    entry = ModelEntry.parse({"family": "declip", "weights": str(published[0]), "preprocess": "x"}, "d")
    for tower, inputs in (("image", pixels(64)), ("text", PROMPTS)):
        exact, half = (
            getattr(models.load("d", entry, published[0].parent, tower, CPU, kind), f"encode_{tower}")(inputs)
            for kind in ("fp32", dtype)
        )
        assert (exact * half).sum(-1).min() > 0.99


def test_only_one_tower_is_materialised(published):
    of_image = {name for name, _ in load(published[0], "image").module.named_parameters()}
    of_text = {name for name, _ in load(published[0], "text").module.named_parameters()}
    assert of_image & of_text == {"logit_scale"}
    assert of_image | of_text == {name for name, _ in published[1].named_parameters()}


def test_mistakes_are_told(published, tmp_path):
    with refused(Mismatch, "activation", "quick_gelu: false"):
        load(published[0], "text", quick_gelu=False)
    with refused(PromptsTooLong, "77 tokens", "'cat cat", "loses 25"):
        load(published[0], "text").encode_text(["cat " * 100])
    torch.save({"model": {"module.visual.conv1.weight": torch.zeros(1)}}, tmp_path / "other.pth.tar")
    with refused(Mismatch, "visual.positional_embedding"):
        load(tmp_path / "other.pth.tar", "text")
    with refused(NotFound, "absent.pth.tar"):
        load(tmp_path / "absent.pth.tar", "text")
    with refused(NotFound, "models.yaml: d", "'weights: path of the .pth.tar'"):
        entry = ModelEntry.parse({"family": "declip", "hub": "a/b", "preprocess": "x"}, "d")
        models.load("d", entry, tmp_path, "text", CPU, "fp32")


def test_a_file_in_the_format_of_old_torch(published, tmp_path):
    """The files of 2021 may be bare pickles, which cannot be memory-mapped."""
    content = torch.load(published[0], weights_only=True)
    torch.save(content, tmp_path / "old.pth.tar", _use_new_zipfile_serialization=False)
    new, old = (load(path, "text").encode_text(PROMPTS) for path in (published[0], tmp_path / "old.pth.tar"))
    torch.testing.assert_close(new, old)
