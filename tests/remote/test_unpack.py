"""Features that come back: merged whole and used whatever the dtype here, or refused by name; nothing is executed."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from pipeline.chain import canary, damage, features, text
from pipeline.chain.main_job import submit
from pipeline.cli.clean_cache import clean
from pipeline.core.artefacts import Artefact
from pipeline.recipes import Project
from pipeline.remote import missing

from ..conftest import IMAGES, fresh, write_images, write_yaml
from .conftest import CUT, MEMBERS, automatic, parts, unit_rows


def often(*cases) -> list:
    """Further cases of what runs by default, for `make test-faults`."""
    return [pytest.param(case, marks=pytest.mark.faults) for case in cases]


def cached(root) -> dict:
    """Every file that a submission may use, with its content."""
    kept = [path for path in (root / "cache").rglob("*") if path.suffix == ".pt" or "brought" in path.parts]
    return {path: path.read_bytes() for path in kept if path.is_file()}


@pytest.mark.parametrize("dtype", ["fp16", *often("fp32", "bf16")])
def test_nothing_is_encoded_here_whatever_the_dtype_there(project_root, brought, unpack, loads, capsys, dtype):
    done = unpack(brought(dtype=dtype))
    assert done.returncode == 0, done.stderr
    assert f"23 images in {dtype} merged, 23 of 23 are here" in done.stdout
    path = submit(automatic(project_root), "both")
    assert loads == []
    assert f"23 images reused that were encoded elsewhere, in {dtype}" in capsys.readouterr().out
    made = json.loads(path.with_suffix(".json").read_text())
    assert [made["members"][member]["dtype"] for member in MEMBERS] == [dtype, dtype]
    _, tensors = parts(project_root)
    task = automatic(project_root)
    for member in MEMBERS:
        found = features.stage(task, task.project.member(member)).rows("features", 0, IMAGES)
        assert np.array_equal(found.numpy(), np.concatenate([tensors[f"{member}/{n}"] for n in range(0, IMAGES, CUT)]))
        found, new = text.of_prompts(task, member.partition("@")[0], task.prompts)
        assert new == 0
        assert torch.equal(found.features, torch.from_numpy(tensors[member.partition("@")[0]]))


@pytest.mark.slow
def test_a_dtype_that_is_asked_for_counts(project_root, brought, unpack, loads):
    unpack(brought(dtype="fp16"))
    submit(fresh(project_root), "both")  # fp32
    assert ("vit", "image") in loads


def test_what_was_brought_last_counts(project_root, brought, unpack):
    unpack(brought(dtype="fp32"))
    unpack(brought(dtype="bf16"))
    task = automatic(project_root)
    assert features.stage(task, task.project.member("vit@tiny")).made_from["dtype"] == "bf16"


def test_a_new_prompt_is_encoded_here_and_joins_the_others(project_root, brought, unpack, loads, capsys):
    unpack(brought(dtype="fp16"))
    write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {"prompts": ["The whiskers", "A kitten on a mat"]})
    submit(automatic(project_root), "both")
    assert loads == [("vit", "text"), ("vit2", "text")]
    assert "encoding 1 new prompts on cpu, fp16" in capsys.readouterr().out


def test_a_tower_that_gives_other_features_than_the_one_there_is_told(project_root, brought, unpack, capsys):
    def with_a_canary(fields, tensors):
        fields["texts"][0]["prompts"][0] = canary.PROMPT  # of random numbers: no tower gives them

    unpack(brought(with_a_canary, dtype="fp16"))
    write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {"prompts": ["A kitten on a mat"]})
    submit(automatic(project_root), "one")
    assert "vit: its text tower gives other features here than those in the cache" in capsys.readouterr().err


def test_a_new_prompt_that_cannot_be_encoded_here_says_what_to_do(project_root, brought, unpack, command, monkeypatch):
    unpack(brought(dtype="fp16"))
    monkeypatch.setattr("pipeline.models._preflight.free_memory", lambda: 1000.0)
    write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {"prompts": ["A kitten on a mat"]})
    done = command(project_root, "submit", "--competition", "tiny")
    assert done.returncode == 1
    assert "needs" in done.stderr
    assert "1 new prompts can be encoded where its images were: make pack COMPETITION=tiny" in done.stderr


def test_twice_changes_nothing(project_root, brought, unpack):
    path = brought()
    unpack(path)
    before = cached(project_root)
    done = unpack(path)
    assert (done.returncode, "0 images in fp16 merged, 23 of 23 are here" in done.stdout) == (0, True)
    assert cached(project_root) == before


def test_clean_cache_keeps_what_was_brought(project_root, brought, unpack):
    unpack(brought(dtype="fp16"))
    before = cached(project_root)
    clean(Project(project_root))
    assert cached(project_root) == before


@pytest.mark.parametrize("shard", [4, *often(CUT, 2048)])
def test_what_stopped_midway_is_merged_and_the_rest_is_asked_for(project_root, brought, unpack, shard):
    done = unpack(brought(stop=13, dtype="bf16"))
    assert done.returncode == 0
    assert "13 images in bf16 merged, 13 of 23 are here; 10 are missing: rows 13 to 23; make pack packs" in done.stdout
    task = automatic(project_root, shard_rows=shard)
    asked = list(missing.images(task, "both"))
    assert [(one.dtype, one.count, one.rows[0][0], one.rows[-1][1]) for one in asked] == [("bf16", 10, 13, 23)] * 2
    assert list(missing.texts(task, "both", history=False)) == []
    done = unpack(brought(dtype="bf16"))  # the later file cuts its shards elsewhere: no row is lost, none is shifted
    assert "10 images in bf16 merged, 23 of 23 are here" in done.stdout
    _, tensors = parts(project_root)
    whole = np.concatenate([tensors[f"vit@tiny/{n}"] for n in range(0, IMAGES, CUT)])
    found = features.stage(automatic(project_root), task.project.member("vit@tiny")).rows("features", 0, IMAGES)
    assert np.array_equal(found.numpy(), whole)


def test_problems_of_images_come_along(project_root, brought, unpack, monkeypatch):
    recipe = project_root / "competitions" / "tiny.yaml"
    recipe.write_text(recipe.read_text() + "damaged_images: fill\n")
    (project_root / "data" / "tiny" / "3.jpg").write_bytes(
        (project_root / "data" / "tiny" / "3.jpg").read_bytes()[:700]
    )

    def damaged(fields, tensors):
        fields["images"][0]["problems"] = [{"row": 3, "done": damage.FILLED, "why": "truncated"}]

    unpack(brought(damaged))
    monkeypatch.setattr("pipeline.images.listing.read", None)  # nothing is decoded here
    assert damage.recorded(automatic(project_root), ["tiny"]) == [damage.Problem(3, damage.FILLED, "truncated")]


def another_image(root):
    write_images(root / "data" / "tiny", 1, seed=9)
    return r"other images than those of data/tiny: 23 there, 23 here; '0.jpg' differs"


def one_image_more(root):
    shutil.copy(root / "data" / "tiny" / "0.jpg", root / "data" / "tiny" / "23.jpg")
    return "23 there, 24 here; '23.jpg' is in one only"


def other_weights(root):
    models = yaml.safe_load((root / "models.yaml").read_text())
    models["vit"]["weights"] = models["vit2"]["weights"]
    write_yaml(root / "models.yaml", models)
    return "vit@tiny: made with other weights of vit than here", ["features/vit2@", "text/vit2/"]


def other_recipe(root):
    write_yaml(root / "preprocess" / "tiny.yaml", {"size": 32, "ops": [{"resize": "squash"}, {"sharpen": 1.5}]})
    return "vit@tiny: made with another preprocess/tiny.yaml than here", ["features/vit2@", "text/vit/", "text/vit2/"]


def other_policy(root):
    recipe = root / "competitions" / "tiny.yaml"
    recipe.write_text(recipe.read_text() + "damaged_images: fill\n")
    return "another 'damaged_images' or 'max_pixels'", ["text/vit/", "text/vit2/"]


def other_scale(root):
    models = yaml.safe_load((root / "models.yaml").read_text())
    models["vit"]["logit_scale"] = 30.0
    write_yaml(root / "models.yaml", models)
    return "vit: made with another logit_scale of vit than here", ["features/vit@", "features/vit2@", "text/vit2/"]


def no_such_model(root):
    models = yaml.safe_load((root / "models.yaml").read_text())
    write_yaml(root / "models.yaml", {"vit2": models["vit2"]})
    return "no model 'vit'", ["features/vit2@", "text/vit2/"]


@pytest.mark.parametrize("change", [another_image, one_image_more], ids=lambda change: change.__name__)
def test_a_file_for_other_images_is_refused_by_name(project_root, brought, unpack, change):
    path = brought()
    words = change(project_root)
    done = unpack(path)
    assert done.returncode == 1
    assert words in done.stderr
    assert cached(project_root) == {}


@pytest.mark.parametrize(
    "change",
    [other_weights, other_recipe, other_policy, other_scale, no_such_model],
    ids=lambda change: change.__name__,
)
def test_what_was_made_otherwise_is_refused_by_name_and_the_rest_is_merged(project_root, brought, unpack, change):
    path = brought()
    words, kept = change(project_root)
    done = unpack(path)
    assert done.returncode == 1
    assert words in done.stderr
    files = "".join(map(str, cached(project_root)))
    parts = ("features/vit@", "features/vit2@", "text/vit/", "text/vit2/")
    assert [part for part in parts if part in files] == kept


def test_another_competition_or_data(project_root, brought, unpack):
    assert "made for competition tiny, not for demo" in unpack(brought(), "--competition", "demo").stderr
    done = unpack(brought(lambda fields, tensors: fields.update(data="data/other")))
    assert "made with DATA=data/other; give the same" in done.stderr
    assert unpack(brought(lambda fields, tensors: fields.update(competition="../x"))).returncode == 1
    assert cached(project_root) == {}


def spoilt(name: str, change):
    def of(fields, tensors):
        tensors[name] = change(tensors[name].copy())

    return of


def nan(array):
    array[2, 3] = np.nan
    return array


NO_FEATURES = {
    "NaN": spoilt("vit@tiny/0", nan),
    "longer": spoilt("vit@tiny/0", lambda array: array * 2),
    "zeros": spoilt("vit@tiny/0", lambda array: array * 0),
    "a row less": spoilt("vit@tiny/0", lambda array: array[1:]),
    "another type": spoilt("vit@tiny/0", lambda array: array.astype(np.float32)),
    "another width": spoilt("vit@tiny/10", lambda array: np.concatenate([array, array * 0], axis=1)),
    "no width": spoilt("vit@tiny/0", lambda array: array[:, 0]),
    "rows beyond": lambda fields, tensors: fields["images"][0]["shards"][0].update(start=20, stop=30),
    "no rows": lambda fields, tensors: fields["images"][0]["shards"][0].update(start=5, stop=5),
    "no such tensor": lambda fields, tensors: fields["images"][0]["shards"][0].update(name="x"),
    "what a terminal obeys": lambda fields, tensors: fields["images"][0].update(
        problems=[{"row": 1, "done": damage.FILLED, "why": "\x1b[2J"}]
    ),
    "a problem that is none": lambda fields, tensors: fields["images"][0].update(
        problems=[{"row": 1, "done": "stopped", "why": ""}]
    ),
    "NaN of a prompt": spoilt("vit", nan),
    "a prompt less": lambda fields, tensors: fields["texts"][0]["prompts"].pop(),
}


@pytest.mark.parametrize("name", [*list(NO_FEATURES)[::5], *often(*(n for i, n in enumerate(NO_FEATURES) if i % 5))])
def test_what_are_no_features_is_refused(project_root, brought, unpack, name):
    done = unpack(brought(NO_FEATURES[name]))
    assert done.returncode == 1
    assert "nothing of that was kept, the rest was merged" in done.stderr
    part = "text/vit/" if "prompt" in name else "features/vit@tiny/"
    assert not any(part in str(file) for file in cached(project_root))
    assert any("features/vit2@tiny-sharp/" in str(file) for file in cached(project_root))


def test_prompts_of_another_scale_or_width_do_not_join(project_root, brought, unpack):
    unpack(brought())
    before = cached(project_root)
    done = unpack(brought(lambda fields, tensors: fields["texts"][0].update(logit_scale=21.0)))
    assert "logit_scale 21, that of the prompts here is 20" in done.stderr
    done = unpack(brought(lambda fields, tensors: tensors.update(vit=np.eye(12, dtype=np.float32))))
    assert "prompts of 12 dimensions, those here have 16" in done.stderr
    assert cached(project_root) == before


def test_interrupted_nothing_is_used_and_the_next_run_goes_on(project_root, brought, unpack, monkeypatch):
    path, save, saved = brought(dtype="fp16"), Artefact.save, []

    def dying(self, *arguments, **values):
        if len(saved) == 3:
            raise KeyboardInterrupt
        saved.append(arguments)
        save(self, *arguments, **values)

    monkeypatch.setattr(Artefact, "save", dying)
    assert unpack(path).returncode == 130
    task = automatic(project_root)
    assert features.stage(task, task.project.member("vit@tiny")).made_from["dtype"] == task.dtype
    monkeypatch.setattr(Artefact, "save", save)
    done = unpack(path)
    assert done.returncode == 0
    one = replace(task, dtype_name="fp16")
    assert features.stage(one, task.project.member("vit@tiny")).todo == 0


def test_features_that_are_here_are_not_replaced(project_root, brought, unpack):
    unpack(brought())
    before = cached(project_root)
    unpack(brought(spoilt("vit@tiny/0", lambda array: unit_rows(len(array), np.float16, seed=99))))
    assert cached(project_root) == before
