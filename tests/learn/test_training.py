"""Training recipes on a small labelled set: what may reach them, what they leave behind, what they refuse."""

import hashlib
import importlib
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pipeline import load_classifier, models
from pipeline.__main__ import main
from pipeline.chain import classes as chain_classes
from pipeline.chain import ensemble
from pipeline.chain import features as chain_features
from pipeline.chain import probs as chain_probs
from pipeline.chain import text as chain_text
from pipeline.chain.main_job import submit
from pipeline.chain.stage import made
from pipeline.chain.task import CompetitionTask, Task
from pipeline.cli import clean_cache, plan
from pipeline.core.digests import digest_of
from pipeline.core.errors import Exists, Forbidden, Mismatch, NotFound, UserError
from pipeline.labelled import benchmark, prompts_rank
from pipeline.labelled.readers import cleaned
from pipeline.labelled.task import DatasetTask
from pipeline.learn import head as learn_head
from pipeline.learn import kshot, reported
from pipeline.learn.head import train_head
from pipeline.learn.methods import check_method
from pipeline.learn.trained import Trained, code_of
from pipeline.models import heads
from pipeline.recipes import Benchmark, Project, Training
from pipeline.remote.pack import asked_of
from pipeline.report import collect
from pipeline.report import training as pages

from ..conftest import ROOT, prompt_set, refused, write_yaml

CLASSES = ("001.Cat", "grey_dog", "owl", "frog", "horse", "ant")
TRAIN, TEST = 8, 4
RECIPE = {"model": "vit", "dataset": "pets", "method": "linear_probe", "small": 3}
MLP = {"method": {"mlp": {"epochs": 4}}}
UNSEEN = RECIPE | {"method": {"cosine": {"epochs": 6}}, "unseen": {"number": 2, "seed": 1}}


def write_class(folder, count: int, hue: int, seed: int) -> None:
    """Images of one class: noise around a colour of its own."""
    folder.mkdir(parents=True)
    random = np.random.default_rng([seed, hue])
    colour = np.random.default_rng(hue).integers(0, 256, 3)
    for number in range(count):
        pixels = np.clip(colour + random.normal(0, 40, (8, 8, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(folder / f"{number}.png")


@pytest.fixture(scope="session")
def pets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pets")
    for hue, name in enumerate(CLASSES):
        write_class(folder / "train" / name, TRAIN, hue, 0)
        write_class(folder / "test" / name, TEST, hue, 1)
    return folder


@pytest.fixture
def root(project_root, pets):
    """The tiny project with data set `pets`: six classes, 8 training and 4 test images of each."""
    shutil.copytree(pets, project_root / "data" / "pets")
    recipe = {"reader": "folders", "path": "data/pets", "prompts": "any", "dev": "train"}
    write_yaml(project_root / "datasets" / "pets.yaml", recipe)
    write_yaml(project_root / "prompts" / "any" / "_shared.yaml", {"templates": ["a {}"], "classes": "any"})
    return project_root


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """The tower of every checkpoint that is really loaded."""
    seen, load = [], models.load
    monkeypatch.setattr(
        models,
        "load",
        lambda name, entry, root, tower, *rest: (seen.append(tower), load(name, entry, root, tower, *rest))[1],
    )
    return seen


def fresh(root) -> Task:
    return CompetitionTask(Project(root), "tiny", dtype_name="fp32")


def run(root, name="t", **recipe) -> list[Trained]:
    return train_head(fresh(root), Training.parse(RECIPE | recipe, "t.yaml"), name, "t.yaml")


def curves(root, *arguments) -> kshot.Curves:
    """The verb kshot for `vit` on `pets`."""
    found = kshot.measure_curves(fresh(root), "vit", "pets", *arguments)
    pages.write_kshot(fresh(root), found)
    return found


def artefacts(root) -> dict[str, str]:
    """Digest of every file below trained/."""
    files = sorted(path for path in (root / "trained").rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.blake2b(path.read_bytes()).hexdigest() for path in files}


def test_what_is_left_behind(root):
    (one,) = run(root)
    assert sorted(path.name for path in one.folder.iterdir()) == ["head.safetensors", "model.yaml", "training.json"]
    assert one.record["classes"]["Cat"] == {"train": 6, "validation": 2}
    assert one.record["setting"].keys() == {"C"} and one.record["base"] == "vit@tiny"
    described = heads.describe(one.folder / "head.safetensors", "here")
    assert described["class_names"] == ["Cat", "ant", "frog", "grey dog", "horse", "owl"]


def test_the_probe_is_fitted_again_with_the_validation_images(root):
    from sklearn.linear_model import LogisticRegression

    (one,) = run(root)
    task = DatasetTask.of(fresh(root), "pets", asked_split="train")
    artefact, _ = chain_features.of_member(task, task.project.member("vit@tiny"))
    features = artefact.rows("features", 0, len(task.truth)).float()
    reference = LogisticRegression(C=one.record["setting"]["C"], max_iter=1000).fit(features.numpy(), task.truth)
    head = heads.load(one.folder / "head.safetensors", "here")
    # the order of the rows differs, and with it the last bits of the sums that lbfgs follows
    expected = reference.predict_proba(features.numpy())
    np.testing.assert_allclose(head.probs(features), expected, atol=2e-3)


@pytest.mark.parametrize("recipe", [MLP | {"balance": "sampling"}, {"method": "tip_adapter_f"}, UNSEEN])
def test_two_runs_give_the_same_bytes(root, recipe):
    run(root, **recipe)
    first = artefacts(root)
    shutil.rmtree(root / "trained")
    run(root, **recipe)
    assert artefacts(root) == first


def test_training_again_meets_no_model(root, loads):
    run(root)
    assert loads == ["image"]
    run(root, "second", **MLP)
    run(root, "third", **MLP, seed=1, balance="weights")
    assert loads == ["image"]
    run(root, "fourth", method="tip_adapter")
    assert loads == ["image", "text"]
    curves(root, ["tip_adapter"], [2], 1)
    assert loads == ["image", "text", "image"], "the test split, once"


def test_a_result_is_reused_and_never_overwritten(root, capsys):
    run(root)
    before = artefacts(root)
    run(root)
    assert "reused: same recipe, same data" in capsys.readouterr().out
    with refused(Exists, "trained/t", "rm -r"):
        run(root, seed=1)
    write_class(root / "data" / "pets" / "train" / "newt", 8, 9, 0)
    with refused(Exists, "trained/t", "another recipe or on other data"):
        run(root)
    assert artefacts(root) == before


def test_a_result_of_other_code_is_not_taken_for_this_one(root, monkeypatch):
    run(root)
    monkeypatch.setattr(learn_head, "code_of", lambda *modules: "other")
    with refused(Exists, "trained/t", "other code of its method"):
        run(root)


def test_a_result_from_before_code_was_noted_stays_valid(root):
    (one,) = run(root)
    record = json.loads((one.folder / "training.json").read_text())
    del record["made_from"]["code"]
    record["digest"] = digest_of(record["made_from"])
    (one.folder / "training.json").write_text(json.dumps(record))
    assert run(root)[0].record == record
    with refused(Exists, "another recipe or on other data"):
        run(root, seed=1)


def test_code_is_what_a_method_does(tmp_path, monkeypatch):
    """Comments, docstrings and layout of its file are not, a file beside it that it uses is."""
    files = {"__init__": "", "method": "from .step import move\n\ndef fit(x):\n    return move(x)\n"}
    files |= {"step": "def move(x):\n    return x + 1\n", "other": "def stay(x):\n    return x\n"}
    (tmp_path / "mine").mkdir()
    for name, text in files.items():
        (tmp_path / "mine" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("mine.method")
    importlib.import_module("mine.other")

    def code_with(name: str, text: str) -> str:
        (tmp_path / "mine" / f"{name}.py").write_text(text)
        return code_of("mine.method")

    before = code_of("mine.method")
    told = '"""Moves."""\n\n# by one\ndef move(x):\n    """One on."""\n    return (x  +  1)\n'
    assert code_with("step", told) == before
    assert code_with("other", "def stay(x):\n    return -x\n") == before
    assert code_with("step", "def move(x):\n    return x + 2\n") != before


def test_an_unfinished_folder_is_trained_again(root):
    run(root)
    before = artefacts(root)
    (root / "trained" / "t" / "model.yaml").unlink()
    run(root)
    assert artefacts(root) == before


def corrupt_test_split(root) -> None:
    """Other pixels, and labels shifted by one class."""
    folder = root / "data" / "pets" / "test"
    for hue, name in enumerate(CLASSES):
        shutil.rmtree(folder / name)
        write_class(folder / name, TEST + 1, (hue + 1) % len(CLASSES), 7)


@pytest.mark.parametrize("recipe", [{}, MLP, {"method": "tip_adapter"}, UNSEEN])
def test_the_reported_split_reaches_nothing_that_is_trained(root, recipe):
    made = run(root, **recipe)
    reported.measure_heads(fresh(root), Training.parse(RECIPE | recipe, "t.yaml"), made)
    before = artefacts(root)
    corrupt_test_split(root)
    shutil.rmtree(root / "trained")
    run(root, **recipe)
    assert artefacts(root) == before


@pytest.mark.parametrize("method", heads.having(for_unseen=True))
def test_images_of_unseen_classes_reach_no_weight_no_epoch_and_no_bias(root, method):
    recipe = UNSEEN | {"method": {method: {"epochs": 5}} if method != "tip_adapter" else method}
    made = run(root, **recipe)
    before = {one.name: (one.folder / "head.safetensors").read_bytes() for one in made}
    chosen = {one.name: (one.record["setting"], one.record["validation"]) for one in made}
    unseen = [name for name, never in zip(sorted(CLASSES), made[0].record["unseen"], strict=True) if never]
    assert len(unseen) == 2
    for name in unseen:
        shutil.rmtree(root / "data" / "pets" / "train" / name)
        write_class(root / "data" / "pets" / "train" / name, TRAIN, 77, 5)
    shutil.rmtree(root / "trained")
    for one in run(root, **recipe):
        assert (one.folder / "head.safetensors").read_bytes() == before[one.name]
        assert (one.record["setting"], one.record["validation"]) == chosen[one.name]
        assert one.record["validation"]["bias"] != 0


def test_seen_and_unseen_leave_two_heads_with_a_bias_on_the_seen_classes(root):
    best, for_unseen = run(root, **UNSEEN)
    assert (best.name, for_unseen.name) == ("t", "t-unseen")
    unseen = np.array(best.record["unseen"])
    held = np.array(best.record["held_out"])
    assert unseen.sum() == 2 and held.sum() == 1 and not (unseen & held).any()
    bias = heads.load(best.folder / "head.safetensors", "here").seen_bias.numpy()
    np.testing.assert_allclose(bias[~unseen], best.record["validation"]["bias"], rtol=1e-6)
    assert (bias[unseen] == 0).all()
    by_epoch = {state["epoch"]: state for state in best.record["history"]}
    assert best.record["validation"]["gzsl"] == max(state["gzsl"] for state in by_epoch.values())
    assert for_unseen.record["validation"]["unseen"] == max(state["unseen"] for state in by_epoch.values())


def test_the_bias_moves_what_is_reported(root):
    recipe = Training.parse(UNSEEN, "t.yaml")
    made = run(root, **UNSEEN)
    measured = reported.measure_heads(fresh(root), recipe, made)
    assert [one.name for one in measured] == ["t", "t-unseen", "zero-shot"]
    unseen = reported.unseen_of(made[0])
    none, chosen = measured[0].groups(unseen)
    assert none[0] == 0 and chosen[0] == pytest.approx(made[0].record["validation"]["bias"])
    assert chosen[1] != none[1], "among all classes a bias of this size changes labels"
    assert chosen[2].top[:, 0].tolist() == measured[0].probs.argmax(dim=1).tolist(), "the bias is in the head"


def test_unseen_classes_from_a_file(root):
    (root / "unseen.txt").write_text("owl\n001.Cat\n\n")
    made = run(root, **UNSEEN | {"unseen": {"file": "unseen.txt"}})
    names = list(made[0].record["classes"])
    assert {name for name, never in zip(names, made[0].record["unseen"], strict=True) if never} == {"owl", "Cat"}
    (root / "unseen.txt").write_text("owls\n")
    with refused(NotFound, "unseen.txt", "'owls'", "Did you mean 'owl'"):
        run(root, "other", **UNSEEN | {"unseen": {"file": "unseen.txt"}})


def test_captions_of_another_model(root):
    """An image tower learns towards another model's text: here of the same width, so it starts as it is."""
    (one,) = run(root, method={"cosine": {"epochs": 2}}, captions="vit2")
    head = heads.load(one.folder / "head.safetensors", "here")
    text, _ = chain_text.of_prompts(DatasetTask.of(fresh(root), "pets"), "vit2", prompt_set(("a owl",)))
    assert torch.allclose(head.captions[list(one.record["classes"]).index("owl")], text.features[0], atol=1e-6)


def test_small_classes_are_told(root, capsys):
    run(root, small=10)
    assert "6 of 6 classes have fewer than 10 training images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "kind", "parts"),
    [
        ({"split": "test"}, Forbidden, ["split: 'test'", "'pets'"]),
        ({"validation": "test"}, Forbidden, ["validation: 'test'", "'pets'"]),
        ({"validation": "train"}, UserError, ["validation: 'train'"]),
        ({"method": "probe"}, NotFound, ["'probe'", "Known: clip_adapter"]),
        ({"balance": "sampling"}, Mismatch, ["linear_probe", "'balance: weights'"]),
        ({"method": {"mlp": {"layers": 3}}}, NotFound, ["mlp", "'layers'"]),
        ({"method": {"mlp": {"epochs": 0}}}, UserError, ["mlp: epochs"]),
        ({"method": {"mlp": {"hidden": [0]}}}, UserError, ["mlp: hidden"]),
        ({"method": {"mlp": {"dropout": 1.0}}}, UserError, ["mlp: dropout"]),
        ({"method": {"linear_probe": -1.0}}, UserError, ["linear_probe: C"]),
        ({"model": "vti"}, NotFound, ["'vti'", "Did you mean 'vit'"]),
        (UNSEEN | {"method": "mlp"}, Mismatch, ["method mlp", "clip_adapter, cosine"]),
        (UNSEEN | {"unseen": {"number": 5}}, Mismatch, ["unseen: number: 5"]),
        (UNSEEN | {"unseen": {"number": 2, "validation": 3}}, Mismatch, ["unseen: 2", "3 validation", "leave 1"]),
        (UNSEEN | {"unseen": {"file": "nowhere.txt"}}, NotFound, ["unseen: file", "nowhere.txt"]),
    ],
)
def test_mistakes_are_told(root, recipe, kind, parts):
    with refused(kind, *parts):
        run(root, **recipe)
    assert not (root / "trained").exists()


@pytest.mark.parametrize(
    ("recipe", "parts"),
    [
        ({"methods": "mlp"}, ["'methods'", "Did you mean 'method'"]),
        ({"unseen": {"seed": 3}}, ["unseen", "'number'"]),
        ({"validation": 1.5}, ["validation"]),
        ({"balance": "sample"}, ["balance"]),
    ],
)
def test_strict_recipes(recipe, parts):
    with refused(UserError, *parts):
        Training.parse(RECIPE | recipe, "t.yaml")


def test_kshot_is_kept_and_tells_what_was_drawn_twice(root, capsys, monkeypatch):
    result = curves(root, ["linear_probe"], [1, 8], 3)
    assert [len(result.values["linear_probe"][k]) for k in (1, 8)] == [3, 3]
    assert kshot.replaced(result, 1) == "" and kshot.replaced(result, 8) == "6 of 6 classes (6 images)"
    low = result.interval("linear_probe", 1, "acc1")
    assert low.low < low.value < low.high
    folder = root / "reports" / "training"
    assert {path.suffix for path in folder.iterdir()} == {".csv", ".md", ".svg", ".html"}
    assert "zero-shot" in (folder / "kshot-vit@tiny-pets.svg").read_text()
    monkeypatch.setattr(heads, "fit", lambda *_: pytest.fail("fitted again"))
    assert curves(root, ["linear_probe"], [1, 8], 3).values == result.values


def test_kshot_refusals(root):
    for arguments, kind, part in (
        ((["mpl"], [1]), NotFound, "Did you mean 'mlp'"),
        ((["mlp"], ["0"]), UserError, "SHOTS: '0'"),
    ):
        with refused(kind, part):
            curves(root, *arguments)


def test_the_record_is_plain_json(root):
    (one,) = run(root, **MLP)
    record = json.loads((one.folder / "training.json").read_text())
    assert record["history"][0].keys() >= {"epoch", "train_loss", "loss", "macro_f1"}


ZOO = ["Owl", "cat", "Ant", "frog", "horse", "grey dog"]  # the data set's classes in another order and spelling


@pytest.fixture
def zoo(root):
    """A competition with the data set's classes, and the head `t` trained on it."""
    write_yaml(
        root / "competitions" / "zoo.yaml",
        {
            "images": "data/pets/test/**/*.png",
            "classes": ZOO,
            "prompts": "any",
            "rules": {"labels": True},
            "columns": {"id": "position", "label": "label"},
        },
    )
    run(root)
    return root


def competition(root) -> Task:
    return CompetitionTask(Project(root), "zoo", dtype_name="fp32")


def test_a_head_is_benchmarked_on_cached_features(zoo, loads):
    recipe = {"datasets": ["pets"], "resamples": 100, "prompts": ["own", "tiny"], "poolings": ["embedding", "mean"]}
    (cell,) = benchmark.measure(fresh(zoo), Benchmark.parse(recipe | {"models": ["t"]}, "b"), "b")
    assert loads == ["image"], "the test split, which was not encoded yet"
    made = Trained("t", zoo / "trained" / "t", json.loads((zoo / "trained" / "t" / "training.json").read_text()))
    (measured,) = reported.measure_heads(fresh(zoo), Training.parse(RECIPE, "t.yaml"), [made])
    assert np.array_equal(cell.predictions.top, measured.predictions.top)
    assert cell.metrics["acc1"].value > 0.6
    mixed = recipe | {"models": ["t", "vit"], "prompts": ["own"]}
    cells = benchmark.measure(fresh(zoo), Benchmark.parse(mixed, "b"), "b")
    assert [(one.member, one.pooling) for one in cells] == [
        ("t@tiny", "head"),
        ("vit@tiny", "embedding"),
        ("vit@tiny", "mean"),
    ]
    assert loads == ["image", "text"]


def test_a_head_labels_a_competition_by_class_name(zoo):
    write_yaml(zoo / "ensembles" / "learnt.yaml", {"members": {"t": 1}})
    task = competition(zoo)
    labels = chain_classes.decide(task, "learnt").labels
    names = [cleaned(path.split("/")[-2]).casefold() for path in task.images.paths()]
    right = [ZOO[label].casefold() == name for label, name in zip(labels, names, strict=True)]
    assert np.mean(right) > 0.6, "one in six by chance"


def test_a_head_in_a_blend(zoo, loads):
    write_yaml(zoo / "ensembles" / "mixed.yaml", {"members": {"t": 0.5, "vit": 0.5}, "blend": "classes"})
    task = competition(zoo)
    submission = submit(task, "mixed")
    assert loads == ["image", "text"], "one pass over the images for both members"
    record = json.loads(submission.with_suffix(".json").read_text())
    assert record["uses"] == ["image", "labels"]
    assert record["members"]["t@tiny"]["model"]["trained_on"] == ["pets:train"]
    recipe = task.project.ensemble("mixed")
    head, vit = (
        chain_classes.member_probs(task, recipe, m, made(ensemble.part(task, recipe, m)))
        for m in map(task.project.member, ("t@tiny", "vit@tiny"))
    )
    torch.testing.assert_close(chain_classes.decide(task, "mixed").pooled, (head + vit) / 2)
    plan.show(competition(zoo), "mixed")
    assert collect.of_ensemble(task, "mixed").members[0].name == "t@tiny"
    clean_cache.clean(Project(zoo))
    assert not chain_probs.stage(competition(zoo), competition(zoo).project.member("t@tiny")).missing(2048), (
        "still in use"
    )


def test_what_a_head_refuses(zoo):
    write_yaml(zoo / "ensembles" / "mixed.yaml", {"members": {"t": 0.5, "vit": 0.5}})
    with refused(Mismatch, "t@tiny", "'blend: classes'"):
        competition(zoo).project.ensemble("mixed")
    write_yaml(zoo / "ensembles" / "learnt.yaml", {"members": {"t": 1}})
    with refused(Mismatch, "['Cats', 'Dogs'"):
        chain_probs.of_member(fresh(zoo), fresh(zoo).project.member("t@tiny"))
    with refused(Mismatch, "t is a trained head", "vit@tiny"):
        prompts_rank.rank_prompts(
            DatasetTask.of(fresh(zoo), "pets", asked_split="train"), Project(zoo).member("t@tiny"), "embedding", True
        )
    content = yaml.safe_load((zoo / "competitions" / "zoo.yaml").read_text())
    write_yaml(zoo / "competitions" / "zoo.yaml", content | {"rules": {"labels": False}})
    with refused(Forbidden, "t@tiny", "competitions/zoo.yaml"):
        submit(competition(zoo), "learnt")
    with refused(Mismatch, "t is a trained head", "vit@tiny"):
        load_classifier("t", root=zoo)(str(zoo / "data" / "pets" / "test" / "owl" / "0.png"), ["a", "b"])
    (zoo / "trained" / "t" / "head.safetensors").unlink()
    with refused(NotFound, "model.yaml: t: ", "head.safetensors"):
        chain_probs.of_member(competition(zoo), competition(zoo).project.member("t@tiny"))


def test_a_pack_of_a_head_asks_for_features_of_its_base(zoo):
    write_yaml(zoo / "ensembles" / "learnt.yaml", {"members": {"t": 1}})
    asked = asked_of(competition(zoo), "learnt")
    assert ([one.member for one in asked.images], asked.texts) == (["vit@tiny"], [])


def test_heads_of_heads_and_heads_without_a_base(zoo):
    entry = yaml.safe_load((zoo / "trained" / "t" / "model.yaml").read_text())["t"]
    write_yaml(zoo / "trained" / "u" / "model.yaml", {"u": entry | {"base": "t@tiny"}})
    with refused(UserError, "base: t@tiny"):
        chain_features.stage(competition(zoo), competition(zoo).project.member("u@tiny"))
    write_yaml(zoo / "trained" / "u" / "model.yaml", {"u": {k: v for k, v in entry.items() if k != "base"}})
    with refused(UserError, "trained/u/model.yaml: u", "base"):
        _ = Project(zoo).models


def test_the_verbs_and_their_pages(root, monkeypatch, capsys):
    write_yaml(root / "training" / "network.yaml", RECIPE | MLP)
    write_yaml(root / "training" / "never.yaml", UNSEEN)
    monkeypatch.chdir(root)
    settings = ["--dtype", "fp32"]
    assert main(["train", "--recipe", "training/network.yaml", *settings]) == 0
    assert main(["train", "--recipe", "never", *settings]) == 0
    assert main(["probe", "--model", "vit", "--dataset", "pets", *settings]) == 0
    pages = {path.stem: path.read_text() for path in (root / "reports" / "training").glob("*.html")}
    assert set(pages) == {"network", "never", "probe-vit-pets"}
    assert "Learning curves" in pages["network"] and "Search" in pages["probe-vit-pets"]
    assert "Seen and unseen" in pages["never"] and "AUSUC" in pages["never"]
    assert all("Confusion" in text for text in pages.values())
    assert "few images" in pages["probe-vit-pets"] and "few images" not in pages["network"]
    assert "member probe-vit-pets@tiny" in capsys.readouterr().out
    assert main(["models"]) == 0 and "never-unseen" in capsys.readouterr().out
    assert main(["train", "--recipe", "training/netwrok.yaml"]) == 1
    told = capsys.readouterr().err
    assert "training/netwrok.yaml" in told and "Did you mean 'network'" in told
    assert main(["train", "--recipe", "elsewhere/network.yaml"]) == 1
    assert "recipes lie in training/" in capsys.readouterr().err


def test_the_recipes_that_come_with_the_project():
    project = Project(ROOT)
    for name in project.names("training"):
        recipe = project.training(name)
        assert project.member(recipe.model)
        check_method(recipe.method, name)


def test_a_probe_has_zero_shot_beside_it(root, monkeypatch, capsys):
    from pipeline.__main__ import main

    monkeypatch.chdir(root)
    assert main(["probe", "MODEL=vit", "DATASET=pets", "DTYPE=fp32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("model "))
    assert [line.split()[0] for line in lines[at + 1 : at + 3]] == ["probe-vit-pets", "zero-shot"]
    assert lines[-1].startswith("next: make submit MODEL=probe-vit-pets")
    (root / "prompts" / "any" / "_shared.yaml").unlink()
    assert main(["probe", "MODEL=vit", "DATASET=pets", "DTYPE=fp32"]) == 0
    assert "zero-shot: not beside it: " in capsys.readouterr().out
