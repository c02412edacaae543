"""Verb train: a recipe of training/ becomes trained/<name>/, a member like any other."""

from argparse import ArgumentParser
from pathlib import Path

from ..chain.task import Runtime
from ..core.console import next_step, rank, say
from ..core.errors import UserError
from ..core.extras import need
from ..recipes.training import FINETUNE
from ._options import Arguments

HELP = "a recipe of training/: a head or a tuned tower -> trained/<name>/, a member like any other"
USES = ("data", "compute")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--recipe", required=True, metavar="NAME", help="training/NAME.yaml")


def run(runtime: Runtime, args: Arguments) -> None:
    path = Path(args.recipe)
    if path.suffix == ".yaml" and path.parent.as_posix() not in ("training", "."):
        raise UserError(f"RECIPE={args.recipe}: recipes lie in training/, e.g. RECIPE=training/{path.name}")
    name = path.stem if path.suffix == ".yaml" else args.recipe
    need("report", "make train")
    train(runtime, runtime.project.training(name), name, runtime.project.where("training", name))


def train(runtime: Runtime, recipe, name: str, where: str, beside: bool = False) -> None:
    """Train by a recipe that is written `where`, measure what came out, write its page.

    `beside`: zero-shot with the data set's prompts is measured as well.
    """
    from ..learn import reported, training_set
    from ..learn.head import train_head
    from ..learn.tower import measure_tower, train_tower
    from ..report import training

    if recipe.method[0] == FINETUNE:
        trained = train_tower(runtime, recipe, name, where)
        measured = [] if rank() else measure_tower(runtime, recipe, trained[0], where)
    elif rank():
        training_set.encode(runtime, recipe)
    else:
        trained = train_head(runtime, recipe, name, where)
        measured = reported.measure_heads(runtime, recipe, trained, beside)
    if rank():
        return
    target = runtime.project.root / "reports" / "training" / f"{name}.html"
    training.write_training(target, recipe, trained, measured)
    say("train", name, f"member {trained[0].member}; {target}")
    next_step(f"make submit MODEL={trained[0].name}, or put {trained[0].member} into an ensemble")
