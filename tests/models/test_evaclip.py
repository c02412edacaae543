"""EVA-CLIP against an independent construction: timm's Eva and open_clip's text tower, on tiny random weights."""

import json
import math
import pickle
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline import models
from pipeline.core._torchvision import allow_import
from pipeline.core.errors import Damaged, Forbidden, Mismatch, NotFound, Unavailable, UserError
from pipeline.models import _eva_towers as towers
from pipeline.models import _placement, evaclip
from pipeline.models.family import Wanted
from pipeline.recipes import ModelEntry

from ..conftest import refused
from .conftest import COMMIT

allow_import()
from open_clip.transformer import TextTransformer  # noqa: E402  (needs the line above)
from timm.layers import RmsNorm  # noqa: E402
from timm.models.eva import Eva  # noqa: E402

POST = towers.EvaConfig(
    embed_dim=24,
    width=32,
    depth=3,
    heads=2,
    mlp_width=160,
    post_norm=True,
    image_size=28,
    patch_size=7,
    text_width=16,
    text_depth=2,
    text_heads=2,
    text_mlp_width=64,
)
CONFIGS = {"18B-like": POST, "8B-like": replace(POST, embed_dim=20, post_norm=False)}
PROMPTS = ["a photo of a cat", "a dog", "many words " * 60]
CPU = torch.device("cpu")


# ---- the published layouts, from the table in the project's notes rather than from the code under test

HUB_BLOCK = {
    "image": {
        "attn.proj": "self_attn.out_proj",
        "norm1": "layer_norm1",
        "norm2": "layer_norm2",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    },
    "text": {
        "attn.out_proj": "self_attn.out_proj",
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    },
}
HUB_TOP = {
    "visual.cls_token": "vision_model.embeddings.class_embedding",
    "visual.pos_embed": "vision_model.embeddings.position_embedding.weight",
    "visual.patch_embed.proj.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.patch_embed.proj.bias": "vision_model.embeddings.patch_embedding.bias",
    "visual.norm.weight": "vision_model.post_layernorm.weight",
    "visual.head.weight": "visual_projection.weight",
    "text.token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "text.positional_embedding": "text_model.embeddings.position_embedding.weight",
    "text.ln_final.weight": "text_model.final_layer_norm.weight",
    "text.ln_final.bias": "text_model.final_layer_norm.bias",
    "text.text_projection": "text_projection.weight",
}


def pt_names(config: towers.EvaConfig) -> set[str]:
    """All names of the single-file layout."""
    weight_bias = ("weight", "bias")
    image = ["attn.qkv.weight", "norm1.weight", "norm2.weight"]
    image += [f"{part}.{kind}" for part in ("attn.proj", "mlp.fc1", "mlp.fc2") for kind in weight_bias]
    text = ["attn.in_proj_weight", "attn.in_proj_bias"]
    text += [f"{part}.{kind}" for part in HUB_BLOCK["text"] for kind in weight_bias]
    return (
        {*HUB_TOP, "logit_scale"}
        | {f"visual.blocks.{n}.{name}" for n in range(config.depth) for name in image}
        | {f"text.transformer.resblocks.{n}.{name}" for n in range(config.text_depth) for name in text}
    )


def hub_tensors(name: str, tensor) -> dict:
    """One entry of the single-file layout in the hub's layout; `tensor` may be None when only names matter."""
    if name == "logit_scale":
        return {}
    if name in HUB_TOP:
        if tensor is not None and name == "text.text_projection":
            tensor = tensor.T.contiguous()
        elif tensor is not None and name in ("visual.cls_token", "visual.pos_embed"):
            tensor = tensor.squeeze(0).squeeze(0) if name == "visual.cls_token" else tensor[0]
        return {HUB_TOP[name]: tensor}
    image = name.startswith("visual.")
    number, _, rest = name.removeprefix("visual.blocks." if image else "text.transformer.resblocks.").partition(".")
    start = f"{'vision' if image else 'text'}_model.encoder.layers.{number}"
    if rest.startswith(("attn.qkv.", "attn.in_proj_")):
        kind = rest.removeprefix("attn.qkv.").removeprefix("attn.in_proj_")
        parts = [None] * 3 if tensor is None else [part.clone() for part in tensor.chunk(3)]
        return {f"{start}.self_attn.{p}_proj.{kind}": part for p, part in zip("qkv", parts, strict=True)}
    part, _, kind = rest.rpartition(".")
    return {f"{start}.{HUB_BLOCK['image' if image else 'text'][part]}.{kind}": tensor}


def to_hub(state: dict) -> dict:
    return {name: tensor for key, value in state.items() for name, tensor in hub_tensors(key, value).items()}


# ---- the reference


class Reference:
    """timm's Eva and open_clip's text tower with random weights; their names are those of the .pt layout."""

    @torch.no_grad()
    def __init__(self, config: towers.EvaConfig, seed: int = 0):
        torch.manual_seed(seed)
        self.config = config
        self.visual = Eva(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            mlp_ratio=5,
            qkv_bias=False,
            use_post_norm=config.post_norm,
            norm_layer=partial(RmsNorm, eps=1e-6),
            global_pool="token",
            num_classes=config.embed_dim,
        ).eval()
        self.text = TextTransformer(
            width=config.text_width, layers=config.text_depth, heads=config.text_heads, output_dim=config.embed_dim
        ).eval()
        for parameter in [*self.visual.parameters(), *self.text.parameters()]:
            parameter.normal_(std=0.5 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5)
        self.visual.head.bias.zero_()  # EVA-CLIP's projection has none

    def state(self) -> dict[str, torch.Tensor]:
        """In the layout of the single .pt file."""
        state = {f"visual.{name}": tensor for name, tensor in self.visual.state_dict().items() if name != "head.bias"}
        state |= {f"text.{name}": tensor for name, tensor in self.text.state_dict().items()}
        return {**{name: tensor.clone() for name, tensor in state.items()}, "logit_scale": torch.tensor(3.0)}

    @torch.no_grad()
    def encode_image(self, pixels):
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
        return torch.nn.functional.normalize(self.visual((pixels / 255 - mean) / std), dim=-1)

    @torch.no_grad()
    def encode_text(self, prompts):
        import open_clip

        ids = open_clip.get_tokenizer("ViT-L-14")(prompts)
        return torch.nn.functional.normalize(self.text(ids), dim=-1)


def write_pt(folder: Path, state: dict, config: towers.EvaConfig) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / evaclip.CONFIG_FILE).write_text(json.dumps(asdict(config)))
    torch.save(state, folder / "eva.pt")
    return folder


def write_hub(folder: Path, state: dict, config: towers.EvaConfig, kind: str, shards: int = 3) -> Path:
    """Shards and their index; the image tower fills the first ones, the text tower the last."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / evaclip.CONFIG_FILE).write_text(json.dumps(asdict(config)))
    names = sorted(to_hub(state), key=lambda name: name.startswith("text"))
    stem, suffix = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    weight_map = {}
    for number in range(shards):
        part = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        tensors = {name: to_hub(state)[name].contiguous() for name in part}
        file = f"{stem}-{number + 1:05d}-of-{shards:05d}.{suffix}"
        save_file(tensors, folder / file) if kind == "safetensors" else torch.save(tensors, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    return folder


def load(folder: Path, tower: str, dtype: str = "fp32", **options):
    keys = {"file": "eva.pt"} if (folder / "eva.pt").exists() else {}
    entry = ModelEntry(family="evaclip", weights=str(folder), preprocess="plain", allow=("prompts_cut",), **keys)
    if options:
        return evaclip.load(Wanted("eva", entry, Path("/"), tower, CPU, dtype, **options))
    return models.load("eva", entry, Path("/"), tower, CPU, dtype)  # through the front door


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal but for the last bits: kernels may round differently where a file maps a tensor at another alignment."""
    return torch.allclose(one, other, atol=1e-6, rtol=0)


def random_pixels(size: int = 28) -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=CONFIGS)
def reference(request) -> Reference:
    return Reference(CONFIGS[request.param])


@pytest.fixture
def post(tmp_path) -> tuple[Reference, Path]:
    """An 18B-like reference and its .pt checkpoint."""
    reference = Reference(POST)
    return reference, write_pt(tmp_path / "pt", reference.state(), POST)


# ---- right outputs


@pytest.mark.parametrize("layout", ["pt", "bin", "safetensors"])
def test_outputs_are_those_of_timm_and_open_clip(reference, layout, tmp_path):
    state, config = reference.state(), reference.config
    folder = write_pt(tmp_path, state, config) if layout == "pt" else write_hub(tmp_path, state, config, layout)
    image, text = load(folder, "image"), load(folder, "text")
    # far below the 1e-4 promised: the tanh form of GELU would differ by 1e-5 here
    assert same(image.encode_image(random_pixels()), reference.encode_image(random_pixels()))
    assert same(text.encode_text(PROMPTS), reference.encode_text(PROMPTS))
    assert (image.image_size, text.context_length) == (28, 77)
    assert image.logit_scale == text.logit_scale == pytest.approx(math.exp(3) if layout == "pt" else 100)


def test_a_single_safetensors_file_in_either_naming(post, tmp_path):
    reference, folder = post
    expected = load(folder, "image").encode_image(random_pixels())
    for number, state in enumerate((reference.state(), to_hub(reference.state()))):
        single = write_pt(tmp_path / str(number), {}, POST)
        (single / "eva.pt").unlink()
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, single / "model.safetensors")
        assert same(load(single, "image").encode_image(random_pixels()), expected)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module"])
def test_wrappers_and_the_prefix_of_distributed_training(post, wrapper, tmp_path):
    reference, folder = post
    state = {wrapper: {f"module.{name}": tensor for name, tensor in reference.state().items()}, "epoch": 3}
    wrapped = write_pt(tmp_path / "wrapped", state, POST)
    for tower, inputs in (("image", random_pixels()), ("text", PROMPTS)):
        one, other = (getattr(load(f, tower), f"encode_{tower}")(inputs) for f in (folder, wrapped))
        assert same(one, other)


def test_two_files_of_one_folder_are_two_checkpoints(post, tmp_path):
    entry = ModelEntry(family="evaclip", weights=str(post[1]), preprocess="plain", file="eva.pt")
    other = entry.model_copy(update={"file": "other.pt"})
    assert models.identity("eva", entry, tmp_path) != models.identity("eva", other, tmp_path)


def test_the_wrong_norm_placement_would_be_seen(post, tmp_path):
    reference, _ = post
    wrong = write_pt(tmp_path / "wrong", reference.state(), replace(POST, post_norm=False))
    difference = load(wrong, "image").encode_image(random_pixels()) - reference.encode_image(random_pixels())
    assert difference.abs().max() > 0.1


def test_one_tower_needs_only_its_own_tensors(post, tmp_path):
    reference, folder = post
    for tower, start, inputs in (("image", "visual.", random_pixels()), ("text", "text.", PROMPTS)):
        own = {name: tensor for name, tensor in reference.state().items() if name.startswith(start)}
        model = load(write_pt(tmp_path / tower, own, POST), tower)
        encode = f"encode_{tower}"
        assert same(getattr(model, encode)(inputs), getattr(load(folder, tower), encode)(inputs))
        assert model.logit_scale == 100


def test_only_the_shards_of_the_tower_are_fetched(post, tmp_path, monkeypatch, cache, hub_server):
    reference, pt = post
    folder = write_hub(tmp_path / "published", reference.state(), POST, "bin", shards=6)
    for file in folder.iterdir():
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{file.name}"'}
        hub_server.answers[file.name] = (200, headers, file.read_bytes())
    monkeypatch.setitem(towers.PUBLISHED, "tiny", POST)
    index = "pytorch_model.bin.index.json"
    entry = ModelEntry(
        family="evaclip", architecture="tiny", hub="someone/eva", file=index, preprocess="plain", allow=("prompts_cut",)
    )
    model = models.load("eva", entry, tmp_path, "text", CPU, "fp32")
    assert same(model.encode_text(PROMPTS), load(pt, "text").encode_text(PROMPTS))
    assert 1 < len(list((cache / "models--someone--eva" / "snapshots" / COMMIT).iterdir())) < 1 + 6


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp16", 0.01), ("bf16", 0.06)])
def test_lower_precision_stays_close(post, dtype, tolerance):
    reference, folder = post
    for tower, inputs in (("image", random_pixels()), ("text", PROMPTS)):
        model = load(folder, tower, dtype)
        assert {parameter.dtype for parameter in model.module.parameters()} == {evaclip.DTYPES[dtype]}
        features = getattr(model, f"encode_{tower}")(inputs)
        assert features.dtype == torch.float32
        expected = getattr(reference, f"encode_{tower}")(inputs)
        torch.testing.assert_close(features, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("layout", ["pt", "bin", "safetensors"])
def test_weights_stay_in_their_file(post, layout, tmp_path):
    """No copy in memory: every tensor lies in a mapping of a checkpoint file, q, k and v included."""
    state = post[0].state()
    folder = post[1] if layout == "pt" else write_hub(tmp_path / "hub", state, POST, layout)
    for tower in towers.TOWERS:
        model = load(folder, tower)
        maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]
        ranges = [[int(address, 16) for address in fields[0].split("-")] for fields in maps]
        copied = {
            name
            for name, parameter in model.module.named_parameters()
            if not any(start <= parameter.data_ptr() < end for start, end in ranges)
        }
        assert copied == ({"head.weight"} if (tower, layout) == ("text", "pt") else set())  # stored transposed


def test_rms_norm_survives_values_whose_squares_overflow_fp16():
    norm = towers.RmsNorm(8).half()
    torch.nn.init.ones_(norm.weight)
    assert torch.allclose(norm(torch.full((1, 8), 1000.0).half()), torch.ones(1, 8).half())


# ---- the published sizes and names


@pytest.mark.parametrize(
    ("architecture", "image", "total", "pt", "hub"),
    [("EVA-CLIP-18B", 17.6305, 18.3255, 828, 1051), ("EVA-CLIP-8B", None, 8.2207, 684, 875)],
)
def test_published_architectures(architecture, image, total, pt, hub):
    config = towers.PUBLISHED[architecture]
    with torch.device("meta"):
        built = {tower: module(config) for tower, module in towers.TOWERS.items()}
    billions = {tower: sum(p.numel() for p in module.parameters()) / 1e9 for tower, module in built.items()}
    assert round(sum(billions.values()), 4) == total
    if image:
        assert (round(billions["image"], 4), round(billions["text"], 4)) == (image, 0.6950)
    expected = {"pt": pt_names(config), "hub": set(to_hub(dict.fromkeys(pt_names(config))))}
    assert (len(expected["pt"]), len(expected["hub"])) == (pt, hub)
    for layout, names in expected.items():
        known = set().union(*(towers.published_names(config, tower, layout) for tower in towers.TOWERS))
        assert known | ({"logit_scale"} & names) == names


# ---- refusals


def test_missing_tensors_are_named(post, tmp_path):
    state = post[0].state()
    del state["visual.blocks.1.norm2.weight"]
    folder = write_pt(tmp_path / "missing", state, POST)
    with refused(Mismatch, "models.yaml: eva", "missing: visual.blocks.1.norm2.weight"):
        load(folder, "image")
    load(folder, "text")


@pytest.mark.parametrize("tower", ["image", "text"])
def test_unexpected_tensors_are_named(post, tmp_path, tower):
    state = {**post[0].state(), "visual.blocks.0.attn.q_bias": torch.zeros(32)}
    with refused(Mismatch, "unexpected: visual.blocks.0.attn.q_bias"):
        load(write_pt(tmp_path / "more", state, POST), tower)


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_hub_file_with_position_ids_is_loaded_when_that_is_allowed(post, tmp_path, tower, kind):
    """Older versions of transformers saved them: buffers that count from 0."""
    folder = write_hub(tmp_path / "hub", post[0].state(), POST, kind, shards=1)
    (shard,) = folder.glob(f"*1-of-*.{kind}")
    state = load_file(shard) if kind == "safetensors" else torch.load(shard)
    ids = {f"{one}_model.embeddings.position_ids": torch.arange(9)[None] for one in ("text", "vision")}
    save_file({**state, **ids}, shard) if kind == "safetensors" else torch.save({**state, **ids}, shard)
    (index,) = folder.glob("*.index.json")
    listed = json.loads(index.read_text())
    listed["weight_map"] |= dict.fromkeys(ids, shard.name)
    index.write_text(json.dumps(listed))
    with refused(Mismatch, "position_ids", "'allow: [unexpected_keys]'"):
        load(folder, tower)
    entry = ModelEntry(family="evaclip", weights=str(folder), preprocess="plain", allow=("unexpected_keys",))
    found = models.load("eva", entry, Path("/"), tower, CPU, "fp32")
    inputs = random_pixels() if tower == "image" else PROMPTS[:2]
    assert same(getattr(found, f"encode_{tower}")(inputs), getattr(load(post[1], tower), f"encode_{tower}")(inputs))


def test_another_depth_is_refused(post, tmp_path):
    folder = write_pt(tmp_path / "deeper", post[0].state(), replace(POST, depth=4))
    with refused(Mismatch, "missing: visual.blocks.3.", "and 3 more"):
        load(folder, "image")


def test_another_image_size_is_refused(post, tmp_path):
    folder = write_pt(tmp_path / "larger", post[0].state(), replace(POST, image_size=56))
    with refused(Mismatch, "visual.pos_embed", "(17, 32)", "(65, 32)", "image size"):
        load(folder, "image")


def test_other_shapes_are_refused(post, tmp_path):
    folder = write_pt(tmp_path / "narrow", post[0].state(), replace(POST, mlp_width=128))
    with refused(Mismatch, "mlp.fc1.weight", "(160, 32)", "(128, 32)"):
        load(folder, "image")


def test_pixels_of_another_size_are_refused(post):
    with refused(Mismatch, "28 x 28"):
        load(post[1], "image").encode_image(random_pixels(35))


class Opener:
    """Pickles into a call that would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickled_objects_are_refused_and_not_run(post, tmp_path):
    folder = write_pt(tmp_path / "evil", {**post[0].state(), "extra": Opener(tmp_path / "ran")}, POST)
    with refused(Forbidden, "eva.pt"):
        load(folder, "image")
    (folder / "eva.pt").write_bytes(pickle.dumps(Opener(tmp_path / "ran")))
    with refused(Damaged, "eva.pt"):
        load(folder, "image")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["pt", "bin", "safetensors"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.999])
def test_truncated_files_are_refused(post, tmp_path, kind, kept):
    state = post[0].state()
    folder = write_pt(tmp_path / "x", state, POST) if kind == "pt" else write_hub(tmp_path / "x", state, POST, kind)
    file = sorted(folder.glob(f"*.{kind}"))[0]
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    with refused(Damaged, file.name):
        load(folder, "image")


def test_broken_folders_are_refused(post, tmp_path):
    reference, _ = post
    folder = write_hub(tmp_path / "hub", reference.state(), POST, "bin")
    index = folder / "pytorch_model.bin.index.json"
    good = json.loads(index.read_text())
    wrong = dict.fromkeys(good["weight_map"], "pytorch_model-00001-of-00003.bin")
    for weight_map, kind, parts in (
        (wrong, Mismatch, [index.name, "pytorch_model-00001-of-00003.bin"]),
        (dict.fromkeys(good["weight_map"], "../outside.bin"), Damaged, ["'../outside.bin'"]),
        (dict.fromkeys(good["weight_map"], "absent.bin"), NotFound, ["absent.bin"]),
    ):
        index.write_text(json.dumps({"weight_map": weight_map}))
        with refused(kind, *parts):
            load(folder, "image")
    index.write_text("{}")
    with refused(Damaged, index.name):
        load(folder, "image")
    index.unlink()
    with refused(NotFound, str(folder), "model.safetensors.index.json"):
        load(folder, "image")


def test_sizes_come_from_the_architecture_or_the_folder(post, tmp_path):
    entry = partial(ModelEntry, family="evaclip", preprocess="plain", file="eva.pt")
    for keys, kind, parts in (
        ({"hub": "a/b", "architecture": "EVA-CLIP-18"}, NotFound, ["'EVA-CLIP-18'", "Did you mean 'EVA-CLIP-18B'"]),
        ({"hub": "a/b"}, UserError, ["'architecture'"]),
        ({"hub": "a/b", "architecture": "EVA-CLIP-8B", "file": None}, UserError, ["'file'"]),
        ({"weights": str(post[1]), "architecture": "EVA-CLIP-8B"}, Mismatch, ["EVA-CLIP-8B", "embed_dim"]),
    ):
        with refused(kind, *parts):
            models.load("eva", entry(**keys), Path("/"), "image", CPU, "fp32")
    for change, parts in (
        ({"depth": "3"}, [": depth"]),
        ({"layers": 3}, [": layers"]),
        ({"heads": 3}, ["width 32", "heads 3"]),
    ):
        (post[1] / evaclip.CONFIG_FILE).write_text(json.dumps({**asdict(POST), **change}))
        with refused(Damaged, evaclip.CONFIG_FILE, *parts):
            load(post[1], "image")


# ---- placement


@pytest.mark.parametrize("tower", ["image", "text"])
def test_spread_over_memory_and_disk_gives_the_same_outputs(post, tower):
    config, inputs = POST, random_pixels() if tower == "image" else PROMPTS
    whole = load(post[1], tower)
    limit = int(0.6 * _placement.size_of(whole.module)) if tower == "image" else _placement.size_of(whole.module) - 1
    spread = load(post[1], tower, max_memory={"cpu": limit})
    where = spread.module.hf_device_map
    assert set(where.values()) == {"cpu", "disk"}
    assert blocks_are_whole(where, config.depth if tower == "image" else config.text_depth)
    on_disk = sorted(path.name for path in Path(spread.module.offload_folder.name).glob("*.dat"))
    assert on_disk
    assert same(getattr(spread, f"encode_{tower}")(inputs), getattr(whole, f"encode_{tower}")(inputs))


def blocks_are_whole(where: dict, depth: int) -> bool:
    """Does each block have one entry, itself or all blocks together?"""
    return "" in where or "blocks" in where or {f"blocks.{n}" for n in range(depth)} <= set(where)


def test_the_disk_folder_goes_with_the_model(post):
    model = load(post[1], "image", max_memory={"cpu": 100_000})
    folder = Path(model.module.offload_folder.name)
    assert folder.is_dir()
    model.module.offload_folder.cleanup()
    assert not folder.exists()


def test_a_plan_for_two_small_gpus_keeps_18b_blocks_whole():
    with torch.device("meta"):
        model = towers.ImageTower(towers.PUBLISHED["EVA-CLIP-18B"]).half()
    limits = {0: "20GiB", 1: "20GiB", "cpu": "60GiB"}
    where = _placement.plan(model, torch.device("cuda"), evaclip.WHOLE, limits)
    assert set(where.values()) == {0, 1}
    assert blocks_are_whole(where, 48)
    used = _placement._sizes(model, where)
    assert max(used.values()) < 20 * 2**30
    assert sum(used.values()) == _placement.size_of(model)
    assert _placement._summary(used).startswith(f"{used[0] / 2**30:.1f} GiB on cuda:0, ")
    assert _placement.main_device(where) == torch.device("cuda", 0)


def test_a_plan_for_one_small_gpu_puts_the_rest_into_host_memory():
    with torch.device("meta"):
        model = towers.ImageTower(towers.PUBLISHED["EVA-CLIP-18B"]).half()
    where = _placement.plan(model, torch.device("cuda"), evaclip.WHOLE, {0: "20GiB", "cpu": "60GiB"})
    assert set(where.values()) == {0, "cpu"}
    assert where["stem"] == where["blocks.0"] == 0
    assert blocks_are_whole(where, 48)


def test_one_device_is_enough_on_the_cpu(post):
    model = load(post[1], "image")
    assert not hasattr(model.module, "hf_device_map")
    assert not list(model.module.buffers())
    assert {str(parameter.device) for parameter in model.module.parameters()} == {"cpu"}


def test_no_memory_for_a_single_block_is_an_error(post):
    with refused(Unavailable, "{'cpu': 1000}"):
        load(post[1], "image", max_memory={"cpu": 1000})


def test_a_tensor_left_without_values_is_a_bug_that_stops(post):
    class Masked(towers.TextTower):
        def __init__(self, config):
            super().__init__(config)
            self.register_buffer("mask", torch.ones(77, 77).triu(1), persistent=False)

    with torch.device("meta"):
        model = Masked(POST)
    weights = [(name, torch.zeros(p.shape)) for name, p in model.named_parameters()]
    with pytest.raises(AssertionError, match="mask"):
        _placement.place(model, weights, CPU)
    with torch.device("meta"):
        model = towers.TextTower(POST)
    with pytest.raises(AssertionError, match="norm.bias"):
        _placement.place(model, [w for w in weights if w[0] != "norm.bias"], CPU)
