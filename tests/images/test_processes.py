"""Decoding in processes: the same pixels and errors as here, and nothing is left of them, however a run ends."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.digests import content_digest
from pipeline.core.errors import Changed, Unavailable
from pipeline.images.damaged import DamagedImage, Unreadable
from pipeline.images.decoding import Policy, decode
from pipeline.images.ops import compile_recipe
from pipeline.images.processes import Decoder, Memory, Wanted, Way
from pipeline.recipes import Preprocess

from ..conftest import ROOT, refused, write_images

PATIENCE = 30  # seconds
RECIPE = Preprocess.parse({"size": 24, "ops": ["resize"], "views": ["identity", "hflip"]}, "p.yaml")
WAY = Way(RECIPE, "p.yaml", Policy())


@pytest.fixture(scope="module")
def memory():
    shared = Memory()
    yield shared
    shared.close()


@pytest.fixture(scope="module")
def decoder(memory):
    one = Decoder(WAY, memory)
    yield one
    one.close()
    assert one.process.returncode == 0


def wanted(folder: Path, count: int) -> list[Wanted]:
    write_images(folder, count)
    paths = [folder / f"{row}.jpg" for row in range(count)]
    return [Wanted(row, str(path), path.name, content_digest(path.read_bytes())) for row, path in enumerate(paths, 5)]


@pytest.mark.parametrize("shared", [True, False])
def test_pixels_go_where_they_belong(decoder, memory, tmp_path, shared):
    """Straight into memory that is shared, and from there into any other."""
    asked, shape = wanted(tmp_path, 3), (2, 3, 2, 3, 24, 24)
    into = memory.array(*shape) if shared else np.zeros(shape, np.uint8)
    for _ in range(2):
        assert decoder.prepare(asked, into[1]) == ([], [])
    apply = compile_recipe(RECIPE, "p.yaml")
    assert np.array_equal(into[1], np.stack([apply(decode(one.file)) for one in asked]))
    assert not into[0].any()


def test_errors_are_those_that_decoding_here_gives(decoder, memory, tmp_path):
    asked = wanted(tmp_path, 4)
    Path(asked[0].file).unlink()
    Path(asked[2].file).write_bytes(b"no image")
    asked[2] = asked[2]._replace(known=content_digest(b"no image"))
    asked[3] = asked[3]._replace(known="another")
    errors, found = decoder.prepare(asked, memory.array(4, 2, 3, 24, 24))
    assert [(row, type(error)) for row, error in errors] == [
        (5, Changed),
        (7, DamagedImage),
        (8, Changed),
    ] and not found
    with pytest.raises(DamagedImage) as here:
        decode(asked[2].file)
    there = errors[1][1]
    assert (str(there), there.name, there.why) == (str(here.value), here.value.name, here.value.why)
    assert there.content == asked[2].known


def test_what_a_damaged_image_says_can_be_sent():
    error = Unreadable("a.jpg", "no permission")
    error.content = "0123"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (Unreadable, str(error), vars(error))


def test_a_process_that_is_killed_is_said_with_the_fix(memory, tmp_path):
    asked, into, one = wanted(tmp_path, 2), memory.array(2, 2, 3, 24, 24), Decoder(WAY, memory)
    one.process.kill()
    for _ in range(2):
        with refused(Unavailable, "signal 9", "WORKERS"):
            one.prepare(asked, into)


def test_what_is_no_error_of_a_user_is_raised_here(decoder, memory, tmp_path):
    asked, into = wanted(tmp_path, 2), memory.array(2, 2, 3, 24, 24)
    with pytest.raises(TypeError):
        decoder.prepare([one._replace(known=7) for one in asked], into)
    assert decoder.prepare(asked, into) == ([], []), "and it goes on"


def test_ctrl_c_is_for_whoever_asks(decoder, memory, tmp_path):
    asked, into = wanted(tmp_path, 2), memory.array(2, 2, 3, 24, 24)
    decoder.prepare(asked, into)
    os.kill(decoder.process.pid, signal.SIGINT)
    assert decoder.prepare(asked, into) == ([], [])
    assert os.getpgid(decoder.process.pid) != os.getpgid(0)


LEFT = """import os, signal, sys
from pipeline.images.decoding import Policy
from pipeline.images.processes import Decoder, Memory, Way
from pipeline.recipes import Preprocess
Decoder(Way(Preprocess.parse({"size": 24, "ops": ["resize"]}, "p.yaml"), "p.yaml", Policy()), Memory())
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_process_stays_when_the_one_that_asked_is_killed():
    """Both write to one pipe, which ends with the last of them."""
    run = subprocess.Popen([sys.executable, "-c", LEFT], cwd=ROOT, stdout=subprocess.PIPE)
    assert run.communicate(timeout=PATIENCE)[0] == b""
    assert run.returncode == -signal.SIGKILL
