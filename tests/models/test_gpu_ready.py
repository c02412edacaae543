"""Towers as a GPU wants them: attention is torch's own fused one, and nothing in a forward pass makes the host wait.

On the meta device there are no values: whatever asks for one fails there, and on a GPU it would wait for it.
"""

from collections import Counter

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline import models
from pipeline.models import open_clip
from pipeline.recipes import ModelEntry

from ..conftest import ROOT
from ..tiny import MEAN, PROMPTS, STD, local_dir, pixels
from . import test_evaclip, test_open_clip, test_transformers

CPU, META = torch.device("cpu"), torch.device("meta")
FUSED = {"aten::scaled_dot_product_attention", "aten::_native_multi_head_attention"}
# what the libraries compute step by step: the one query that pools an image, two old kinds of text, all of FLAVA
STEPS = {("siglip", "image"): 1, ("siglip2", "image"): 1, ("align", "text"): 2}
STEPS |= {("flava", "image"): 2, ("flava", "text"): 2}
NONE = {("align", "image")}  # convolutions


def entry_of(family: str, kind: str, folder) -> ModelEntry:
    """A tiny checkpoint of this kind, as its entry."""
    if family == "open_clip":
        config = test_open_clip.KINDS[kind]
        return test_open_clip.entry(local_dir(folder, config, test_open_clip.create(config)))
    if family == "transformers":
        test_transformers.checkpoint(folder, kind)
        return test_transformers.entry(folder)
    if family == "evaclip":
        config = test_evaclip.POST
        test_evaclip.write_pt(folder, test_evaclip.Reference(config).state(), config)
        return ModelEntry.parse(
            {
                "family": "evaclip",
                "weights": str(folder),
                "file": "eva.pt",
                "preprocess": "x",
                "allow": ["prompts_cut"],
            },
            "m",
        )
    options = {"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 32}
    save_file(timm.create_model(kind, pretrained=False, **options).state_dict(), folder / "m.safetensors")
    facts = {"size": 32, "mean": MEAN, "std": STD, "resize_mode": "squash", "options": options}
    more = {"architecture": kind, "weights": str(folder / "m.safetensors"), "preprocess": "x"}
    return ModelEntry.parse({"family": "timm", **more, **facts}, "m")


KINDS = [("open_clip", kind) for kind in test_open_clip.KINDS if kind not in ("quickgelu", "rotary", "fused")]
KINDS += [("transformers", kind) for kind in test_transformers.KINDS]
KINDS += [("evaclip", "post"), ("timm", "vit_tiny_patch16_224"), ("timm", "vit_small_patch16_dinov3")]


def sends(architecture: str) -> bool:
    """timm's DINOv3 makes its positions on the host for each batch: some kilobytes, for which it waits."""
    return "dinov3" in architecture


def attention(call) -> tuple[int, int]:
    """How many attentions a call computes, fused and step by step."""
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU]) as seen:
        call()
    found: Counter = Counter()
    for event in seen.events():
        above = event.cpu_parent
        while above is not None and above.name not in FUSED:
            above = above.cpu_parent
        if event.name in FUSED | {"aten::softmax"} and above is None:
            found[event.name in FUSED] += 1
    return found[True], found[False]


class FromTheHost(TorchDispatchMode):
    """Notes what goes to the device from memory of the host, and is no scalar."""

    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), more=None):
        made = function(*arguments, **(more or {}))
        given = [one for one in arguments if isinstance(one, torch.Tensor) and one.device == CPU and one.ndim]
        if given and isinstance(made, torch.Tensor) and made.device == META:
            self.seen.append(str(function))
        return made


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_attention_is_fused_and_nobody_waits(family, kind, tmp_path):
    entry = entry_of(family, kind, tmp_path)
    image = models.load("m", entry, tmp_path, "image", CPU, "fp32")
    images = pixels(image.image_size, 2)
    fused, steps = attention(lambda: image.encode_image(images))
    assert (fused > 0, steps) == ((kind, "image") not in NONE | {("flava", "image")}, STEPS.get((kind, "image"), 0))
    if family != "timm":
        text = models.load("m", entry, tmp_path, "text", CPU, "fp32")
        fused, steps = attention(lambda: text.encode_text(PROMPTS))
        assert (fused > 0, steps) == ((kind, "text") not in STEPS, STEPS.get((kind, "text"), 0))
    image.module.to(META)
    image.device, image._mean, image._std = META, image._mean.to(META), image._std.to(META)
    images = images.to(META)
    with FromTheHost() as traffic:
        image.encode_image(images)
    assert bool(traffic.seen) == sends(kind)


def architectures() -> dict[str, tuple[str, dict]]:
    entries = yaml.safe_load((ROOT / "models.yaml").read_text()).values()
    return {
        one["architecture"]: one for one in entries if one["family"] in ("open_clip", "timm") and "architecture" in one
    }


@pytest.mark.slow
@pytest.mark.parametrize("architecture", architectures())
def test_published_towers_have_no_other_attention(architecture):
    entry = architectures()[architecture]
    with META:
        images = torch.empty(2, 3, entry["size"], entry["size"])
        if entry["family"] == "open_clip":
            encode = open_clip.skeleton(open_clip.open_clip.get_model_config(architecture)).to(META).eval().encode_image
        else:
            encode = (
                timm.create_model(architecture, pretrained=False, **entry.get("options", {})).eval().forward_features
            )
    fused, steps = attention(lambda: encode(images))
    with torch.inference_mode(), FromTheHost() as traffic:
        encode(images)
    assert not steps
    assert fused or any(word in architecture for word in ("convnext", "resnet", "efficientnet", "mobilenet"))
    assert bool(traffic.seen) == sends(architecture)
