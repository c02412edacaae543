"""make sweep: a candidate is what its recipe gives, ranked honestly, written once; test labels stay closed."""

import csv
import io
import shutil

import numpy as np
import pytest
import yaml

from pipeline.chain import classes as chain_classes
from pipeline.chain.csv_format import CsvFormat
from pipeline.core.errors import Exists, Forbidden, Mismatch, NotFound, UserError
from pipeline.labelled import sweep
from pipeline.labelled.readers import csv as csv_reader
from pipeline.labelled.sweep import ordering
from pipeline.labelled.sweep.grid import Grid
from pipeline.labelled.sweep.in_memory import EnsemblesInMemory
from pipeline.labelled.task import DatasetTask
from pipeline.recipes import Project, Sweep

from ..chain.test_submit import competition
from ..conftest import CLASSES, IMAGES, ROOT, failed, fresh, pipeline, refused, write_yaml

VARY = {
    "weights": [[0.5, 0.5], [0.2, 0.8], [1, 0]],
    "threshold": [0, 0.05, 0.2],
    "pooling": ["mean", "median"],
    "space": ["probability", "log"],
}


@pytest.fixture
def swept(project_root):
    """The tiny project with labels for its images (data set `tiny`, split val) and sweeps/try.yaml on them."""
    lines = [f"{n}.jpg,{CLASSES[n % 3]},{'test' if n > 19 else 'val'}" for n in range(IMAGES)]
    (project_root / "data" / "tiny" / "labels.csv").write_text("\n".join(["path,class,split", *lines]) + "\n")
    dataset = {"reader": "csv", "path": "data/tiny/labels.csv", "prompts": "tiny", "dev": "val"}
    write_yaml(project_root / "datasets" / "tiny.yaml", dataset)
    return project_root


def write(root, **keys):
    content = {"dataset": "tiny", "base": "both", "out": "best", "vary": VARY} | keys
    write_yaml(root / "sweeps" / "try.yaml", {key: value for key, value in content.items() if value is not None})


def run(root, **options):
    return sweep.sweep(fresh(root), "try", **options)


def table(path) -> list[dict]:
    return list(csv.DictReader(io.StringIO(path.with_suffix(".csv").read_text())))


def accuracy_in(root, name: str) -> float:
    """Of a recipe on the split for choosing, by the chain and its files."""
    task = DatasetTask.of(fresh(root), "tiny", asked_split="val")
    return float(np.mean(np.array(chain_classes.decide(task, name).labels) == task.truth))


def test_the_written_recipe_is_as_good_as_its_candidate(swept, capsys):
    write(swept)
    rows = table(run(swept))
    assert len(rows) == 1 + 3 * 3 * 2 * 2
    accuracies = [float(row["accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] > accuracies[-1]
    assert accuracy_in(swept, "best") == pytest.approx(accuracies[0], abs=1e-4)
    base = next(row for row in rows if row["candidate"] == "the base as it is")
    assert accuracy_in(swept, "both") == pytest.approx(float(base["accuracy"]), abs=1e-4)
    said = capsys.readouterr().out
    assert "indistinguishable from the best" in said
    assert "37 candidates" in said
    text = (swept / "ensembles" / "best.yaml").read_text()
    assert text.startswith("# Chosen by `make sweep RECIPE=sweeps/try.yaml` on split 'val' of datasets/tiny.yaml")


KINDS = [
    {"pooling": ["median"], "space": ["log"], "threshold": [0.05]},
    {"pooling": ["embedding"], "prompt_weights": ["carprt"]},
    {"match": ["confidence"], "prompt_weights": ["zpe"], "threshold": [0.002]},
    {"blend": ["classes"], "threshold": [0], "space": ["log"], "match": ["confidence"]},
    {"prompts": ["other"], "weights": [[0.3, 0.7]]},
    {"templates": {"number": 3, "share": 0.4}, "threshold": [0.1]},
]


@pytest.mark.parametrize("vary", KINDS, ids=lambda vary: "-".join(vary))
def test_a_candidate_has_the_probabilities_of_its_file(swept, vary):
    shutil.copytree(swept / "prompts" / "tiny", swept / "prompts" / "other")
    write_yaml(swept / "prompts" / "other" / "_shared.yaml", {"templates": ["one {}", "two {}", "{}"]})
    write(swept, vary=vary)
    task = DatasetTask.of(fresh(swept), "tiny", asked_split="val")
    recipe = task.project.sweep("try")
    found = sweep.candidates(task, "try", recipe, sweep.grid_of(task, recipe, swept))
    trials = EnsemblesInMemory(task)
    for number, one in enumerate(found[1:]):
        write_yaml(swept / "ensembles" / f"c{number}.yaml", one.recipe.model_dump(mode="json"))
        whole = chain_classes.decide(DatasetTask.of(fresh(swept), "tiny", asked_split="val"), f"c{number}").refined
        assert trials.class_probs(one.recipe).numpy() == pytest.approx(whole.numpy(), abs=1e-6)


def test_a_subset_of_templates_is_written_as_a_prompt_set(swept):
    write(swept, vary={"templates": {"number": 4, "share": 0.4}}, base="one")
    rows = table(run(swept))
    recipe = yaml.safe_load((swept / "ensembles" / "best.yaml").read_text())
    assert "tiny.subset-00" in rows[0]["candidate"]
    assert recipe["members"]["vit@tiny"] == {"weight": 3.0, "prompts": "best"}
    templates = yaml.safe_load((swept / "prompts" / "best" / "_shared.yaml").read_text())["templates"]
    assert len(templates) == 1
    assert accuracy_in(swept, "best") == pytest.approx(float(rows[0]["accuracy"]), abs=1e-4)


def test_nothing_is_encoded_again_and_a_seed_is_repeated(swept):
    write(swept, random=7, seed=3)
    first = run(swept).with_suffix(".csv").read_text()
    features = sorted((swept / "cache").rglob("features/**/*.pt"))
    stamps = [path.stat().st_mtime_ns for path in features]
    (swept / "ensembles" / "best.yaml").unlink()
    assert run(swept).with_suffix(".csv").read_text() == first
    assert [path.stat().st_mtime_ns for path in features] == stamps
    assert sorted((swept / "cache").rglob("features/**/*.pt")) == features
    assert not list((swept / "cache").rglob("ensemble/**/*.pt"))
    write(swept, random=7, seed=4)
    assert run(swept, overwrite=True).with_suffix(".csv").read_text() != first


def test_a_recipe_is_not_overwritten_without_being_told(swept):
    write(swept, out="one")
    with refused(Exists, "ensembles/one.yaml", "OVERWRITE=1"):
        run(swept)
    run(swept, overwrite=True)
    assert (swept / "ensembles" / "one.yaml").read_text().startswith("# Chosen by")
    write(swept, out="tiny", vary={"templates": {"number": 1}})
    with refused(Exists, "prompts/tiny"):
        run(swept, overwrite=True)


def test_test_labels_stay_closed(swept):
    write(swept, split="test")
    with refused(Forbidden, "'test'", "'split: val'"):
        run(swept)
    assert run(swept, test_labels=True).exists()


def test_a_competition_is_ranked_by_stability(swept, capsys):
    write(swept, dataset=None, competition="tiny")
    rows = table(run(swept))
    assert "this is stability, not accuracy" in capsys.readouterr().out
    assert "accuracy" not in rows[0]
    flips = [float(row["flips near it"]) for row in rows if row["flips near it"]]
    assert flips == sorted(flips)
    best, base = (np.array(chain_classes.decide(fresh(swept), name).labels) for name in ("best", "both"))
    assert float(rows[0]["flips from the base"]) == pytest.approx((best != base).mean(), abs=1e-4)
    write(swept, dataset=None, competition="tiny", out=None, vary={"match": ["confidence"]})
    with refused(Forbidden, "sweeps/try.yaml: line ", "match: confidence"):
        run(swept)
    competition(swept, rules={"test_set": True})
    assert run(swept).exists()


def test_stability_by_hand():
    labels = np.array([[0, 0], [0, 0], [0, 1], [1, 1]])
    space = Grid({"threshold": (0.0, 0.1, 0.2)})
    found = ordering.by_stability(labels, space, [(0,), (1,), (2,)])
    assert [line[1] for line in found.lines] == ["", "0.7500", "0.5000", "0.7500"]
    assert found.order == [2, 1, 3, 0]
    assert found.twins == {2: 0, 1: 1, 3: 0}


def test_accuracy_by_hand():
    truth = np.zeros(40, int)
    labels = np.ones((4, 40), int)
    labels[0, :20] = labels[1, :22] = labels[2, :22] = labels[3, :40] = 0
    found = ordering.by_accuracy(labels, truth, [0, 2, 1, 3], 200)
    assert found.order == [3, 2, 1, 0]
    assert "1 of 4 candidates are indistinguishable" in found.summary
    assert "the base is not" in found.summary
    close = ordering.by_accuracy(labels[:3], truth, [0, 2, 1], 200)
    assert "3 of 3 candidates are indistinguishable" in close.summary
    assert [line[0] for line in close.lines] == ["3", "2", "1"]


@pytest.mark.parametrize(
    ("keys", "kind", "parts"),
    [
        ({"vary": {"treshold": [0.1]}}, UserError, ["sweeps/try.yaml", "'vary.treshold'"]),
        ({"vary": {}}, UserError, ["sweeps/try.yaml: vary:"]),
        ({"vary": {"weights": [[1]]}}, Mismatch, ["vary.weights: [1.0]", "2 members of both"]),
        ({"vary": {"weights": [[1, 0]], "weight_steps": 3}}, UserError, ["weights and weight_steps"]),
        ({"vary": {"pooling": ["mode"]}}, UserError, ["sweeps/try.yaml: pooling", "'mean'"]),
        ({"vary": {"threshold": [2.0]}}, UserError, ["sweeps/try.yaml: threshold"]),
        ({"vary": {"prompts": ["tinny"]}}, NotFound, ["'tinny'", "Did you mean 'tiny'"]),
        ({"vary": {"refine": [["nothing"]]}}, NotFound, ["'nothing'"]),
        ({"competition": "tiny"}, UserError, ["'dataset:'", "'competition:'"]),
        ({"vary": {"weight_steps": 100, "threshold": [n / 2000 for n in range(1500)]}}, UserError, ["151,500"]),
        ({"out": "../x"}, UserError, ["out: '../x'"]),
        ({"base": "bot"}, NotFound, ["ensembles/bot.yaml", "Did you mean 'both'"]),
    ],
)
def test_mistakes(swept, keys, kind, parts):
    write(swept, **keys)
    with refused(kind, *parts):
        run(swept)
    assert not (swept / "cache").exists() or not list((swept / "cache").rglob("features/**/*.pt"))


def test_combinations_that_cannot_be_are_left_out_aloud(swept, capsys):
    write(swept, vary={"pooling": ["mean", "median"], "prompt_weights": ["given", "zpe"]})
    assert len(table(run(swept))) == 1 + 3
    assert "1 combinations that no recipe may have are left out" in capsys.readouterr().out


def test_an_interruption_ranks_what_was_tried(swept, monkeypatch):
    write(swept)
    made = EnsemblesInMemory.class_probs
    calls = []

    def interrupted(self, recipe):
        calls.append(recipe)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return made(self, recipe)

    monkeypatch.setattr(EnsemblesInMemory, "class_probs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(swept)
    assert len(table(swept / "cache" / "datasets" / "tiny" / "sweeps" / "try.csv")) == 5
    assert not (swept / "ensembles" / "best.yaml").exists()


@pytest.mark.slow
def test_from_the_command_line(swept, command):
    write(swept, out=None, random=4)
    result = pipeline(swept, "sweep", "--recipe", "sweeps/try.yaml")
    assert result.returncode == 0, result.stderr
    assert "5 candidates" in result.stdout
    result = command(swept, "sweep", "--recipe", "tri")
    failed(result, "sweeps/tri.yaml", "Did you mean 'try'")


class TestDemo:
    def test_its_labels_are_the_solutions(self):
        solution = CsvFormat(fresh_demo()).solution
        rows = list(csv_reader.csv(ROOT / "demo" / "labels.csv"))
        names = Project(ROOT).class_names("demo")
        assert [(row.id, names.index(row.class_name)) for row in rows] == [
            (f"images/{n}.jpg", label) for n, label in enumerate(solution)
        ]
        assert {row.split for row in rows} == {"val", "test"}

    def test_its_sweep_is_well_formed(self):
        recipe = Project(ROOT).sweep("demo")
        assert isinstance(recipe, Sweep)
        task = DatasetTask.of(fresh_demo(), recipe.dataset, asked_split="val")
        space = sweep.grid_of(task, recipe, ROOT / "cache")
        assert len(sweep.candidates(task, "demo", recipe, space)) > 1000


def fresh_demo():
    from pipeline.chain.task import CompetitionTask

    return CompetitionTask(Project(ROOT), "demo", dtype_name="fp32")
