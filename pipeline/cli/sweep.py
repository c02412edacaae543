"""Verb sweep: many variants of a recipe."""

from argparse import ArgumentParser
from pathlib import Path

from ..chain.task import Runtime
from ._options import Arguments

HELP = "many variants of an ensemble recipe, ranked on a development split or by stability"
USES = ("data", "compute")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--recipe", required=True, metavar="NAME", help="sweeps/NAME.yaml")
    parser.add_argument("--overwrite", action="store_true", help="replace the recipe that 'out' names")
    parser.add_argument("--test-labels", action="store_true", help="look at the labels of the split reported")


def run(runtime: Runtime, args: Arguments) -> None:
    from ..labelled import sweep

    name = Path(args.recipe)
    sweep.sweep(runtime, name.stem if name.suffix == ".yaml" else args.recipe, args.test_labels, args.overwrite)
