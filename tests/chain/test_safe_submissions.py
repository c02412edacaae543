"""Whatever is upstream, `submit` writes a file that an independent validator accepts, or nothing."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from pipeline.chain import suspicions, threshold
from pipeline.chain.columns import Columns
from pipeline.chain.csv_format import CsvFormat
from pipeline.chain.ledger import LOG_COLUMNS, formulas
from pipeline.chain.main_job import submit
from pipeline.chain.task import CompetitionTask, Task
from pipeline.core.errors import Damaged, Mismatch, UserError
from pipeline.recipes import Project

from ..conftest import IMAGES, ROOT, fresh, pipeline, refused, write_yaml

LONG = settings(max_examples=1500, suppress_health_check=list(HealthCheck))
SHORT = settings(max_examples=60, suppress_health_check=list(HealthCheck))


def flaw(content: bytes, columns: list[str], ids: list[str], labels: set[str]) -> str | None:
    """What a leaderboard would reject, judged without a line of the project: by csv and by pandas, which must agree.

    `columns` are the id's and the label's as the header has them, `ids` the first column's in order.
    """
    try:
        text = content.decode("utf-8")
        table = list(csv.reader(io.StringIO(text, newline="")))
        frame = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, na_filter=False)
    except Exception as error:  # whatever it is, the file cannot be read
        return f"unreadable: {error}"
    if len({len(row) for row in table}) != 1:
        return "no table"
    if table[0] != columns or list(frame.columns) != columns:
        return f"header {table[0]}"
    table = table[1:]
    by_csv, by_pandas = [list(column) for column in zip(*table, strict=True)], [list(frame[name]) for name in columns]
    if by_csv != by_pandas:
        return "two readers disagree"
    if sorted(by_csv[0]) != sorted(ids) or len(set(ids)) != len(ids):
        return "ids"
    if by_csv[0] != ids:
        return "order"
    if not set(by_csv[1]) <= labels:
        return f"labels {set(by_csv[1]) - labels}"
    return None


# ---- check() against the validator


PIECES = [
    ",",
    "\n",
    "\r",
    "\r\n",
    '"',
    '""',
    " ",
    "\t",
    "\0",
    "0",
    "1",
    "2",
    "3",
    "-1",
    "+1",
    "1.0",
    "01",
    "NaN",
    "",
    "\n\n",
    "id",
    "label",
    "\ufeff",
    "é",
    "5,1\n",
    "0,0\n",
    "=1",
    ";",
    "a,b,c",
    "'",
]
edits = st.lists(
    st.tuples(st.integers(0, 500), st.sampled_from([0, 0, 1, 2, 4, 5]), st.sampled_from(PIECES)), min_size=1, max_size=4
)
moves = st.lists(
    st.tuples(st.sampled_from(["swap", "drop", "twice"]), st.integers(0, 40), st.integers(0, 40)), max_size=2
)


def mutated(text: str, edits: list, moves: list) -> str:
    for where, gone, piece in edits:
        where %= len(text) + 1
        text = text[:where] + piece + text[where + gone :]
    lines = text.splitlines(keepends=True)
    for how, a, b in moves if lines else ():
        a, b = a % len(lines), b % len(lines)
        if how == "swap":
            lines[a], lines[b] = lines[b], lines[a]
        elif how == "drop":
            del lines[a : a + 1]
        else:
            lines.insert(b, lines[a])
        if not lines:
            break
    return "".join(lines)


def check_mutations(task: Task, counts: Counter):
    ids, known = [str(n) for n in range(IMAGES)], {"0", "1", "2"}
    valid = CsvFormat(task).text([n % 3 for n in range(IMAGES)])
    assert flaw(valid.encode(), ["id_idx", "label"], ids, known) is None

    @given(edits, moves)
    @example([(valid.index("5,2\n"), 4, "5,1\n")], [])  # still valid; whether another is so is chance
    def run(edits, moves):
        text = mutated(valid, edits, moves)
        wrong = flaw(text.encode(), ["id_idx", "label"], ids, known)
        try:
            CsvFormat(task).check(text)
        except UserError:
            counts["refused"] += 1
            return
        counts["accepted"] += 1
        assert wrong is None, f"{wrong}: {text!r}"

    return run


def test_a_mutated_submission_is_refused_or_still_valid(task):
    counts = Counter()
    settings(SHORT, max_examples=300)(check_mutations(task, counts))()
    assert counts["accepted"] >= 1, counts
    assert counts["refused"] > 100, counts


@pytest.mark.faults
def test_many_mutated_submissions_are_refused_or_still_valid(task):
    counts = Counter()
    settings(SHORT, max_examples=20_000)(check_mutations(task, counts))()
    assert counts["accepted"] >= 20, counts


def test_the_validator_finds_what_is_wrong():
    """A test of the test: without it a validator that accepts everything would pass."""
    good = "id,label\na,0\nb,1\n"
    arguments = (["id", "label"], ["a", "b"], {"0", "1"})
    assert flaw(good.encode(), *arguments) is None
    for bad in (
        "",
        "id,label\n",
        "id,label\na,0\n",
        "id,label\nb,1\na,0\n",
        "id,label\na,0\na,0\nb,1\n",
        "id,label\na,0\nb,\n",
        "id,label\na,0\nb,2\n",
        "id,label,x\na,0,1\nb,1,1\n",
        "x,label\na,0\nb,1\n",
        "id,label\na,0\nb,1,1\n",
        "id;label\na;0\nb;1\n",
        "\ufeffid,label\na,0\nb,1\n",
        'id,label\na,0\n"b,1\n',
    ):
        assert flaw(bad.encode(), *arguments) is not None, bad


# ---- everything upstream


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=6)
odd = st.sampled_from(
    ["=1+1", "+a", "-a", "@a", "a,b", 'a"b', "a'b", "a b", " a", "ä", "🐈", "a;b", "1", "01", "nan", "a\nb", "a\rb"]
)
id_stems = st.one_of(texts, odd).filter(lambda name: not name.startswith("."))
tidy = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=6)
class_name = st.one_of(tidy, tidy, tidy, odd)
column_name = st.one_of(st.sampled_from(["id", "label", "=x", "a b"]), texts)
KINDS = ["random", "random", "ties", "zeros", "nan", "inf", "minus inf", "huge", "columns", "rows", "garbage"]
SAMPLES = ["none", "none", "same", "reversed", "missing", "extra", "twice", "columns", "garbage"]
IN_THE_WAY = [
    "nothing",
    "nothing",
    "garbage csv",
    "garbage log",
    "no log",
    "other columns",
    "folder",
    "json alone",
    "number",
]
FAULTS = ["none", "none", "none", "no space", "killed"]
situations = st.fixed_dictionaries(
    {
        "stems": st.lists(id_stems, min_size=2, max_size=6, unique=True),
        "classes": st.lists(class_name, min_size=2, max_size=4, unique=True),
        "id": st.sampled_from(["position", "stem", "file_name"]),
        "label": st.sampled_from(["label", "class_name"]),
        "names": st.lists(column_name, min_size=2, max_size=2, unique=True),
        "label_first": st.booleans(),
        "probs": st.sampled_from(KINDS),
        "sample": st.sampled_from(SAMPLES),
        "way": st.sampled_from(IN_THE_WAY),
        "fault": st.sampled_from(FAULTS),
        "after": st.integers(0, 12),
        "seed": st.integers(0, 2**16),
    }
)


class Killed(BaseException):
    """What no `except Exception` sees."""


def build(root: Path, checkpoints: Path, now: dict) -> tuple[list[str], set[str], list[str]]:
    """A project for this situation; the columns, the labels and the ids that a valid submission has."""
    for stem in now["stems"]:
        (root / "images").mkdir(exist_ok=True)
        (root / "images" / f"{stem}.png").write_bytes(stem.encode())
    columns = {now["names"][0]: now["id"], now["names"][1]: now["label"]}
    if now["label_first"]:
        columns = dict(reversed(columns.items()))
    content = {"images": "images", "classes": now["classes"], "columns": columns, "prompts": "p"}
    (root / "classes.json").write_text(json.dumps(now["classes"]))
    content["classes"] = "classes.json"
    write_yaml(root / "prompts" / "p" / "_shared.yaml", {"templates": ["{}", "a {}"], "classes": "any"})
    write_yaml(
        root / "models.yaml", {"vit": {"family": "open_clip", "weights": str(checkpoints / "vit"), "preprocess": "t"}}
    )
    write_yaml(root / "preprocess" / "t.yaml", {"size": 32, "ops": [{"resize": "squash"}]})
    write_yaml(root / "ensembles" / "one.yaml", {"members": {"vit": 1}})
    write_yaml(root / "competitions" / "tiny.yaml", content)
    task = CompetitionTask(Project(root), "tiny", dtype_name="fp32")
    natural = [Path(name).stem for name in task.images.ids]
    ids = {
        "position": [str(n) for n in range(len(natural))],
        "stem": natural,
        "file_name": [f"{stem}.png" for stem in natural],
    }[now["id"]]
    if now["sample"] != "none":
        ids = write_sample(root / "sample.csv", list(columns), columns, ids, now)
        write_yaml(root / "competitions" / "tiny.yaml", {**content, "sample_submission": "sample.csv"})
    labels = now["classes"] if now["label"] == "class_name" else [str(n) for n in range(len(now["classes"]))]
    return list(columns), set(labels), ids


def write_sample(path: Path, header: list[str], columns: dict, ids: list[str], now: dict) -> list[str]:
    """The sample submission of a situation; returns the ids a submission should then have, in order."""
    rows = {
        "same": ids,
        "reversed": ids[::-1],
        "missing": ids[1:],
        "extra": [*ids, "one more"],
        "twice": [*ids, ids[0]],
    }
    header = [f"{name}x" for name in header] if now["sample"] == "columns" else header
    at_id = [value == now["id"] for value in columns.values()]
    kept = rows.get(now["sample"], ids)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *([i if here else "0" for here in at_id] for i in kept)])
    if now["sample"] == "garbage":
        path.write_bytes(b"\xff\0\"'" * 20)
    return kept


def write_probs(task: Task, now: dict) -> np.ndarray:
    """The threshold stage's file as the situation has it."""
    rng, artefact = np.random.default_rng(now["seed"]), threshold.stage(task, "one")
    n, p = len(task.images.ids), len(task.prompts.prompts)
    shape = {"columns": (n, p + 1), "rows": (n - 1, p)}.get(now["probs"], (n, p))
    values = rng.random(shape, dtype=np.float32)
    match now["probs"]:
        case "ties":
            values = rng.integers(0, 2, shape).astype(np.float32) / 2
        case "zeros":
            values[rng.integers(n)] = 0
        case "nan" | "inf" | "minus inf" | "huge" as kind:
            values[rng.integers(n), rng.integers(p)] = {
                "nan": np.nan,
                "inf": np.inf,
                "minus inf": -np.inf,
                "huge": 3e38,
            }[kind]
    artefact.save(0, n, probs=torch.from_numpy(values), **Columns.of(task.prompts).saved())
    if now["probs"] == "garbage":
        (file,) = artefact.path.glob("*.pt")
        file.write_bytes(rng.bytes(300))
    return values


def put_in_the_way(folder: Path, way: str) -> None:
    """What may lie in a submissions folder already."""
    if way == "nothing":
        return
    folder.mkdir(parents=True)
    header = ",".join(LOG_COLUMNS)
    files = {
        "garbage csv": {"001-x.csv": b"\xff\xfe\0", "001abc-y.csv": b"", "02-z.csv": b"a\n1\n"},
        "garbage log": {"log.csv": b"number,time\nx,y\n"},
        "no log": {"007-x.csv": b"id,label\n1,1\n"},
        "other columns": {"003-x.csv": b"image,class\n1,1\n", "log.csv": f"{header}\n3,,x,,,,0.5,\n".encode()},
        "json alone": {"004-x.json": b"{}"},
        "number": {"log.csv": f"{header}\n9,,x,,,,,\n".encode(), "log.csv.bak": b""},
    }
    for name, content in files.get(way, {}).items():
        (folder / name).write_bytes(content)
    if way == "folder":
        (folder / "005-x.csv").mkdir()


@contextmanager
def failing(fault: str, after: int):
    """From the `after`th call on, every attempt to put something on disk fails; or the process ends, as if killed."""
    calls, real = 0, {name: getattr(os, name) for name in ("replace", "fsync", "open")}

    def wrapped(name):
        def call(*arguments, **options):
            nonlocal calls
            writes = name != "open" or arguments[1] & (os.O_WRONLY | os.O_RDWR)
            calls += bool(writes)
            if writes and calls > after:
                raise Killed if fault == "killed" else OSError(28, "No space left on device")
            return real[name](*arguments, **options)

        return call

    if fault == "none":
        yield
        return
    try:
        for name in real:
            setattr(os, name, wrapped(name))
        yield
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.csv") if path.is_file() and path.name != "log.csv"}


def submit_in(root: Path, checkpoints: Path, now: dict, counts: Counter) -> None:
    """One situation: what is written is right, or nothing is."""
    try:
        columns, labels, ids = build(root, checkpoints, now)
        task = CompetitionTask(Project(root), "tiny", dtype_name="fp32")
        values = write_probs(task, now)
    except UserError:  # refused long before anything is computed
        counts["refused by the recipes"] += 1
        return
    folder = root / "submissions" / "tiny"
    put_in_the_way(folder, now["way"])
    before, outcome = tables(folder), "written"
    old_log = (folder / "log.csv").read_bytes() if (folder / "log.csv").exists() else None
    try:
        with failing(now["fault"], now["after"]):
            submit(CompetitionTask(Project(root), "tiny", dtype_name="fp32"), "one")
    except UserError:
        outcome = "refused"
    except (OSError, Killed) as error:
        assert now["fault"] != "none", error
        outcome = now["fault"]
    after = tables(folder)
    new = {name: content for name, content in after.items() if name not in before}
    assert {name: after[name] for name in before} == before, "nothing is changed or removed"
    assert len(new) <= 1
    assert outcome != "written" or new or now["probs"] == "garbage"
    for content in new.values():
        at = [columns.index(now["names"][0]), columns.index(now["names"][1])]
        table = [[row[i] for i in at] for row in csv.reader(io.StringIO(content.decode(), newline=""))]
        wrong = flaw(csv_of(table), now["names"], ids, labels) or flaw_of_table(content, columns)
        assert wrong is None, f"{wrong}: {content!r}"
        assert_right(table[1:], values, now, ids, labels)
        counts["valid"] += 1
    if old_log is not None:
        assert (folder / "log.csv").read_bytes().startswith(old_log), "the log is only added to"
    if outcome == "written":
        assert not list(folder.glob(".*.tmp"))
    counts[outcome] += 1


def csv_of(table: list[list[str]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(table)
    return buffer.getvalue().encode()


def flaw_of_table(content: bytes, columns: list[str]) -> str | None:
    frame = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, na_filter=False)
    return None if list(frame.columns) == columns and b"\r" not in content else "header or line ends"


def assert_right(rows: list[list[str]], values: np.ndarray, now: dict, ids: list[str], labels: set[str]) -> None:
    """The labels are those of a plain numpy argmax (two prompts per class, averaged), for the right image."""
    names = now["classes"] if now["label"] == "class_name" else [str(n) for n in range(len(now["classes"]))]
    natural = ids[::-1] if now["sample"] == "reversed" else ids
    best = values.reshape(len(natural), len(names), 2).astype(np.float32).mean(axis=2)
    for image, label in rows:
        scores = best[natural.index(image)]
        assert scores[names.index(label)] >= scores.max() * (1 - 1e-6), (image, label)


@given(situations)
@SHORT
def test_submit_writes_a_valid_file_or_nothing(tmp_path_factory, checkpoints, capsys, now):
    assume(now["probs"] != "garbage")  # then images are decoded; the test below has real ones
    submit_in(made_root(tmp_path_factory), checkpoints, now, Counter())


@pytest.mark.faults
def test_submit_writes_a_valid_file_or_nothing_often(tmp_path_factory, checkpoints, capsys):
    counts = Counter()

    @LONG
    @given(situations)
    def run(now):
        submit_in(made_root(tmp_path_factory), checkpoints, now, counts)

    run()
    with capsys.disabled():
        print("\nsubmit:", dict(counts))
    assert counts["valid"] >= 100, counts
    assert counts["refused"] >= 100, counts


def made_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    (root / "competitions").mkdir()
    return root


@pytest.mark.faults
@pytest.mark.parametrize("stage", ["images", "features", "probs", "ensemble", "threshold"])
@pytest.mark.parametrize("damage", ["empty", "half", "garbage", "gone"])
def test_damaged_caches_change_nothing(project_root, stage, damage):
    first = submit(fresh(project_root), "both").read_bytes()
    for file in (project_root / "cache" / "tiny" / stage).rglob("*.pt"):
        content = file.read_bytes()
        file.unlink()
        if damage != "gone":
            file.write_bytes({"empty": b"", "half": content[: len(content) // 2], "garbage": b"PK\3\4" * 99}[damage])
    for later in ("ensemble", "threshold", "probs"):
        if stage in ("images", "features"):  # otherwise nobody looks at them
            shutil.rmtree(project_root / "cache" / "tiny" / later, ignore_errors=True)
    assert submit(fresh(project_root), "both").read_bytes() == first
    assert len(list((project_root / "submissions" / "tiny").glob("0*.csv"))) == 1


KILLED_AT_ANY_MOMENT = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from pipeline.chain.main_job import submit
from pipeline.chain.task import CompetitionTask
from pipeline.recipes import Project
import pipeline.models, pipeline.models.open_clip

root, kills = Path(sys.argv[1]), int(sys.argv[2])
rng, counts = random.Random(0), {"killed": 0, "finished": 0}
for number in range(kills):
    prompts = root / "prompts" / "tiny" / "cats.yaml"
    weight = rng.randint(1, 900)
    prompts.write_text(f"prompts: [The whiskers {number}]\\nweights: {{The whiskers {number}: {weight}}}\\n")
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        submit(CompetitionTask(Project(root), "tiny", dtype_name="fp32"), "both")
        os._exit(0)
    time.sleep(rng.uniform(0.0, float(sys.argv[3])))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    counts["finished" if status == 0 else "killed"] += 1
print(counts["killed"], counts["finished"])
"""


@pytest.mark.faults
def test_killed_at_any_moment_only_valid_files_are_there(project_root):
    """Children of a process that has everything loaded, killed in the second in which they do all their work."""
    submit(fresh(project_root), "both")
    command = [sys.executable, "-c", KILLED_AT_ANY_MOMENT, str(project_root), "150", "0.6"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, env=environment)
    assert result.returncode == 0, result.stderr
    killed, finished = map(int, result.stdout.split())
    assert killed >= 20, "some must be hit"
    folder, ids = project_root / "submissions" / "tiny", [str(n) for n in range(IMAGES)]
    for name, content in tables(folder).items():
        assert flaw(content, ["id_idx", "label"], ids, {"0", "1", "2"}) is None, name
        assert json.loads((folder / name).with_suffix(".json").read_text())["recipe"]["name"] == "both", name
    numbers = [line["number"] for line in CsvFormat(fresh(project_root)).ledger.log()]
    assert len(set(numbers)) == len(numbers) >= 1
    assert pipeline(project_root, "submit", "--competition", "tiny", "--dtype", "fp32").returncode == 0


@pytest.mark.faults
def test_a_full_disk_leaves_a_valid_file_or_none(project_root):
    """A real one: a file system of a few kilobytes in the place of submissions/, in a mount namespace of its own."""
    unshare = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("this kernel gives no mount namespaces")
    submit(fresh(project_root), "both")
    folder = project_root / "submissions"
    shutil.rmtree(folder)
    ids, outcomes = [str(n) for n in range(IMAGES)], Counter()
    for size in range(4, 44, 4):  # kilobytes, a page each
        folder.mkdir(exist_ok=True)
        script = f"""mount -t tmpfs -o size={size}k,nr_inodes=64 none submissions || exit 99
            {sys.executable} -m pipeline submit --competition tiny --dtype fp32 >/dev/null; code=$?
            mkdir -p after/{size}; cp -r submissions/. after/{size}; exit $code"""
        result = subprocess.run(
            [*unshare, "sh", "-c", script],
            cwd=project_root,
            capture_output=True,
            text=True,
            timeout=1800,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        if result.returncode == 99:
            pytest.skip("no tmpfs can be mounted here")
        kept = tables(project_root / "after" / str(size) / "tiny")
        assert all(flaw(content, ["id_idx", "label"], ids, {"0", "1", "2"}) is None for content in kept.values())
        assert result.returncode == 0 or "No space left on device" in result.stderr, result.stderr
        assert "Traceback" not in result.stderr
        assert kept or result.returncode == 1
        outcomes["written" if kept else "nothing"] += 1
    assert set(outcomes) == {"written", "nothing"}, outcomes


# ---- what a spreadsheet program would run


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@x", '=HYPERLINK("http://x","y")'])
def test_formulas_are_kept_and_warned_of(project_root, capsys, name):
    write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {"class": name, "prompts": ["whiskers"]})
    competition = {
        "images": "data/tiny",
        "classes": [name, "Dogs", "Big Birds"],
        "columns": {"id": "file_name", "label": "class_name"},
    }
    write_yaml(project_root / "competitions" / "tiny.yaml", competition)
    path = submit(fresh(project_root), "both")
    assert f"1 values in the CSV begin as a formula does, first {name!r}" in capsys.readouterr().err
    labels = [row[1] for row in list(csv.reader(path.open(newline="")))[1:]]
    assert set(labels) <= set(competition["classes"]), "as they are, nothing is put in front"


def test_numbers_are_no_formulas():
    assert formulas(["-1", "+2.5", "-1e-3", "1", "a=b", "", "x@y"]) == []
    risky = ["-1a", "+", "-", "=1", "@a", "\tx", "\rx", "-nan"]
    assert formulas([*risky, "-1"]) == risky


# ---- what was found to be wrong


def test_zeros_and_ties_are_said(project_root, capsys):
    write_yaml(project_root / "ensembles" / "high.yaml", {"members": {"vit": 1}, "threshold": 0.9999})
    submit(fresh(project_root), "high")
    assert f"of {IMAGES} images have no probability above the threshold" in capsys.readouterr().err
    suspicions.warn_of_ties(*suspicions.ties(torch.tensor([[0.5, 0.5, 0.1], [0.2, 0.1, 0.0]])), 2)
    assert "1 of 2 images have two classes of equal probability" in capsys.readouterr().err
    suspicions.warn_of_ties(*suspicions.ties(torch.tensor([[0.5, 0.4], [0.2, 0.3]])), 2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("weight", [1e300, 1e-300])
def test_prompt_weights_that_overflow_write_nothing(project_root, weight):
    weights = dict.fromkeys(("Cats", "a photo of a Cats", "a blurry Cats."), weight)
    write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {"weights": weights})
    with refused(UserError, "prompts/tiny"):
        submit(fresh(project_root), "both")
    assert not (project_root / "submissions").exists()


def test_weights_and_a_pooling_without_them_are_told_before_any_work(project_root):
    write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {"weights": {"Cats": 2.0}})
    write_yaml(project_root / "ensembles" / "max.yaml", {"members": {"vit": 1}, "pooling": "max"})
    with refused(Mismatch, "prompts/tiny", "pooling 'mean'"):
        submit(fresh(project_root), "max")
    assert not list((project_root / "cache").rglob("*.pt"))


@pytest.mark.parametrize("kind", ["position", "stem"])
def test_a_solution_of_more_images_than_there_are(project_root, capsys, kind):
    """By position nobody knows which of its rows they are; by name the others are told."""
    columns = {"id_idx": kind, "label": "label"}
    content = {"images": "data/tiny", "classes": ["Cats", "Dogs", "Big Birds"], "columns": columns}
    ids = [i if kind == "position" else Path(name).stem for i, name in enumerate(fresh(project_root).images.ids)]
    with open(project_root / "solution.csv", "w", newline="") as file:
        csv.writer(file).writerows([("id_idx", "label"), *((i, 0) for i in ids), ("another", 0)])
    write_yaml(project_root / "competitions" / "tiny.yaml", {**content, "solution": "solution.csv"})
    submit(fresh(project_root), "one")
    said = capsys.readouterr()
    if kind == "position":
        assert f"has {IMAGES + 1} rows" in said.err and "accuracy" not in said.out
    else:
        assert f"against solution.csv, {IMAGES} of its {IMAGES + 1} rows" in said.out


def test_a_solution_that_does_not_fit_names_the_first_ids(project_root):
    def told(rows) -> str:
        with open(project_root / "solution.csv", "w", newline="") as file:
            csv.writer(file).writerows([("id_idx", "label"), *rows])
        content = {
            "images": "data/tiny",
            "classes": ["Cats", "Dogs", "Big Birds"],
            "columns": {"id_idx": "position", "label": "label"},
            "solution": "solution.csv",
        }
        write_yaml(project_root / "competitions" / "tiny.yaml", content)
        with refused(Mismatch, "solution.csv") as error:
            _ = CsvFormat(fresh(project_root)).solution
        return str(error.value)

    assert f"4 of {IMAGES} are not in it, first '19', '20', '21'" in told((n, 0) for n in range(IMAGES - 4))
    assert "2 labels are no class, first {'3': '7', '5': ''}" in told(
        (n, {3: 7, 5: ""}.get(n, 0)) for n in range(IMAGES)
    )


def test_a_log_that_cannot_be_read_is_told_before_any_work(project_root):
    folder = project_root / "submissions" / "tiny"
    folder.mkdir(parents=True)
    (folder / "log.csv").write_text(",".join(LOG_COLUMNS) + "\none,,both" + "," * (len(LOG_COLUMNS) - 3) + "\n")
    with refused(Damaged, "log.csv: number 'one'"):
        submit(fresh(project_root), "both")
    assert not (project_root / "cache").exists()


def test_other_columns_than_before_do_not_stop_the_log(project_root):
    submit(fresh(project_root), "both")
    competition = {
        "images": "data/tiny",
        "classes": ["Cats", "Dogs", "Big Birds"],
        "columns": {"image": "stem", "label": "label"},
    }
    write_yaml(project_root / "competitions" / "tiny.yaml", competition)
    assert submit(fresh(project_root), "both").name == "002-both.csv"
    assert [line["flipped_previous"] for line in CsvFormat(fresh(project_root)).ledger.log()] == ["", ""]


def test_file_names_that_are_no_utf8(project_root):
    """The id is refused where it would stand in the CSV; a position is fine."""
    folder = project_root / "data" / "tiny"
    os.rename(folder / "0.jpg", os.fsencode(folder) + b"/\xff.jpg")
    assert submit(fresh(project_root), "one").exists()
    competition = {
        "images": "data/tiny",
        "classes": ["Cats", "Dogs", "Big Birds"],
        "columns": {"id": "stem", "label": "label"},
    }
    write_yaml(project_root / "competitions" / "tiny.yaml", competition)
    with refused(UserError, "columns", "\\udcff"):
        submit(fresh(project_root), "both")


@pytest.mark.faults
def test_a_terminal_without_unicode_stops_nothing(project_root):
    write_yaml(project_root / "prompts" / "tiny" / "cats.yaml", {"class": "🐈", "prompts": ["whiskers"]})
    competition = {
        "images": "data/tiny",
        "classes": ["🐈", "Dogs", "Big Birds"],
        "columns": {"id": "stem", "label": "label"},
    }
    write_yaml(project_root / "competitions" / "tiny.yaml", competition)
    os.environ["PYTHONIOENCODING"] = "ascii"
    try:
        result = pipeline(project_root, "submit", "--competition", "tiny", "--ensemble", "one")
    finally:
        del os.environ["PYTHONIOENCODING"]
    assert result.returncode == 0, result.stderr
    assert "\\U0001f408" in result.stdout
