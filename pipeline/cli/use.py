"""Verb use: the competition that is meant where none is given."""

from argparse import ArgumentParser

from ..chain.task import Runtime
from ..core.console import next_step, say
from ..core.files import atomic_file
from ._options import USED, Arguments, used

HELP = "the competition that is meant where none is given; without a name, which that is"


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--competition", metavar="NAME", help="competitions/NAME.yaml")


def run(runtime: Runtime, args: Arguments) -> None:
    if args.competition:
        runtime.project.competition(args.competition)  # one that is not there is told now
        with atomic_file(runtime.project.root / USED) as temporary:
            temporary.write_text(f"{args.competition}\n", encoding="utf-8")
    say("use", used(), "is meant where COMPETITION is not given")
    next_step("make plan")
