"""Recipes, prompts and names from hell: an error that names the file, or handled exactly; never evaluated."""

import json
import string
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.chain.main_job import submit
from pipeline.chain.task import CompetitionTask
from pipeline.cli import new
from pipeline.core.errors import Damaged, Mismatch, NotFound, UserError
from pipeline.recipes import Benchmark, Competition, Ensemble, Preprocess, Project, read_yaml
from pipeline.recipes.prompts import load_prompts

from ..conftest import ROOT, fresh, refused, write_images, write_yaml
from ..hostile import KINDS, YAML, attempt, mutated, small_project

CORPUS = Path(__file__).parent.parent / "corpus"


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return small_project(tmp_path_factory.mktemp("small"))


# ---- YAML


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: &a [x]\nb: [*a, *a]\n", "line 2: YAML aliases (*a)"),
        ("a: &a {x: 1}\nb:\n  <<: *a\n", "line 3: YAML aliases"),
        ("a:\n  <<: {x: 1}\n", "line 2: merge keys (<<)"),
        ("a: !!python/object/apply:os.system [touch owned]\n", "line 1: YAML tags (tag:yaml.org,2002:python/object"),
        ("a: !!python/name:os.system ''\n", "YAML tags"),
        ("a: !!int ''\n", "YAML tags"),
        ("a: !!timestamp x\n", "YAML tags"),
        ("[" * 100_000, "more than 20 lists or mappings"),
        ("{a: " * 100_000, "more than 20 lists or mappings"),
        ("- " * 100_000, "more than 20 lists or mappings"),
        ("a: 0x" + "f" * 5000, "a number of 5002 characters"),
        ("a: " + "9" * 5000, "a number of 5000 characters"),
        ("a: 1" + ":59" * 400 + ".5", "a number of 1203 characters"),
        ('a: "b\\0"\n', "a NUL character"),
        ("a: b\0\n", "control characters"),
        ("a: 2001-13-45\n", "month must be in 1..12"),
        ("[a, b]: c\n", "a key must be plain text"),
        ("a: 1\na: 2\n", "line 2: duplicate key 'a'"),
        ("a: 1\n\tb: 2\n", "line 2"),
        ("a: 1\n--- \nb: 2\n", "found another document"),
        ("a: 1\n".encode("utf-16-le"), "control characters"),
        (b"x" * 4_000_001, "larger than 4,000,000 bytes"),
    ],
)
def test_yaml_that_is_refused(tmp_path, text, part):
    path = tmp_path / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with refused(UserError, str(path), part):
        read_yaml(path)
    assert not (Path.cwd() / "owned").exists()


@pytest.mark.parametrize("text", ["a: é\n".encode("latin-1"), "a: 1\n".encode("utf-16")])
def test_text_that_is_no_utf8_is_refused(tmp_path, text):
    path = tmp_path / "r.yaml"
    path.write_bytes(text)
    with refused(Damaged, str(path), "UTF-8"):
        read_yaml(path)


@pytest.mark.parametrize("kind", ["dangling", "directory", "loop"])
def test_what_is_no_file_is_refused(tmp_path, kind):
    path = tmp_path / "r.yaml"
    if kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere" if kind == "dangling" else path)
    with refused(NotFound, f"no file {path}"):
        read_yaml(path)


@pytest.mark.parametrize("word", ["no", "on", "Yes", "1", "1.5", "~", "2001-01-01", "12:30", ".nan"])
def test_words_that_yaml_takes_for_something_else_need_quotes(project_root, word):
    path = project_root / "competitions" / "c.yaml"
    path.write_text(f"images: x\nclasses: [a, {word}]\n")
    with refused(UserError, "put it in quotes"):
        Project(project_root).class_names("c")
    path.write_text(f"images: x\nclasses: [a, '{word}']\ncolumns: {{{word}: stem, label: label}}\n")
    with refused(UserError, "put it in quotes"):
        Project(project_root).competition("c")
    path.write_text(f"images: x\nclasses: [a, '{word}']\ncolumns: {{'{word}': stem, label: label}}\n")
    assert Project(project_root).class_names("c") == ("a", word)


def test_weights_that_overflow_are_refused(project_root):
    write_yaml(project_root / "ensembles" / "e.yaml", {"members": {"vit": 1e308, "vit2": 1e308}})
    with refused(UserError, "sum of the weights is not finite"):
        Project(project_root).ensemble("e")


plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.dates(), st.datetimes(), st.binary(), plain
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(plain, inner, max_size=4)),
    max_leaves=12,
)
KEYS = sorted({key for recipe in (Competition, Preprocess, Ensemble, Benchmark) for key in recipe.model_fields})
recipe_trees = st.dictionaries(st.one_of(st.sampled_from(KEYS), plain), trees, max_size=6)


@given(st.sampled_from(YAML), st.one_of(recipe_trees, trees))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tree_is_a_recipe_or_refused(small, kind, tree):
    attempt(small, kind, yaml.safe_dump(tree, allow_unicode=True).encode())


finite = st.floats(0.001, 1000)
names = st.text(string.ascii_letters + string.digits, min_size=1, max_size=8)
sentences = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
ensembles = st.fixed_dictionaries(
    {"members": st.dictionaries(names, finite, min_size=1, max_size=4)},
    optional={"threshold": st.floats(0, 1, exclude_max=True), "pooling": st.sampled_from(["mean", "median", "max"])},
)
ops = st.one_of(names, st.dictionaries(names, finite, min_size=1, max_size=1))
preprocesses = st.fixed_dictionaries(
    {"size": st.integers(1, 4096), "ops": st.lists(ops, min_size=1, max_size=4)},
    optional={"draft": st.booleans(), "views": st.lists(names, min_size=1, max_size=3)},
)
competitions = st.fixed_dictionaries(
    {"images": sentences, "classes": st.lists(sentences, max_size=4)},
    optional={
        "prompts": names,
        "public_board": st.integers(1, 10**9),
        "columns": st.just({"i d": "stem", "no": "label"}),
    },
)
VALID = st.one_of(
    st.tuples(st.just(Ensemble), ensembles),
    st.tuples(st.just(Preprocess), preprocesses),
    st.tuples(st.just(Competition), competitions),
)


@given(VALID)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_recipes_come_back_as_written(tmp_path_factory, valid):
    kind, content = valid
    path = tmp_path_factory.mktemp("recipe") / "r.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    recipe = kind.read(path)
    written = recipe.model_dump(mode="json", exclude_unset=True)
    assert written.keys() == content.keys()
    assert all(written[key] == content[key] for key in content if key not in ("ops", "views"))
    assert kind.parse(content, "again") == recipe


@given(VALID, sentences)
@settings(max_examples=200)
def test_an_unknown_key_is_always_named(valid, key):
    kind, content = valid
    if key not in kind.model_fields:
        with refused(UserError, "r.yaml", f"'{key}'"):
            kind.parse({**content, key: 1}, "r.yaml")


# ---- bytes


@pytest.mark.parametrize(
    "path",
    sorted(path for kind in KINDS for path in CORPUS.glob(f"{kind}/*")),
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_what_once_failed(small, path):
    ignored = path.parent.name == "made"  # how a submission was made may be unreadable
    assert attempt(small, path.parent.name, path.read_bytes()) == ignored


BATCH = 20  # contents per example of hypothesis, which is slower than what it tests


def fuzz(root: Path, kind: str, inputs: int) -> None:
    """Read `inputs` mutations of a file; hypothesis looks for the smallest seed of a failure."""
    seed, tried = (root / KINDS[kind][0]).read_bytes(), Counter()

    @settings(max_examples=inputs // BATCH, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**64))
    def run(number):
        rng = Random(number)
        for _ in range(BATCH):
            content = mutated(seed, rng)
            try:
                tried[attempt(root, kind, content)] += 1
            except Exception as error:
                raise AssertionError(f"put this into tests/corpus/{kind}: {content!r}") from error

    assert attempt(root, kind, seed), "the file itself is fine"
    run()
    assert tried.total() >= inputs
    assert inputs < 1000 or (tried[True] > inputs / 100 and (tried[False] > inputs / 10 or kind == "made")), tried


@pytest.mark.parametrize("kind", KINDS)
def test_any_bytes_are_read_or_refused(small, kind, capsys):
    fuzz(small, kind, 40)


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_many_bytes_are_read_or_refused(small, kind, capsys):
    fuzz(small, kind, 2000 if kind in ("log", "submission", "made") else 4000)


# ---- templates and prompts


@pytest.mark.parametrize(
    "template",
    ["{0.__class__}", "{class_name!r}", "{", "}", "{} {", "{{}}", "{0}", "%s", "%(x)s", "$name", "", "{:>10}", "{}{x}"],
)
def test_templates_that_are_refused(project_root, template):
    write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {"templates": [template]})
    with refused(UserError, "cats.yaml", repr(template), "no other braces"):
        _ = fresh(project_root).prompts


@pytest.mark.parametrize("name", ["{}", "{0.__class__}", "%s", "\\1", "a\\g<0>", "$x", "`id`"])
def test_a_name_is_put_in_as_it_is(project_root, name):
    write_yaml(project_root / "prompts" / "tiny" / "_shared.yaml", {"templates": ["{}{} {}"]})
    write_yaml(project_root / "prompts" / "tiny" / "dogs.yaml", {})
    write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {"name": name})
    assert fresh(project_root).prompts.prompts[0] == f"{name}{name} {name}"


STRANGE = [
    "🐈‍⬛ a cat 👩🏽‍🚀",
    "قطة على سجادة",
    "\u202eright to left",
    "e\u0301 o\u0308",
    "two\nlines\tand a tab",
    "𝕮𝖆𝖙",
    "''\"\"",
    "-",
]


def test_strange_prompts_are_kept_exactly_and_encoded(project_root):
    write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {"prompts": STRANGE})
    assert fresh(project_root).prompts.prompts[3 : 3 + len(STRANGE)] == tuple(STRANGE)
    assert submit(fresh(project_root), "one").exists()


def test_a_prompt_of_10000_characters_is_refused_by_its_file(project_root):
    write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {"prompts": ["cat " * 2500]})
    parts = ("prompts/tiny/cats.yaml: models.yaml: vit", "1 of 12 prompts", "77 tokens")
    with refused(Mismatch, *parts) as error:
        submit(fresh(project_root), "one")
    assert len(str(error.value)) < 800, "the prompt itself is cut short"


class TestAlike:
    """Prompts that most tokenisers make equal: lower case, white space, composed characters."""

    def test_between_classes_is_an_error_that_names_both_files(self, project_root):
        folder = project_root / "prompts" / "tiny"
        write_yaml(folder / "cats.yaml", {"prompts": ["A  Photo of a DOG"]})
        parts = (f"{folder}/dogs.yaml", f"{folder}/cats.yaml", "'A  Photo of a DOG'", "'Cats'", "'Dogs'")
        with refused(UserError, *parts):
            _ = fresh(project_root).prompts

    @pytest.mark.parametrize("other", ["the whiskers", "The  whiskers ", "THE WHISKERS"])
    def test_within_a_class_is_said_once(self, project_root, capsys, other):
        write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {"prompts": ["The whiskers", other]})
        task = fresh(project_root)
        for _ in range(2):
            assert task.prompts.prompt_class.count(0) == 5
        assert capsys.readouterr().err.count("are one prompt to most models, which counts twice") == 1

    def test_others_are_not_mentioned(self, project_root, capsys):
        prompts = ["The whisker", "Straße", "strasse", "The-whiskers"]
        write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {"prompts": prompts})
        assert fresh(project_root).prompts.prompt_class.count(0) == 7
        assert capsys.readouterr().err == ""

    def test_no_shipped_set_has_any(self):
        for name in (
            "scene",
            "scene-described",
            "birds",
            "textures",
            "fungi",
            "fruits",
            "general",
            "generic80",
            "waffle",
        ):
            classes = Project(ROOT).class_names("scene") if name.startswith("scene") else ("x", "y")
            assert load_prompts(ROOT / "prompts" / name, classes).near_duplicates == []


# ---- names


class_lists = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), min_size=2, max_size=5
)


@given(class_lists)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_new_writes_any_class_names_exactly_or_nothing(tmp_path_factory, class_names):
    root = tmp_path_factory.mktemp("new")
    (root / "competitions").mkdir()
    write_images(root / "images", 1)
    (root / "classes.json").write_text(json.dumps(class_names))
    try:
        new.write(Project(root), "mine", "images", "classes.json")
    except UserError:
        assert list(root.rglob("*.yaml")) == []
        return
    task = CompetitionTask(Project(root), "mine")
    assert task.class_names == tuple(class_names)
    assert [task.prompts.prompts[5 * label] for label in range(len(class_names))] == class_names
    outside = [
        path for path in root.rglob("*.yaml") if path.parent.parent.parent != root and path.parent.parent != root
    ]
    assert outside == []


@pytest.mark.parametrize(
    "name",
    [
        "a,b",
        'a"b',
        "a'b",
        "a/b",
        "a\\b",
        "..",
        "../../x",
        "=1+1",
        "+x",
        "-x",
        "@x",
        "a: b",
        "# a",
        "x" * 300,
        "я" * 200,
        "🐈",
        "\ufeffa",
        " a ",
        "null",
        "a\u200db",
    ],
)
def test_class_names_that_are_odd_work(project_root, name):
    write_images(project_root / "images", 2)
    (project_root / "classes.json").write_text(json.dumps([name, "other"]))
    new.write(Project(project_root), "mine", "images", "classes.json")
    task = CompetitionTask(Project(project_root), "mine")
    assert task.class_names == (name, "other")
    assert task.prompts.prompts[0] == name


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\0b", "a\tb", "\u2028", "\x85", "\ud800", "", " "])
def test_class_names_that_a_csv_cannot_hold_are_refused(project_root, name):
    (project_root / "classes.json").write_text(json.dumps([name, "other"]))
    write_yaml(project_root / "competitions" / "c.yaml", {"images": "x", "classes": "classes.json"})
    with refused(UserError, "classes.json"):
        Project(project_root).class_names("c")
    with refused(UserError, "CLASSES=classes.json"):
        new.write(Project(project_root), "mine", "data/tiny", "classes.json")
    assert not (project_root / "competitions" / "mine.yaml").exists()


def test_two_classes_of_one_file_name_are_told_apart_by_their_key(project_root):
    folder = project_root / "prompts" / "x"
    write_yaml(folder / "a_b.yaml", {"prompts": ["one"]})
    with refused(NotFound, "a file with 'class: a/b'", "a_b.yaml is another class's"):
        load_prompts(folder, ("a b", "a/b"))
    write_yaml(folder / "second.yaml", {"class": "a/b", "prompts": ["two"]})
    assert load_prompts(folder, ("a b", "a/b")).prompts == ("one", "two")


OUTSIDE = ["../../etc/passwd", "/etc/passwd", "..", ".", "", "a/../b", "a\0b", "a\nb", ".hidden", "x" * 101, "~", "é"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_leads_out_of_the_project(project_root, name):
    project = Project(project_root)
    for kind in (project.competition, project.dataset, project.benchmark, project.preprocess, project.ensemble):
        with refused(UserError, "is no recipe name"):
            kind(name)
    with refused(UserError, "is no prompt set name"):
        project.prompts_folder(name)
    with refused(UserError, "is no recipe name"):
        project.member(f"vit@{name}") if name else project.member("vit", name or "/")
    with refused(UserError, "is no competition name"):
        new.write(project, name, "data/tiny", "a,b")


@pytest.mark.parametrize("prompts", ["../../prompts", "/etc", ".."])
def test_a_prompt_set_cannot_lie_outside(project_root, prompts):
    write_yaml(project_root / "competitions" / "c.yaml", {"images": "x", "classes": ["a", "b"], "prompts": prompts})
    with refused(UserError, f"{prompts!r} is no prompt set name"):
        _ = CompetitionTask(Project(project_root), "c").prompts


def test_a_file_of_classes_that_is_none_tells_nothing_of_its_content(project_root):
    (project_root.parent / "secret").write_text("root:x:0:0")
    for path in ("../secret", str(project_root.parent / "secret")):
        write_yaml(project_root / "competitions" / "c.yaml", {"images": "x", "classes": path})
        with refused(Damaged, "secret: not JSON") as error:
            Project(project_root).class_names("c")
        assert "root" not in str(error.value).replace(str(project_root.parent), "")


@pytest.mark.parametrize(
    ("given", "kind"),
    [("both.yaml", NotFound), ("ensembles/both.yaml", UserError), ("./ensembles/both.yaml", UserError)],
)
def test_a_name_given_as_a_file_is_recognised(project_root, given, kind):
    with refused(kind, given, "Did you mean 'both'?"):
        Project(project_root).ensemble(given)


def test_thousands_of_classes_are_no_trouble(tmp_path):
    """Looking for duplicates took time that grew with the square of their number."""
    import time

    (tmp_path / "competitions").mkdir()
    (tmp_path / "classes.json").write_text(json.dumps([f"species {number}" for number in range(20_000)]))
    write_yaml(tmp_path / "competitions" / "c.yaml", {"images": "x", "classes": "classes.json"})
    began = time.perf_counter()
    assert len(Project(tmp_path).class_names("c")) == 20_000
    assert time.perf_counter() - began < 2
