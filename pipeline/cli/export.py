"""Verb export: image features of a model as Parquet, which vector databases read."""

from argparse import ArgumentParser

from ..chain.task import Runtime
from ..core.console import progress, say
from ..core.errors import Exists, UserError
from ..core.extras import need
from ..core.parquet import SUFFIX, Parts
from ._options import Arguments, asked_members, competition, report_damage

HELP = "image features of a model as Parquet, for a vector database"
USES = ("competition", "data", "model", "compute")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", metavar="FOLDER.parquet", help="where to (default: MODEL.parquet)")


def run(runtime: Runtime, args: Arguments) -> int:
    task = competition(runtime, args)
    if not args.model:
        raise UserError("give MODEL=name, whose features are exported")
    args.ensemble = None
    (member,) = asked_members(task, args)
    target = runtime.project.root / (args.out or f"{args.model}{SUFFIX}")
    need("parquet", "export")
    if target.suffix != SUFFIX:
        raise UserError(f"OUT={args.out}: must end in {SUFFIX}")
    import pyarrow

    from ..chain import features
    from ..chain.classes import one_vector

    parts = Parts(target, {"features": features.stage(task, member).digest})
    total = len(task.images.ids)
    todo = parts.missing(total, task.shard_rows)
    if not todo:
        raise Exists(f"{target} is already there, whole, and is not overwritten; remove it or give another OUT=")
    seen, _ = features.of_member(task, member)
    with progress("export", "image", total) as bar:
        for start, stop in todo:
            rows_ND = one_vector(seen.rows("features", start, stop)).float()
            vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows_ND.flatten().numpy()), rows_ND.shape[1])
            ids = pyarrow.array(task.images.ids[start:stop], pyarrow.string())
            parts.write(start, stop, {"id": ids, "features": vectors})
            bar.update(stop - start)
    say("export", member, f"{total} images, {rows_ND.shape[1]} numbers each, of {task.name}: {target}")
    return report_damage(task, [member.preprocess])
