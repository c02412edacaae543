"""Family open_clip: tiny checkpoints of every kind of architecture, against the library's own loading."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline import models
from pipeline.core.errors import Damaged, Forbidden, Mismatch, NotFound, UserError
from pipeline.recipes import ModelEntry

from ..conftest import refused, tiny_config
from ..tiny import MEAN, PROMPTS, STD, local_dir, pixels, preprocessor_file, scaled, tokenizer_files

CPU = torch.device("cpu")
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 16, "head_width": 16}
KINDS = {
    "clip": {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT},
    "quickgelu": {"embed_dim": 16, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT},
    "resnet": {
        "embed_dim": 16,
        "text_cfg": TEXT,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    },
    # as coca_ViT-L-14: attentional pooling, a class token in the text, a decoder that is not needed
    "coca": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": {
            **VISION,
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "attn_pooler_queries": 4,
            "output_tokens": True,
        },
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {
            "context_length": 12,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
            "attn_pooler_heads": 2,
        },
    },
    # as PE and EVA-02: a timm tower with rotary positions that no checkpoint holds, here a small EVA-02
    "rotary": {
        "embed_dim": 16,
        "custom_text": True,
        "text_cfg": TEXT,
        "vision_cfg": {
            "timm_model_name": "eva02_tiny_patch14_224",
            "timm_pool": "token",
            "timm_proj": None,
            "image_size": 224,
        },
    },
    # as MobileCLIP2: branches that become one convolution for inference
    "fused": {
        "embed_dim": 16,
        "custom_text": True,
        "text_cfg": {**TEXT, "no_causal_mask": True},
        "vision_cfg": {"timm_model_name": "fastvit_t8", "timm_pool": "avg", "timm_proj": None, "image_size": 256},
    },
}


def create(config: dict) -> torch.nn.Module:
    """The library's model with random weights that are not those of initialisation."""
    import open_clip

    torch.manual_seed(1)
    config = copy.deepcopy(config)
    custom = config.pop("custom_text", False)
    kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP if custom else open_clip.CLIP
    model = kind(**config)
    for name, value in model.named_parameters():
        if value.ndim > 1:
            torch.nn.init.normal_(value, std=0.05)
        elif "logit" not in name:
            torch.nn.init.normal_(value, mean=0.5 if name.endswith("weight") else 0.0, std=0.1)
    torch.nn.init.constant_(model.logit_scale, np.log(30.0))
    return model.eval()


def entry(folder, **more) -> ModelEntry:
    return ModelEntry.parse({"family": "open_clip", "weights": str(folder), "preprocess": "x"} | more, "m")


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_librarys(kind, tmp_path):
    import open_clip

    folder = local_dir(tmp_path / "m", KINDS[kind], create(KINDS[kind]))
    library, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    library.eval()
    size = KINDS[kind]["vision_cfg"]["image_size"]
    image = models.load("m", entry(folder), tmp_path, "image", CPU, "fp32")
    text = models.load("m", entry(folder), tmp_path, "text", CPU, "fp32")
    with torch.inference_mode():
        of_images = library.encode_image(scaled(pixels(size)), normalize=True)
        of_prompts = library.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(PROMPTS), normalize=True)
    torch.testing.assert_close(image.encode_image(pixels(size)), of_images, atol=1e-4, rtol=0)
    torch.testing.assert_close(text.encode_text(PROMPTS), of_prompts, atol=1e-4, rtol=0)
    assert text.logit_scale == pytest.approx(30.0)
    assert (image.image_size, image.mean, image.std, image.resize_mode) == (size, tuple(MEAN), tuple(STD), "squash")
    assert (text.context_length, text.dtype) == (12, "fp32")


@pytest.mark.parametrize("kind", KINDS)
def test_only_one_tower_is_materialised(kind, tmp_path):
    model = create(KINDS[kind])
    folder = local_dir(tmp_path / "m", KINDS[kind], model)
    image = models.load("m", entry(folder), tmp_path, "image", CPU, "fp32").module
    text = models.load("m", entry(folder), tmp_path, "text", CPU, "fp32").module
    of_image = {name for name, _ in image.named_parameters()} - {"logit_scale"}
    of_text = {name for name, _ in text.named_parameters()} - {"logit_scale"}
    assert of_image and all(name.startswith("visual.") for name in of_image)
    assert of_text and not any(name.startswith(("visual.", "text_decoder.")) for name in of_text)
    rest = {name for name, _ in model.named_parameters()} - {"logit_scale"} - of_text
    assert all(name.startswith(("visual.", "text_decoder.")) for name in rest)


@pytest.mark.parametrize("dtype", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])  # emulated on a CPU
@pytest.mark.parametrize("kind", ["clip", "coca", "rotary", "fused"])
def test_half_precision_is_close(kind, dtype, tmp_path):
    folder = local_dir(tmp_path / "m", KINDS[kind], create(KINDS[kind]))
    size = KINDS[kind]["vision_cfg"]["image_size"]
    for tower in ("image", "text"):
        exact = models.load("m", entry(folder), tmp_path, tower, CPU, "fp32")
        half = models.load("m", entry(folder), tmp_path, tower, CPU, dtype)
        encode = [(m.encode_image(pixels(size)) if tower == "image" else m.encode_text(PROMPTS)) for m in (exact, half)]
        assert encode[1].dtype == torch.float32
        assert (encode[0] * encode[1]).sum(-1).min() > 0.99
        assert any(p.dtype != torch.float32 for p in half.module.parameters())


def test_sigmoid_models_get_canonical_text_from_their_own_tokenizer(tmp_path):
    """SigLIP's layout: timm tower, text tower with last-token pooling, tokenizer files in the folder."""
    import open_clip

    folder = tmp_path / "m"
    folder.mkdir()
    rows = tokenizer_files(folder)
    config = {
        "embed_dim": 16,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": VISION,
        "text_cfg": {
            **TEXT,
            "vocab_size": rows,
            "hf_tokenizer_name": "somewhere/else",
            "no_causal_mask": True,
            "pool_type": "last",
            "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    }
    local_dir(folder, config, create(config))
    text = models.load("m", entry(folder), tmp_path, "text", CPU, "fp32")
    assert text.logit_bias == models.load("m", entry(folder), tmp_path, "image", CPU, "fp32").logit_bias == -10
    library, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(PROMPTS)
    with torch.inference_mode():
        expected = library.eval().encode_text(tokens, normalize=True)
    torch.testing.assert_close(text.encode_text(PROMPTS), expected, atol=1e-4, rtol=0)
    shouted = [f"{prompt.upper()}!" for prompt in PROMPTS]
    torch.testing.assert_close(text.encode_text(shouted), expected, atol=1e-4, rtol=0)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A tiny architecture and tag in the library's own tables, with its file in the hub's local cache."""
    import open_clip
    from huggingface_hub import constants

    config = tmp_path / "Tiny-ViT-quickgelu.json"
    config.write_text(json.dumps(KINDS["quickgelu"]))
    (tmp_path / "Tiny-ViT.json").write_text(json.dumps(KINDS["clip"]))
    for name in ("_MODEL_CONFIGS", "_MODEL_CONFIG_PATHS"):
        monkeypatch.setattr(open_clip.factory, name, copy.copy(getattr(open_clip.factory, name)))
    open_clip.add_model_config(config)
    open_clip.add_model_config(tmp_path / "Tiny-ViT.json")
    tag = {
        "hf_hub": "some/tiny/",
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "quick_gelu": True,
    }
    for name in ("Tiny-ViT", "Tiny-ViT-quickgelu"):
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, {"tag": tag})
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--some--tiny"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots" / commit).mkdir(parents=True)
    model = create(KINDS["quickgelu"])
    torch.save(model.state_dict(), repo / "snapshots" / commit / "open_clip_pytorch_model.bin")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return model


def tagged(**more) -> ModelEntry:
    fields = {"family": "open_clip", "architecture": "Tiny-ViT-quickgelu", "tag": "tag", "preprocess": "x"}
    return ModelEntry.parse({**fields, **more}, "m")


def test_a_published_tag_is_loaded_from_the_hubs_cache_with_its_own_preprocessing(published, tmp_path):
    image = models.load("m", tagged(), tmp_path, "image", CPU, "fp32")
    with torch.inference_mode():
        expected = published.encode_image(scaled(pixels(32)), normalize=True)
    torch.testing.assert_close(image.encode_image(pixels(32)), expected, atol=1e-4, rtol=0)
    assert (image.mean, image.resize_mode) == (tuple(MEAN), "shortest")


def test_a_local_copy_of_a_published_file_keeps_the_tags_facts(published, tmp_path):
    file = tmp_path / "copy.safetensors"
    save_file(published.state_dict(), file)
    image = models.load("m", tagged(weights=str(file)), tmp_path, "image", CPU, "fp32")
    assert (image.mean, image.resize_mode) == (tuple(MEAN), "shortest")
    with refused(UserError, "m: ", "mean, std, resize_mode, quick_gelu"):
        models.load("m", tagged(weights=str(file), tag=None), tmp_path, "image", CPU, "fp32")
    told = {"mean": MEAN, "std": STD, "resize_mode": "shortest", "quick_gelu": True}
    same = models.load("m", tagged(weights=str(file), tag=None, **told), tmp_path, "image", CPU, "fp32")
    torch.testing.assert_close(same.encode_image(pixels(32)), image.encode_image(pixels(32)))


def test_activation_of_a_tag(published, tmp_path):
    with refused(Mismatch, "activation", "QuickGELU", "Tiny-ViT", "'-quickgelu'"):
        models.load("m", tagged(architecture="Tiny-ViT"), tmp_path, "image", CPU, "fp32")
    allowed = tagged(architecture="Tiny-ViT", allow=["activation"])
    right = models.load("m", tagged(), tmp_path, "image", CPU, "fp32").encode_image(pixels(32))
    wrong = models.load("m", allowed, tmp_path, "image", CPU, "fp32").encode_image(pixels(32))
    assert (right - wrong).abs().max() > 1e-4, "the planted mistake changes the features"


@pytest.mark.parametrize(
    "more, parts",
    [
        ({"architecture": "Tiny-VIT-quickgelu"}, ["'Tiny-VIT-quickgelu'", "Did you mean 'Tiny-ViT"]),
        ({"tag": "tagg"}, ["'tagg'", "Did you mean 'tag'"]),
    ],
)
def test_unknown_names(published, tmp_path, more, parts):
    with refused(NotFound, *parts):
        models.load("m", tagged(**more), tmp_path, "image", CPU, "fp32")


@pytest.mark.filterwarnings("ignore")  # of torch, that scripting is old
def test_a_file_of_openai_that_is_code_is_not_run(published, tmp_path):
    file = tmp_path / "ViT.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(file))
    with refused(Forbidden, "models.yaml: m: ", "ViT.pt"):
        models.load("m", tagged(weights=str(file)), tmp_path, "image", CPU, "fp32")


def test_positions_are_interpolated_only_when_asked(tmp_path):
    import open_clip

    folder = local_dir(tmp_path / "m", KINDS["clip"], create(KINDS["clip"]))
    with refused(Mismatch, "size: 48", "32"):
        models.load("m", entry(folder, size=48), tmp_path, "image", CPU, "fp32")
    larger = models.load("m", entry(folder, size=48, allow=["position_embedding"]), tmp_path, "image", CPU, "fp32")
    library, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}", force_image_size=48)
    with torch.inference_mode():
        expected = library.eval().encode_image(scaled(pixels(48)), normalize=True)
    torch.testing.assert_close(larger.encode_image(pixels(48)), expected, atol=1e-4, rtol=0)
    assert larger.image_size == 48


def test_positions_of_another_size_in_the_file(tmp_path):
    config = {**KINDS["clip"], "vision_cfg": {**VISION, "image_size": 48}}
    folder = local_dir(tmp_path / "m", config, create(KINDS["clip"]))
    with refused(Mismatch, "position_embedding: visual.positional_embedding"):
        models.load("m", entry(folder), tmp_path, "image", CPU, "fp32")


def test_a_folder_that_says_little_has_the_librarys_defaults(tmp_path):
    import open_clip

    folder = local_dir(tmp_path / "m", KINDS["clip"], create(KINDS["clip"]))
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": KINDS["clip"]}))
    image = models.load("m", entry(folder), tmp_path, "image", CPU, "fp32")
    library, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    said = library.visual.preprocess_cfg
    assert (image.mean, image.std, image.resize_mode) == (tuple(said["mean"]), tuple(said["std"]), said["resize_mode"])
    (folder / "open_clip_config.json").write_text("{}")
    with refused(Damaged, str(folder), "'model_cfg'"):
        models.load("m", entry(folder), tmp_path, "image", CPU, "fp32")


def test_existing_configs_of_the_suite_still_load(tmp_path):
    config = tiny_config(1)["model_cfg"]
    folder = local_dir(tmp_path / "m", config, create(config))
    preprocessor_file(folder, 32)  # a file of another library beside it changes nothing
    assert models.load("m", entry(folder), tmp_path, "image", CPU, "fp32").image_size == 32


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_weights_stay_in_their_mapped_file(published, tmp_path, suffix):
    """Loading makes no copy in memory where the dtype is the file's."""
    file = tmp_path / f"copy{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(published.state_dict(), file)
    for tower in ("image", "text"):
        module = models.load("m", tagged(weights=str(file)), tmp_path, tower, CPU, "fp32").module
        maps = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if str(file) in line]
        ranges = [[int(address, 16) for address in span.split("-")] for span in maps]
        copied = [
            name
            for name, parameter in module.named_parameters()
            if not any(start <= parameter.data_ptr() < end for start, end in ranges)
        ]
        assert set(copied) <= {"logit_scale"}
