"""Recipes are strict: each mistake is an error that names file, key and fix."""

import pytest

from pipeline.chain import ensemble
from pipeline.chain.task import CompetitionTask
from pipeline.core.errors import UserError
from pipeline.recipes import Ensemble, Project, line_of, read_yaml

from ..conftest import ROOT, write_yaml


@pytest.fixture
def project(project_root):
    return Project(project_root)


def refused(action, *parts: str) -> None:
    with pytest.raises(UserError) as error:
        action()
    for part in parts:
        assert part in str(error.value), str(error.value)


ENSEMBLE = {"members": {"vit": 1}}


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({**ENSEMBLE, "tresh": 0.1}, ["bad.yaml", "unknown key 'tresh'", "Did you mean 'threshold'?"]),
        ({**ENSEMBLE, "zzz": 1}, ["unknown key 'zzz'", "Known: blend, guards, match, members, pooling"]),
        ({"threshold": 0.1}, ["missing key 'members'"]),
        ({"members": {}}, ["members", "at least one member"]),
        ({"members": {"vit": -1, "vit2": 2}}, ["negative weights: ['vit']"]),
        ({"members": {"vit": 0}}, ["all weights are zero"]),
        ({"members": {"vit": "a"}}, ["members.vit", "'a'"]),
        ({"members": {"vit": float("nan")}}, ["members.vit"]),
        ({**ENSEMBLE, "threshold": 1}, ["threshold", "less than 1"]),
        ({**ENSEMBLE, "threshold": -0.1}, ["threshold", "greater than or equal to 0"]),
        ({**ENSEMBLE, "pooling": "average"}, ["pooling", "'mean', 'median', 'max' or 'embedding'"]),
        ({"members": {"vot": 1}}, ["bad.yaml", "no model 'vot'", "Did you mean 'vit"]),
        ({"members": {"vit@tinny": 1}}, ["bad.yaml", "no preprocess/tinny.yaml", "Did you mean 'tiny'?"]),
        ({"members": {"vit": 1, "vit@tiny": 1}}, ["vit@tiny is there twice"]),
        ({"members": {"vit": {"weight": 1, "promts": "x"}}}, ["unknown key 'members.vit.promts'"]),
        ({"members": {"vit": {"prompts": "tiny"}}}, ["missing key 'members.vit.weight'"]),
        (
            {"members": {"vit": {"weight": 1, "prompts": "tny"}}},
            ["members.vit.prompts: no prompt set 'tny'", "'tiny'?"],
        ),
        (
            {"members": {"vit": {"weight": 1, "prompts": "tiny"}, "vit2": 1}},
            ["bad.yaml: members: they have different prompt sets", "'blend: classes'"],
        ),
        (
            {"members": {"vit": {"weight": 1, "temperature": 2}}},
            ["members.vit.temperature: needs 'match: temperature'"],
        ),
        ({"members": {"vit": {"weight": 1, "temperature": 0}}, "match": "temperature"}, ["members.vit.temperature"]),
        ({**ENSEMBLE, "match": "temperature"}, ["match: temperature: vit has none", "entry 'vit' of", "models.yaml"]),
        ({**ENSEMBLE, "blend": "classes", "threshold": 0.1}, ["threshold: ", "needs 'blend: prompts'"]),
        ({**ENSEMBLE, "blend": "class"}, ["blend", "'prompts' or 'classes'"]),
        ({**ENSEMBLE, "refine": "prior"}, ["refine", "must be a list such as [name, {name: argument}]"]),
        ({**ENSEMBLE, "refine": [["prior"]]}, ["refine", "neither 'name' nor"]),
        (["a list"], ["bad.yaml", "expected 'key: value' lines"]),
    ],
)
def test_ensemble_mistakes(project, content, parts):
    write_yaml(project.root / "ensembles" / "bad.yaml", content)
    refused(lambda: project.ensemble("bad"), *parts)


COMPETITION = {"images": "x", "classes": ["a", "b"]}


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({"classes": ["a", "b"]}, ["missing key 'images'"]),
        ({**COMPETITION, "columns": {"id": "position"}}, ["exactly one column must hold the prediction"]),
        (
            {**COMPETITION, "columns": {"id": "row", "label": "label"}},
            ["columns.id", "'position', 'stem', 'file_name'"],
        ),
        ({**COMPETITION, "rules": {"train": True}}, ["unknown key 'rules.train'"]),
        (
            {**COMPETITION, "rules": {"train_on_test_images": False}},
            ["rules: train_on_test_images is called 'test_set'"],
        ),
        ({**COMPETITION, "public_board": 0}, ["public_board"]),
        ({**COMPETITION, "image": "x"}, ["unknown key 'image'", "Did you mean 'images'?"]),
    ],
)
def test_competition_mistakes(project, content, parts):
    write_yaml(project.root / "competitions" / "bad.yaml", content)
    refused(lambda: project.competition("bad"), "competitions/bad.yaml", *parts)


@pytest.mark.parametrize(
    ("classes", "parts"),
    [
        (["a", "a"], ["duplicate class names: ['a']"]),
        (["a"], ["at least two classes"]),
        (["a", ""], ["must be a list of class names"]),
        (["a", "b\r"], ["control characters in ['b\\r']"]),
        ("none.json", ["bad.yaml: classes: no file", "none.json"]),
    ],
)
def test_class_mistakes(project, classes, parts):
    write_yaml(project.root / "competitions" / "bad.yaml", {"images": "x", "classes": classes})
    refused(lambda: project.class_names("bad"), *parts)


def test_unquoted_yaml_words_are_not_class_names(project):
    (project.root / "competitions" / "bad.yaml").write_text("images: x\nclasses: [yes, no]\n")
    refused(lambda: project.class_names("bad"), "True is not text", "quotes")


def test_classes_from_json_keep_their_order(project):
    (project.root / "classes.json").write_text('["Zebra", "Ant"]')
    write_yaml(project.root / "competitions" / "c.yaml", {"images": "x", "classes": "classes.json"})
    assert project.class_names("c") == ("Zebra", "Ant")


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        ({"family": "open_clip", "preprocess": "tiny"}, ["models.yaml: m", "no checkpoint"]),
        ({"family": "open_clip", "preprocess": "tiny", "weigths": "x"}, ["unknown key 'weigths'", "'weights'"]),
        ("text", ["models.yaml: m", "expected 'key: value'"]),
    ],
)
def test_model_mistakes(project, entry, parts):
    write_yaml(project.root / "models.yaml", {"m": entry})
    refused(lambda: project.model("m"), *parts)


def test_local_models_are_added_but_never_replace(project):
    write_yaml(project.root / "models.local.yaml", {"mine": {"family": "open_clip", "tag": "t", "preprocess": "tiny"}})
    assert set(project.models) == {"vit", "vit2", "mine"}
    write_yaml(project.root / "models.local.yaml", {"vit": {"family": "open_clip", "tag": "t", "preprocess": "tiny"}})
    refused(lambda: Project(project.root).models, "models.local.yaml", "'vit' is already in models.yaml")


def test_an_ensemble_comes_back_from_its_own_dump(project):
    members = {"vit": {"weight": 0.5, "prompts": "tiny", "temperature": 1.2}, "vit2": {"weight": 1, "temperature": 2}}
    content = {"members": members, "blend": "classes", "match": "temperature", "refine": ["a", {"b": {"c": 1}}]}
    recipe = Ensemble.parse(content, "x")
    assert recipe.model_dump(mode="json", exclude_defaults=True) == content
    assert Ensemble.parse(recipe.model_dump(mode="json"), "x") == recipe
    plain = Ensemble.parse({"members": {"vit": 2, "vit2": {"weight": 1}}}, "x")
    assert plain.model_dump(mode="json", exclude_defaults=True) == {"members": {"vit": 2, "vit2": 1}}


def test_trained_models_are_entries_named_as_their_folder(project):
    entry = {"family": "open_clip", "weights": "w", "preprocess": "tiny", "trained_on": ["x:train"], "temperature": 1.5}
    write_yaml(project.root / "trained" / "head" / "model.yaml", {"head": entry})
    assert project.model("head").trained_on == ("x:train",)
    assert project.model_file("head") == project.root / "trained" / "head" / "model.yaml"
    write_yaml(project.root / "trained" / "head" / "model.yaml", {"hat": entry})
    refused(lambda: Project(project.root).models, "head/model.yaml: must hold one entry, called 'head'")
    write_yaml(project.root / "trained" / "head" / "model.yaml", {"head": {**entry, "temperature": 0}})
    refused(lambda: Project(project.root).models, "head/model.yaml: head: temperature")
    (project.root / "trained" / "head").rename(project.root / "trained" / "vit")
    write_yaml(project.root / "trained" / "vit" / "model.yaml", {"vit": entry})
    refused(lambda: Project(project.root).models, "'vit' is already in models.yaml")


def test_lines_of_keys(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("# a comment\nmembers:\n  a: 1\nrefine:\n  - one\n  - two: {to: 1}\n")
    keys = [("members", "a"), ("refine", 0), ("refine", 1), ("refine", 1, "two", "to"), ("refine", 7), ("absent",)]
    assert [line_of(path, key) for key in keys] == [3, 5, 6, 6, 4, 1]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", "a b", ".hidden"])
def test_names_cannot_leave_the_project(project, name):
    refused(lambda: project.competition(name), "is no recipe name")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: 1\nb: 2\na: 3\n", ["duplicate key 'a'", "line 3"]),
        ("a: [1, 2\n", ["line 2"]),
        ("a:\n\t- b\n", ["line 2"]),
        ("a: &x [1]\nb: *x\n", ["aliases", "line 2"]),
        ("a: !!python/object/apply:os.system [echo]\n", ["line 1", "python/object"]),
        (b"\xff\xfe\x00", ["not UTF-8"]),
    ],
)
def test_broken_yaml_names_file_and_line(tmp_path, text, parts):
    path = tmp_path / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(lambda: read_yaml(path), str(path), *parts)


def test_byte_order_mark_and_windows_line_ends_are_fine(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: [x]\r\n")
    assert read_yaml(path) == {"a": 1, "b": ["x"]}


def test_every_recipe_of_the_project_is_valid():
    from pipeline.images.ops import compile_recipe

    project = Project(ROOT)
    for name in project.names("competitions"):
        assert len(CompetitionTask(project, name).prompts.prompts) > 0
    for name in project.names("preprocess"):
        compile_recipe(project.preprocess(name), name)
    for name in project.names("ensembles"):
        assert project.ensemble(name).members


def test_the_winners_recipe():
    recipe = Project(ROOT).ensemble("winner")
    assert ensemble.members(recipe) == {"metaclip-bigg@sharpen23": 0.5, "eva18b@sharpen20": 0.5}
    assert (recipe.threshold, recipe.pooling) == (0.002, "mean")
    assert Project(ROOT).ensemble("winner-no-threshold").threshold == 0
    for name, weights in {"winner-54-46": [0.54, 0.46], "winner-55-45": [0.55, 0.45]}.items():
        assert list(Project(ROOT).ensemble(name).model_dump()["members"].values()) == weights
