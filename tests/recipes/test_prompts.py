"""Prompt sets: expansion, order, and every mistake."""

from dataclasses import replace

import pytest

from pipeline.chain.task import CompetitionTask
from pipeline.core.errors import NotFound, UserError
from pipeline.recipes import Project
from pipeline.recipes.prompts import file_stem, load_prompts, write_subset

from ..conftest import CLASSES, ROOT, refused, write_yaml


def test_prompts_are_listed_class_by_class(task):
    assert task.prompts.prompts == (
        "Cats",
        "a photo of a Cats",
        "a blurry Cats.",
        "The whiskers",
        "a photo of a dog",
        "a blurry dog.",
        "Big Birds",
        "a photo of a Big Birds",
        "a blurry Big Birds.",
        "ostriches",
        "a photo of a ostriches",
        "a blurry ostriches.",
    )
    assert task.prompts.prompt_class == (0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2)
    assert set(task.prompts.weights) == {1.0}


def test_the_scene_set_is_the_winners_312_prompts():
    prompts = CompetitionTask(Project(ROOT), "scene").prompts
    assert [prompts.prompt_class.count(label) for label in range(6)] == [52] * 6
    assert prompts.prompts[:3] == ("Buildings", "a photo of a Buildings", "a image of a Buildings")
    assert prompts.prompts[48:53] == (
        "a photo of a small Buildings.",
        "A picture of an urban area with buildings",
        "An architectural structure in the city",
        "The Windows",
        "Forests",
    )
    assert prompts.prompts[-1] == "An urban street with buildings and cars"


def test_weights(project_root):
    folder = project_root / "prompts" / "tiny"
    write_yaml(folder / "cats.yaml", {"prompts": ["The whiskers"], "weights": {"The whiskers": 2.5}})
    assert load_prompts(folder, tuple(CLASSES)).weights[:5] == (1, 1, 1, 2.5, 1)


def test_a_class_file_may_name_its_class(project_root):
    folder = project_root / "prompts" / "tiny"
    (folder / "cats.yaml").rename(folder / "felines.yaml")
    write_yaml(folder / "felines.yaml", {"class": "Cats", "prompts": ["The whiskers"]})
    assert load_prompts(folder, tuple(CLASSES)).prompts[3] == "The whiskers"


@pytest.mark.parametrize(
    ("file", "content", "kind", "parts"),
    [
        ("cats.yaml", None, NotFound, ["['Cats']", "Add ", "prompts/tiny/cats.yaml"]),
        ("cat.yaml", {}, NotFound, ["tiny/cat.yaml"]),
        ("cats.yaml", {"prompt": ["x"]}, UserError, ["cats.yaml", "'prompt'", "Did you mean 'prompts'?"]),
        ("cats.yaml", {"templates": ["no hole"]}, UserError, ["'no hole'", "{}"]),
        ("cats.yaml", {"templates": ["{name}"]}, UserError, ["'{name}'"]),
        ("cats.yaml", {"templates": ["{} {"]}, UserError, ["'{} {'"]),
        ("cats.yaml", {"templates": ["{0.__class__} {}"]}, UserError, ["'{0.__class__} {}'"]),
        ("cats.yaml", {"templates": ["a {}", "a {}"]}, UserError, ["['a {}']"]),
        ("cats.yaml", {"templates": ["{}"]}, UserError, ["['Cats']"]),
        ("cats.yaml", {"prompts": ["a", "a"]}, UserError, ["['a']"]),
        ("cats.yaml", {"prompts": ["  "]}, UserError, ["cats.yaml: empty prompt"]),
        ("cats.yaml", {"prompts": [1]}, UserError, ["prompts.0"]),
        ("cats.yaml", {"prompts": ["dog", "a photo of a dog"]}, UserError, ["'a photo of a dog'", "'Dogs'"]),
        (
            "cats.yaml",
            {"without": ["a phot of a {}"]},
            NotFound,
            ["without", "'a phot of a {}'", "Did you mean 'a photo of a {}'?"],
        ),
        ("cats.yaml", {"without": ["{}", "a photo of a {}", "a blurry {}."]}, NotFound, ["'Cats'"]),
        ("cats.yaml", {"weights": {"Cat": 1.0}}, NotFound, ["weights", "'Cat'", "Did you mean 'Cats'?"]),
        ("cats.yaml", {"weights": {"Cats": -1.0}}, UserError, ["weights.Cats"]),
        ("_shared.yaml", {"templates": []}, NotFound, ["'Dogs'"]),
    ],
)
def test_mistakes(project_root, file, content, kind, parts):
    folder = project_root / "prompts" / "tiny"
    if content is None:
        (folder / file).unlink()
    else:
        write_yaml(folder / file, content)
        if file == "_shared.yaml":
            write_yaml(folder / "dogs.yaml", {})
    with refused(kind, *parts):
        load_prompts(folder, tuple(CLASSES))


def test_a_set_for_any_class_needs_no_class_files(project_root):
    folder = project_root / "prompts" / "domain"
    write_yaml(folder / "_shared.yaml", {"templates": ["{}", "a {}."], "classes": "any"})
    write_yaml(folder / "owl.yaml", {"prompts": ["a night bird"]})
    found = load_prompts(folder, ("owl", "cat"))
    assert found.prompts == ("owl", "a owl.", "a night bird", "cat", "a cat.")
    assert found.templates == ("{}", "a {}.", "", "{}", "a {}.")
    write_yaml(folder / "_shared.yaml", {"templates": [], "classes": "any"})
    with refused(NotFound, "'cat'"):
        load_prompts(folder, ("owl", "cat"))
    write_yaml(folder / "_shared.yaml", {"templates": ["{}"], "classes": "all"})
    with refused(UserError, "classes", "'listed' or 'any'"):
        load_prompts(folder, ("owl", "cat"))


def test_template_sets_of_domains():
    counts = {"birds": 32, "textures": 7, "fungi": 5, "fruits": 9, "general": 12, "plain": 1, "photo": 1}
    counts |= {"generic80": 80, "waffle": 30}
    for name, count in counts.items():
        assert len(load_prompts(ROOT / "prompts" / name, ("x", "y")).prompts) == 2 * count, name


def test_unknown_set(project_root):
    with refused(NotFound, "tny", "Did you mean 'tiny'"):
        load_prompts(project_root / "prompts" / "tny", tuple(CLASSES))


def test_file_stems():
    assert [file_stem(name) for name in ("Least Auklet", "a/b", "..", "Müll")] == [
        "least_auklet",
        "a_b",
        "class",
        "müll",
    ]


def test_a_subset_of_templates_is_a_prompt_set_again(tmp_path):
    source, target = tmp_path / "whole", tmp_path / "part"
    write_yaml(source / "_shared.yaml", {"templates": ["{}", "a {}", "my {}"]})
    cats = {"name": "cat", "without": ["{}"], "prompts": ["a cat?"], "weights": {"my cat": 2}}
    dogs = {"aliases": ["hounds"], "weights": {"a hounds": 3, "Dogs": 2}, "templates": ["o {}"]}
    write_yaml(source / "cats.yaml", cats)
    write_yaml(source / "dogs.yaml", dogs)
    whole = load_prompts(source, ("Cats", "Dogs"))
    write_subset(source, target, ("Cats", "Dogs"), ["a {}"])
    part = load_prompts(target, ("Cats", "Dogs"))
    assert part.prompts == ("a cat", "a cat?", "a Dogs", "o Dogs", "a hounds", "o hounds")
    given = dict(zip(whole.prompts, whole.weights, strict=True))
    assert part.weights == tuple(given[prompt] for prompt in part.prompts)
    write_subset(source, target, ("Cats", "Dogs"), whole.templates)
    again = load_prompts(target, ("Cats", "Dogs"))
    assert replace(again, files=whole.files) == whole
