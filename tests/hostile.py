"""Bytes in the place of every file that a user writes or edits: what reads it may refuse it, and nothing else.

`attempt` puts them there and reads them as a run would. tests/corpus/<kind>/ has what once ended in a traceback.
"""

from pathlib import Path
from random import Random

from pipeline.chain import scores
from pipeline.chain.csv_format import CsvFormat
from pipeline.chain.task import CompetitionTask, Task
from pipeline.core.errors import UserError
from pipeline.core.tables import csv_text
from pipeline.images.ops import compile_recipe
from pipeline.recipes import Project

from .conftest import write_yaml

IDS = [str(number) for number in range(4)]
LOG = """number,time,recipe,digest,flipped_previous,flipped_best,public,private
1,2026-01-01T00:00:00+00:00,both,0123456789ab,,,0.5,
2,2026-01-02T00:00:00+00:00,both,0123456789ac,1,1,0.75,0.5
"""


def small_project(root: Path) -> Path:
    """A project that can be read but not run: recipes of every kind, four empty images, two submissions."""
    write_yaml(
        root / "competitions" / "tiny.yaml",
        {
            "images": "images",
            "classes": "classes.json",
            "ensemble": "both",
            "columns": {"id": "stem", "label": "label"},
            "sample_submission": "sample.csv",
            "solution": "solution.csv",
            "rules": {"test_set": False},
        },
    )
    write_yaml(root / "models.yaml", {"vit": {"family": "open_clip", "weights": "x", "preprocess": "tiny"}})
    write_yaml(root / "prompts" / "tiny" / "_shared.yaml", {"templates": ["{}", "a photo of a {}"]})
    write_yaml(root / "prompts" / "tiny" / "cats.yaml", {"prompts": ["whiskers"], "weights": {"whiskers": 2}})
    write_yaml(root / "prompts" / "tiny" / "dogs.yaml", {"name": "dog", "aliases": ["hound"], "without": ["{}"]})
    ops = [{"resize": {"mode": "shortest", "crop_pct": 0.9}}, "center_crop", {"sharpen": 2.3}]
    write_yaml(root / "preprocess" / "tiny.yaml", {"size": 8, "ops": ops, "views": ["identity", {"rotate": 25}]})
    write_yaml(root / "ensembles" / "both.yaml", {"members": {"vit@tiny": 0.5}, "threshold": 0.002, "pooling": "mean"})
    write_yaml(
        root / "datasets" / "d.yaml", {"reader": "folders", "path": "x", "prompts": "tiny", "classes": {"a": "b"}}
    )
    write_yaml(root / "benchmarks" / "b.yaml", {"datasets": ["d"], "models": ["vit"], "poolings": ["mean"]})
    (root / "classes.json").write_text('["Cats", "Dogs"]')
    (root / "images").mkdir()
    for number in IDS:
        (root / "images" / f"{number}.jpg").touch()
    folder = root / "submissions" / "tiny"
    folder.mkdir(parents=True)
    for file in (root / "sample.csv", root / "solution.csv", folder / "001-both.csv", folder / "002-both.csv"):
        file.write_text(csv_text(["id", "label"], [[number, "0"] for number in IDS]))
    (folder / "001-both.json").write_text('{"recipe": {"name": "both"}, "histogram": {"Cats": 4}}')
    (folder / "log.csv").write_text(LOG)
    return root


def _log(task: Task) -> None:
    scores.show_log(task)
    scores.show_difference(task, 1, 2)
    scores.record(task, 2, 0.25, None)


def _add(task: Task) -> None:
    submissions = CsvFormat(task).ledger
    submissions.add("both", csv_text(["id", "label"], [[number, "1"] for number in IDS]), submissions.made(1))


# what a file is read by: {kind: (file, action)}
KINDS = {
    "competition": (
        "competitions/tiny.yaml",
        lambda task: (task.class_names, CsvFormat(task).order, CsvFormat(task).solution, task.prompts),
    ),
    "classes": ("classes.json", lambda task: task.class_names),
    "models": ("models.yaml", lambda task: task.project.model("vit")),
    "preprocess": ("preprocess/tiny.yaml", lambda task: compile_recipe(task.project.preprocess("tiny"), "tiny")),
    "ensemble": ("ensembles/both.yaml", lambda task: task.project.ensemble("both")),
    "shared": ("prompts/tiny/_shared.yaml", lambda task: task.prompts.digest),
    "prompts": ("prompts/tiny/cats.yaml", lambda task: task.prompts.digest),
    "dataset": ("datasets/d.yaml", lambda task: task.project.dataset("d")),
    "benchmark": ("benchmarks/b.yaml", lambda task: task.project.benchmark("b")),
    "sample": ("sample.csv", lambda task: CsvFormat(task).order),
    "solution": ("solution.csv", lambda task: CsvFormat(task).solution),
    "log": ("submissions/tiny/log.csv", _log),
    "submission": ("submissions/tiny/001-both.csv", lambda task: (_add(task), _log(task))),
    "made": ("submissions/tiny/001-both.json", _add),
}
YAML = ("competition", "models", "preprocess", "ensemble", "shared", "prompts", "dataset", "benchmark")


def attempt(root: Path, kind: str, content: bytes) -> bool:
    """Whether `content` was accepted; anything but acceptance and UserError is raised. The project is put back."""
    file, action = KINDS[kind]
    # reading changes nothing; what adds to the log does
    folder = (root / file).parent if kind in ("log", "submission", "made") else root / "none"
    before = {path: path.read_bytes() for path in {root / file, *folder.glob("*")}}
    (root / file).write_bytes(content)
    try:
        action(CompetitionTask(Project(root), "tiny"))
    except UserError:
        return False
    finally:
        for path in {root / file, *folder.glob("*")}:
            if path not in before:
                path.unlink()
            elif path.read_bytes() != before[path]:
                path.write_bytes(before[path])
    return True


PIECES = [
    "!!int ",
    "!!float '' ",
    "!!bool x",
    "!!timestamp x",
    "!!binary x",
    "!!python/object/apply:os.system [id]",
    "!x ",
    "&a ",
    "*a",
    "<<: ",
    "<<: *a",
    "= ",
    "\0",
    '"\\0"',
    '"\\ud800"',
    "\ufeff",
    "\r",
    "\t",
    "\n\t",
    "{",
    "[",
    "[" * 30,
    "{a: " * 30,
    "- " * 30,
    "? ",
    "]",
    "}",
    ": ",
    "\n- ",
    "'",
    '"',
    "|\n",
    ">-\n ",
    "%YAML 9.9\n",
    "---\n",
    "...\n",
    "no",
    "on: ",
    "~",
    ".nan",
    "-.inf",
    "1e999",
    "0x" + "f" * 5000,
    "9" * 5000,
    "1" + ":59" * 400 + ".5",
    "0b_",
    "0x_",
    "1_",
    "2001-13-45",
    "2001-01-01t25:61:61",
    "2001-12-14 21:59:43.10 +99:99",
    "\u2028",
    "\x85",
    "{}",
    "{0.__class__}",
    "{class_name!r}",
    "%s",
    "../../etc/passwd",
    "/etc/passwd",
    "id",
    "label",
    ",",
    ";",
    '""',
    '"a\nb"',
    "nan",
    "-1",
    "1_0",
    "[" * 3000,
    "\U0001f409",
    "e\u0301",
    "\u202e",
]


def mutated(seed: bytes, rng: Random) -> bytes:
    """A content near `seed`; now and then in another encoding, or one that has nothing to do with it."""
    content = seed
    for _ in range(rng.choice([1, 1, 2, 3, 5])):
        where, gone = rng.randrange(len(content) + 1), rng.choice([0, 0, 0, 1, 1, 2, 5, 20, 10**4])
        piece = rng.choice([rng.choice(PIECES).encode(), rng.choice(PIECES).encode(), rng.randbytes(1), b""])
        content = content[:where] + piece + content[where + gone :]
    how = rng.random()
    if how < 0.02:
        return rng.randbytes(rng.randrange(200))
    return content.decode("latin-1").encode("utf-16") if how < 0.04 else content
