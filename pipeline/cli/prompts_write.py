"""Verb prompts-write: descriptions of the classes by a language model, as a prompt set."""

from argparse import ArgumentParser

from ..chain.task import Runtime
from ..describe import write
from ._options import Arguments, positive

HELP = "ask a language model for descriptions of the classes: a new prompt set"
USES = ("competition",)


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--n", type=positive, default=20, help="sentences of each class (default: 20)")


def run(runtime: Runtime, args: Arguments) -> None:
    write.write(runtime.project, args.competition, args.n)
