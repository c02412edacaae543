"""The wheel, built from the source distribution and used outside the checkout, in an environment of its own."""

import csv
import json
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.core import extras

from .conftest import ROOT, write_yaml

BUILD = "import sys; from setuptools import build_meta as b; b.build_sdist(sys.argv[1])"
RECIPES = ("benchmarks", "competitions", "datasets", "ensembles", "preprocess", "prompts", "sweeps", "training")


def run(*command, cwd: Path) -> str:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def own_files(*folders: str) -> list[str]:
    """What git has or would have of these folders."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [file for file in files if (ROOT / file).is_file()]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel and an environment that has it; what it depends on comes from the environment of the tests."""
    folder = tmp_path_factory.mktemp("package")
    for file in own_files():
        (folder / "source" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, folder / "source" / file)
    run(sys.executable, "-c", BUILD, folder, cwd=folder / "source")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", folder, *folder.glob("*.tar.gz"), cwd=folder)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    own = next((folder / "venv").glob("lib/python*/site-packages"))
    (own / "tests.pth").write_text("\n".join(site.getsitepackages()))
    wheel, python = next(folder.glob("*.whl")), folder / "venv" / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-index", "--no-deps", wheel, cwd=folder)
    return SimpleNamespace(wheel=wheel, python=python, command=python.with_name("zero-shot"))


def test_the_wheel_has_every_file_of_the_package_and_all_recipes(installed):
    packed = {name for name in zipfile.ZipFile(installed.wheel).namelist() if name.startswith("pipeline/")}
    beside = [*own_files(*RECIPES), "models.yaml", *own_files("demo/images", "demo/models"), "demo/solution.csv"]
    expected = {*own_files("pipeline"), *(f"pipeline/builtin/{file}" for file in [*beside, "demo/labels.csv"])}
    assert packed == expected


@pytest.mark.slow
def test_the_demo_comes_with_the_package(installed, tmp_path):
    told = run(installed.command, "submit", "--dtype", "fp32", cwd=tmp_path)
    assert "accuracy 0.8" in told or "accuracy 0.9" in told
    with open(tmp_path / "submissions" / "demo" / "001-demo.csv") as file:
        assert len(list(csv.reader(file))) == 601
    run(installed.command, "report", cwd=tmp_path)
    assert "<style>" in (tmp_path / "reports" / "demo" / "001-demo.html").read_text()
    assert not (tmp_path / "competitions").exists(), "nothing is copied"


@pytest.mark.slow
def test_a_competition_of_the_working_folder(installed, tmp_path):
    for number in range(12):
        (tmp_path / "photos").mkdir(exist_ok=True)
        shutil.copy(ROOT / "demo" / "images" / f"{number}.jpg", tmp_path / "photos")
    run(
        installed.command, "new", "--competition", "mine", "--images", "photos", "--classes", "sea,forest", cwd=tmp_path
    )
    write_yaml(tmp_path / "ensembles" / "mine.yaml", {"members": {"demo-vit": 0.5, "own@demo": 0.5}})
    own = {"family": "open_clip", "weights": "demo/models/demo-resnet", "preprocess": "demo-sharp"}
    write_yaml(tmp_path / "models.local.yaml", {"own": own})
    write_yaml(tmp_path / "preprocess" / "demo.yaml", {"size": 64, "ops": ["resize", {"sharpen": 3.0}]})
    run(installed.command, "submit", "--competition", "mine", cwd=tmp_path)
    made = json.loads((tmp_path / "submissions" / "mine" / "001-mine.json").read_text())
    assert "3.0" in json.dumps(made), "the preprocess recipe of the folder goes before the built-in one"
    assert (tmp_path / "submissions" / "mine" / "001-mine.csv").read_text().count("\n") == 13


def test_python_and_metadata(installed, tmp_path):
    code = """if True:
        import json, pipeline
        from pipeline import load_classifier
        from pipeline.core import extras
        image = f"{pipeline.__path__[0]}/builtin/demo/images/0.jpg"
        found = load_classifier("demo-vit")(image, candidate_labels=["sea", "forest"])
        print(json.dumps({"file": pipeline.__file__, "labels": sorted(one["label"] for one in found),
                          "pins": extras.pins("report"), "train": extras.pins("train")}))"""
    found = json.loads(run(installed.python, "-c", code, cwd=tmp_path))
    assert Path(found["file"]).is_relative_to(installed.python.parent.parent)
    assert found["labels"] == ["forest", "sea"]
    assert (tuple(found["pins"]), tuple(found["train"])) == (extras.pins("report"), extras.pins("train"))
