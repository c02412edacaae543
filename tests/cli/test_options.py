"""A verb owns its options, and what it does not use is an error; the manners of a process on a terminal."""

import os
import subprocess
import sys

import pytest

from pipeline.__main__ import main
from pipeline.chain.main_job import submit
from pipeline.cli._options import OFF, ON, parse, verbs

from ..conftest import ROOT, failed, fresh, pipeline
from .test_verbs import make


@pytest.mark.parametrize("verb", verbs())
def test_what_a_verb_does_not_use_is_an_error(verb, capsys):
    with pytest.raises(SystemExit) as end:
        parse([verb, "--nonsense", "77"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: NONSENSE (--nonsense) is not used by {verb}.") or "error: give " in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["submit", "N=77"], "N (--n) is not used by submit"),
        (["submit", "ENSEMBEL=x"], "Did you mean 'ensemble'?"),
        (["submit", "both"], "'both' is not used by submit"),
        (["log", "DEVICE=cpu"], "DEVICE (--device) is not used by log"),
        (["submitt"], "no 'submitt'. Did you mean 'submit'?"),
        (["submit", "DTYPE=fp31"], "DTYPE (--dtype): no 'fp31'. Did you mean 'fp32'?"),
        (["score", "PUBLIC=1"], "give N= (--n)"),
    ],
)
def test_mistakes(words, message, capsys):
    with pytest.raises(SystemExit):
        parse(words)
    assert message in capsys.readouterr().err


def test_name_and_value_as_make_gives_them():
    args = parse(["prompts-rank", "MODEL=a b", "TEST_LABELS=1", "UNLABELLED=", "SPLIT=x=--y"])
    assert (args.model, args.test_labels, args.unlabelled, args.split) == ("a b", True, False, "x=--y")


FLAGS = [
    ("infer", "COMPILE"),
    ("submit", "UPLOAD"),
    ("pack", "IMAGES"),
    ("clean-cache", "DRY"),
    ("new", "UNDO"),
    ("prompts-rank", "UNLABELLED"),
    ("sweep", "OVERWRITE"),
    ("workbench", "TEST_LABELS"),
]


@pytest.mark.parametrize(("verb", "flag"), FLAGS)
def test_a_flag_is_on_or_off_and_nothing_else(verb, flag, capsys):
    needed = {"prompts-rank": ["MODEL=vit"], "sweep": ["RECIPE=x.yaml"]}.get(verb, [])
    for values, meant in ((ON, True), (OFF, False)):
        for value in values:
            assert getattr(parse([verb, *needed, f"{flag}={value}"]), flag.lower()) is meant, value
    for value in ("2", "on", "data/tiny", "11"):
        with pytest.raises(SystemExit) as end:
            parse([verb, *needed, f"{flag}={value}"])
        assert end.value.code == 2 and f"error: {flag}={value}: a flag is 1 or 0." in capsys.readouterr().err


def test_images_is_a_path_where_it_is_no_flag():
    assert parse(["new", "IMAGES=0"]).images == "0"


def test_a_flag_that_is_off_lets_nothing_happen(project_root, command):
    assert command(project_root, "new", "COMPETITION=mine", "IMAGES=data/tiny", "CLASSES=a,b").returncode == 0
    refused = command(project_root, "new", "COMPETITION=mine", "UNDO=0")
    assert refused.returncode == 1 and "give IMAGES=folder" in refused.stderr
    assert (project_root / "competitions" / "mine.yaml").is_file()


def test_a_note_is_removed_only_where_that_is_asked_for(project_root, command):
    submit(fresh(project_root), "both")
    known = ["note", "COMPETITION=tiny", "N=1"]
    assert command(project_root, *known, "TEXT=").stdout.split()[-3:] == ["had", "no", "note"]
    assert command(project_root, *known, "TEXT=blue ice").returncode == 0
    for forgotten in (known, [*known, "--text"]):
        failed(command(project_root, *forgotten), "give TEXT=..., or TEXT= to remove the note")
    assert "blue ice" in command(project_root, "log", "COMPETITION=tiny").stdout
    assert "removed: blue ice" in command(project_root, *known, "TEXT=").stdout
    assert "blue ice" not in command(project_root, "log", "COMPETITION=tiny").stdout


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("DEVICE=gpu", "error: DEVICE=gpu: no such kind of device."),
        ("CACHE=nosuch://x", "error: CACHE=nosuch://x: nosuch://: no such kind of store;"),
    ],
)
@pytest.mark.parametrize("verb", ["submit", "plan"])
def test_a_mistake_in_a_variable_is_not_told_of_a_recipe(project_root, command, verb, given, told):
    result = command(project_root, verb, "COMPETITION=tiny", given)
    failed(result, told)
    assert ".yaml" not in result.stderr


def test_a_mistake_in_a_variable_that_is_read_late(project_root, command):
    result = command(project_root, "submit", "COMPETITION=tiny", "DTYPE=fp32", "DEVICE=gpu")
    failed(result, "error: DEVICE=gpu:")


def test_a_member_alone_is_an_ensemble_of_one(project_root, monkeypatch, capsys):
    monkeypatch.chdir(project_root)
    settings = ["COMPETITION=tiny", "DTYPE=fp32"]
    assert main(["submit", "MODEL=vit", "PREPROCESS=tiny-sharp", *settings]) == 0
    alone = project_root / "submissions" / "tiny" / "001-vit@tiny-sharp.csv"
    ensemble = project_root / "ensembles" / "alone.yaml"
    ensemble.write_text("members: {vit@tiny-sharp: 1}\n")
    assert submit(fresh(project_root), "alone") == alone, "the same content"
    assert main(["advise", "MODEL=vit", *settings]) == 0
    assert main(["plan", "MODEL=vit", "PREPROCESS=tiny-sharp", *settings]) == 0
    assert "nothing to compute" in capsys.readouterr().out
    for wrong in (["MODEL=vit", "ENSEMBLE=both"], ["PREPROCESS=tiny"]):
        assert main(["submit", *wrong, *settings]) == 1
    said = capsys.readouterr().err
    assert "not both" in said and "give MODEL=" in said
    assert main(["report", "MODEL=vit", "PREPROCESS=tiny-sharp", *settings]) == 0
    assert (project_root / "reports" / "tiny" / "vit@tiny-sharp.html").is_file()


class TestMake:
    def test_hands_over_what_was_given_and_nothing_else(self):
        said = make(
            "--dry-run", "submit", "MODEL=demo-vit", "PREPROCESS=crop224", "N=77", env=os.environ | {"DATA": "x"}
        )
        assert said.stdout.split(" -m pipeline ")[1].split() == [
            "submit", "'MODEL=demo-vit'", "'PREPROCESS=crop224'", "'N=77'"
        ]  # fmt: skip
        refused = make("submit", "MODEL=demo-vit", "N=77")
        assert refused.returncode != 0 and "N (--n) is not used by submit" in refused.stderr

    def test_the_environment_is_no_argument(self):
        said = make("--dry-run", "score", env=os.environ | {"N": "3"})
        assert said.returncode != 0 and "give N=" in said.stderr

    def test_flags_are_read_as_verbs_read_them(self):
        rule = (ROOT / "Makefile").read_text()
        assert f"$(filter {' '.join(ON)}," in rule and f"$(filter-out {' '.join(OFF).strip()}," in rule
        said = make("new", "UNDO=0").stderr
        assert "give IMAGES=..., e.g. make new COMPETITION=x IMAGES=folder CLASSES=a,b,c." in said, "commas cut nothing"
        assert "UPLOAD=2: a flag is 1 or 0." in make("submit", "UPLOAD=2").stderr

    def test_an_empty_text_is_handed_over(self):
        assert "'TEXT='" in make("--dry-run", "note", "N=1", "TEXT=").stdout

    def test_a_misspelled_target(self):
        assert "no target 'submitt'. Did you mean 'submit'?" in make("submitt").stderr


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a checkout, not an unpacked archive")
def test_what_export_writes_by_default_is_not_offered_to_git():
    ignored = subprocess.run(["git", "check-ignore", "--quiet", "demo.parquet/part-00000.parquet"], cwd=ROOT)
    assert ignored.returncode == 0


def test_a_closed_pipe_is_no_error(project_root):
    command = f"{sys.executable} -m pipeline submit --competition tiny --dtype fp32"
    shell = f"set -o pipefail; {command} 2>err | head -c 1; echo $?"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", shell], cwd=project_root, env=environment, capture_output=True, text=True)
    assert done.stdout.endswith("0\n"), (project_root / "err").read_text()
    assert (project_root / "err").read_text() == ""
    assert (project_root / "submissions" / "tiny" / "001-both.csv").is_file(), "the work goes on"


def test_an_interruption_during_imports_is_one_line():
    code = """if True:
        import sys
        class Interrupt:
            def find_spec(self, name, path=None, target=None):
                if name == "pipeline.cli._options":
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Interrupt())
        from pipeline.__main__ import main
        sys.exit(main(["log"]))
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.strip().startswith("interrupted:")


def test_help_of_a_verb_shows_only_its_own(project_root):
    said = pipeline(project_root, "log", "--help").stdout
    assert "--competition" in said and "--device" not in said
