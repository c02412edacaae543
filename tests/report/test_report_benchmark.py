"""make report of a benchmark: the page's numbers are the cells', and it works in a browser."""

import shutil

import numpy as np
import pytest

from pipeline.labelled import benchmark
from pipeline.labelled.task import DatasetTask
from pipeline.maths import metrics
from pipeline.recipes import Benchmark
from pipeline.report import benchmark as benchmark_page
from pipeline.report import collect

from ..browser import check, opened
from ..conftest import fresh, write_yaml
from ..labelled import test_benchmark

root = test_benchmark.root  # the fixture: the tiny project with data set `pets`
RECIPE = {"models": ["vit", "vit2"], "datasets": ["pets"], "poolings": ["embedding", "logit_mean"], "resamples": 100}


def recipe(**content) -> Benchmark:
    return Benchmark.parse(RECIPE | content, "b.yaml")


def result_of(root, cell, measured=()):
    return collect.of_cell(
        DatasetTask.of(fresh(root), cell.dataset, asked_split=cell.split, asked_prompts=cell.prompts), measured, cell
    )


def test_the_table_is_the_cells(root):
    measured = benchmark.measure(fresh(root), recipe(), "b")
    (table,) = benchmark_page.table(measured).blocks
    at, named = table.columns.index("acc1"), dict(zip(table.columns, range(20), strict=False))
    for row, cell, p in zip(table.rows, measured, benchmark.p_values(measured), strict=True):
        said = row[0], row[named["prompts"]], row[named["pooling"]], row[named["images"]].value
        assert said == (cell.member, cell.prompts, cell.pooling, cell.images)
        assert [one.value for one in row[at : named["p"]]] == [cell.metrics[key].value for key in benchmark.SHOWN]
        middle, low, high = (100 * value for value in cell.metrics["acc1"])
        assert row[at].text == f"{middle:.1f}\n{low:.1f}–{high:.1f}"
        assert row[named["p"]].text == ("best" if p is None else f"{p:.2g}")


def test_the_details_are_of_the_cell(root):
    measured = benchmark.measure(fresh(root), recipe(), "b")
    for cell in measured:
        result = result_of(root, cell, measured)
        assert result.right.mean() == cell.metrics["acc1"].value
        assert result.confidence == pytest.approx(cell.predictions.confidence)
        assert result.per_class.macro_f1 == pytest.approx(cell.metrics["macro_f1"].value)
        assert result.per_class.mean_recall == pytest.approx(cell.metrics["mean_per_class_recall"].value)
        assert result.calibration_error == pytest.approx(cell.metrics["ece"].value)
        assert result.shares.sum(axis=1) == pytest.approx(np.ones(18))
        assert {member.name for member in result.members} == {"vit@tiny", "vit2@tiny-sharp"}
        for member in result.members:
            (own,) = (c for c in measured if (c.member, c.pooling) == (member.name, cell.pooling))
            assert metrics.accuracy(member.labels, result.truth) == own.metrics["acc1"].value
        assert [space.features.shape for space in result.spaces] == [(18, 16)] * 2
        assert result.spaces[0].member == cell.member
        assert result.spaces[0].prototypes.shape == (3, 16)
        assert bool(result.prompts) == (cell.pooling != "embedding")


def test_features_that_are_gone_are_computed_again(root):
    (cell,) = benchmark.measure(fresh(root), recipe(models=["vit"], poolings=["mean"]), "b")
    before = result_of(root, cell)
    shutil.rmtree(root / "cache" / "datasets" / "pets" / "features")
    shutil.rmtree(root / "cache" / "text")
    after = result_of(root, cell)
    assert (after.shares == before.shares).all()
    assert (after.spaces[0].prototypes == before.spaces[0].prototypes).all()


@pytest.mark.parametrize("pooling", ["mean", "median", "logit_mean", "logit_max"])
def test_a_prompt_left_out_changes_what_a_set_without_it_changes(root, pooling):
    """One softmax goes over all prompts: to leave one out of its class's pool is to weigh it 0."""
    (cell,) = benchmark.measure(fresh(root), recipe(models=["vit"], poolings=[pooling]), "b")
    result = result_of(root, cell)
    assert any(use.flips for use in result.prompts), "no flips at all would prove nothing"
    shared = {"templates": test_benchmark.TEMPLATES, "classes": "any"}
    for use in result.prompts[:4]:
        write_yaml(root / "prompts" / "less" / "_shared.yaml", shared)
        write_yaml(root / "prompts" / "less" / "cat.yaml", {"weights": {use.prompt: 0}})
        (less,) = benchmark.measure(fresh(root), recipe(models=["vit"], poolings=[pooling], prompts=["less"]), "less")
        before, after = cell.predictions, less.predictions
        assert use.flips == (after.top[:, 0] != before.top[:, 0]).sum()
        assert use.gain == after.right.sum() - before.right.sum()


def test_the_page(root, command):
    write_yaml(root / "benchmarks" / "mine.yaml", RECIPE | {"note": "two small ones"})
    made = command(root, "report", "--benchmark", "mine")
    assert made.returncode == 0, made.stderr
    text = (root / "reports" / "benchmarks" / "mine.html").read_text()
    for expected in ("Benchmark mine", "two small ones", 'id="pets-classes"', "labels of split &#39;test&#39;"):
        assert expected in text
    made = command(root, "report", "--models", "vit vit2", "--datasets", "pets", "--split", "train")
    assert made.returncode == 0, made.stderr
    assert "labels of split &#39;train&#39;" in (root / "reports" / "benchmarks" / "latest.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--benchmark", "none"], "benchmarks/none.yaml"),
        (["--models", "vit"], "no datasets given"),
        (["--benchmark", "none", "--n", "3"], "not both"),
        (["--models", "vit", "--datasets", "pets", "--ensemble", "both"], "not both"),
    ],
)
def test_mistakes(root, capsys, monkeypatch, arguments, message):
    from pipeline.__main__ import main

    monkeypatch.chdir(root)
    assert main(["report", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_page_in_a_browser(root):
    path = benchmark_page.write(fresh(root), recipe(prompts=["own", "plain"]), "b")
    check(path)
    with opened(path, 1280) as page:
        ids = page.eval_on_selector_all("[id]", "all => all.map(element => element.id)")
        assert len(ids) == len(set(ids))
