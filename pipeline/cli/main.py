"""The command line: `python -m pipeline <verb>`, one verb per make target."""

import argparse
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from ..chain.task import DTYPES, Task
from ..core.console import say_once, warn_once
from ..core.errors import UserError, did_you_mean
from ..recipes import Benchmark, BenchmarkPooling, Project

Arguments = argparse.Namespace
POOLINGS = get_args(BenchmarkPooling)


def _preprocess(task: Task, args: Arguments) -> None:
    from ..chain import infer, preprocess, problems

    recipes = [args.preprocess] if args.preprocess else [infer.split(m)[1] for m in _members(task, args)]
    for recipe in dict.fromkeys(recipes):
        preprocess.run(task, recipe)
    problems.report(task, recipes)


def _infer(task: Task, args: Arguments) -> None:
    from ..chain import ensemble, infer, problems

    for member in _members(task, args):
        if args.model:  # alone it gives all prompts; an ensemble decides which columns its members need
            infer.run(task, member)
        else:
            ensemble.run_part(task, task.project.ensemble(_ensemble_name(task, args)), member)
    if not task.rank:
        problems.report(task, [infer.split(member)[1] for member in _members(task, args)])


def _ensemble(task: Task, args: Arguments) -> None:
    from ..chain import ensemble

    ensemble.run(task, _ensemble_name(task, args))


def _threshold(task: Task, args: Arguments) -> None:
    from ..chain import threshold

    threshold.run(task, _ensemble_name(task, args))


def _submit(task: Task, args: Arguments) -> int:
    from ..chain import ensemble, problems, submit

    name = _ensemble_name(task, args)
    submit.run(task, name)
    recipes = ensemble.preprocess_recipes(task.project.ensemble(name))
    return problems.EXIT_STATUS if problems.report(task, recipes) else 0


def _advise(task: Task, args: Arguments) -> None:
    from ..report import advise

    advise.run(task, _ensemble_name(task, args))


def _plan(task: Task, args: Arguments) -> None:
    from . import plan

    plan.run(task, _ensemble_name(task, args))


def _log(task: Task, args: Arguments) -> None:
    from ..chain import log

    log.run(task)


def _score(task: Task, args: Arguments) -> None:
    from ..chain import log

    log.score(task, args.n, args.public, args.private)


def _diff(task: Task, args: Arguments) -> None:
    from ..chain import log

    log.diff(task, args.a, args.b)


def _sheet(task: Task, args: Arguments) -> None:
    from ..report import sheet

    sheet.run(task, args.n)


def _inspect(task: Task, args: Arguments) -> None:
    from . import inspect

    inspect.run(args.file)


def _clean_cache(task: Task, args: Arguments) -> None:
    from . import clean_cache

    clean_cache.run(task.project, args.dry)


def _benchmark(task: Task, args: Arguments) -> None:
    from ..labelled import benchmark

    benchmark.run(task, *_benchmark_recipe(task, args))


def _benchmark_recipe(task: Task, args: Arguments) -> tuple[Benchmark, str]:
    """The recipe BENCHMARK with what else is given in its place, or what is given alone; and its name."""

    given = {
        "datasets": _words(args.datasets),
        "models": _words(args.models),
        "prompts": _words(args.prompts),
        "poolings": _words(args.poolings),
        "split": args.split,
    }
    given = {key: value for key, value in given.items() if value}
    known = task.project.benchmark(args.benchmark).model_dump(mode="json") if args.benchmark else {}
    if args.data and len(given.get("datasets", known.get("datasets", []))) > 1:
        raise UserError("DATA= is the folder of one data set; give one: DATASETS=name")
    recipe = Benchmark.parse(known | given, f"benchmarks/{args.benchmark}.yaml" if args.benchmark else "benchmark")
    return recipe, args.benchmark or "latest"


def _prompts_rank(task: Task, args: Arguments) -> None:
    from ..labelled import prompts_rank
    from ..labelled.task import LabelledTask

    if args.dataset:
        split = args.split or (None if args.test_labels else task.project.dataset(args.dataset).dev)
        task = LabelledTask.of(task, args.dataset, split, args.prompts)
    elif args.prompts or args.split:
        raise UserError("PROMPTS= and SPLIT= go with DATASET=name")
    if not args.model:
        raise UserError("give MODEL=name")
    member = task.project.member(args.model, args.preprocess)
    prompts_rank.run(task, member, args.pooling, not args.unlabelled, args.test_labels)


def _sweep(task: Task, args: Arguments) -> None:
    from ..labelled import sweep

    name = Path(args.recipe)
    sweep.run(task, name.stem if name.suffix == ".yaml" else args.recipe, args.test_labels, args.overwrite)


def _train(task: Task, args: Arguments) -> None:
    from . import train as training

    training.run(task, args.recipe)


def _probe(task: Task, args: Arguments) -> None:
    from . import train as training

    training.probe(task, _model(task, args), args.dataset, args.prompts)


def _kshot(task: Task, args: Arguments) -> None:
    from . import train as training

    training.kshot(
        task, _model(task, args), args.dataset, _words(args.methods), _words(args.shots), args.seeds, args.prompts
    )


def _model(task: Task, args: Arguments) -> str:
    """MODEL, or MODEL@PREPROCESS where another recipe than the model's own is asked for."""
    if not args.model:
        raise UserError(f"give MODEL=name.{did_you_mean('', task.project.models)}")
    return task.project.member(args.model, args.preprocess) if args.preprocess else args.model


def _words(values: Sequence[str] | None) -> list[str]:
    """['a b', 'c'] -> [a, b, c]: make hands a variable over as one word."""
    return [word for value in values or () for word in value.split()]


def _models(task: Task, args: Arguments) -> None:
    from . import list_models

    list_models.run(task.project)


def _new(task: Task, args: Arguments) -> None:
    from . import new

    new.run(task.project, task.competition_name, args.images, args.classes)


def _report(task: Task, args: Arguments) -> None:
    from .. import report

    if any((args.benchmark, args.datasets, args.models, args.prompts, args.poolings, args.split)):
        if args.n or args.ensemble:
            raise UserError("N= and ENSEMBLE= are of a competition: give them, or a benchmark, not both")
        report.of_benchmark(task, *_benchmark_recipe(task, args))
    else:
        report.run(task, args.n, args.ensemble)


def _analyse(task: Task, args: Arguments) -> None:
    from ..report import analyse

    analyse.run(task)


def _predict(task: Task, args: Arguments) -> None:
    from . import predict

    if not args.model:
        raise UserError(f"no model: give MODEL=name.{did_you_mean('', task.project.models)}")
    predict.run(task, args.model, args.images, args.labels, args.template, args.top, args.out)


def _ensemble_name(task: Task, args: Arguments) -> str:
    """UserError for a recipe that the competition's rules forbid, before anything is computed."""
    from ..chain import rules

    name = args.ensemble or task.competition.ensemble
    if not name:
        raise UserError(f"no ensemble: give ENSEMBLE=name, or 'ensemble:' in {task.where}")
    rules.check(task, name)
    return name


def _members(task: Task, args: Arguments) -> list[str]:
    """The member MODEL@PREPROCESS, or all members of the ensemble."""
    from ..chain import ensemble

    if args.model:
        return [task.project.member(args.model, args.preprocess)]
    members = list(ensemble.members(task.project.ensemble(_ensemble_name(task, args))))
    if args.preprocess:
        members = [task.project.member(member.partition("@")[0], args.preprocess) for member in members]
    return list(dict.fromkeys(members))


VERBS: dict[str, tuple[Callable[[Task, Arguments], int | None], str]] = {
    "preprocess": (_preprocess, "images -> pixels of one recipe, or of all that the ensemble needs"),
    "infer": (_infer, "prompt probabilities of one model, or of all members of the ensemble"),
    "ensemble": (_ensemble, "weighted blend of the members"),
    "threshold": (_threshold, "low probabilities of the blend become zero"),
    "submit": (_submit, "pool, check and write the CSV"),
    "plan": (_plan, "what a submission would reuse and compute, and about how long it would take"),
    "advise": (_advise, "what to look at before a submission is spent, without labels"),
    "score": (_score, "record a leaderboard score of a submission"),
    "log": (_log, "the submissions so far"),
    "diff": (_diff, "what changed between two submissions"),
    "models": (_models, "the entries of models.yaml: size, accuracy, licence, on disk or to download"),
    "sheet": (_sheet, "a contact sheet of a submission"),
    "benchmark": (_benchmark, "measure models, prompts and poolings on labelled data sets"),
    "prompts-rank": (_prompts_rank, "what each template and prompt adds, with labels or without"),
    "sweep": (_sweep, "many variants of an ensemble recipe, ranked on a development split or by stability"),
    "train": (_train, "a recipe of training/: a head or a tuned tower -> trained/<name>/, a member like any other"),
    "probe": (_probe, "a linear probe of a model on a labelled data set"),
    "kshot": (_kshot, "accuracy over k training images per class, for several methods and seeds"),
    "analyse": (_analyse, "what the images are like: sizes, duplicates, resolution, damage"),
    "predict": (_predict, "labels and scores of any folder of images, without a competition"),
    "report": (_report, "one HTML page about a submission, an ensemble or a benchmark"),
    "inspect": (_inspect, "what a cached file is and what it was made from"),
    "clean-cache": (_clean_cache, "list and remove what no current recipe uses"),
    "new": (_new, "write the files of a new competition"),
}


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _score_value(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number such as 0.92024") from None


class _Parser(argparse.ArgumentParser):
    """A wrong value is one line, with the option as it is called in make as well."""

    def error(self, message: str):
        option = re.match(r"argument --([a-z-]+): ", message)
        if option:
            message = f"{option[1].upper().replace('-', '_')} (--{option[1]}): {message[option.end() :]}"
        print(f"error: {message}. '{self.prog} --help' tells more", file=sys.stderr)
        sys.exit(2)


def parser() -> argparse.ArgumentParser:
    """All verbs share the options that describe the task; some have their own."""
    task = _Parser(add_help=False)
    task.add_argument("--competition", default="demo", metavar="NAME", help="competitions/NAME.yaml (default: demo)")
    task.add_argument("--data", metavar="PATH", help="another image folder or glob than the competition's")
    task.add_argument("--ensemble", metavar="NAME", help="ensembles/NAME.yaml (default: the competition's)")
    task.add_argument("--model", metavar="NAME", help="an entry of models.yaml")
    task.add_argument("--preprocess", metavar="NAME", help="preprocess/NAME.yaml (default: the model's)")
    task.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    task.add_argument("--dtype", default="auto", choices=("auto", *DTYPES), help="auto: the fastest that is safe")
    task.add_argument("--batch", type=_positive, metavar="N", help="images per forward pass")
    task.add_argument("--workers", type=_positive, metavar="N", help="decoding threads (default: one per core)")
    task.add_argument("--shard", type=_positive, default=2048, metavar="ROWS", help="images per cache file")
    main = _Parser(prog="python -m pipeline", description=__doc__)
    verbs = main.add_subparsers(dest="verb", required=True, metavar="verb")
    own = {
        name: verbs.add_parser(name, parents=[task], help=text, description=text) for name, (_, text) in VERBS.items()
    }
    for verb in ("score", "sheet"):
        own[verb].add_argument("--n", type=_positive, required=True, help="number of the submission")
    own["report"].add_argument("--n", type=_positive, help="number of the submission (default: the newest)")
    own["score"].add_argument("--public", type=_score_value, help="public score, e.g. 0.92024")
    own["score"].add_argument("--private", type=_score_value, help="private score")
    own["diff"].add_argument("--a", type=_positive, required=True, help="number of the first submission")
    own["diff"].add_argument("--b", type=_positive, required=True, help="number of the second")
    own["inspect"].add_argument("--file", type=Path, required=True, help="a .pt file below cache/")
    own["clean-cache"].add_argument("--dry", action="store_true", help="only list")
    own["new"].add_argument("--images", required=True, help="folder or glob of the images")
    own["new"].add_argument("--classes", required=True, help="a,b,c or a JSON file with a list")
    for verb in (own["benchmark"], own["report"]):
        for name in ("datasets", "models", "prompts", "poolings"):
            verb.add_argument(f"--{name}", nargs="+", metavar="NAME", help=f"the recipe's {name}, or others")
        verb.add_argument("--benchmark", metavar="NAME", help="benchmarks/NAME.yaml")
        verb.add_argument("--split", help="split that is measured (default: each data set's)")
    rank = own["prompts-rank"]
    rank.add_argument("--dataset", metavar="NAME", help="datasets/NAME.yaml (default: the competition, unlabelled)")
    rank.add_argument("--split", help="split that is ranked on (default: the data set's dev)")
    rank.add_argument("--prompts", metavar="NAME", help="prompts/NAME/ (default: the data set's)")
    rank.add_argument("--pooling", default="embedding", choices=POOLINGS, help="default: embedding")
    rank.add_argument("--unlabelled", action="store_true", help="look at no label")
    rank.add_argument("--test-labels", action="store_true", help="look at the labels of the split that is reported")
    own["sweep"].add_argument("--recipe", required=True, metavar="NAME", help="sweeps/NAME.yaml")
    own["sweep"].add_argument("--overwrite", action="store_true", help="replace the recipe that 'out' names")
    own["sweep"].add_argument("--test-labels", action="store_true", help="look at the labels of the split reported")
    own["train"].add_argument("--recipe", required=True, metavar="NAME", help="training/NAME.yaml")
    for verb in (own["probe"], own["kshot"]):
        verb.add_argument("--dataset", required=True, metavar="NAME", help="datasets/NAME.yaml")
        verb.add_argument("--prompts", metavar="NAME", help="prompts/NAME/ (default: the data set's)")
    own["kshot"].add_argument("--methods", nargs="+", metavar="NAME", help="default: all that suit the model")
    own["kshot"].add_argument("--shots", nargs="+", metavar="K", help="default: 1 2 4 8 16 32 64 128")
    own["kshot"].add_argument("--seeds", type=_positive, default=5, metavar="N", help="samples of each k (default: 5)")
    own["predict"].add_argument("--images", required=True, help="folder or glob of the images")
    own["predict"].add_argument("--labels", required=True, help="a,b,c or a JSON file with a list")
    own["predict"].add_argument("--template", help="sentence around a label (default: a photo of a {}.)")
    own["predict"].add_argument("--top", type=_positive, default=5, metavar="N", help="labels per image")
    own["predict"].add_argument("--out", default="results.csv", help="results.csv or results.jsonl")
    return main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; exit code 1: a user's mistake, told in a line on stderr; 3: a submission with damaged images."""
    args = parser().parse_args(arguments)
    for once in (say_once, warn_once):
        once.cache_clear()  # once in a run, of which one process may have several
    warnings.filterwarnings("ignore", module="PIL")  # what matters of an image file is told by problems.py
    try:
        task = Task(
            args.competition, Project(), args.data, args.device, args.dtype, args.batch, args.workers or 0, args.shard
        )
        # of the processes a launcher starts, all encode images and the first goes on alone
        verb = "infer" if task.rank and args.verb in ("ensemble", "threshold", "submit") else args.verb
        return VERBS[verb][0](task, args) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}. What was finished is kept; run the same command again to go on", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: finished shards are kept; run the same command again to go on", file=sys.stderr)
        return 130
