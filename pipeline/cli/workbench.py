"""Verb workbench: edit prompts and weights in the browser, and see at once which images change."""

import signal
from argparse import ArgumentParser

import numpy as np

from ..chain.task import Runtime
from ..core.errors import UserError
from ..core.extras import need
from ..recipes.member import Member
from ._options import Arguments, checked_ensemble, competition, positive

HELP = "edit prompts and weights in the browser, and see at once which images change"
USES = ("competition", "data", "ensemble", "model", "compute")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dataset", metavar="NAME", help="datasets/NAME.yaml, with ENSEMBLE= or MODEL=")
    parser.add_argument("--split", help="split of the data set (default: its dev)")
    parser.add_argument("--test-labels", action="store_true", help="look at the labels of the split that is reported")
    parser.add_argument("--port", type=positive, metavar="N", help="port on 127.0.0.1 (default: a free one)")


def run(runtime: Runtime, args: Arguments) -> None:
    need("workbench", "make workbench")
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)  # ends as Ctrl-C does: what is unsaved is kept, nothing left
    from dataclasses import replace

    runtime = replace(runtime, keep_towers=True)
    task, name, truth = _dataset(runtime, args) if args.dataset else _competition(runtime, args)
    from ..workbench import server
    from ..workbench.session import Session

    new = {}
    if "@" in name:  # a member alone is written nowhere: as an ensemble it can be saved
        member, name = name, _free_name(task.project, name)
        new = {f"ensembles/{name}.yaml": f"members:\n  {member}: 1\n"}
    listening = server.bound(args.port)  # before anything is computed
    session = Session(task, name, truth, new)
    try:
        server.serve(session, listening)
    finally:
        session.held.close()


def _competition(runtime: Runtime, args: Arguments):
    if args.split or args.test_labels:
        raise UserError("SPLIT= and TEST_LABELS= go with DATASET=name")
    task = competition(runtime, args)
    name = checked_ensemble(task, args)
    from ..chain.csv_format import CsvFormat

    solution = CsvFormat(task).solution
    return task, name, None if solution is None else np.array(solution)


def _dataset(runtime: Runtime, args: Arguments):
    from ..labelled.choosing import is_reported
    from ..labelled.task import DatasetTask

    if bool(args.ensemble) == bool(args.model):
        raise UserError("DATASET=: give ENSEMBLE=name or MODEL=name as well")
    dev = runtime.project.dataset(args.dataset).dev
    split = args.split or (None if args.test_labels else dev)
    task = DatasetTask.of(runtime, args.dataset, asked_split=split)
    name: str | Member = args.ensemble or runtime.project.member(args.model, args.preprocess)
    known = not is_reported(task) or args.test_labels
    return task, str(name), np.array(task.truth) if known else None


def _free_name(project, member: str) -> str:
    """'model-preprocess', with a number behind it where an ensemble is already called so."""
    name, taken = member.replace("@", "-"), set(project.names("ensembles"))
    return next(free for free in [name, *(f"{name}-{n}" for n in range(2, 1000))] if free not in taken)
