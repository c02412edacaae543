"""models.yaml: every entry against the installed libraries and the recipes it names; `make models`."""

import subprocess
import sys

import pytest

from pipeline.cli import models
from pipeline.images.ops import compile_recipe
from pipeline.models import _checks
from pipeline.models.family import FAMILIES, Wanted
from pipeline.recipes import Project

from ..conftest import ROOT, write_yaml

PROJECT = Project(ROOT)
ENTRIES = PROJECT.models
OPEN_CLIP = [name for name, entry in ENTRIES.items() if entry.family == "open_clip" and entry.tag]


def test_every_family_has_entries_of_the_reference_table():
    assert {entry.family for entry in ENTRIES.values()} == set(FAMILIES) - {"head"}
    assert len(OPEN_CLIP) == 47
    for name in (
        "metaclip-bigg",
        "eva18b",
        "eva8b",
        "clipa-bigg-336",
        "siglip2-gopt-384",
        "flava",
        "align",
        "blip2-itm",
        "declip-b32",
        "coca-l",
        "resnet101",
        "efficientnet-b7",
        "mobilenetv2-100",
    ):
        assert name in ENTRIES


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.size])
def test_the_default_recipe_makes_what_the_model_takes(name):
    entry = ENTRIES[name]
    recipe = PROJECT.preprocess(entry.preprocess)
    _checks.recipe(f"{name}@{entry.preprocess}", recipe, entry.size, entry.resize_mode, lambda *_: [], entry.allow)


def test_the_winners_recipes_squash_what_was_trained_with_crops():
    for name, recipe in (("metaclip-bigg", "sharpen23"), ("eva18b", "sharpen20")):
        entry = ENTRIES[name]
        assert (entry.preprocess, entry.resize_mode, entry.allow) == (recipe, "shortest", ("resize_mode",))
        assert _checks.recipe_resize_mode(PROJECT.preprocess(recipe).ops) == "squash"


BUILT_SLOWLY = ("mobileclip2-s3", "mobileclip2-s4")  # their towers run a part of themselves while they are built


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in BUILT_SLOWLY else name for name in OPEN_CLIP]
)
def test_facts_of_open_clip_entries_are_the_librarys(name):
    """Name and tag exist, the tower can be built without memory, and every declared fact is the library's."""
    from pipeline.models import open_clip

    entry, wanted = ENTRIES[name], Wanted(name, ENTRIES[name], ROOT)
    source, model = open_clip.built(wanted)
    facts = open_clip.declared(wanted, source, model)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for key, buffer in model.named_buffers() if key not in model.state_dict())
    for fact in ("size", "mean", "std", "resize_mode", "context_length", "quick_gelu"):
        assert getattr(entry, fact) is not None, f"{fact} is not declared"
    assert _checks.facts(entry, facts, name) == facts
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == entry.parameters
    published = open_clip.open_clip.get_pretrained_cfg(entry.architecture, entry.tag)
    repo, file = "/".join(published["hf_hub"].split("/")[:2]), published["hf_hub"].split("/")[2]
    assert (entry.hub, entry.file or "") == (repo, file)
    interpolations = [
        a.get("interpolation")
        for op, a in PROJECT.preprocess(entry.preprocess).ops
        if op == "resize" and isinstance(a, dict)
    ]
    assert (interpolations or ["bicubic"])[0] == published["interpolation"]


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.family == "timm"])
def test_facts_of_timm_entries_are_the_librarys(name):
    from pipeline.models import timm

    entry = ENTRIES[name]
    facts = timm.declared(Wanted(name, entry, ROOT))
    assert _checks.facts(entry, facts, name) == facts
    published = timm.timm.get_pretrained_cfg(f"{entry.architecture}.{entry.tag}")
    resize = dict(PROJECT.preprocess(entry.preprocess).ops)["resize"]
    resize = {"mode": resize} if isinstance(resize, str) else resize
    assert resize.get("crop_pct", 1) == published.crop_pct
    assert resize.get("interpolation", "bicubic") == published.interpolation
    assert entry.hub == published.hf_hub_id


def test_make_models_imports_no_torch():
    code = (
        "import sys; from pipeline.__main__ import main; assert main(['models']) == 0; "
        "assert not {'torch', 'open_clip', 'transformers', 'timm'} & set(sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = shown.splitlines()
    assert len(lines) == len(ENTRIES) + 1
    (winner,) = [line for line in lines if line.startswith("metaclip-bigg ")]
    for part in ("2.54B", "224", "5.08", "82.1", "CC-BY-NC-4.0", "10.2 GB"):
        assert part in winner


def test_make_models_tells_what_is_on_disk(project_root, capsys):
    entry = {"family": "declip", "weights": "data/absent.pth.tar", "preprocess": "tiny"}
    write_yaml(project_root / "models.local.yaml", {"mine": entry})
    models.show(Project(project_root))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-2:] for line in lines[1:3]] == [["on", "disk"]] * 2
    assert lines[3].endswith("bring data/absent.pth.tar")


@pytest.mark.parametrize("size", [(301, 260), (200, 333), (256, 256), (40, 50)])
@pytest.mark.parametrize(
    "name, edge, crop", [("imagenet224", 256, 224), ("imagenet600", 632, 600), ("crop224", 224, 224)]
)
def test_recipes_with_a_larger_resize_are_torchvisions(name, edge, crop, size):
    """Resize to more than the crop, as ImageNet backbones and DeCLIP are evaluated."""
    import numpy as np
    from PIL import Image
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8))
    expected = Compose([Resize(edge, InterpolationMode.BICUBIC), CenterCrop(crop)])(picture)
    found = compile_recipe(PROJECT.preprocess(name), name)(picture)
    assert np.array_equal(found, np.asarray(expected).transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["declip-b32", "declip-b32-yfcc15m"])
@pytest.mark.parametrize("size", [(301, 260), (200, 333)])
def test_declip_sees_what_upstream_evaluates_it_with(name, size):
    """Resize(256) of torchvision as it is by default, which is bilinear, and the middle square."""
    import numpy as np
    from PIL import Image
    from torchvision.transforms import CenterCrop, Compose, Resize

    picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8))
    expected = np.asarray(Compose([Resize(256), CenterCrop(224)])(picture)).transpose(2, 0, 1)
    recipe = ENTRIES[name].preprocess
    assert np.array_equal(compile_recipe(PROJECT.preprocess(recipe), recipe)(picture), expected)


def test_the_ensemble_of_2026():
    recipe = PROJECT.ensemble("strong")
    assert {member.partition("@")[0] for member in recipe.model_dump()["members"]} == {
        "pe-core-bigg",
        "siglip2-gopt-384",
        "dfn5b-h-378",
    }
    assert min(ENTRIES[name.partition("@")[0]].imagenet for name in recipe.model_dump()["members"]) == 84.4


def test_published_accuracies():
    """Of the library's own table of results, and of the papers for what that lacks."""
    stated = {"clipa-bigg": 82.7, "clipa-bigg-336": 83.1, "coca-l": 72.0, "coca-l-plain": 75.6, "pe-core-b": 78.4}
    stated |= {"pe-core-s": 72.7, "pe-core-t": 62.1}
    assert {name: ENTRIES[name].imagenet for name in stated} == stated


def test_what_is_not_stated_is_estimated():
    """Float32, four bytes a parameter, as most repositories have it."""
    from pipeline.models import hub

    assert hub.download_gb(ENTRIES["pe-core-bigg"]) == pytest.approx(9.7, abs=0.05)
    assert hub.download_gb(ENTRIES["metaclip-bigg"]) == 10.2
    assert all(hub.download_gb(entry) for entry in ENTRIES.values() if entry.hub)


def test_aligns_recipe_is_its_processors():
    import numpy as np
    from PIL import Image
    from transformers import EfficientNetImageProcessor

    processor = EfficientNetImageProcessor(
        size={"height": 346, "width": 346},
        crop_size={"height": 289, "width": 289},
        do_center_crop=True,
        rescale_factor=1 / 127.5,
        rescale_offset=True,
        do_normalize=False,
        include_top=False,
        resample=2,
    )
    picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (300, 200, 3), dtype=np.uint8))
    found = compile_recipe(PROJECT.preprocess("align289"), "align289")(picture) / 127.5 - 1
    expected = processor(picture, return_tensors="np")["pixel_values"][0]
    assert np.abs(found - expected).max() < 0.05
