"""Verb benchmark: models measured on labelled data sets."""

from argparse import ArgumentParser
from pathlib import Path

from ..chain.task import Runtime
from ..core.console import next_step
from ..core.errors import UserError
from ..core.files import atomic_file
from ..recipes import Benchmark, read_json
from ._options import Arguments, words

HELP = "measure models, prompts and poolings on labelled data sets"
USES = ("data", "compute")

LATEST = "latest"  # what a benchmark without a recipe is called


def arguments(parser: ArgumentParser) -> None:
    for name in ("datasets", "models", "prompts", "poolings"):
        parser.add_argument(f"--{name}", nargs="+", metavar="NAME", help=f"the recipe's {name}, or others")
    parser.add_argument("--benchmark", metavar="NAME", help="benchmarks/NAME.yaml")
    parser.add_argument("--split", help="split that is measured (default: each data set's)")


def run(runtime: Runtime, args: Arguments) -> None:
    recipe, name = asked_recipe(runtime, args)
    from ..labelled import benchmark

    if name == LATEST:
        with atomic_file(_latest(runtime)) as temporary:
            temporary.write_text(recipe.model_dump_json(indent=1), encoding="utf-8")

    benchmark.measure(runtime, recipe, name)
    next_step(f"make report BENCHMARK={name}")


def asked_recipe(runtime: Runtime, args: Arguments) -> tuple[Benchmark, str]:
    """The recipe BENCHMARK with what else is given in its place, or what is given alone; and its name."""
    given = {key: words(getattr(args, key)) for key in ("datasets", "models", "prompts", "poolings")}
    given = {key: value for key, value in {**given, "split": args.split}.items() if value}
    known = _known(runtime, args.benchmark) if args.benchmark else {}
    if args.data and len(given.get("datasets", known.get("datasets", []))) > 1:
        raise UserError("DATA= is the folder of one data set; give one: DATASETS=name")
    recipe = Benchmark.parse(known | given, f"benchmarks/{args.benchmark}.yaml" if args.benchmark else "benchmark")
    return recipe, args.benchmark or LATEST


def _known(runtime: Runtime, name: str) -> dict:
    """A recipe of benchmarks/, or what `latest` was when it was last measured."""
    if name == LATEST and name not in runtime.project.names("benchmarks") and _latest(runtime).is_file():
        return read_json(_latest(runtime))
    return runtime.project.benchmark(name).model_dump(mode="json")


def _latest(runtime: Runtime) -> Path:
    return runtime.project.root / "cache" / "benchmarks" / f"{LATEST}.json"
