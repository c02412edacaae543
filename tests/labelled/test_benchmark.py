"""Labelled data sets through the same stages, measured, kept, and equal to what everyone trusts."""

import csv
import io
import re
import shutil

import numpy as np
import open_clip
import pytest
import torch

from pipeline import models
from pipeline.chain import classes as chain_classes
from pipeline.chain import features as chain_features
from pipeline.chain import text as chain_text
from pipeline.chain.task import CompetitionTask
from pipeline.cli import clean_cache
from pipeline.core.errors import Mismatch, NotFound, UserError
from pipeline.labelled import benchmark, choosing, prompts_rank
from pipeline.labelled.prompt_subsets import SubsetScorer
from pipeline.labelled.task import DatasetTask
from pipeline.maths.metrics import accuracy
from pipeline.recipes import Benchmark, Project

from ..conftest import ROOT, fresh, pipeline, refused, write_images, write_yaml

TEMPLATES = ["{}", "a photo of a {}.", "a blurry {}.", "one {} seen from afar"]


@pytest.fixture
def root(project_root):
    """The tiny project with data set `pets`: 3 classes, 8 training and 6 test images of each."""
    for seed, name in enumerate(("001.Cat", "grey_dog", "owl")):
        write_images(project_root / "data" / "pets" / "train" / name, 8, seed)
        write_images(project_root / "data" / "pets" / "test" / name, 6, 10 + seed)
    recipe = {"reader": "folders", "path": "data/pets", "prompts": "any", "dev": "train"}
    write_yaml(project_root / "datasets" / "pets.yaml", recipe)
    write_yaml(project_root / "prompts" / "any" / "_shared.yaml", {"templates": TEMPLATES, "classes": "any"})
    write_yaml(project_root / "prompts" / "plain" / "_shared.yaml", {"templates": ["{}"], "classes": "any"})
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


def pets(root, **settings) -> DatasetTask:
    return DatasetTask(Project(root), "pets", dtype_name="fp32", **settings)


def run(root, **recipe) -> list[benchmark.Measurement]:
    content = {"datasets": ["pets"], "models": ["vit"], "resamples": 100, **recipe}
    return benchmark.measure(fresh(root), Benchmark.parse(content, "b.yaml"), "b")


def test_a_labelled_set_as_a_job(root):
    task = pets(root)
    assert task.class_names == ("Cat", "grey dog", "owl")
    assert task.truth == [0] * 6 + [1] * 6 + [2] * 6
    assert task.images.ids[6] == "test/grey_dog/0.jpg"
    assert task.prompts.prompts[4] == "grey dog"
    assert len(pets(root, asked_split="train").images.ids) == 24
    with refused(NotFound, "'trian'", "Did you mean 'train'"):
        _ = pets(root, asked_split="trian").images
    with refused(NotFound, "nowhere", "DATA=path"):
        _ = pets(root, data="nowhere").images


def test_zero_shot_labels_equal_open_clips_classifier(root, checkpoints):
    (cell,) = run(root)
    task = pets(root)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{checkpoints / 'vit'}")
    templates = [lambda name, t=t: t.format(name) for t in TEMPLATES]
    classifier = open_clip.build_zero_shot_classifier(
        model.eval(), open_clip.get_tokenizer("ViT-B-32"), ["Cat", "grey dog", "owl"], templates
    )
    with torch.no_grad():
        pixels = torch.stack([transform(task.images.open(n).image) for n in range(18)])
        features = model.encode_image(pixels, normalize=True)
    expected = (20 * features @ classifier).softmax(dim=1)
    assert cell.predictions.top[:, 0].tolist() == expected.argmax(dim=1).tolist()
    np.testing.assert_allclose(cell.predictions.confidence, expected.amax(dim=1), atol=2e-3)
    assert len(set(expected.argmax(dim=1).tolist())) > 1, "labels that are all equal would prove nothing"


def test_zero_shot_labels_equal_transformers_pipeline(root):
    import transformers
    import yaml

    from ..models.test_transformers import checkpoint
    from ..tiny import MEAN, STD

    model = checkpoint(root / "clip", "clip")
    with torch.no_grad():  # take out what all random images share, or each would get the same label
        pooled = model.vision_model(torch.randn(256, 3, 32, 32)).pooler_output.mean(dim=0)
        common, projection = pooled / pooled.norm(), model.visual_projection.weight
        projection -= (projection @ common)[:, None] * common
    model.save_pretrained(root / "clip")
    entries = yaml.safe_load((root / "models.yaml").read_text())
    clip = {"family": "transformers", "weights": "clip", "preprocess": "tiny"}
    write_yaml(root / "models.yaml", entries | {"clip": clip})
    write_yaml(root / "prompts" / "photo" / "_shared.yaml", {"templates": ["a photo of a {}."], "classes": "any"})
    recipe = {"reader": "folders", "path": "data/pets", "prompts": "photo"}
    words = {"001.Cat": "cat", "grey_dog": "red dog", "owl": "mountain"}  # what the tiny tokenizer knows
    write_yaml(root / "datasets" / "pets.yaml", recipe | {"classes": words})
    (cell,) = run(root, models=["clip"])
    task = pets(root)
    prepared = {"size": {"height": 32, "width": 32}, "do_center_crop": False, "image_mean": MEAN, "image_std": STD}
    reference = transformers.pipeline(
        "zero-shot-image-classification",
        transformers.CLIPModel.from_pretrained(root / "clip"),
        tokenizer=transformers.AutoTokenizer.from_pretrained(root / "clip"),
        image_processor=transformers.CLIPImageProcessor(**prepared),
    )
    found = [
        reference(
            task.images.open(n).image, candidate_labels=list(task.class_names), hypothesis_template="a photo of a {}."
        )[0]
        for n in range(18)
    ]
    assert [task.class_names[label] for label in cell.predictions.top[:, 0]] == [one["label"] for one in found]
    np.testing.assert_allclose(cell.predictions.confidence, [one["score"] for one in found], atol=5e-3)
    assert len({one["label"] for one in found}) > 1, "labels that are all equal would prove nothing"


def test_the_stages_of_a_competition_give_the_same_labels(root):

    write_yaml(root / "ensembles" / "one.yaml", {"members": {"vit": 1}})
    labels = chain_classes.decide(pets(root), "one").labels
    (cell,) = run(root, poolings=["mean"])
    assert labels == cell.predictions.top[:, 0].tolist()
    assert (root / "cache" / "datasets" / "pets" / "ensemble" / "one").is_dir()


def test_metrics_of_a_cell_are_those_of_its_predictions(root):
    (cell,) = run(root)
    assert cell.metrics["acc1"].value == pytest.approx(accuracy(cell.predictions.top[:, 0].tolist(), pets(root).truth))
    assert cell.metrics["acc5"].value == 1  # of three classes
    assert all(value.low <= value.value + 1e-9 and value.high >= value.low for value in cell.metrics.values())


def test_poolings_differ_only_in_pooling_and_encode_nothing_again(root, loads):
    run(root)
    assert loads == ["image", "text"]
    loads.clear()
    poolings = ["embedding", "mean", "median", "max", "logit_mean", "logit_median", "logit_max"]
    cells = {cell.pooling: cell for cell in run(root, poolings=poolings)}
    assert list(cells) == poolings
    assert loads == []
    tops = {pooling: cell.predictions.top[:, 0].tolist() for pooling, cell in cells.items()}
    assert tops["max"] == tops["logit_max"]  # the softmax keeps the order


def test_a_prompt_edit_costs_no_image_forward_and_finished_cells_stay(root, loads):
    (first,) = run(root)
    written = first.file.stat().st_mtime_ns
    loads.clear()
    run(root, prompts=["own", "plain"])
    assert loads == []  # the plain prompts are among the others
    shared = {"templates": [*TEMPLATES, "a new {}"], "classes": "any"}
    write_yaml(root / "prompts" / "any" / "_shared.yaml", shared)
    (edited,) = run(root)
    assert loads == ["text"]
    assert edited.file != first.file
    assert first.file.stat().st_mtime_ns == written


def test_a_finished_cell_is_not_computed_again(root, monkeypatch):
    (first,) = run(root)
    monkeypatch.setattr(benchmark, "predict", lambda *_: pytest.fail("computed again"))
    assert run(root)[0].metrics == first.metrics
    write_yaml(
        root / "datasets" / "pets.yaml",
        {"reader": "folders", "path": "data/pets", "prompts": "any", "classes": {"owl": "barn owl"}},
    )
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        run(root)


def test_tables(root, capsys):
    cells = run(root, models=["vit", "vit2"], prompts=["own", "plain"], poolings=["embedding", "mean"])
    assert len(cells) == 8
    lines = list(csv.DictReader(io.StringIO((root / "cache" / "benchmarks" / "b.csv").read_text())))
    assert len(lines) == 8 * 5
    best = max(cells, key=lambda cell: cell.metrics["acc1"].value)
    for line, (cell, measure) in zip(lines, [(c, m) for c in cells for m in c.metrics], strict=True):
        key = ("dataset", "split", "model", "prompts", "pooling", "measure")
        assert [line[k] for k in key] == ["pets", "test", cell.member, cell.prompts, cell.pooling, measure]
        assert float(line["value"]) == pytest.approx(cell.metrics[measure].value, abs=1e-6)
        assert (line["p_against_best"] == "") == (cell is best)
    markdown = (root / "cache" / "benchmarks" / "b.md").read_text()
    assert markdown.count("**") == 2
    assert f"**{best.metrics['acc1'].value:.3f} ±" in markdown
    assert "vit2@tiny-sharp" in capsys.readouterr().out


def test_the_command(root, command):
    result = pipeline(root, "benchmark", "--models", "vit vit2", "--datasets", "pets", "--poolings", "mean", "max")
    assert result.returncode == 0, result.stderr
    assert "4 measurements: cache/benchmarks/latest.csv, .md" in result.stdout
    recipe = {"models": ["vit"], "datasets": ["pets"], "note": "x"}
    write_yaml(root / "benchmarks" / "mine.yaml", recipe)
    result = command(root, "benchmark", "--benchmark", "mine", "--split", "train")
    assert "1 measurements: cache/benchmarks/mine.csv" in result.stdout
    assert "pets      train      24" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--models", "vit"], ["no datasets"]),
        (["--models", "vti", "--datasets", "pets"], ["'vti'", "Did you mean 'vit'"]),
        (["--models", "vit", "--datasets", "pest"], ["datasets/pest.yaml", "Did you mean 'pets'"]),
        (["--models", "vit", "--datasets", "pets", "--poolings", "men"], ["poolings.0"]),
        (["--models", "vit", "--datasets", "pets", "--prompts", "plian"], ["plian", "Did you mean 'plain'"]),
        (["--models", "vit", "--datasets", "pets pets"], ["datasets", "['pets']"]),
        (["--models", "vit", "--datasets", "a b", "--data", "x"], ["DATA=", "DATASETS=name"]),
        (["--benchmark", "none"], ["benchmarks/none.yaml"]),
    ],
)
def test_mistakes(root, capsys, monkeypatch, arguments, parts):
    from pipeline.__main__ import main

    monkeypatch.chdir(root)
    assert main(["benchmark", *arguments]) == 1
    told = capsys.readouterr().err
    assert all(part in told for part in parts), told


def test_weighted_prompts_and_a_median_do_not_go_together(root):
    shared = {"templates": TEMPLATES, "classes": "any"}
    write_yaml(root / "prompts" / "weighted" / "_shared.yaml", shared)
    write_yaml(root / "prompts" / "weighted" / "owl.yaml", {"weights": {"owl": 2.0}})
    with refused(Mismatch, "prompts/weighted", "pooling 'mean'"):
        run(root, prompts=["weighted"], poolings=["median"])


def test_views_work_in_a_benchmark(root):
    recipe = {
        "size": 32,
        "ops": ["resize"],
        "views": ["identity", "hflip"],
        "view_pooling": "confident",
        "keep_views": 1,
    }
    write_yaml(root / "preprocess" / "views.yaml", recipe)
    cells = run(root, models=["vit@views"], poolings=["embedding", "mean", "logit_mean"])
    assert [cell.member for cell in cells] == ["vit@views"] * 3


def test_clean_cache_keeps_what_recipes_use_and_removes_the_rest(root, capsys):
    run(root)
    prompts_rank.rank_prompts(
        pets(root, asked_split="train"), Project(root).member("vit@tiny"), "embedding", labelled=True
    )
    capsys.readouterr()
    clean_cache.clean(Project(root))
    assert "0 unused artefacts" in capsys.readouterr().out
    write_yaml(root / "preprocess" / "tiny.yaml", {"size": 32, "ops": ["resize", {"contrast": 2}]})
    clean_cache.clean(Project(root))
    gone = capsys.readouterr().out
    assert "cells" in gone
    assert "7 unused artefacts" in gone  # pixels, their record and features of two splits, and the cell
    (root / "datasets" / "pets.yaml").unlink()
    clean_cache.clean(Project(root))
    assert not (root / "cache" / "datasets" / "pets").exists()
    assert (root / "cache" / "benchmarks" / "b.csv").exists()


def test_inspect_shows_the_way_back(root, capsys):
    from pipeline.cli import inspect

    (cell,) = run(root)
    capsys.readouterr()
    inspect.show(cell.file, root)
    said = capsys.readouterr().out
    assert 'stage: "features"' in said
    assert "squash" in said


def test_the_bench_says_what_is_not_there(monkeypatch, tmp_path):
    import importlib.util

    spec = importlib.util.spec_from_file_location("labelled", ROOT / "bench" / "labelled.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "WEIGHTS", module.SHARED / "nowhere")
    assert "shared/nowhere not there" in module.main()


def test_a_competition_cannot_take_a_reserved_folder(root):
    shutil.copy(root / "competitions" / "tiny.yaml", root / "competitions" / "datasets.yaml")
    with refused(UserError, "'datasets'"):
        _ = CompetitionTask(Project(root), "datasets").recipe


class TestRanking:
    """A set with one template that is known to help: its features are the class's own mean image feature."""

    @pytest.fixture
    def task(self, root, monkeypatch) -> DatasetTask:
        task = pets(root, asked_split="train")
        features, _ = chain_features.of_member(task, task.project.member("vit@tiny"))
        features = features.rows("features", 0, 24).float()
        truth = torch.tensor(task.truth)
        means = torch.stack([features[truth == label].mean(dim=0) for label in range(3)])
        random = torch.randn(12, 16, generator=torch.Generator().manual_seed(0))
        random[1::4] = 3 * means  # the second template, 'a photo of a {}.'
        text = chain_text.Text(random / random.norm(dim=1, keepdim=True), 20.0)
        monkeypatch.setattr(chain_text, "of_prompts", lambda *_: (text, 0))
        return task

    def test_the_terminal_has_both_ends_of_a_long_table(self, task, capsys):
        file = (
            prompts_rank.rank_prompts(task, task.project.member("vit@tiny"), "embedding", labelled=True)
            .read_text()
            .splitlines()
        )
        shown = capsys.readouterr().out.splitlines()
        start = file.index("## Prompts by what each adds to the others") + 4  # of 12 rows
        words = [[cell.strip() for cell in line[2:-2].split(" | ")] for line in file[start : start + 12]]
        at = shown.index("## Prompts by what each adds to the others") + 3
        told = [re.split("  +", line.strip()) for line in shown[at : at + 11]]
        assert told == [*words[:5], ["... 2 more"], *words[7:]]
        assert [line for line in file if line not in shown and not line.startswith("|")] == []

    @pytest.mark.parametrize("pooling", ["embedding", "mean", "logit_mean"])
    def test_the_template_that_helps_comes_first(self, task, pooling):
        text = prompts_rank.rank_prompts(task, task.project.member("vit@tiny"), pooling, labelled=True).read_text()
        first = text.split("| --- | --- | --- |\n")[1].splitlines()[0]
        assert first.startswith("| a photo of a {}. | +")
        greedy = text.split("| --- | --- | --- |\n")[2].split("\n\n")[0].splitlines()
        assert greedy[0].startswith("| a photo of a {}. |")
        assert sorted(line.split(" | ")[0].removeprefix("| ") for line in greedy) == sorted(TEMPLATES)
        assert "Labels of 'train' were looked at, no test label." in text

    def test_leaving_out_equals_a_set_without_it(self, task, root):
        scorer = SubsetScorer(task, task.project.member("vit@tiny"), "embedding")
        keep = np.array(task.prompts.templates) != "a photo of a {}."
        rest = [template for template in TEMPLATES if template != "a photo of a {}."]
        write_yaml(root / "prompts" / "rest" / "_shared.yaml", {"templates": rest, "classes": "any"})
        other = pets(root, asked_split="train", asked_prompts="rest")
        text, _ = chain_text.of_prompts(task, "vit", task.prompts)
        infer_text = chain_text.Text(text.features[keep], text.logit_scale)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chain_text, "of_prompts", lambda *_: (infer_text, 0))
            features = chain_features.stage(other, other.project.member("vit@tiny")).rows("features", 0, 24)
            expected = benchmark.class_probs(other, other.project.member("vit@tiny"), "embedding")(features)
        np.testing.assert_allclose(scorer.class_probs(keep), expected, atol=1e-5)

    def test_a_class_never_loses_all_its_prompts(self, task):
        scorer = SubsetScorer(task, task.project.member("vit@tiny"), "embedding")
        everything = scorer.class_probs(np.ones(12, bool))
        np.testing.assert_allclose(scorer.class_probs(np.zeros(12, bool)), everything)

    def test_large_sets_are_ranked_on_a_part(self, task, monkeypatch):
        whole = SubsetScorer(task, task.project.member("vit@tiny"), "mean").class_probs(np.ones(12, bool))
        monkeypatch.setattr(choosing, "MOST_IMAGES", 5)
        part = SubsetScorer(task, task.project.member("vit@tiny"), "mean").class_probs(np.ones(12, bool))
        assert choosing.sampled_rows(task).tolist() == [0, 5, 11, 17, 23]
        assert choosing.sampled_truth(task).tolist() == [0, 0, 1, 2, 2]
        np.testing.assert_allclose(part, whole[[0, 5, 11, 17, 23]], atol=1e-6)

    def test_without_labels_none_is_read(self, root, monkeypatch):
        task = pets(root)
        monkeypatch.setattr(DatasetTask, "truth", property(lambda _: pytest.fail("labels were read")))
        text = prompts_rank.rank_prompts(task, task.project.member("vit@tiny"), "embedding", labelled=False).read_text()
        assert "No label was looked at." in text
        assert "| template | agrees with all together | confidence |" in text

    def test_a_competition_can_be_ranked_without_labels(self, root):
        text = prompts_rank.rank_prompts(
            fresh(root), Project(root).member("vit@tiny"), "mean", labelled=False
        ).read_text()
        assert "| Cats | The whiskers |" in text

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            (["--split", "test"], 1, "its labels are not looked at. Give SPLIT=train, UNLABELLED=1, or TEST_LABELS=1"),
            (["--test-labels"], 0, "**Test labels were looked at**"),
            ([], 0, "Labels of 'train' were looked at, no test label."),
            (["--unlabelled", "--split", "test"], 0, "No label was looked at."),
        ],
    )
    def test_test_labels_are_only_looked_at_when_told_to(self, root, monkeypatch, capsys, arguments, code, said):
        from pipeline.__main__ import main

        monkeypatch.chdir(root)
        assert main(["prompts-rank", "--dataset", "pets", "--model", "vit", *arguments]) == code
        output = capsys.readouterr()
        assert said in output.out + output.err

    def test_a_set_without_a_development_split_says_so(self, root, monkeypatch, capsys):
        from pipeline.__main__ import main

        write_yaml(root / "datasets" / "pets.yaml", {"reader": "folders", "path": "data/pets", "prompts": "any"})
        monkeypatch.chdir(root)
        assert main(["prompts-rank", "--dataset", "pets", "--model", "vit"]) == 1
        assert "another split, or 'dev:' in datasets/pets.yaml" in capsys.readouterr().err
        recipe = {"reader": "folders", "path": "data/pets", "prompts": "any", "split": "train"}
        write_yaml(root / "datasets" / "pets.yaml", recipe)
        assert main(["prompts-rank", "--dataset", "pets", "--model", "vit", "--split", "test"]) == 1
        assert "its labels are not looked at" in capsys.readouterr().err
        assert main(["prompts-rank", "--model", "vit"]) == 1
        assert "a competition has no labels" in capsys.readouterr().err


def test_what_was_called_latest_can_be_asked_for_again(root, command):
    assert command(root, "benchmark", "--models", "vit", "--datasets", "pets").returncode == 0
    for verb in ("benchmark", "report"):
        again = command(root, verb, "--benchmark", "latest")
        assert again.returncode == 0, again.stderr
    assert (root / "reports" / "benchmarks" / "latest.html").is_file()
