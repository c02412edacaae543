"""Verb note: something to remember about a submission."""

from argparse import ArgumentParser

from ..chain import scores
from ..chain.task import Runtime
from ..core.errors import UserError
from ._options import Arguments, competition, positive

HELP = "something to remember about a submission, shown in the log"
USES = ("competition",)


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--n", type=positive, required=True, help="number of the submission")
    parser.add_argument("--text", nargs="?", help="the note; an empty one, TEXT=, removes the one there is")


def run(runtime: Runtime, args: Arguments) -> None:
    if args.text is None:
        raise UserError("give TEXT=..., or TEXT= to remove the note")
    scores.remark(competition(runtime, args), args.n, args.text)
