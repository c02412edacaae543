"""Recipes are strict: each mistake is an error that names file, key and fix."""

import pytest

from pipeline.chain import ensemble
from pipeline.chain.task import CompetitionTask
from pipeline.core.errors import Damaged, Exists, NotFound, UserError
from pipeline.recipes import Ensemble, Project, line_of, read_yaml

from ..conftest import ROOT, refused, write_yaml


@pytest.fixture
def project(project_root):
    return Project(project_root)


ENSEMBLE = {"members": {"vit": 1}}


@pytest.mark.parametrize(
    ("content", "kind", "parts"),
    [
        ({**ENSEMBLE, "tresh": 0.1}, UserError, ["bad.yaml", "'tresh'", "Did you mean 'threshold'?"]),
        ({**ENSEMBLE, "zzz": 1}, UserError, ["'zzz'", "Known: blend, guards, match"]),
        ({"threshold": 0.1}, UserError, ["'members'"]),
        ({"members": {}}, UserError, ["bad.yaml: members"]),
        ({"members": {"vit": -1, "vit2": 2}}, UserError, ["['vit']"]),
        ({"members": {"vit": 0}}, UserError, ["all weights are zero"]),
        ({"members": {"vit": "a"}}, UserError, ["members.vit", "'a'"]),
        ({"members": {"vit": float("nan")}}, UserError, ["members.vit"]),
        ({**ENSEMBLE, "threshold": 1}, UserError, ["bad.yaml: threshold"]),
        ({**ENSEMBLE, "threshold": -0.1}, UserError, ["bad.yaml: threshold"]),
        ({**ENSEMBLE, "pooling": "average"}, UserError, ["pooling", "'mean', 'median', 'max' or 'embedding'"]),
        ({"members": {"vot": 1}}, NotFound, ["bad.yaml", "'vot'", "Did you mean 'vit"]),
        ({"members": {"vit@tinny": 1}}, NotFound, ["bad.yaml", "preprocess/tinny.yaml", "Did you mean 'tiny'?"]),
        ({"members": {"vit": 1, "vit@tiny": 1}}, UserError, ["vit@tiny"]),
        ({"members": {"vit": {"weight": 1, "promts": "x"}}}, UserError, ["'members.vit.promts'", "mean 'prompts'?"]),
        ({"members": {"vit": {"prompts": "tiny"}}}, UserError, ["'members.vit.weight'"]),
        (
            {"members": {"vit": {"weight": 1, "prompts": "tny"}}},
            NotFound,
            ["members.vit.prompts: no prompt set 'tny'", "'tiny'?"],
        ),
        (
            {"members": {"vit": {"weight": 1, "prompts": "tiny"}, "vit2": 1}},
            UserError,
            ["bad.yaml: members:", "'blend: classes'"],
        ),
        (
            {"members": {"vit": {"weight": 1, "temperature": 2}}},
            UserError,
            ["members.vit.temperature: needs 'match: temperature'"],
        ),
        (
            {"members": {"vit": {"weight": 1, "temperature": 0}}, "match": "temperature"},
            UserError,
            ["members.vit.temperature"],
        ),
        ({**ENSEMBLE, "match": "temperature"}, NotFound, ["match: temperature: vit", "entry 'vit' of", "models.yaml"]),
        ({**ENSEMBLE, "blend": "classes", "threshold": 0.1}, UserError, ["threshold: ", "needs 'blend: prompts'"]),
        ({**ENSEMBLE, "blend": "class"}, UserError, ["blend", "'prompts' or 'classes'"]),
        ({**ENSEMBLE, "refine": "prior"}, UserError, ["refine", "[name, {name: argument}]"]),
        ({**ENSEMBLE, "refine": [["prior"]]}, UserError, ["bad.yaml: refine"]),
        (["a list"], UserError, ["bad.yaml", "'key: value'"]),
    ],
)
def test_ensemble_mistakes(project, content, kind, parts):
    write_yaml(project.root / "ensembles" / "bad.yaml", content)
    with refused(kind, *parts):
        project.ensemble("bad")


COMPETITION = {"images": "x", "classes": ["a", "b"]}


@pytest.mark.parametrize(
    ("content", "kind", "parts"),
    [
        ({"classes": ["a", "b"]}, UserError, ["'images'"]),
        ({**COMPETITION, "columns": {"id": "position"}}, UserError, ["columns"]),
        (
            {**COMPETITION, "columns": {"id": "row", "label": "label"}},
            UserError,
            ["columns.id", "'position', 'stem', 'file_name'"],
        ),
        ({**COMPETITION, "rules": {"train": True}}, UserError, ["'rules.train'"]),
        ({**COMPETITION, "also": {"probabilites": True}}, UserError, ["'also.probabilites'", "mean 'probabilities'?"]),
        (
            {**COMPETITION, "rules": {"train_on_test_images": False}},
            UserError,
            ["train_on_test_images is called 'test_set'"],
        ),
        ({**COMPETITION, "public_board": 0}, UserError, ["public_board"]),
        ({**COMPETITION, "image": "x"}, UserError, ["'image'", "Did you mean 'images'?"]),
    ],
)
def test_competition_mistakes(project, content, kind, parts):
    write_yaml(project.root / "competitions" / "bad.yaml", content)
    with refused(kind, "competitions/bad.yaml", *parts):
        project.competition("bad")


@pytest.mark.parametrize(
    ("classes", "kind", "parts"),
    [
        (["a", "a"], UserError, ["['a']"]),
        (["a"], UserError, ["at least two classes"]),
        (["a", ""], UserError, ["must be a list of class names"]),
        (["a", "b\r"], UserError, ["['b\\r']"]),
        ("none.json", NotFound, ["bad.yaml: classes:", "none.json"]),
    ],
)
def test_class_mistakes(project, classes, kind, parts):
    write_yaml(project.root / "competitions" / "bad.yaml", {"images": "x", "classes": classes})
    with refused(kind, *parts):
        project.class_names("bad")


def test_unquoted_yaml_words_are_not_class_names(project):
    (project.root / "competitions" / "bad.yaml").write_text("images: x\nclasses: [yes, no]\n")
    with refused(UserError, "True is not text", "quotes"):
        project.class_names("bad")


def test_classes_from_json_keep_their_order(project):
    (project.root / "classes.json").write_text('["Zebra", "Ant"]')
    write_yaml(project.root / "competitions" / "c.yaml", {"images": "x", "classes": "classes.json"})
    assert project.class_names("c") == ("Zebra", "Ant")


@pytest.mark.parametrize(
    ("entry", "kind", "parts"),
    [
        ({"family": "open_clip", "preprocess": "tiny"}, UserError, ["models.yaml: m", "no checkpoint"]),
        ({"family": "open_clip", "preprocess": "tiny", "weigths": "x"}, UserError, ["'weigths'", "'weights'"]),
        ("text", UserError, ["models.yaml: m", "'key: value'"]),
    ],
)
def test_model_mistakes(project, entry, kind, parts):
    write_yaml(project.root / "models.yaml", {"m": entry})
    with refused(kind, *parts):
        project.model("m")


def test_local_models_are_added_but_never_replace(project):
    write_yaml(project.root / "models.local.yaml", {"mine": {"family": "open_clip", "tag": "t", "preprocess": "tiny"}})
    assert set(project.models) == {"vit", "vit2", "mine"}
    write_yaml(project.root / "models.local.yaml", {"vit": {"family": "open_clip", "tag": "t", "preprocess": "tiny"}})
    with refused(Exists, "models.local.yaml", "'vit' is already in models.yaml"):
        _ = Project(project.root).models


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
    with refused(UserError, "head/model.yaml: must hold one entry, called 'head'"):
        _ = Project(project.root).models
    write_yaml(project.root / "trained" / "head" / "model.yaml", {"head": {**entry, "temperature": 0}})
    with refused(UserError, "head/model.yaml: head: temperature"):
        _ = Project(project.root).models
    (project.root / "trained" / "head").rename(project.root / "trained" / "vit")
    write_yaml(project.root / "trained" / "vit" / "model.yaml", {"vit": entry})
    with refused(Exists, "'vit' is already in models.yaml"):
        _ = Project(project.root).models


def test_lines_of_keys(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("# a comment\nmembers:\n  a: 1\nrefine:\n  - one\n  - two: {to: 1}\n")
    keys = [("members", "a"), ("refine", 0), ("refine", 1), ("refine", 1, "two", "to"), ("refine", 7), ("absent",)]
    assert [line_of(path, key) for key in keys] == [3, 5, 6, 6, 4, 1]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", "a b", ".hidden"])
def test_names_cannot_leave_the_project(project, name):
    with refused(UserError, f"{name!r} is no recipe name"):
        project.competition(name)


@pytest.mark.parametrize(
    ("text", "kind", "parts"),
    [
        ("a: 1\nb: 2\na: 3\n", UserError, ["'a'", "line 3"]),
        ("a: [1, 2\n", UserError, ["line 2"]),
        ("a:\n\t- b\n", UserError, ["line 2"]),
        ("a: &x [1]\nb: *x\n", UserError, ["aliases", "line 2"]),
        ("a: !!python/object/apply:os.system [echo]\n", UserError, ["line 1", "python/object"]),
        (b"\xff\xfe\x00", Damaged, ["UTF-8"]),
    ],
)
def test_broken_yaml_names_file_and_line(tmp_path, text, kind, parts):
    path = tmp_path / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with refused(kind, str(path), *parts):
        read_yaml(path)


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
