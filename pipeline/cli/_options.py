"""What verbs share: how one is found and its arguments are read, the options of a run, and what follows from them."""

import argparse
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..chain.task import DTYPES, CompetitionTask, Runtime
from ..core.console import rank, say
from ..core.errors import UserError, did_you_mean
from ..core.memory import importing, keep_freed
from ..models import family
from ..recipes import HEAD, Project
from ..recipes.member import Member

if TYPE_CHECKING:
    from ..labelled.task import DatasetTask

Arguments = argparse.Namespace
USED, DEMO = ".competition", "demo"  # the file that names the competition which is meant; where there is none
ASSIGNED = re.compile(r"[A-Z][A-Z_]*=")
ON, OFF = ("1", "yes", "true"), ("0", "no", "false", "")  # what a flag may be; the Makefile's `flag` reads them alike


def verbs() -> list[str]:
    """Names of all verbs: the files of this folder that do not begin with an underscore."""
    package = importlib.import_module(__package__)
    return [name.replace("_", "-") for _, name, _ in pkgutil.iter_modules(package.__path__) if name[0] != "_"]


def parse(arguments: Sequence[str]) -> Arguments:
    """The arguments of a verb, with its module as `module`. Only the verb that is asked for is imported.

    A verb takes the GROUPS that it USES and what its `arguments` adds; anything else is an error. NAME=value, as make
    hands over what was given on its command line, means --name value, and nothing at all if the value is empty, but for
    an option that takes an empty one (nargs "?"). A flag is one of ON or OFF.
    """
    known = verbs()
    asked = [arguments[0]] if arguments and arguments[0] in known else known
    called = "zero-shot" if Path(sys.argv[0]).stem == "zero-shot" else "python -m pipeline"
    main = _Parser(prog=called, description=importlib.import_module(__package__).__doc__)
    parsers = main.add_subparsers(dest="verb", required=True, metavar="verb")
    for name in asked:
        verb = importlib.import_module(f".{name.replace('-', '_')}", __package__)
        parser = parsers.add_parser(name, help=verb.HELP, description=verb.HELP, allow_abbrev=False)
        parser.set_defaults(module=verb)
        for group in getattr(verb, "USES", ()):
            GROUPS[group](parser)
        if hasattr(verb, "arguments"):
            verb.arguments(parser)
        parser.assigned = len(asked) == 1
    return main.parse_args(arguments)


class _Parser(argparse.ArgumentParser):
    """A mistake is one line, with the option as it is called in make as well."""

    assigned = False  # whether NAME=value is understood

    def parse_known_args(self, args=None, namespace=None):
        if self.assigned:
            found, unused = super().parse_known_args(self._options(args), namespace)
            for word in unused:
                self._not_used(word)
            return found, []
        return super().parse_known_args(args, namespace)

    def _options(self, words: Sequence[str]) -> list[str]:
        """NAME=value as --name=value, or as --name where that is a flag and the value says that it is on."""
        made = []
        for word in words:
            name, _, value = word.partition("=")
            if not ASSIGNED.match(word):
                made.append(word)
                continue
            option = f"--{name.lower().replace('_', '-')}"
            known = self._option_string_actions.get(option)
            if known and known.nargs == 0:
                if value not in (*ON, *OFF):
                    self.error(f"{word}: a flag is 1 or 0")
                made += [option] if value in ON else []
            elif value or (known and known.nargs == "?"):
                made.append(f"{option}={value}")
        return made

    def _not_used(self, word: str) -> None:
        verb = self.prog.rpartition(" ")[2]
        if not word.startswith("--"):
            self.error(f"{word!r} is not used by {verb}; give NAME=value or --name value")
        option = word.partition("=")[0].removeprefix("--")
        known = [name.removeprefix("--") for name in self._option_string_actions if name.startswith("--")]
        hint = did_you_mean(option, set(known) - {"help"})
        self.error(f"{_variable(option)} (--{option}) is not used by {verb}.{hint}")

    def error(self, message: str):
        option = re.match(r"argument (?:--([a-z-]+)|verb): ", message)
        if option:
            name = option[1]
            message = (f"{_variable(name)} (--{name}): " if name else "") + message[option.end() :]
        wrong = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
        if wrong:
            hint = did_you_mean(wrong[1], re.findall(r"[\w-]+", wrong[2]))
            message = f"{message[: wrong.start()]}no {wrong[1]!r}.{hint}"
        if message.startswith("the following arguments are required: --"):
            asked = re.findall(r"--([a-z-]+)", message)
            message = "give " + ", ".join(f"{_variable(name)}= (--{name})" for name in asked)
        end = "" if message[-1] in ".?" else "."
        print(f"error: {message}{end} '{self.prog} --help' tells more", file=sys.stderr)
        sys.exit(2)


def _variable(option: str) -> str:
    return option.upper().replace("-", "_")


def used() -> str:
    """The competition that `make use` chose in the present folder, else the demo's."""
    try:
        return Path(USED).read_text(encoding="utf-8").strip() or DEMO
    except (OSError, ValueError):
        return DEMO


def _competition(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--competition", default=used(), metavar="NAME", help="competitions/NAME.yaml (default: %(default)s; see use)"
    )


def _data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="PATH", help="another image folder or glob than the recipe's")


def _ensemble(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ensemble", metavar="NAME", help="ensembles/NAME.yaml (default: the competition's)")


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME", help="an entry of models.yaml")
    parser.add_argument("--preprocess", metavar="NAME", help="preprocess/NAME.yaml (default: the model's)")


def _compute(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument("--dtype", default="auto", choices=("auto", *DTYPES), help="auto: the fastest that is safe")
    parser.add_argument("--compile", action="store_true", help="compile image towers (torch.compile): for long runs")
    parser.add_argument("--batch", type=positive, metavar="N", help="images per forward pass")
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="threads or processes that decode (default: one per core)"
    )
    parser.add_argument("--shard", type=positive, default=2048, metavar="ROWS", help="images per cache file")
    parser.add_argument("--cache", metavar="URL", help="folder or URL (s3://...) for what is computed (default: cache)")
    parser.add_argument("--ray", metavar="ADDRESS", help="spread over a Ray cluster: local, auto, or its address")


GROUPS = {"competition": _competition, "data": _data, "ensemble": _ensemble, "model": _model, "compute": _compute}
FIELDS = {  # of a Runtime, by option
    "data": "data",
    "device": "device_name",
    "dtype": "dtype_name",
    "compile": "compiles",
    "batch": "batch_size",
    "workers": "workers",
    "shard": "shard_rows",
    "cache": "cache_at",
    "ray": "ray",
}


def runtime_of(args: Arguments) -> Runtime:
    """The settings of a run in the present folder; the memory of one that computes is kept for what comes next."""
    if hasattr(args, "device"):
        keep_freed()
    given = {field: getattr(args, option, None) for option, field in FIELDS.items()}
    root = Path.cwd() if given["ray"] else Path()  # actors have folders of their own that they are in
    return Runtime(Project(root), **{field: value for field, value in given.items() if value is not None})


def positive(text: str) -> int:
    """A positive whole number."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def words(values: Sequence[str] | None) -> list[str]:
    """['a b', 'c'] -> [a, b, c]: make hands a variable over as one word."""
    return [word for value in values or () for word in value.split()]


def competition(runtime: Runtime, args: Arguments) -> CompetitionTask:
    """The competition that is asked for; one that `make use` chose is named."""
    if args.competition == used() != DEMO:
        say("use", args.competition, f"chosen by make use ({USED})")
    return CompetitionTask.of(runtime, args.competition)


def checked_ensemble(task: CompetitionTask, args: Arguments) -> str:
    """ENSEMBLE, the member MODEL alone, or the competition's ensemble; UserError for one that the rules forbid.

    Told before anything is computed, and before torch is imported.
    """
    if args.preprocess and not args.model:
        raise UserError("PREPROCESS= is of a member alone: give MODEL=name as well")
    name = str(_member(task, args)) if args.model else _ensemble_name(task, args)
    _check_families(task, task.project.ensemble(name).named)
    with importing():
        from ..chain import rules

    rules.check(task, name)
    return name


def asked_members(task: CompetitionTask, args: Arguments) -> list[Member]:
    """The member MODEL@PREPROCESS, or all members of the ensemble, seen through PREPROCESS if that is given."""
    if args.model:
        member = _member(task, args)
        _check_families(task, [member])
        return [member]
    name = _ensemble_name(task, args)
    recipe = task.project.ensemble(name)
    _check_families(task, recipe.named)
    from ..chain import ensemble, rules

    rules.check(task, name)
    found = list(ensemble.members(recipe))
    if args.preprocess:
        found = [task.project.member(member.model, args.preprocess) for member in found]
    return list(dict.fromkeys(found))


def _member(task: CompetitionTask, args: Arguments) -> Member:
    if args.ensemble:
        raise UserError("ENSEMBLE= and MODEL=: give an ensemble, or a member alone, not both")
    return task.project.member(args.model, args.preprocess)


def _check_families(task: CompetitionTask, members: Iterable[Member]) -> None:
    """UserError for an entry of no known family, before anything is announced."""
    for member in members:
        for model in {member.model, member.tower.model}:
            entry = task.project.model(model)
            if entry.family != HEAD:
                family.traits(model, entry)


def _ensemble_name(task: CompetitionTask, args: Arguments) -> str:
    name = args.ensemble or task.recipe.ensemble
    if not name:
        raise UserError(f"no ensemble: give ENSEMBLE=name, or 'ensemble:' in {task.where}")
    return name


def asked_model(runtime: Runtime, args: Arguments) -> str:
    """MODEL, or MODEL@PREPROCESS where another recipe than the model's own is asked for."""
    if not args.model:
        raise UserError(f"no model: give MODEL=name.{did_you_mean('', runtime.project.models)}")
    return runtime.project.member(args.model, args.preprocess) if args.preprocess else args.model


def only_encodes(task: CompetitionTask, name: str) -> bool:
    """Of the processes that a launcher starts all encode images, and the first goes on alone; True for the others."""
    if not rank():
        return False
    from ..chain import ensemble, features

    for tower in ensemble.towers(task.project.ensemble(name)):
        features.of_member(task, tower)
    return True


def report_damage(task: "CompetitionTask | DatasetTask", recipes: Sequence[str]) -> int:
    """Tell of damaged images; the exit status that they make."""
    from ..chain import damage

    return damage.EXIT_STATUS if damage.report(task, recipes) else 0
