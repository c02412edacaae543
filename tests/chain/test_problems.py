"""A folder with images of every kind, whole and damaged: one right row per image under each policy, and all is told."""

import csv
import json
import os
import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pipeline.__main__ import main
from pipeline.chain import classes as chain_classes
from pipeline.chain import damage as chain_damage
from pipeline.chain import ensemble, preprocess
from pipeline.chain import probs as chain_probs
from pipeline.chain.main_job import submit
from pipeline.chain.stage import made
from pipeline.core.errors import Changed, Damaged, UserError
from pipeline.labelled.task import DatasetTask
from pipeline.maths.refine import STEPS

from .. import zoo
from ..conftest import IMAGES, fresh, refused, write_images, write_yaml


@pytest.fixture
def command(project_root, monkeypatch, capsys):
    """The command line in the project's folder, without the seconds that a new process takes to import torch."""
    monkeypatch.chdir(project_root)

    def run(*arguments: str) -> SimpleNamespace:
        capsys.readouterr()
        status = main([*arguments, "--competition", "tiny", "--dtype", "fp32"])
        said = capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=said.out, stderr=said.err)

    return SimpleNamespace(run=run)


def set_policy(root, **keys) -> None:
    path = root / "competitions" / "tiny.yaml"
    write_yaml(path, yaml.safe_load(path.read_text()) | {"rules": {"test_set": True}} | keys)


def fill_folder(root, files: dict[str, bytes]) -> None:
    folder = root / "data" / "tiny"
    shutil.rmtree(folder)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def every_kind() -> dict[str, bytes]:
    """The whole zoo, damaged files between whole ones; all are called .png or .jpg, and the content decides."""
    whole = [(name, specimen.content) for name, specimen in zoo.whole().items()]
    damaged = [(f"damaged_{name}", content) for name, (content, _) in zoo.damaged().items()]
    for number, one in enumerate(damaged):
        whole.insert(7 * number + 3, one)
    return {f"{number}_{name}.{('png', 'jpg')[number % 2]}": content for number, (name, content) in enumerate(whole)}


def rows(path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def told(root) -> dict[str, tuple[str, str]]:
    """{image: (problem, done)} of problems.csv."""
    header, *lines = rows(root / "reports" / "tiny" / "problems.csv")
    assert header == ["row", "image", "problem", "done"]
    return {image: (problem, done) for _, image, problem, done in lines}


@pytest.fixture
def labels_alone(project_root) -> dict[str, str]:
    """{image: label} of a run on the whole images only."""
    files = every_kind()
    fill_folder(project_root, {name: content for name, content in files.items() if "damaged" not in name})
    set_policy(project_root, columns={"id": "file_name", "label": "label"})
    submit(fresh(project_root), "both")
    found = dict(rows(project_root / "submissions" / "tiny" / "001-both.csv")[1:])
    shutil.rmtree(project_root / "submissions")
    fill_folder(project_root, files)
    return found


def test_by_default_all_damaged_images_are_named_and_nothing_is_written(project_root, command):
    fill_folder(project_root, every_kind())
    result = command.run("submit")
    assert result.returncode == 1
    damaged = {name for name in every_kind() if "damaged" in name}
    assert all(name in result.stderr for name in damaged)
    assert "give 'damaged_images: fill' or 'damaged_images: fallback' in competitions/tiny.yaml" in result.stderr
    assert told(project_root).keys() == damaged
    assert {done for _, done in told(project_root).values()} == {"the run stopped"}
    assert not (project_root / "submissions").exists()


@pytest.mark.parametrize("policy", ["fallback", "fill"])
def test_one_right_row_per_image(project_root, labels_alone, command, policy):
    """What is whole gets the label it gets without any damaged image beside it: no row is shifted."""
    set_policy(project_root, damaged_images=policy)
    result = command.run("submit", "--shard", "16", "--batch", "5")
    assert result.returncode == chain_damage.EXIT_STATUS == 3, result.stderr
    header, *lines = rows(project_root / "submissions" / "tiny" / "001-both.csv")
    names = list(every_kind())
    assert [name for name, _ in lines] == names
    labels = dict(lines)
    assert {name: labels[name] for name in labels_alone} == labels_alone
    filled = {name for name, (_, done) in told(project_root).items() if done.startswith("filled")}
    assert {name.split("damaged_")[1][:-4] for name in filled} == (
        {"truncated.jpg", "truncated.png"} if policy == "fill" else set()
    )
    predicted = Counter(label for name, label in labels.items() if "damaged" not in name or name in filled)
    prior = max(predicted, key=lambda label: (predicted[label], -int(label)))
    assert {labels[name] for name in names if "damaged" in name and name not in filled} == {prior}
    assert told(project_root).keys() == {name for name in names if "damaged" in name}
    for name, (problem, _) in told(project_root).items():
        assert zoo.damaged()[name.split("damaged_")[1][:-4]][1] in problem
    assert f"{len(zoo.damaged())} of {len(names)} images are damaged" in result.stderr
    assert result.stdout.count("with several frames or pages the first is used") == 1
    made = json.loads((project_root / "submissions" / "tiny" / "001-both.json").read_text())
    assert [name for name, *_ in made["damaged"]] == [name for name in names if "damaged" in name]


def test_the_last_column_of_what_is_computed_is_the_last_image(project_root):
    """Pixels of the zoo's whole files are in the rows of their ids."""
    fill_folder(project_root, every_kind())
    set_policy(project_root, damaged_images="fallback")
    task = fresh(project_root, shard_rows=16, batch_size=5)
    pixels = made(preprocess.stage(task, "tiny")).rows("pixels", 0, len(task.images.ids))
    for number, name in enumerate(task.images.ids):
        if "damaged" in name:
            assert pixels[number].max() == 0
        else:
            drawn = zoo.whole()[name.split("_", 1)[1][:-4]]
            image = Image.fromarray(np.asarray(drawn.pixels, np.uint8))
            expected = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1).astype(int)
            assert np.abs(pixels[number].numpy() - expected).max() <= 2 * drawn.tolerance, name


def damage(root, *numbers: int) -> None:
    for number in numbers:
        path = root / "data" / "tiny" / f"{number}.jpg"
        path.write_bytes(path.read_bytes()[:300])


def test_problems_are_told_again_when_all_is_cached(project_root, command):
    damage(project_root, 3, 4)
    set_policy(project_root, damaged_images="fallback")
    for _ in range(2):
        assert command.run("submit").returncode == 3
        assert told(project_root).keys() == {"3.jpg", "4.jpg"}
        shutil.rmtree(project_root / "reports")


@pytest.mark.parametrize("lost", ["problems", "images", "features"])
def test_a_lost_record_is_made_again(project_root, lost):
    damage(project_root, 3, 4)
    set_policy(project_root, damaged_images="fallback")
    first = submit(fresh(project_root), "both")
    shutil.rmtree(project_root / "cache" / "tiny" / lost)
    task = fresh(project_root)
    assert chain_damage.without_picture(task, ["tiny"]) == [3, 4]
    assert submit(task, "both") == first


def test_a_repaired_image_is_used_and_a_new_policy_too(project_root, command):
    folder = project_root / "data" / "tiny"
    whole = _probs(project_root)
    content = (folder / "3.jpg").read_bytes()
    write_images(folder, IMAGES)
    (folder / "3.jpg").write_bytes(content[: len(content) - 40])
    outcomes = {}
    for policy in ("fallback", "fill"):
        set_policy(project_root, damaged_images=policy)
        outcomes[policy] = _probs(project_root)
        torch.testing.assert_close(outcomes[policy][[0, 1, 2, 4, 22]], whole[[0, 1, 2, 4, 22]], atol=1e-6, rtol=0)
        assert not torch.equal(outcomes[policy][3], whole[3])
    assert not torch.equal(outcomes["fill"][3], outcomes["fallback"][3])
    (folder / "3.jpg").write_bytes(content)
    torch.testing.assert_close(_probs(project_root), whole, atol=1e-6, rtol=0)
    result = command.run("submit")
    assert result.returncode == 0, result.stderr
    assert not (project_root / "reports" / "tiny" / "problems.csv").exists()


def _probs(root):
    return chain_classes.decide(fresh(root), "both").refined


def test_a_raised_limit_computes_what_was_refused(project_root):
    write_images(project_root / "data" / "tiny", 5)
    Image.fromarray(zoo.noise(100, 100, 3)).save(project_root / "data" / "tiny" / "2.jpg")
    set_policy(project_root, damaged_images="fallback", max_pixels=5000)
    assert chain_damage.without_picture(fresh(project_root), ["tiny"]) == [2]
    set_policy(project_root, damaged_images="fallback", max_pixels=10_000)
    assert chain_damage.without_picture(fresh(project_root), ["tiny"]) == []


def test_nothing_at_all_can_be_decoded(project_root):
    fill_folder(project_root, {f"{number}.jpg": b"x" for number in range(3)})
    set_policy(project_root, damaged_images="fallback")
    path = submit(fresh(project_root), "both")
    assert [row[1] for row in rows(path)[1:]] == ["0", "0", "0"]


@pytest.mark.parametrize("policy", ["error", "fill", "fallback"])
def test_an_image_that_vanishes_during_the_run_ends_it(project_root, policy):
    """Its digest is that of the content it had, so nothing else may be kept under that."""
    set_policy(project_root, damaged_images=policy)
    task = fresh(project_root, shard_rows=5)
    _ = task.images_digest()
    (project_root / "data" / "tiny" / "12.jpg").unlink()
    with refused(Changed, "12.jpg: No such file or directory"):
        chain_probs.of_member(task, task.project.member("vit@tiny"))
    saved = {start for start, *_ in preprocess.stage(task, "tiny").shards()}
    assert {0, 5} <= saved and 10 not in saved, "what came before it is kept"
    set_policy(project_root, damaged_images=policy, count=IMAGES - 1)
    assert IMAGES - 1 == len(fresh(project_root).images.ids)
    chain_probs.of_member(fresh(project_root), fresh(project_root).project.member("vit@tiny"))


def test_an_image_that_was_never_readable_is_the_policys(project_root):
    set_policy(project_root, damaged_images="fallback")
    task = fresh(project_root)
    _ = task.images.ids
    path = project_root / "data" / "tiny" / "12.jpg"
    content = path.read_bytes()
    path.unlink()  # after the listing, before the contents are read
    assert chain_damage.without_picture(task, ["tiny"]) == [12]
    assert submit(task, "both").read_text().count("\n") == IMAGES + 1
    path.write_bytes(content)
    assert chain_damage.without_picture(fresh(project_root), ["tiny"]) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize(("policy", "status"), [("error", 1), ("fallback", 3)])
def test_an_image_that_may_not_be_read(project_root, command, policy, status):
    set_policy(project_root, damaged_images=policy)
    (project_root / "data" / "tiny" / "12.jpg").chmod(0)
    result = command.run("submit")
    assert result.returncode == status, result.stderr
    assert told(project_root)["12.jpg"][0] == "Permission denied"
    (project_root / "data" / "tiny" / "12.jpg").chmod(0o644)
    assert command.run("submit").returncode == 0


def test_of_very_many_damaged_images_some_are_named_and_all_are_listed(project_root):
    fill_folder(project_root, {f"{number}.jpg": b"" for number in range(50)})
    with refused(Damaged, "it is empty", "... and 30 more\n50 images failed") as error:
        submit(fresh(project_root), "both")
    assert str(error.value).count("it is empty") == chain_damage.NAMED
    assert len(told(project_root)) == 50


def test_a_data_set_can_be_filled_but_has_no_fallback(project_root):
    for name in ("test/a/0.jpg", "test/a/1.jpg", "test/b/2.jpg"):
        path = project_root / "data" / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zoo.saved(zoo.SMOOTH, "JPEG", quality=95))
    path.write_bytes(path.read_bytes()[:-200])
    recipe = {"reader": "folders", "path": "data/set", "prompts": "tiny"}

    def task(**more) -> DatasetTask:
        write_yaml(project_root / "datasets" / "set.yaml", recipe | more)
        return DatasetTask.of(fresh(project_root), "set")

    with refused(Damaged, "2.jpg", "'damaged_images: fill' in datasets/set.yaml"):
        made(preprocess.stage(task(), "tiny"))
    filled = task(damaged_images="fill")
    made(preprocess.stage(filled, "tiny"))
    assert chain_damage.report(filled, ["tiny"]) == 1
    assert "2.jpg" in (project_root / "reports" / "datasets" / "set" / "problems.csv").read_text()
    with refused(UserError, "datasets/set.yaml", "damaged_images"):
        _ = task(damaged_images="fallback").recipe
    path.write_bytes(b"")
    with refused(Damaged, "2.jpg", "it is empty"):
        made(preprocess.stage(task(damaged_images="fill"), "tiny"))


def test_refinement_steps_look_at_whole_images_only(project_root, monkeypatch):
    """A black stand-in must not count as an image of its class where steps look at all images together."""
    damage(project_root, 3, 7)
    set_policy(project_root, damaged_images="fallback")
    write_yaml(project_root / "ensembles" / "both.yaml", {"members": {"vit": 1}, "refine": ["turned"], "guards": False})
    looked = []

    def turned(probs, evidence):
        looked.append((len(probs), len(evidence.image_features_ND), len(evidence.member_probs[0])))
        return probs.flip(1)

    turned.uses = "image"
    monkeypatch.setitem(STEPS, "turned", turned)
    decision = chain_classes.decide(fresh(project_root), "both")
    assert looked == [(IMAGES - 2,) * 3]
    whole = [row for row in range(IMAGES) if row not in (3, 7)]
    assert torch.equal(decision.refined[whole], decision.pooled[whole].flip(1))
    counts = torch.tensor(decision.refined[whole].argmax(dim=1).bincount(minlength=3).tolist())
    torch.testing.assert_close(decision.refined[[3, 7]], (counts / counts.sum()).expand(2, 3))


def test_a_fallback_label_is_no_statistic_of_the_test_set_where_the_rules_forbid_that(project_root):
    """The label predicted most often looks at all test images; without their leave it is the stated prior's best."""
    damage(project_root, 3, 7)
    content = {"damaged_images": "fallback", "prior": [0.2, 0.5, 0.3]}
    set_policy(project_root, **content)
    allowed = chain_classes.decide(fresh(project_root), "both").refined
    set_policy(project_root, **content, rules={"test_set": False})
    forbidden = chain_classes.decide(fresh(project_root), "both").refined
    assert torch.equal(forbidden[[3, 7]], torch.tensor([[0.2, 0.5, 0.3]] * 2))
    assert not torch.equal(allowed[[3, 7]], forbidden[[3, 7]])
    whole = [row for row in range(IMAGES) if row not in (3, 7)]
    assert torch.equal(allowed[whole], forbidden[whole])


def test_matched_confidence_looks_at_whole_images_only(project_root):
    """Black stand-ins have a confidence of their own, which is no image's."""
    damage(project_root, 3, 7)
    set_policy(project_root, damaged_images="fallback")
    recipe = {"members": {"vit": 0.5, "vit2": 0.5}, "match": "confidence"}
    write_yaml(project_root / "ensembles" / "both.yaml", recipe)
    task = fresh(project_root)
    found = ensemble.Blend(task, task.project.ensemble("both"), parts_of(task, "both")).temperatures
    whole = {f"{n}.jpg": (project_root / "data" / "tiny" / f"{n}.jpg").read_bytes() for n in range(IMAGES)}
    fill_folder(project_root, {name: content for name, content in whole.items() if name not in ("3.jpg", "7.jpg")})
    set_policy(project_root, damaged_images="fallback", count=IMAGES - 2)
    task = fresh(project_root)
    expected = ensemble.Blend(task, task.project.ensemble("both"), parts_of(task, "both")).temperatures
    assert found == pytest.approx(expected, rel=1e-4)


def parts_of(task, name: str) -> dict:
    recipe = task.project.ensemble(name)
    return {member: made(ensemble.part(task, recipe, member)) for member in ensemble.members(recipe)}
