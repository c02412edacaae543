"""Verb benchmark: models measured on labelled data sets."""

from argparse import ArgumentParser

from ..chain.task import Runtime
from ..core.errors import UserError
from ..recipes import Benchmark
from ._options import Arguments, words

HELP = "measure models, prompts and poolings on labelled data sets"
USES = ("data", "compute")


def arguments(parser: ArgumentParser) -> None:
    for name in ("datasets", "models", "prompts", "poolings"):
        parser.add_argument(f"--{name}", nargs="+", metavar="NAME", help=f"the recipe's {name}, or others")
    parser.add_argument("--benchmark", metavar="NAME", help="benchmarks/NAME.yaml")
    parser.add_argument("--split", help="split that is measured (default: each data set's)")


def run(runtime: Runtime, args: Arguments) -> None:
    recipe, name = asked_recipe(runtime, args)
    from ..labelled import benchmark

    benchmark.measure(runtime, recipe, name)


def asked_recipe(runtime: Runtime, args: Arguments) -> tuple[Benchmark, str]:
    """The recipe BENCHMARK with what else is given in its place, or what is given alone; and its name."""
    given = {key: words(getattr(args, key)) for key in ("datasets", "models", "prompts", "poolings")}
    given = {key: value for key, value in {**given, "split": args.split}.items() if value}
    known = runtime.project.benchmark(args.benchmark).model_dump(mode="json") if args.benchmark else {}
    if args.data and len(given.get("datasets", known.get("datasets", []))) > 1:
        raise UserError("DATA= is the folder of one data set; give one: DATASETS=name")
    recipe = Benchmark.parse(known | given, f"benchmarks/{args.benchmark}.yaml" if args.benchmark else "benchmark")
    return recipe, args.benchmark or "latest"
