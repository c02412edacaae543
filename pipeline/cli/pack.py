"""Verb pack: what the missing features need, in one file for another machine."""

from argparse import ArgumentParser
from pathlib import Path

from ..chain.task import Runtime
from ._options import Arguments, checked_ensemble, competition

HELP = "one zip with all that the missing features need, to encode them on another machine"
USES = ("competition", "data", "ensemble", "model", "compute")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--images", action="store_true", help="pack the images as well (else they are looked for there)"
    )
    parser.add_argument("--prompts", choices=("all",), help="all: every prompt of caches, submissions and prompt sets")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the zip (default: packs/COMPETITION.zip)")


def run(runtime: Runtime, args: Arguments) -> None:
    task = competition(runtime, args)
    name = checked_ensemble(task, args)
    from ..remote.pack import pack

    pack(task, name, args.out, args.images, args.prompts == "all")
