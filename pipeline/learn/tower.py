"""Method finetune: an image tower trained on the images of a recipe, and what becomes of it.

    trained/<name>/            a dual encoder with the trained image tower (loss: contrastive), or the head (likelihood)
    trained/<name>-tower/      the tower of that head
    trained/<name>/checkpoint/ while it is trained: the last state and the best one

Epoch and alpha are chosen on validation images. The towers are checkpoints of their own family, and load as such.
"""

import bisect
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .. import models
from ..chain import preprocess
from ..chain.features import check_recipe
from ..chain.stage import made
from ..chain.task import Runtime
from ..core import artefacts
from ..core.artefacts import Artefact
from ..core.console import rank, say, world
from ..core.digests import FORMAT
from ..core.errors import Mismatch, Unavailable, UserError
from ..core.extras import need
from ..labelled.task import DatasetTask
from ..models import heads
from ..models.heads import Head, _descent, linear_probe
from ..models.heads._choice import Choice
from ..recipes import Project
from ..recipes.training import Training
from . import measure, reported, seen_unseen, training_set
from .finetune import settings as finetune_settings
from .finetune.loop import Images, Judge, Loop
from .finetune.network import Network, mixed
from .finetune.settings import Finetune
from .listener import Bar
from .reported import Measured
from .trained import (
    FOLDER,
    Trained,
    check_classes,
    check_names,
    classes,
    code_of,
    finish,
    head_entry,
    reused,
    say_chosen,
)
from .training_set import TrainingSet

PRECISIONS = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}  # as accelerate calls them


@dataclass(frozen=True)
class Pixels:
    """uint8 pixels of single images, from the memory-mapped shards of an artefact."""

    starts: list[int]
    shards: list[torch.Tensor]

    @classmethod
    def of(cls, artefact: Artefact) -> "Pixels":
        parts = artefact.shards()
        return cls(
            [start for start, _, _ in parts], [artefacts.load(file, mapped=True)["pixels"] for _, _, file in parts]
        )

    def __call__(self, row: int) -> torch.Tensor:
        shard = bisect.bisect_right(self.starts, row) - 1
        return self.shards[shard][row - self.starts[shard]]


def train_tower(task: Runtime, recipe: Training, name: str, where: str) -> list[Trained]:
    """Train what a recipe says, go on with it, or reuse it. All processes of a launcher train, the first one writes."""
    settings = _checked(task, recipe, where)
    names = [name, f"{name}-tower"] if settings.loss == "likelihood" else [name]
    check_names(task.project, names, where)
    source, precision = TrainingSet(task, recipe), _precision(task, settings, where)
    made_from = {
        "format": FORMAT,
        "recipe": recipe.model_dump(mode="json"),
        "precision": precision,
        "settings": settings.model_dump(mode="json"),
        **source.made_from(settings.loss == "contrastive"),
        "code": code_of(Loop.__module__, _descent.__name__),
    }
    known = reused(task.project, names, made_from, where)
    if known:
        return known[:1]
    folder = task.project.root / FOLDER / name
    accelerator = _accelerator(task, precision)
    network, tower = _network(source, settings, accelerator.device, f"{where}: method")
    loop = _loop(source, settings, network, accelerator, folder / "checkpoint", made_from, name)
    best = loop.run()
    sweep = loop.sweep(best)
    loop.listener.close()
    chosen = max(sweep, key=lambda one: (one[recipe.metric], -one["loss"]))
    network.load_state_dict(mixed(loop.initial, best, chosen["alpha"]))
    accelerator.wait_for_everyone()
    record = {
        "made_from": made_from,
        "from": str(source.member),
        "averages": sweep,
        "history": loop.progress.history,
        **_chosen(loop, chosen, recipe.metric),
    }
    record["classes"] = classes(source, *source.parts())
    if rank():
        return [Trained(name, folder, record)]
    return [_written(source, settings, network, tower, folder, record)]


def _checked(task: Runtime, recipe: Training, where: str) -> Finetune:
    """The settings; UserError for everything that could be known before images are read."""
    recipe.check(task.project.dataset(recipe.dataset), where)
    settings = finetune_settings.read(recipe.method[1], f"{where}: method.finetune")
    member = task.project.member(recipe.model)
    model, pixels = member.model, member.preprocess
    models.check_trainable(model, task.project.model(model))
    if settings.loss == "contrastive":
        models.check_text(model, task.project.model(model))
    if recipe.captions or recipe.unseen:
        key = "captions" if recipe.captions else "unseen"
        raise UserError(f"{where}: {key}: not with method finetune; cosine and clip_adapter take it")
    if task.project.preprocess(pixels).views:
        raise Mismatch(
            f"{where}: model: preprocess/{pixels}.yaml has views; a tower is trained on single images, "
            "which 'augment' changes"
        )
    need("train", "method finetune")
    return settings


def _precision(task: Runtime, settings: Finetune, where: str) -> str:
    """fp32 on a CPU and bf16 elsewhere, unless one was asked for."""
    on_cpu = task.device.type == "cpu"
    if settings.precision == "fp16" and on_cpu:
        raise Unavailable(f"{where}: precision: fp16 needs a GPU; take bf16 or fp32")
    return settings.precision if settings.precision != "auto" else "fp32" if on_cpu else "bf16"


def _accelerator(task: Runtime, precision: str):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()  # of an earlier run in this process, which may have had another precision
    if task.device.index is not None and world() == 1:
        torch.cuda.set_device(task.device)
    accelerator = Accelerator(cpu=task.device.type == "cpu", mixed_precision=PRECISIONS[precision])
    assert accelerator.num_processes == world(), "accelerate and the launcher count processes differently"
    return accelerator


def _network(source: TrainingSet, settings: Finetune, device, where: str) -> tuple[Network, object]:
    """The tower with what it starts from on top of it: captions, a linear probe or zeros."""
    model, root = source.member.model, source.project.root
    head = start(source, settings, where)
    tower = models.load(model, source.project.model(model), root, "image", device, "fp32")
    check_recipe(source.project, source.member, tower.image_size, tower.resize_mode)
    encoder = tower.trainable()
    if settings.gradient_checkpointing:
        encoder.checkpoint_gradients()
    if settings.loss == "contrastive":
        return Network.of_captions(encoder, source.captions), tower
    return Network(encoder, head.weight, head.bias, trained=True), tower


def start(source: TrainingSet, settings: Finetune, where: str) -> Head:
    """What training starts from: the captions, a linear probe of the frozen features, or a head of zeros.

    A probe first, so that the first steps do not distort the features: LP-FT (Kumar et al. 2022, arXiv:2202.10054).
    """
    if settings.loss == "contrastive":
        return seen_unseen.zero_shot(source.captions)
    known, validation = source.parts()
    data = source.data(known)
    if settings.head == "zero":
        head = linear_probe.Head(data.classes, known.features.shape[1])
        head.bias[data.trained] = 0.0
        return head
    check_classes(source.recipe, data, source.class_names)
    weighted = "none" if source.recipe.balance == "none" else "weights"
    choice = Choice(measure.on(validation), (source.recipe.metric,))
    heads.fit(("linear_probe", None), replace(data, balance=weighted), choice, where)
    return choice.head()


def _loop(
    source: TrainingSet, settings: Finetune, network: Network, accelerator, folder: Path, made_from: dict, name: str
) -> Loop:
    task, pixel_recipe = source.task, source.member.preprocess
    rows, held = source.rows()
    known, validation = source.parts()
    pixels = Pixels.of(made(preprocess.stage(task, pixel_recipe)))
    other = source.validation_task
    held_pixels = Pixels.of(made(preprocess.stage(other, pixel_recipe))) if other else pixels
    held = torch.arange(len(validation)) if other else held
    data = source.data(known)
    parts = settings.accumulate * accelerator.num_processes
    if min(len(rows), settings.batch) < 2 * parts:
        raise Mismatch(
            f"{name}: {len(rows)} training images in batches of {settings.batch} are too few for {parts} "
            "parts of at least two; lower 'accumulate' or the number of processes"
        )
    listener = Bar(task, name)
    loop = Loop(
        network,
        Images(pixels, rows, data),
        Judge(held_pixels, held, validation.labels, measure.of, source.recipe.metric),
        settings,
        accelerator,
        folder,
        made_from,
        listener,
        task.workers or (task.threads if task.device.type == "cuda" else 0),
    )
    weights = sum(p.numel() for p in network.parameters() if p.requires_grad) / 1e6
    where = f"{accelerator.num_processes} x {accelerator.device}, {made_from['precision']}"
    say(
        "train",
        name,
        f"{settings.loss} on {source.member}: {weights:.1f} M weights, {len(rows)} images, at most "
        f"{settings.epochs} epochs of {loop.per_epoch} steps, batch {settings.batch}, on {where}; {len(held)} "
        f"validation images choose; checkpoints in {folder}",
    )
    return loop


def _chosen(loop: Loop, average: dict[str, float], metric: str) -> dict:
    """Best epoch and alpha, with the validation measures of what they give."""
    history = loop.progress.history
    best = max(history, key=lambda entry: (entry[metric], -entry["loss"]))
    return {
        "setting": {"epoch": best["epoch"], "alpha": average["alpha"]},
        "validation": {key: value for key, value in average.items() if key != "alpha"},
    }


def _written(source: TrainingSet, settings: Finetune, network: Network, tower, folder: Path, record: dict) -> Trained:
    """Write tower and head as models; the checkpoints are no longer needed."""
    recipe, root, name = source.recipe, source.project.root, folder.name
    model, pixels = source.member.model, source.member.preprocess
    with_head = settings.loss == "likelihood"
    place = folder.with_name(f"{name}-tower") if with_head else folder
    record["base"] = f"{place.name}@{pixels}"
    network.cpu()
    entry = models.export(model, source.project.model(model), root, tower, place)
    finish(place, {**entry, "preprocess": pixels}, recipe, record)
    if with_head:
        heads.save(folder / "head.safetensors", "linear_probe", network.head(), source.class_names)
        finish(folder, head_entry(name, record["base"]), recipe, record)
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    say_chosen(name, f"finetune, {settings.loss}", f"of {source.member}", record, folder)
    return Trained(name, folder, record)


def measure_tower(task: Runtime, recipe: Training, trained: Trained, where: str) -> list[Measured]:
    """The trained tower and what it started from, on the split that is reported; printed."""
    task = replace(task, project=Project(task.project.root), facts={})  # which now has the trained models
    base = task.project.member(trained.record["base"])
    source, settings = TrainingSet(task, recipe), finetune_settings.read(recipe.method[1], where)
    test_task = DatasetTask.of(task, recipe.dataset, asked_prompts=recipe.prompts)
    if settings.loss == "contrastive":
        head = seen_unseen.zero_shot(training_set.captions(test_task, base.model))
        first = "zero-shot"
    else:
        head = heads.load(trained.folder / "head.safetensors", str(trained.folder))
        first = "linear probe" if settings.head == "probe" else "zeros"
    before = start(source, settings, where)
    found = [
        Measured(trained.name, test_task, training_set.examples(test_task, base), head),
        Measured(first, test_task, training_set.examples(test_task, source.member), before),
    ]
    reported.print_table(found)
    say(
        "train", trained.name, f"measured on {len(test_task.truth)} images of {recipe.dataset}, split {test_task.split}"
    )
    return found
