"""Learning from labelled images, on cached features or by fine-tuning; what was learnt is a member."""

from collections.abc import Sequence
from pathlib import Path

from ..chain.task import Task
from ..core.console import say
from ..core.errors import UserError
from ..core.extras import need
from ..learn.recipe import FINETUNE, Training, read


def run(task: Task, written: str) -> None:
    """Verb train: the recipe `training/<name>.yaml`, given as that path or as its name."""
    path = Path(written)
    if path.suffix == ".yaml" and path.parent.as_posix() not in ("training", "."):
        raise UserError(f"RECIPE={written}: recipes lie in training/, e.g. RECIPE=training/{path.name}")
    name = path.stem if path.suffix == ".yaml" else written
    need("report", "make train")
    _trained(task, read(task.project, name), name, f"training/{name}.yaml")


def probe(task: Task, model: str, dataset: str, prompts: str | None = None) -> None:
    """Verb probe: a linear probe of a model on a data set, without writing a recipe."""
    need("report", "make probe")
    member = task.project.member(model, None)
    content = {"model": member, "dataset": dataset, "method": "linear_probe", "prompts": prompts}
    _trained(task, Training.parse(content, "probe"), f"probe-{model.replace('@', '.')}-{dataset}", "probe")


def _trained(task: Task, recipe: Training, name: str, where: str) -> None:
    from ..learn import evaluate, features, finetuned, train
    from ..report import training as pages

    if recipe.method[0] == FINETUNE:
        trained = finetuned.run(task, recipe, name, where)
        measured = [] if task.rank else finetuned.measured(task, recipe, trained[0], where)
    elif task.rank:
        features.encode(task, recipe)
    else:
        trained = train.run(task, recipe, name, where)
        measured = evaluate.of(task, recipe, trained)
    if task.rank:
        return
    target = task.project.root / "reports" / "training" / f"{name}.html"
    pages.write_training(target, recipe, trained, measured)
    say("train", name, f"member {trained[0].member}; {target}")


def kshot(
    task: Task,
    model: str,
    dataset: str,
    methods: Sequence[str] = (),
    shots: Sequence[str | int] = (),
    seeds: int = 5,
    prompts: str | None = None,
):
    """Verb kshot: curves over k training images per class; the Result, None for other processes than the first."""
    from ..learn import kshot
    from ..report import training as pages

    need("report", "make kshot")
    result = kshot.run(task, model, dataset, methods, shots or kshot.KS, seeds, prompts)
    if result:
        pages.write_kshot(task, result)
    return result
