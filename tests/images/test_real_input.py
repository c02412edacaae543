"""The project's own recipes on real input: the demo, the competition's images, a real dual encoder."""

import csv
import json
import shutil

import pytest
import torch
from PIL import Image

from pipeline.chain import classes as chain_classes
from pipeline.chain.csv_format import CsvFormat
from pipeline.chain.task import CompetitionTask
from pipeline.recipes import Project

from ..conftest import ROOT, pipeline, write_yaml

SHARED = ROOT.parent / "shared"
SCENE = SHARED / "data" / "scene" / "images"
LIT = SHARED / "weights" / "lit_mobilenet_minilm"


@pytest.fixture
def recipes(tmp_path):
    """This project's recipes and demo, with a cache and submissions of their own."""
    root = tmp_path / "project"
    root.mkdir()
    for name in ("competitions", "prompts", "preprocess", "ensembles"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ROOT / "models.yaml", root)
    (root / "demo").symlink_to(ROOT / "demo")
    return root


def rows(path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_the_demo_is_far_from_perfect_and_far_from_chance(recipes):
    result = pipeline(recipes, "submit")
    assert result.returncode == 0, result.stderr
    task = CompetitionTask(Project(recipes), "demo")
    truth = CsvFormat(task).solution

    def accuracy(members: dict, **recipe) -> float:
        write_yaml(recipes / "ensembles" / "trial.yaml", {"members": members, **recipe})
        trial = CompetitionTask(Project(recipes), "demo")
        labels = chain_classes.decide(trial, "trial").labels
        return sum(a == b for a, b in zip(labels, truth, strict=True)) / len(truth)

    members = Project(recipes).ensemble("demo").model_dump(mode="json")["members"]
    single = [accuracy({member: 1}) for member in members]
    both = accuracy(members, threshold=0.002)
    assert f"accuracy {both:.4f}" in result.stdout
    assert all(0.7 < value < 0.92 for value in single)
    assert max(single) < both < 0.97
    made = json.loads((recipes / "submissions" / "demo" / "001-demo.json").read_text())
    assert made["images"]["count"] == 600


def test_the_demo_in_bf16_gives_nearly_the_same_labels(recipes):
    labels = []
    for dtype in ("fp32", "bf16"):
        task = CompetitionTask(Project(recipes), "demo", dtype_name=dtype)
        labels.append(torch.tensor(chain_classes.decide(task, "demo").labels))
    assert (labels[0] == labels[1]).float().mean() > 0.97


@pytest.mark.slow
@pytest.mark.skipif(not SCENE.is_dir(), reason="the competition's images are not here")
def test_the_competitions_8100_images(recipes):
    images = recipes / "images"
    shutil.copytree(SCENE, images)
    (images / ".DS_Store").write_bytes(b"junk")
    (images / "Thumbs.db").write_bytes(b"junk")
    result = pipeline(recipes, "submit", "--competition", "scene", "--ensemble", "demo", "--data", "images")
    assert result.returncode == 0, result.stderr
    table = rows(recipes / "submissions" / "scene" / "001-demo.csv")
    assert table[0] == ["id_idx", "label"]
    assert [row[0] for row in table[1:]] == [str(n) for n in range(8100)]
    assert {row[1] for row in table[1:]} == set("012345")
    task = CompetitionTask(Project(recipes), "scene", data="images")
    assert task.images.ids == tuple(f"{n}.jpg" for n in range(8100))
    assert len(task.images.left_out) == 2
    assert len(task.images.ids) - sum(Image.open(path).size == (224, 224) for path in task.images.paths()) == 20


@pytest.mark.slow
@pytest.mark.skipif(not LIT.is_dir(), reason="the real dual encoder is not here")
def test_a_real_dual_encoder_is_one_local_entry(recipes, monkeypatch):
    """Its features equal open_clip's; the configuration names its text tower relative to the project's folder."""
    import open_clip

    (recipes.parent / "shared").symlink_to(SHARED)
    entry = {"family": "open_clip", "weights": "../shared/weights/lit_mobilenet_minilm", "preprocess": "plain"}
    write_yaml(recipes / "models.local.yaml", {"lit": entry})
    write_yaml(recipes / "ensembles" / "lit.yaml", {"members": {"lit": 1}, "pooling": "embedding"})
    (recipes / "few").mkdir()
    for number in range(12):
        shutil.copy(ROOT / "demo" / "images" / f"{number}.jpg", recipes / "few")
    result = pipeline(
        recipes, "submit", "--ensemble", "lit", "--data", "few", "--dtype", "fp32", "--competition", "scene"
    )
    assert result.returncode == 0, result.stderr
    labels = [int(row[1]) for row in rows(recipes / "submissions" / "scene" / "001-lit.csv")[1:]]
    monkeypatch.chdir(recipes)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{entry['weights']}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{entry['weights']}")
    task = CompetitionTask(Project(recipes), "scene")
    by_class = [
        [p for p, c in zip(task.prompts.prompts, task.prompts.prompt_class, strict=True) if c == k] for k in range(6)
    ]
    with torch.no_grad():
        means = torch.stack([model.eval().encode_text(tokenizer(own), normalize=True).mean(dim=0) for own in by_class])
        images = [transform(Image.open(recipes / "few" / f"{number}.jpg").convert("RGB")) for number in range(12)]
        features = model.encode_image(torch.stack(images), normalize=True)
    assert labels == (features @ torch.nn.functional.normalize(means, dim=1).T).argmax(dim=1).tolist()
