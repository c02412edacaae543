"""make verify: right checkpoints of every family pass, and each of the subtle mistakes is caught."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.__main__ import main
from pipeline.chain.task import Runtime
from pipeline.labelled.verify.run import BEFORE, Verification
from pipeline.models import _skeleton
from pipeline.recipes import Project

from ..conftest import ROOT, write_yaml
from ..models import test_declip, test_evaclip, test_open_clip, test_transformers
from ..tiny import local_dir, preprocessor_file, tokenizer_files

CPU = torch.device("cpu")


@pytest.fixture
def root(tmp_path):
    """A project with the demo's images and recipes, and one of its own for each size."""
    for name in ("demo", "datasets", "prompts", "models.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "preprocess", tmp_path / "preprocess")
    for size in (28, 32, 64):
        write_yaml(tmp_path / "preprocess" / f"s{size}.yaml", {"size": size, "ops": [{"resize": "squash"}]})
        bilinear = [{"resize": {"mode": "squash", "interpolation": "bilinear"}}]
        write_yaml(tmp_path / "preprocess" / f"b{size}.yaml", {"size": size, "ops": bilinear})
        crop = [{"resize": "shortest"}, "center_crop"]
        write_yaml(tmp_path / "preprocess" / f"c{size}.yaml", {"size": size, "ops": crop})
    return tmp_path


def verified(root, dtype="fp32", **entry) -> dict:
    """{check: verdict} of an entry, and the verdict of all as 'all'."""
    write_yaml(root / "models.local.yaml", {"mine": entry})
    found = Verification(Runtime(Project(root), device_name="cpu", dtype_name=dtype), "mine")
    found.run()
    texts = {check.name: check.text for check in found.checks}
    assert not any(check.verdict == "failed" for check in found.checks), texts
    return {**{check.name: check.verdict for check in found.checks}, "all": found.verdict, "texts": texts}


def demo(root, **changed) -> dict:
    """A copy of the demo's trained ViT as an entry `mine`; `changed` are tensors, or a function of them all."""
    folder = root / "vit"
    if not folder.exists():
        shutil.copytree(ROOT / "demo" / "models" / "demo-vit", folder)
    state = load_file(folder / "open_clip_model.safetensors")
    save_file({**state, **changed}, folder / "open_clip_model.safetensors")
    return {"family": "open_clip", "weights": "vit", "preprocess": "demo"}


def swapped(state: dict, first: str, second: str) -> dict:
    """The tensors of two layers, exchanged."""

    def other(name: str) -> str:
        return name.replace(first, "\0").replace(second, first).replace("\0", second)

    return {name: state[other(name)] for name in state}


declip = test_declip.published  # a fixture
SECOND = "visual.transformer.resblocks.1."
LIBRARY = ("loading", "normalisation", "pixels", "image features", "text features")


def test_the_demos_models_are_right(root):
    found = verified(root, **demo(root))
    assert found["all"] == "right"
    assert {found[name] for name in (*LIBRARY, "zero-shot", "image weights", "text weights")} == {"right"}
    assert found["file"] == "told", "a local safetensors has nothing to compare with"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["quickgelu", "coca"])
def test_kinds_of_open_clip_agree_with_it(root, kind):
    local_dir(root / "m", test_open_clip.KINDS[kind], test_open_clip.create(test_open_clip.KINDS[kind]))
    found = verified(root, family="open_clip", weights="m", preprocess="s32")
    assert {found[name] for name in LIBRARY} == {"right"}, found["texts"]


def hugging(root, kind: str, folder="m") -> dict:
    test_transformers.checkpoint(root / folder, kind)
    more = {"max_num_patches": 4, "patch_size": 16} if kind == "siglip2" else {}
    preprocessor_file(root / folder, 32, resample=3, **more)
    short = {"context_length": 16} if kind == "blip-2" else {}  # the tiny one has so many positions
    return {"family": "transformers", "weights": folder, "preprocess": "s32", "logit_scale": 1.0, **short}


@pytest.mark.slow
@pytest.mark.parametrize("kind", test_transformers.KINDS)
def test_kinds_of_transformers_agree_with_it(root, kind):
    found = verified(root, **hugging(root, kind))
    asked = [name for name in LIBRARY if kind != "siglip2" or name not in ("normalisation", "pixels")]
    assert {found[name] for name in asked} == {"right"}, found["texts"]


@pytest.mark.slow
def test_backbones_of_timm_agree_with_it(root):
    import timm

    torch.manual_seed(2)
    save_file(timm.create_model("mobilenetv2_050", pretrained=False).state_dict(), root / "m.safetensors")
    facts = {"size": 64, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "resize_mode": "shortest"}
    crop = {"mode": "shortest", "crop_pct": 0.875}
    write_yaml(root / "preprocess" / "t64.yaml", {"size": 64, "ops": [{"resize": crop}, "center_crop"]})
    entry = {
        "family": "timm",
        "architecture": "mobilenetv2_050",
        "weights": "m.safetensors",
        "preprocess": "t64",
        **facts,
    }
    found = verified(root, **entry)
    assert {found[name] for name in LIBRARY if name != "text features"} == {"right"}, found["texts"]
    assert (found["all"], found["zero-shot"]) == ("right", "not done")


def scenes(root, entry: dict):
    """(features of the scenes (60, D), their labels, features of the prompts (48, D) and their classes)."""
    write_yaml(root / "models.local.yaml", {"mine": entry})
    found = Verification(Runtime(Project(root), device_name="cpu", dtype_name="fp32"), "mine")
    pixels, truth = found.scenes()
    prompts, owner = found.words()
    image, text = (found._load(tower, "fp32") for tower in ("image", "text"))
    return image.encode_image(pixels), truth, text.encode_text(prompts), owner


def taught(root, entry: dict, state: dict, key: str, save) -> None:
    """Give a random checkpoint a text projection `key` (W, D) under which scenes and their prompts meet."""
    width, dimensions = state[key].shape
    state[key] = torch.eye(width, dimensions)
    save(state)
    image, truth, text, owner = scenes(root, entry)
    centred = image - image.mean(0)
    means = torch.stack([centred[truth == label].mean(0) for label in range(6)])
    means = means / means.norm(dim=1, keepdim=True)
    hidden = text[:, :width]
    ridge = 1e-3 * torch.eye(width)  # so that rounding is not blown up
    fitting = torch.linalg.solve(hidden.T @ hidden + ridge, hidden.T @ means[owner])
    state[key] = (fitting / fitting.std()).contiguous()
    save(state)


def eva(root) -> tuple[dict, dict, object]:
    """An 18B-like checkpoint that tells the scenes apart; its entry, its tensors, and how they are saved."""
    state = test_evaclip.Reference(test_evaclip.POST).state()
    entry = {"family": "evaclip", "weights": "eva", "file": "eva.pt", "preprocess": "s28"}

    def save(state):
        test_evaclip.write_pt(root / "eva", {k: v.contiguous() for k, v in state.items()}, test_evaclip.POST)

    taught(root, entry, state, "text.text_projection", save)
    return entry, state, save


@pytest.mark.slow
def test_a_family_without_a_library_is_told_by_what_it_is_good_for(root):
    entry, state, save = eva(root)
    found = verified(root, **entry)
    assert (found["all"], found["zero-shot"], found["library"]) == ("right", "right", "not done"), found["texts"]
    assert (found["file"], found["fp16 and fp32"], found["image weights"]) == ("right", "right", "right")
    save(swapped(state, "visual.blocks.0.", "visual.blocks.2."))
    assert verified(root, **entry)["zero-shot"] == "wrong"
    save({**state, "visual.blocks.1.mlp.fc1.weight": state["visual.blocks.0.mlp.fc1.weight"]})
    assert verified(root, **entry)["image weights"] == "wrong", "a matrix that is there twice"
    shuffled = torch.randperm(len(state["text.token_embedding.weight"]))
    save({**state, "text.token_embedding.weight": state["text.token_embedding.weight"][shuffled]})
    assert verified(root, **entry)["zero-shot"] == "wrong", "the ids of another tokenizer"


@pytest.mark.slow
def test_declip_is_compared_with_itself_in_lower_precision(root, declip):
    found = verified(root, family="declip", weights=str(declip[0]), preprocess="s64", allow=["resize_mode"])
    asked = ("file", "loading", "image weights", "text weights", "fp16 and fp32")
    assert {found[name] for name in asked} == {"right"}, found["texts"]


@pytest.mark.parametrize("family", ["open_clip", pytest.param("transformers", marks=pytest.mark.slow)])
def test_layers_that_loading_swaps(root, family, monkeypatch):
    entry = demo(root) if family == "open_clip" else hugging(root, "clip")
    names = ("resblocks.0.", "resblocks.1.") if family == "open_clip" else ("layers.0.", "layers.1.")
    read = _skeleton.read
    monkeypatch.setattr(_skeleton, "read", lambda wanted, path: swapped(read(wanted, path), *names))
    found = verified(root, **entry)
    assert (found["all"], found["image features"], found["text features"]) == ("wrong", "wrong", "wrong")


@pytest.mark.slow
def test_layers_that_are_swapped_in_the_file(root):
    """The library loads them as they are too: what is left is that the scenes cannot be told apart."""
    state = load_file(ROOT / "demo" / "models" / "demo-vit" / "open_clip_model.safetensors")
    found = verified(root, **demo(root, **swapped(state, "transformer.resblocks.0.", "transformer.resblocks.1.")))
    assert (found["all"], found["zero-shot"]) == ("wrong", "wrong"), found["texts"]


@pytest.mark.slow
def test_weights_that_were_verified_and_are_others_later(root):
    """Layers exchanged in the file: the library reads the same file, and the scenes are still told apart."""
    entry = demo(root)
    first = verified(root, **entry)
    assert (first["all"], first[BEFORE]) == ("right", "not done")
    whole = load_file(root / "vit" / "open_clip_model.safetensors")
    found = verified(root, **demo(root, **swapped(whole, "visual.transformer.resblocks.0.", SECOND)))
    assert {found[name] for name in LIBRARY} == {"right"}
    assert (found["all"], found[BEFORE]) == ("wrong", "wrong")
    assert "remove reports/verify/mine.pt" in found["texts"][BEFORE]


@pytest.mark.slow
def test_what_was_verified_is_of_its_entry_and_only_what_is_right_is_kept(root):
    entry = demo(root)
    whole = load_file(root / "vit" / "open_clip_model.safetensors")
    wrong = demo(root, **swapped(whole, "transformer.resblocks.0.", "transformer.resblocks.1."))
    for _ in range(2):
        assert verified(root, **wrong)[BEFORE] == "not done", "what is wrong is kept for nothing"
    demo(root, **whole)
    assert [verified(root, **entry)[BEFORE] for _ in range(2)] == ["not done", "right"]
    assert verified(root, dtype="bf16", **entry)[BEFORE] == "right"
    assert verified(root, **entry, licence="MIT")[BEFORE] == "not done", "another entry"
    assert verified(root, **hugging(root, "clip"))["all"] == "wrong", "random ones tell no scenes apart"
    (root / "reports" / "verify" / "mine.pt").write_bytes(b"damaged")
    assert verified(root, **entry)[BEFORE] == "not done"


@pytest.mark.slow
def test_another_activation(root):
    entry = demo(root)
    config = json.loads((root / "vit" / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = True
    (root / "vit" / "open_clip_config.json").write_text(json.dumps(config))
    found = verified(root, **entry, quick_gelu=False)
    assert (found["all"], found["loading"]) == ("wrong", "wrong") and "activation" in found["texts"]["loading"]
    entry = hugging(root, "clip")
    config = json.loads((root / "m" / "config.json").read_text())
    config["text_config"]["hidden_act"] = "gelu"
    (root / "m" / "config.json").write_text(json.dumps(config))
    assert "activation" in verified(root, **entry, quick_gelu=True)["texts"]["loading"]


@pytest.mark.slow
def test_another_mean(root):
    for entry in (demo(root), hugging(root, "clip")):
        found = verified(root, **entry, mean=[0.48, 0.45, 0.4])
        assert found["loading"] == "wrong" and "mean" in found["texts"]["loading"]
        found = verified(root, **entry, mean=[0.48, 0.45, 0.4], allow=["mean"])
        assert (found["all"], found["normalisation"], found["image features"]) == ("wrong", "wrong", "wrong")


@pytest.mark.slow
def test_pixels_that_the_library_makes_otherwise(root):
    entry = {**demo(root), "preprocess": "b64"}
    found = verified(root, **entry)
    assert (found["all"], found["pixels"], found["image features"]) == ("wrong", "wrong", "right")
    found = verified(root, **{**entry, "preprocess": "c64"}, allow=["resize_mode"])
    assert (found["all"], found["pixels"]) == ("right", "told"), "the entry says that it is meant to"


@pytest.mark.slow
def test_another_tokenizer(root):
    entry = hugging(root, "clip")
    tokenizer_files(root / "tokens")
    file = root / "tokens" / "tokenizer.json"
    content = json.loads(file.read_text())
    words = content["model"]["vocab"]
    content["model"]["vocab"] = {**words, "cat": words["dog"], "dog": words["cat"], "a": words["of"], "of": words["a"]}
    file.write_text(json.dumps(content))
    found = verified(root, **entry, tokenizer="tokens")
    assert (found["all"], found["text features"], found["image features"]) == ("wrong", "wrong", "right")


@pytest.mark.slow
def test_a_damaged_file_and_one_that_is_not_there(root):
    entry = demo(root)
    (root / "vit" / "open_clip_model.safetensors").write_bytes(b"half of it")
    found = verified(root, **entry)
    assert (found["all"], found["loading"]) == ("wrong", "wrong")
    assert "not a whole safetensors file" in found["texts"]["loading"]


@pytest.mark.slow
def test_the_command(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    write_yaml(root / "models.local.yaml", {"mine": demo(root), "other": {**demo(root), "preprocess": "b64"}})
    assert main(["verify"]) == 0
    assert "mine" in capsys.readouterr().out
    assert main(["verify", "MODEL=mine", "DTYPE=bf16"]) == 0
    said = capsys.readouterr().out
    assert "mine is right" in said and "next: keep reports/verify/mine.json" in said
    record = json.loads((root / "reports" / "verify" / "mine.json").read_text())
    assert (record["verdict"], record["model"]) == ("right", "mine")
    assert {"torch", "open_clip_torch"} & set(record["versions"])
    assert str(root) not in json.dumps(record), "nothing of this machine's folders"
    assert any(check["name"] == "bf16 and fp32" and check["verdict"] == "right" for check in record["checks"])
    assert main(["verify", "MODEL=other"]) == 1
    assert "next: paste reports/verify/other.json into a bug report" in capsys.readouterr().out
    assert main(["verify"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "right, 20" in lines["mine"] and "wrong, 20" in lines["other"]
    assert "not yet" in lines["demo-resnet"]
