"""Verb unpack: features that were encoded on another machine, into the cache."""

from argparse import ArgumentParser
from pathlib import Path

from ..chain.task import Runtime
from ._options import Arguments

HELP = "check the features that a pack's run left, and merge them into the cache"
USES = ("data",)


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--file", type=Path, required=True, help="the .features file")
    parser.add_argument("--competition", metavar="NAME", help="the competition it must be for (default: what it says)")


def run(runtime: Runtime, args: Arguments) -> None:
    from ..remote.unpack import unpack

    unpack(runtime, args.file, args.competition)
