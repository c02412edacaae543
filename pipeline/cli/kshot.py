"""Verb kshot: curves over k images per class."""

from argparse import ArgumentParser

from ..chain.task import Runtime
from ..core.extras import need
from ._options import Arguments, asked_model, positive, words

HELP = "accuracy over k training images per class, for several methods and seeds"
USES = ("data", "model", "compute")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, metavar="NAME", help="datasets/NAME.yaml")
    parser.add_argument("--prompts", metavar="NAME", help="prompts/NAME/ (default: the data set's)")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="default: all that suit the model")
    parser.add_argument("--shots", nargs="+", metavar="K", help="default: 1 2 4 8 16 32 64 128")
    parser.add_argument("--seeds", type=positive, default=5, metavar="N", help="samples of each k (default: 5)")


def run(runtime: Runtime, args: Arguments) -> None:
    need("report", "make kshot")
    from ..learn import kshot
    from ..report import training

    methods, shots = words(args.methods), words(args.shots)
    curves = kshot.measure_curves(
        runtime, asked_model(runtime, args), args.dataset, methods, shots, args.seeds, args.prompts
    )
    if curves:
        training.write_kshot(runtime, curves)
