"""What verbs share: how one is found and its arguments are read, the options of a run, and what follows from them."""

import argparse
import importlib
import pkgutil
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..chain.task import DTYPES, CompetitionTask, Runtime
from ..core.console import rank
from ..core.errors import UserError, did_you_mean
from ..recipes import Project
from ..recipes.member import Member

if TYPE_CHECKING:
    from ..labelled.task import DatasetTask

Arguments = argparse.Namespace


def verbs() -> list[str]:
    """Names of all verbs: the files of this folder that do not begin with an underscore."""
    package = importlib.import_module(__package__)
    return [name.replace("_", "-") for _, name, _ in pkgutil.iter_modules(package.__path__) if name[0] != "_"]


def parse(arguments: Sequence[str]) -> Arguments:
    """The arguments of a verb, with its module as `verb`. Only the verb that is asked for is imported."""
    known = verbs()
    asked = [arguments[0]] if arguments and arguments[0] in known else known
    called = "zero-shot" if Path(sys.argv[0]).stem == "zero-shot" else "python -m pipeline"
    main = _Parser(prog=called, description=importlib.import_module(__package__).__doc__)
    parsers = main.add_subparsers(dest="verb", required=True, metavar="verb")
    shared = _shared()
    for name in asked:
        verb = importlib.import_module(f".{name.replace('-', '_')}", __package__)
        parser = parsers.add_parser(name, parents=[shared], help=verb.HELP, description=verb.HELP)
        parser.set_defaults(module=verb)
        if hasattr(verb, "arguments"):
            verb.arguments(parser)
    return main.parse_args(arguments)


class _Parser(argparse.ArgumentParser):
    """A wrong value is one line, with the option as it is called in make as well."""

    def error(self, message: str):
        option = re.match(r"argument --([a-z-]+): ", message)
        if option:
            message = f"{option[1].upper().replace('-', '_')} (--{option[1]}): {message[option.end() :]}"
        print(f"error: {message}. '{self.prog} --help' tells more", file=sys.stderr)
        sys.exit(2)


def _shared() -> argparse.ArgumentParser:
    """The options that describe a run."""
    run = _Parser(add_help=False)
    run.add_argument("--competition", default="demo", metavar="NAME", help="competitions/NAME.yaml (default: demo)")
    run.add_argument("--data", metavar="PATH", help="another image folder or glob than the competition's")
    run.add_argument("--ensemble", metavar="NAME", help="ensembles/NAME.yaml (default: the competition's)")
    run.add_argument("--model", metavar="NAME", help="an entry of models.yaml")
    run.add_argument("--preprocess", metavar="NAME", help="preprocess/NAME.yaml (default: the model's)")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    run.add_argument("--dtype", default="auto", choices=("auto", *DTYPES), help="auto: the fastest that is safe")
    run.add_argument("--batch", type=positive, metavar="N", help="images per forward pass")
    run.add_argument("--workers", type=positive, metavar="N", help="decoding threads (default: one per core)")
    run.add_argument("--shard", type=positive, default=2048, metavar="ROWS", help="images per cache file")
    return run


def runtime_of(args: Arguments) -> Runtime:
    """The settings of a run in the present folder."""
    return Runtime(
        Project(),
        data=args.data,
        device_name=args.device,
        dtype_name=args.dtype,
        batch_size=args.batch,
        workers=args.workers or 0,
        shard_rows=args.shard,
    )


def positive(text: str) -> int:
    """A positive whole number."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def words(values: Sequence[str] | None) -> list[str]:
    """['a b', 'c'] -> [a, b, c]: make hands a variable over as one word."""
    return [word for value in values or () for word in value.split()]


def competition(runtime: Runtime, args: Arguments) -> CompetitionTask:
    """The competition that is asked for."""
    return CompetitionTask.of(runtime, args.competition)


def checked_ensemble(task: CompetitionTask, args: Arguments) -> str:
    """ENSEMBLE or the competition's; UserError for one that the rules forbid, before anything is computed."""
    name = args.ensemble or task.recipe.ensemble
    if not name:
        raise UserError(f"no ensemble: give ENSEMBLE=name, or 'ensemble:' in {task.where}")
    task.project.ensemble(name)  # its mistakes are told before torch is imported
    from ..chain import rules

    rules.check(task, name)
    return name


def asked_members(task: CompetitionTask, args: Arguments) -> list[Member]:
    """The member MODEL@PREPROCESS, or all members of the ensemble."""
    if args.model:
        return [task.project.member(args.model, args.preprocess)]
    name = checked_ensemble(task, args)
    from ..chain import ensemble

    found = list(ensemble.members(task.project.ensemble(name)))
    if args.preprocess:
        found = [task.project.member(member.model, args.preprocess) for member in found]
    return list(dict.fromkeys(found))


def model(runtime: Runtime, args: Arguments) -> str:
    """MODEL, or MODEL@PREPROCESS where another recipe than the model's own is asked for."""
    if not args.model:
        raise UserError(f"no model: give MODEL=name.{did_you_mean('', runtime.project.models)}")
    return runtime.project.member(args.model, args.preprocess) if args.preprocess else args.model


def only_encodes(task: CompetitionTask, name: str) -> bool:
    """Of the processes that a launcher starts all encode images, and the first goes on alone; True for the others."""
    if not rank():
        return False
    from ..chain import ensemble, features

    for member in ensemble.members(task.project.ensemble(name)):
        features.of_member(task, member)
    return True


def report_damage(task: "CompetitionTask | DatasetTask", recipes: Sequence[str]) -> int:
    """Tell of damaged images; the exit status that they make."""
    from ..chain import damage

    return damage.EXIT_STATUS if damage.report(task, recipes) else 0
