"""Verb export: image features of a model, or labels of an ensemble, as Parquet."""

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..chain.task import CompetitionTask, Runtime
from ..core.console import progress, say
from ..core.errors import Exists, UserError
from ..core.extras import need
from ..core.parquet import SUFFIX, Parts
from ..core.store import place
from ._options import Arguments, asked_members, checked_ensemble, competition, report_damage

HELP = "image features of a model as Parquet, for a vector database; or labels of an ensemble"
USES = ("competition", "data", "ensemble", "model", "compute")
TOP = 5  # labels of an image

Columns = Callable[[int, int], dict[str, Any]]  # of the rows start..stop, Arrow arrays by name


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", metavar="FOLDER.parquet", help="where to (default: MODEL.parquet or ENSEMBLE.parquet)")


def run(runtime: Runtime, args: Arguments) -> int:
    task = competition(runtime, args)
    if bool(args.model) == bool(args.ensemble):
        raise UserError("give MODEL=name, whose features are exported, or ENSEMBLE=name, whose labels are")
    out = args.out or f"{args.model or args.ensemble}{SUFFIX}"
    target = place(out, runtime.project.root)
    need("parquet", "export")
    if target.suffix != SUFFIX:
        raise UserError(f"OUT={out}: must end in {SUFFIX}")
    return (_features if args.model else _labels)(task, args, target)


def _features(task: CompetitionTask, args: Arguments, target: Path) -> int:
    import pyarrow

    from ..chain import features

    (member,) = asked_members(task, args)
    parts = Parts(target, {"features": features.stage(task, member).digest})
    todo = _todo(parts, task)
    seen, _ = features.of_member(task, member)

    def columns(start: int, stop: int) -> dict:
        rows_ND = features.one_vector(seen.rows("features", start, stop)).float()
        return {"features": pyarrow.FixedSizeListArray.from_arrays(rows_ND.flatten().numpy(), rows_ND.shape[1])}

    _write(task, parts, todo, columns)
    say("export", member, f"{len(task.images.ids)} images of {task.name}: {target}")
    return report_damage(task, [member.preprocess])


def _labels(task: CompetitionTask, args: Arguments, target: Path) -> int:
    import pyarrow

    from ..chain import classes, ensemble, threshold

    name = checked_ensemble(task, args)
    recipe = task.project.ensemble(name)
    steps = recipe.model_dump(mode="json", include={"refine", "guards", "pooling"})
    parts = Parts(target, {"probs": threshold.stage(task, name).digest, **steps, "labels": list(task.class_names)})
    todo = _todo(parts, task)
    decided_NC = classes.decide(task, name).refined
    names = pyarrow.array(task.class_names, pyarrow.string())

    def columns(start: int, stop: int) -> dict:
        best = decided_NC[start:stop].sort(dim=1, descending=True, stable=True)
        count = min(TOP, len(names))
        ends = pyarrow.array(range(0, (stop - start) * count + 1, count), pyarrow.int32())
        labels, scores = (rows[:, :count].flatten().numpy() for rows in (best.indices, best.values))
        return {
            "labels": pyarrow.ListArray.from_arrays(ends, names.take(pyarrow.array(labels))),
            "scores": pyarrow.ListArray.from_arrays(ends, pyarrow.array(scores)),
        }

    _write(task, parts, todo, columns)
    say("export", name, f"{len(task.images.ids)} images of {task.name}: {target}")
    return report_damage(task, ensemble.preprocess_recipes(recipe))


def _todo(parts: Parts, task: CompetitionTask) -> list[tuple[int, int]]:
    """The rows that are not written yet; UserError where all are."""
    todo = parts.missing(len(task.images.ids), task.shard_rows)
    if not todo:
        raise Exists(f"{parts.folder} is already there, whole, and is not overwritten; remove it or give another OUT=")
    return todo


def _write(task: CompetitionTask, parts: Parts, todo: list[tuple[int, int]], columns: Columns) -> None:
    import pyarrow

    with progress("export", "image", len(task.images.ids)) as bar:
        for start, stop in todo:
            ids = pyarrow.array(list(task.images.ids[start:stop]), pyarrow.string())
            parts.write(start, stop, {"id": ids, **columns(start, stop)})
            bar.update(stop - start)
