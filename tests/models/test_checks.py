"""Self-checks at load: each planted mistake is an error that names its fix, and `allow` silences it by name."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pipeline import models
from pipeline.chain import features as chain_features
from pipeline.chain import probs as chain_probs
from pipeline.chain import text as chain_text
from pipeline.chain.task import CompetitionTask
from pipeline.core.errors import Damaged, Mismatch, NotFound, PromptsTooLong, Unavailable
from pipeline.models import _checks
from pipeline.recipes import ModelEntry, Preprocess, Project

from ..conftest import fresh, refused, write_yaml
from ..models.test_open_clip import KINDS, create, entry
from ..tiny import MEAN, PROMPTS, local_dir, pixels, tokenizer_files

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return local_dir(tmp_path / "m", KINDS["clip"], create(KINDS["clip"]))


def load(folder, tower="image", dtype="fp32", **more):
    return models.load("m", entry(folder, **more), folder.parent, tower, CPU, dtype)


@pytest.mark.parametrize(
    "wrong, check, found",
    [
        ({"mean": [0.48, 0.45, 0.4]}, "mean", "[0.5, 0.4, 0.3]"),
        ({"std": [0.26, 0.26, 0.27]}, "std", "[0.2, 0.3, 0.25]"),
        ({"resize_mode": "shortest"}, "resize_mode", "squash"),
        ({"quick_gelu": True}, "activation", "false"),
        ({"context_length": 77}, "context_length", "12"),
        ({"size": 64}, "size", "32"),
    ],
)
def test_a_declared_fact_that_the_checkpoint_contradicts(folder, wrong, check, found):
    with refused(Mismatch, f"models.yaml: m: {check}:", found) as error:
        load(folder, **wrong)
    if check not in ("size", "context_length"):
        assert f"allow: [{check}]" in str(error.value)
        model = load(folder, **wrong, allow=[check])
        (name, value), *_ = wrong.items()
        if name != "quick_gelu":
            assert getattr(model, name) == (tuple(value) if isinstance(value, list) else value)


def test_an_allowed_mean_is_used(folder):
    own = load(folder).encode_image(pixels(32))
    moved = load(folder, mean=[0.1, 0.1, 0.1], allow=["mean"]).encode_image(pixels(32))
    assert (own - moved).abs().max() > 1e-3
    torch.testing.assert_close(load(folder, mean=MEAN).encode_image(pixels(32)), own)


def test_an_unknown_check_cannot_be_allowed():
    entry = ModelEntry.parse({"family": "open_clip", "tag": "t", "preprocess": "x", "allow": ["sizes"]}, "m")
    with refused(NotFound, "models.yaml: m: allow", "'sizes'", "Did you mean 'size'?"):
        models.identity("m", entry, Path())


def test_another_size_is_for_convolutions_only():
    fields = {"architecture": "x", "tag": "t", "preprocess": "x", "allow": ["size"]}
    with refused(Mismatch, "'size'", "family timm"):
        models.identity("m", ModelEntry.parse({"family": "open_clip", **fields}, "m"), Path())
    models.identity("m", ModelEntry.parse({"family": "timm", **fields}, "m"), Path())


def test_missing_and_unexpected_keys(folder):
    path = folder / "open_clip_model.safetensors"
    state = load_file(path)
    removed = state.pop("visual.ln_post.weight")
    save_file({**state, "visual.extra": torch.zeros(1)}, path)
    with refused(Mismatch, "1 missing keys (visual.ln_post.weight)", "1 unexpected keys (visual.extra)"):
        load(folder, "text")
    save_file({**state, "visual.ln_post.weight": removed, "visual.extra": torch.zeros(1)}, path)
    with refused(Mismatch, "visual.extra", "allow: [unexpected_keys]"):
        load(folder, "text")
    load(folder, "text", allow=["unexpected_keys"])


def test_a_vocabulary_of_another_size_in_the_file(folder):
    path = folder / "open_clip_model.safetensors"
    state = load_file(path)
    state["token_embedding.weight"] = state["token_embedding.weight"][:100].clone()
    save_file(state, path)
    with refused(Mismatch, "vocabulary", "100 rows", "49408"):
        load(folder, "text")


def test_a_tokenizer_of_another_model(tmp_path):
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    rows = tokenizer_files(tokens)
    config = {**KINDS["clip"], "text_cfg": {**KINDS["clip"]["text_cfg"], "hf_tokenizer_name": "x"}}
    folder = local_dir(tmp_path / "m", config, create(KINDS["clip"]))
    with refused(Mismatch, "vocabulary", f"{rows} tokens", "49408 rows"):
        load(folder, "text", tokenizer="tokens")
    load(folder, "text", tokenizer="tokens", allow=["vocabulary"]).encode_text(PROMPTS)
    with refused(Unavailable, "tokenizer x", "'tokenizer: path'"):
        load(folder, "text")


def test_prompts_that_are_cut_are_named_with_what_they_lose(folder):
    text = load(folder, "text")
    fitting = "a photo of a cat and a dog and a"  # ten tokens, start and end
    long = fitting + " house in the mountains"
    text.encode_text([fitting])
    with refused(PromptsTooLong, "1 of 2 prompts", "12 tokens", f"{long!r} loses 4"):
        text.encode_text([fitting, long])
    cut = load(folder, "text", allow=["prompts_cut"]).encode_text([long])
    assert cut.isfinite().all()


def test_sizes_and_modes_of_recipes(project_root):
    root = project_root
    write_yaml(root / "preprocess" / "big.yaml", {"size": 64, "ops": ["resize"]})
    write_yaml(root / "preprocess" / "crop.yaml", {"size": 32, "ops": [{"resize": "shortest"}, "center_crop"]})
    with refused(Mismatch, "vit@big: preprocess/big.yaml makes 64", "vit takes 32", "tiny"):
        chain_probs.of_member(fresh(root), fresh(root).project.member("vit@big"))
    with refused(Mismatch, "crop.yaml", "shortest", "vit", "squash", " tiny, tiny-sharp"):
        chain_probs.of_member(fresh(root), fresh(root).project.member("vit@crop"))
    entries = {"vit3": {**Project(root).model("vit").model_dump(include={"family", "weights", "preprocess"})}}
    write_yaml(root / "models.local.yaml", {"vit3": {**entries["vit3"], "allow": ["resize_mode"]}})
    chain_probs.of_member(fresh(root), fresh(root).project.member("vit3@crop"))


def test_a_declared_size_is_checked_before_any_image_is_read(project_root):
    entry = {"family": "open_clip", "weights": "absent", "preprocess": "tiny", "size": 64}
    (project_root / "absent").mkdir()
    write_yaml(project_root / "models.local.yaml", {"far": entry})
    with refused(Mismatch, "far takes 64"):
        chain_probs.of_member(fresh(project_root), fresh(project_root).project.member("far@tiny"))
    assert not (project_root / "cache/tiny/images").exists()


@given(st.sampled_from(["squash", "shortest"]), st.booleans(), st.booleans())
def test_resize_mode_of_a_recipe_in_every_spelling(mode, short, more):
    op = mode if short else {"mode": mode}
    ops = [{"resize": op}, "center_crop"] + ([{"sharpen": 2.0}] if more else [])
    recipe = Preprocess.parse({"size": 8, "ops": ops}, "r")
    assert _checks.recipe_resize_mode(recipe.ops) == mode
    squashed = Preprocess.parse({"size": 8, "ops": ["resize"]}, "r")
    padded = Preprocess.parse({"size": 8, "ops": ["pad_square", "resize"]}, "r")
    assert [_checks.recipe_resize_mode(r.ops) for r in (squashed, padded)] == ["squash", "longest"]
    assert _checks.recipe_resize_mode(Preprocess.parse({"size": 8, "ops": ["center_crop"]}, "r").ops) is None


@pytest.fixture
def overflowing(tmp_path):
    """A tower whose second block's MLP leaves the range of fp16, and is finite in fp32."""
    model = create(KINDS["clip"])
    with torch.no_grad():
        model.visual.transformer.resblocks[1].mlp.c_fc.weight.mul_(1e6)
        model.visual.transformer.resblocks[1].mlp.c_proj.weight.mul_(1e-6)
    return local_dir(tmp_path / "m", KINDS["clip"], model)


def test_fp16_overflow_names_the_layer_type_and_the_fix(overflowing):
    exact = load(overflowing).encode_image(pixels(32))
    assert exact.isfinite().all()
    half = load(overflowing, dtype="fp16")
    assert not half.encode_image(pixels(32)).isfinite().all()
    told = half.why_not_finite(pixels(32))
    for part in (
        "Linear (visual.transformer.resblocks.1.mlp.c_fc) overflows first in fp16",
        "fp32_layers: [Linear]",
        "DTYPE=fp32",
    ):
        assert part in told
    fixed = load(overflowing, dtype="fp16", fp32_layers=["Linear"])
    torch.testing.assert_close(fixed.encode_image(pixels(32)), exact, atol=5e-3, rtol=0)
    kinds = {
        type(layer).__name__: {p.dtype for p in layer.parameters(recurse=False)} for layer in fixed.module.modules()
    }
    assert (kinds["Linear"], kinds["Conv2d"]) == ({torch.float32}, {torch.float16})
    with refused(NotFound, "fp32_layers", "'Linaer'", "Did you mean 'Linear'"):
        load(overflowing, dtype="fp16", fp32_layers=["Linaer"])


def test_an_overflow_in_the_chain_names_the_image_and_the_prompt(project_root):
    for part, tower, inputs in (("visual", "visual.transformer", "0.jpg"), ("text", "transformer", "'Cats'")):
        model = create(KINDS["clip"])
        with torch.no_grad():
            model.get_submodule(f"{tower}.resblocks.0.mlp.c_fc").weight.mul_(1e6)
            model.get_submodule(f"{tower}.resblocks.0.mlp.c_proj").weight.mul_(1e-6)
        folder = local_dir(project_root / part, KINDS["clip"], model)
        fields = {"family": "open_clip", "weights": str(folder), "preprocess": "tiny"}
        write_yaml(project_root / "models.local.yaml", {part: fields})
        with refused(Damaged, part, f"features of {inputs}", "Linear"):
            chain_probs.of_member(
                CompetitionTask(Project(project_root), "tiny", dtype_name="fp16"),
                CompetitionTask(Project(project_root), "tiny", dtype_name="fp16").project.member(f"{part}@tiny"),
            )
        chain_probs.of_member(fresh(project_root), fresh(project_root).project.member(f"{part}@tiny"))


def test_nothing_that_is_not_finite_in_fp32_is_blamed_on_the_dtype(tmp_path):
    model = create(KINDS["clip"])
    torch.nn.init.constant_(model.visual.ln_post.weight, float("nan"))
    folder = local_dir(tmp_path / "m", KINDS["clip"], model)
    for dtype in ("fp32", "fp16"):
        broken = load(folder, dtype=dtype)
        assert not broken.encode_image(pixels(32)).isfinite().any()
        told = broken.why_not_finite(pixels(32))
        assert told == "weight visual.ln_post.weight is not finite: the file is damaged, fetch it again"


def test_a_config_whose_size_is_not_that_of_the_positions(tmp_path):
    """ViTamin-XL-384's published mistake, on a small timm tower with positions."""
    config = {
        "embed_dim": 16,
        "custom_text": True,
        "text_cfg": KINDS["clip"]["text_cfg"],
        "vision_cfg": {
            "timm_model_name": "vit_tiny_patch16_224",
            "timm_pool": "token",
            "timm_proj": None,
            "image_size": 192,
        },
    }
    folder = local_dir(tmp_path / "m", config, create(config))
    with refused(Mismatch, "position_embedding", "192", "'size: 224'"):
        load(folder)
    assert load(folder, size=224).image_size == 224


def test_only_what_changes_features_is_part_of_the_identity(folder):
    """An edit of a declaration must not cost a second pass of a large model."""

    def identity(**more) -> str:
        return json.dumps(models.identity("m", entry(folder, **more), folder.parent), sort_keys=True)

    def text(**more) -> dict:
        return models.text_identity(entry(folder, **more))

    for more in (
        {"licence": "MIT", "note": "x", "parameters": 3.0},
        {"allow": ["resize_mode", "prompts_cut"]},
        {"size": 32, "context_length": 12},
        {"tokenizer": "t"},
        {"logit_scale": 9.0},
    ):
        assert identity(**more) == identity()
    different = [
        identity(),
        identity(allow=["mean"], mean=[0.1, 0.1, 0.1]),
        identity(allow=["mean"], mean=MEAN),
        identity(fp32_layers=["Linear"]),
        identity(options={"a": 1}),
        identity(allow=["position_embedding"], size=48),
    ]
    assert len(set(different)) == len(different)
    assert text(licence="MIT", context_length=12, allow=["resize_mode"]) == text() == {}
    assert text(tokenizer="t") == {"tokenizer": "t"}
    assert text(logit_scale=9.0) == {"logit_scale": 9.0}
    assert text(family="transformers", context_length=8) == {"context_length": 8, "reading": 2}


def test_a_new_logit_scale_costs_no_image(project_root):
    fields = Project(project_root).model("vit").model_dump(include={"family", "weights", "preprocess"})
    counts = []
    for scale in (None, 9.0):
        write_yaml(project_root / "models.local.yaml", {"mine": fields | ({"logit_scale": scale} if scale else {})})
        task = fresh(project_root)
        counts.append(
            (
                chain_features.of_member(task, task.project.member("mine@tiny"))[1],
                chain_text.of_prompts(task, "mine", task.prompts)[1],
            )
        )
    assert counts == [(23, 12), (0, 12)]
