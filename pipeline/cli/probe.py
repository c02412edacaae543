"""Verb probe: a linear probe of a model on a data set, without writing a recipe."""

from argparse import ArgumentParser

from ..chain.task import Runtime
from ..core.extras import need
from ..recipes import Training
from ._options import Arguments, asked_model
from .train import train

HELP = "a linear probe of a model on a labelled data set"
USES = ("data", "model", "compute")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, metavar="NAME", help="datasets/NAME.yaml")
    parser.add_argument("--prompts", metavar="NAME", help="prompts/NAME/ (default: the data set's)")


def run(runtime: Runtime, args: Arguments) -> None:
    need("report", "make probe")
    asked = asked_model(runtime, args)
    member = runtime.project.member(asked)
    content = {"model": str(member), "dataset": args.dataset, "method": "linear_probe", "prompts": args.prompts}
    name = f"probe-{asked.replace('@', '.')}-{args.dataset}"
    train(runtime, Training.parse(content, "probe"), name, "probe", beside=True)
