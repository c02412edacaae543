"""Ten million images from features in a store to labels: what plan, submit and export need of memory and time.

The images are rows of Parquet with ids, all of one picture that nobody decodes; the features are drawn. The store is
moto's S3 server (MOTO_PYTHON), without one a folder. `python bench/millions.py [images]`.
"""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
HEADING = """### Ten million images (bench/millions.py)

Each command in a process of its own, one thread of torch, on {images:,} images in {files} Parquet files with ids; their
features ({width} numbers, 6 classes, one prompt each) lie in {store}, in shards of {shard:,}.

| command | GB at most | seconds |
|---|---|---|
"""
IMAGES, FILES, WIDTH, SHARD = 10_000_000, 100, 64, 65_536
CLASSES = ("Buildings", "Forests", "Glacier", "Mountains", "Sea", "Street")


def project(root: Path, images: int) -> None:
    """A competition whose images are rows of Parquet, one member, an ensemble with and one without refinement."""
    import pyarrow
    from PIL import Image
    from pyarrow import parquet

    for kind in ("competitions", "preprocess", "ensembles", "prompts/x", "data"):
        (root / kind).mkdir(parents=True)
    (root / "competitions" / "x.yaml").write_text(
        f"images: data\nclasses: [{', '.join(CLASSES)}]\nensemble: e\nrules: {{test_set: true}}\n"
        "columns: {id: path, label: label}\n"
    )
    (root / "prompts" / "x" / "_shared.yaml").write_text('templates: ["a photo of {}"]\n')
    for name in CLASSES:
        (root / "prompts" / "x" / f"{name.lower()}.yaml").write_text(f"name: {name.lower()}\n")
    (root / "preprocess" / "p.yaml").write_text("size: 8\nops: [{resize: squash}]\n")
    (root / "models.yaml").write_text("m:\n  family: open_clip\n  architecture: ViT-B-32\n  tag: t\n  preprocess: p\n")
    (root / "ensembles" / "e.yaml").write_text("members: {m: 1}\nthreshold: 0\n")
    buffer, each = io.BytesIO(), images // FILES
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    pictures = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * each, pyarrow.int32()), [buffer.getvalue()])
    for number in range(FILES):
        ids = pyarrow.array([f"image-{row:012d}" for row in range(number * each, (number + 1) * each)])
        columns = {"id": ids, "image": pictures}
        parquet.write_table(pyarrow.table(columns), root / "data" / f"{number:05d}.parquet", row_group_size=10_000)


def fill(root: Path, cache: str) -> None:
    """Put drawn features, and those of the prompts, where the chain looks for them."""
    import torch

    from pipeline.chain import features as chain_features
    from pipeline.chain import text as chain_text
    from pipeline.chain.task import CompetitionTask
    from pipeline.core import artefacts
    from pipeline.core.digests import digest_of
    from pipeline.maths import zeroshot
    from pipeline.recipes import Project

    task = CompetitionTask(Project(root), "x", dtype_name="fp32", shard_rows=SHARD, cache_at=cache)
    torch.manual_seed(0)
    features = chain_features.stage(task, task.project.member("m@p"))
    for start, stop in features.missing(SHARD):
        features.save(start, stop, features=zeroshot.normalise(torch.randn(stop - start, WIDTH)).half())
    features.seal()
    made_from = chain_text.made_from(task, "m")
    prompts = list(task.prompts.prompts)
    content = {"prompts": prompts, "features": zeroshot.normalise(torch.randn(len(prompts), WIDTH))}
    artefacts.save(task.kept / "text" / "m" / f"{digest_of(made_from)}.pt", made_from, logit_scale=100.0, **content)


def measured(command: list[str], folder: Path) -> tuple[float, float]:
    """GB of memory at most, and seconds, of a process."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert status == 0, f"{' '.join(command)}: status {status}"
    return usage.ru_maxrss / 1e6, time.perf_counter() - began


@contextlib.contextmanager
def store(folder: Path):
    """(where CACHE is, in words)."""
    from tests.core import s3_server

    if not s3_server.there():
        yield str(folder / "store"), "a folder"
        return
    with s3_server.running(folder / "s3") as server:
        os.environ.update(server.environment)
        yield "s3://bucket/cache", "moto's S3 server on this machine"


def main(images: int = IMAGES) -> str:
    lines, place = [], tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER"))
    with place as folder, store(Path(folder)) as (cache, what):
        root = Path(folder) / "project"
        project(root, images)
        given = ["COMPETITION=x", "DTYPE=fp32", f"SHARD={SHARD}", f"CACHE={cache}"]
        words = [word for one in given for word in (f"--{one.partition('=')[0].lower()}", one.partition("=")[2])]
        python = [sys.executable, "-m", "pipeline"]
        first = [sys.executable, __file__, "fill", str(root), cache]
        for name, command in {
            "listing the files, digests and indexes; writing the features": first,
            "`plan`, nothing of the probabilities there": [*python, "plan", *words],
            "`submit`: probabilities, labels, the CSV and its check": [*python, "submit", *words],
            "`submit` again, all of it cached": [*python, "submit", *words],
            "`export ENSEMBLE=e`, labels and scores as Parquet": [*python, "export", *words, "--ensemble", "e"],
        }.items():
            gigabytes, seconds = measured(command, root)
            lines.append(f"| {name} | {gigabytes:.2f} | {seconds:.0f} |")
            print(lines[-1], file=sys.stderr, flush=True)
        check(root, images)
    return HEADING.format(images=images, files=FILES, width=WIDTH, shard=SHARD, store=what) + "\n".join(lines)


def check(root: Path, images: int) -> None:
    """The table has a row for each image, with the label of the CSV."""
    import pyarrow
    from pyarrow import compute, csv, parquet

    table = parquet.read_table(root / "e.parquet")
    (written,) = (root / "submissions" / "x").glob("*-e.csv")
    submitted = csv.read_csv(written)
    names = compute.list_element(table["labels"], 0)
    assert table.num_rows == submitted.num_rows == images and table["id"].equals(submitted["id"].cast("string"))
    labels = compute.index_in(names, value_set=pyarrow.array(CLASSES))
    assert labels.cast("int64").equals(submitted["label"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["fill"]:
        fill(Path(sys.argv[2]), sys.argv[3])
    else:
        print(main(*map(int, sys.argv[1:2])))
