"""From end to end: a pack in another folder, with an interpreter of its own, no project, no package and no network."""

import json
import os
import shutil
import signal
import site
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from pipeline.remote import wheel

from ..conftest import pipeline, write_images, write_yaml

MANY = 400
SLOW = """
import importlib.util, time
if importlib.util.find_spec("pipeline"):  # not in run.py itself
    from pipeline.chain.features import Encoding
    rows = Encoding.rows
    def slow(self, *arguments):
        time.sleep(1)
        return rows(self, *arguments)
    Encoding.rows = slow
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """A fresh environment; the libraries come from the environment of the tests, as torch does on such machines."""
    folder = tmp_path_factory.mktemp("there") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    own = next(folder.glob("lib/python*/site-packages"))
    # run.py sets PYTHONPATH, and a system may have a sitecustomize: of what is left, a .pth is run by every process
    before = "import os; exec(os.environ.get('BEFORE', ''), {})"
    (own / "tests.pth").write_text("\n".join([*site.getsitepackages(), before]))
    return folder / "bin" / "python"


def start(python: Path, unpacked: Path, *more: str, before: str = "") -> subprocess.Popen:
    """run.py there, in a network namespace without a network where that may be had."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(unpacked), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["BEFORE"] = before
    alone = ["unshare", "--net", "--map-root-user"] if can_unshare() else []
    return subprocess.Popen(
        [*alone, str(python), str(unpacked / "run.py"), *more],
        cwd=unpacked.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def can_unshare() -> bool:
    done = subprocess.run(["unshare", "--net", "--map-root-user", "true"], capture_output=True)
    return done.returncode == 0


def run(python: Path, unpacked: Path, *more: str, status: int = 0) -> str:
    process = start(python, unpacked, *more)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == status, said
    return said


def packed(root: Path, unpacked: Path, *more: str) -> Path:
    done = pipeline(root, "pack", "--competition", "tiny", *more)
    assert done.returncode == 0, done.stderr
    zipfile.ZipFile(root / "packs" / "tiny.zip").extractall(unpacked)
    return unpacked


def unpacked_here(root: Path, file: Path) -> str:
    done = pipeline(root, "unpack", "--file", str(file))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_encoded_there_submitted_here(project_root, python, tmp_path):
    there = packed(project_root, tmp_path / "elsewhere", "--images", "--dtype", "bf16")
    said = run(python, there)
    assert "no GPU: on the CPU" in said
    unpacked_here(project_root, there / "tiny.features")
    done = pipeline(project_root, "submit", "--competition", "tiny")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("23 images reused that were encoded elsewhere, in bf16") == 2
    assert done.stdout.count("0 images encoded, 23 reused; 0 prompts encoded") == 2
    csv = (project_root / "submissions" / "tiny" / "001-both.csv").read_text()
    shutil.rmtree(project_root / "cache")
    shutil.rmtree(project_root / "submissions")
    done = pipeline(project_root, "submit", "--competition", "tiny", "--dtype", "bf16")
    assert "23 images encoded" in done.stdout
    assert (project_root / "submissions" / "tiny" / "001-both.csv").read_text() == csv


@pytest.mark.slow
def test_the_wheel_of_a_pack_installs(project_root, python, tmp_path):
    there = packed(project_root, tmp_path / "elsewhere")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    target = tmp_path / "installed"
    subprocess.run(
        [*pip, "install", "--no-index", "--no-deps", "--target", target, there / wheel.name()], check=True, timeout=300
    )
    done = subprocess.run(
        [python, "-m", "pipeline", "models"],
        cwd=project_root,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "vit2" in done.stdout


@pytest.mark.slow
def test_the_notebook_finds_the_pack_and_runs_it(project_root, python, tmp_path):
    done = pipeline(project_root, "pack", "--competition", "tiny", "--images")
    assert done.returncode == 0, done.stderr
    (tmp_path / "colab").mkdir()
    shutil.copy(project_root / "packs" / "tiny.zip", tmp_path / "colab")
    archive = zipfile.ZipFile(project_root / "packs" / "tiny.zip")
    cells = json.loads(archive.read("run.ipynb"))["cells"]
    code = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "code")
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-c", code], cwd=tmp_path / "colab", env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "23 of 23 encoded" in done.stdout
    assert (tmp_path / "colab" / "pack" / "tiny.features").is_file()


@pytest.mark.faults
def test_stopped_midway_and_what_is_missing_goes_on_in_another_pack(project_root, python, tmp_path):
    write_images(project_root / "data" / "tiny", MANY)
    there = packed(project_root, tmp_path / "first", "--shard", "20", "--dtype", "bf16", "--images")
    process = start(python, there, before=SLOW)
    while not list((there / "work").rglob("features/vit@tiny/*/*.pt")):
        time.sleep(0.05)
        assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "are not encoded yet" in said
    said = unpacked_here(project_root, there / "tiny.features")
    assert "are missing: rows" in said
    second = packed(project_root, tmp_path / "second", "--shard", "20")
    asked = json.loads((second / "pack.json").read_text())
    assert asked["images"][0]["dtype"] == "bf16"
    assert 0 < sum(stop - start for start, stop in asked["images"][0]["rows"]) < MANY
    run(python, second, "--images", str(project_root / "data" / "tiny"))
    said = unpacked_here(project_root, second / "tiny.features")
    assert said.count(f"{MANY} of {MANY} are here; make submit encodes none") == 2
    done = pipeline(project_root, "submit", "--competition", "tiny")
    assert done.stdout.count(f"0 images encoded, {MANY} reused; 0 prompts encoded") == 2


@pytest.mark.faults
def test_a_killed_run_goes_on_and_time_that_is_over_leaves_what_there_is(project_root, python, tmp_path):
    write_images(project_root / "data" / "tiny", MANY)
    there = packed(project_root, tmp_path / "elsewhere", "--shard", "20", "--images")
    process = start(python, there, "--hours", "0.004", before=SLOW)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "the time is over" in said
    assert (there / "tiny.features").is_file()
    run(python, there)
    assert unpacked_here(project_root, there / "tiny.features").count(f"{MANY} of {MANY} are here") == 2


@pytest.mark.faults
def test_several_processes_share_the_work(project_root, python, tmp_path):
    """As with several GPUs: each has a number, and one of them the prompts as well."""
    write_images(project_root / "data" / "tiny", MANY)
    there = packed(project_root, tmp_path / "elsewhere", "--shard", "20", "--images")
    script = f"""import json, sys; sys.path.insert(0, {str(there)!r})
import run
from pathlib import Path
work = Path({str(there / "work")!r})
run.set_up(work)
there = run.There(work, run.images(), None)
pack = json.loads((run.HERE / "pack.json").read_text())
assert there.run("check") == 0
assert there.run("encode", "--models", *pack["gpu_gb"], processes=2) == 0
assert there.run("collect", "--out", str(run.HERE / "tiny.features")) == 0"""
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    done = subprocess.run([python, "-c", script], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert unpacked_here(project_root, there / "tiny.features").count(f"{MANY} of {MANY} are here") == 2


@pytest.mark.faults
def test_a_machine_that_lacks_something_says_what(project_root, python, tmp_path):
    there = packed(project_root, tmp_path / "elsewhere")
    assert "error: no images: give --images folder" in run(python, there, status=1)
    assert "23 of 23 images are not there" in run(python, there, "--images", str(tmp_path), status=1)
    asked = json.loads((there / "pack.json").read_text())
    (there / "pack.json").write_text(json.dumps({**asked, "requirements": ["no-such-library-at-all==1.0"]}))
    assert "error: missing: no-such-library-at-all==1.0" in run(python, there, status=1)


@pytest.mark.faults
def test_prompts_alone_need_no_images_and_what_is_missing_is_installed(project_root, python, tmp_path):
    done = pipeline(project_root, "infer", "--competition", "tiny")
    assert done.returncode == 0, done.stderr
    write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {"prompts": ["A kitten on a mat"]})
    there = packed(project_root, tmp_path / "elsewhere")
    with zipfile.ZipFile(there / "tinylib-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tinylib.py", "")
        archive.writestr("tinylib-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinylib\nVersion: 1.0\n")
        archive.writestr(
            "tinylib-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tinylib-1.0.dist-info/RECORD", "")
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (there / "tinylib-1.0-py3-none-any.whl").rename(shelf / "tinylib-1.0-py3-none-any.whl")
    (there / "pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {shelf}\n")  # read in HOME/.config/pip
    (there / ".config" / "pip").mkdir(parents=True)
    (there / "pip.conf").rename(there / ".config" / "pip" / "pip.conf")
    asked = json.loads((there / "pack.json").read_text())
    (there / "pack.json").write_text(json.dumps({**asked, "requirements": ["tinylib==1.0", "torch==1.0"]}))
    said = run(python, there)
    assert "installing tinylib==1.0" in said
    assert "other versions than at home: torch==1.0 (" in said
    assert "installing" not in run(python, there)
    unpacked_here(project_root, there / "tiny.features")
    done = pipeline(project_root, "submit", "--competition", "tiny")
    assert done.stdout.count("0 prompts encoded") == 2, done.stdout + done.stderr
