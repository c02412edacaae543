"""Stage infer: pixels and prompts -> features (cached apart) -> prompt probabilities of one member.

Image features do not depend on prompts, and a prompt's feature depends on nothing else, so after an edit of
a prompt only the new prompts meet a model, and only its text tower is loaded.
"""

import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core import artefacts
from ..core.artefacts import Artefact
from ..core.console import progress, say, say_once
from ..core.digests import FORMAT, digest_of
from ..core.errors import PromptsTooLong, UserError
from ..core.files import lock
from ..recipes import Preprocess, Project
from ..recipes.prompts import PromptSet
from . import preprocess
from .task import Task

COLUMNS = ("prompts", "class_mean")


@dataclass(frozen=True)
class Text:
    """What the text tower gives for a prompt set: features (P, D) float32 in column order, and the scale."""

    features: object
    logit_scale: float
    digest: str


def split(member: str) -> tuple[str, str]:
    """'model@preprocess' -> (model, preprocess)."""
    model, _, recipe = member.partition("@")
    return model, recipe


@functools.cache
def checkpoint(task: Task, model: str) -> dict:
    """What decides a model's features: checkpoint identity and dtype."""
    from .. import models

    return {"checkpoint": models.identity(model, task.project.model(model), task.project.root), "dtype": task.dtype}


def _check_unchanged(task: Task, model: str) -> None:
    """UserError when a checkpoint is not the one this run began with: its features would be kept under that name."""
    from .. import models

    if models.identity(model, task.project.model(model), task.project.root) != checkpoint(task, model)["checkpoint"]:
        raise UserError(
            f"{model}: its weights were replaced during the run; what they gave is not kept. Run the same command again"
        )


def text_made_from(task: Task, model: str) -> dict:
    """What decides the features of a model's prompts; UserError for a model without a text tower."""
    from .. import models

    entry = task.project.model(model)
    models.check_text(model, entry)
    return {"stage": "text", "format": FORMAT, **checkpoint(task, model), **models.text_identity(entry)}


def features_artefact(task: Task, member: str) -> Artefact:
    """Image side of a member: `features` float16 (N, D) or (N, Q, D), L2-normalised.

    With `view_pooling: confident` of V views (N, V, D) or (N, V, Q, D).
    """
    member = task.project.tower(member)
    model, recipe = split(member)
    images, pooling = preprocess.artefact(task, recipe), task.project.preprocess(recipe).view_pooling
    made_from = {"stage": "features", "format": FORMAT, **checkpoint(task, model), "pixels": images.digest}
    if pooling != "mean":
        made_from["view_pooling"] = pooling
    return Artefact(task.cache / "features" / member, made_from, images.ids)


def run_features(task: Task, member: str) -> tuple[Artefact, int]:
    """Encode the images that are not cached, shard by shard; also returns how many this process encoded."""
    from .. import models

    member = task.project.tower(member)
    result, (model_name, recipe) = features_artefact(task, member), split(member)
    size = preprocess.shard_rows(task, recipe)
    todo = sum(stop - start for start, stop in result.missing(size))
    if not todo:
        return result, 0
    entry = task.project.model(model_name)
    check_recipe(task.project, member, entry.size, entry.resize_mode)  # before a long load, as far as it is declared
    pixels = preprocess.artefact(task, recipe)
    undecoded = sum(stop - start for start, stop in pixels.missing(size))
    say("preprocess", recipe, f"{len(result.ids) - undecoded} images reused, {undecoded} to decode")
    cached = f", {len(result.ids) - todo} cached" if todo < len(result.ids) else ""
    say("infer", member, f"encoding {todo} images{cached} on {task.device}, {task.dtype}, batch {task.batch} at most")
    model = models.load(model_name, entry, task.project.root, "image", task.device, task.dtype)
    _check_unchanged(task, model_name)
    check_recipe(task.project, member, model.image_size, model.resize_mode)
    fitting = Batches(task.batch_size or model.batch_size(task.batch))
    done = 0
    with progress(f"infer {member}", "image") as bar:
        for start, stop, left in result.claim(size, task.rank, task.world):
            bar.total = done + left
            features = _encode(model, fitting, task, member, start, stop, bar)
            _check_unchanged(task, model_name)
            result.save(start, stop, features=features)
            done += stop - start
    return result, done


def _encode(model, fitting: "Batches", task: Task, member: str, start: int, stop: int, bar):
    """Features of images start..stop, float16. They stay on the device until the last batch."""
    import torch

    rows, recipe = [], split(member)[1]
    views = Views(model, task.project.preprocess(recipe).view_pooling)
    for batch in preprocess.batches(task, recipe, start, stop):
        if task.device.type == "cuda":
            batch = batch.pin_memory()  # so that the copy does not wait for the forward before it
        for encoded in fitting.run(views.encode_image, batch):
            rows.append(encoded)
            bar.update(len(encoded))
    features = torch.cat(rows).cpu()
    bad = _first_not_finite(features)
    if bad is not None:
        image = preprocess.artefact(task, recipe).rows("pixels", start + bad, start + bad + 1)
        raise UserError(
            f"{member}: features of {task.images.ids[start + bad]} are not finite: "
            f"{model.why_not_finite(image.flatten(0, -4))}"
        )
    return features.half()


class Views:
    """A model that also encodes several views of each image: their mean, normalised again, or each of them."""

    def __init__(self, model, pooling: str):
        self.model, self.pooling = model, pooling

    def encode_image(self, pixels):
        """uint8 (B, 3, S, S) -> (B, D); (B, V, 3, S, S) -> (B, D) or (B, V, D)."""
        import torch

        from ..maths import zeroshot

        if pixels.ndim == 4:
            return self.model.encode_image(pixels)
        # one view of all images at a time: a batch is as large as without views
        views = torch.stack([self.model.encode_image(view) for view in pixels.unbind(dim=1)], dim=1)
        return views if self.pooling == "confident" else zeroshot.normalise(views.mean(dim=1))


def member_probs(task: Task, member: str, image_features, text_features, logit_scale: float):
    """Probabilities (N, P) of a member from its features, with its recipe's way of pooling views."""
    return view_probs(task.project.preprocess(split(member)[1]), image_features, text_features, logit_scale)


def view_probs(recipe: Preprocess, image_features, text_features, logit_scale: float):
    """Probabilities (N, P) from features as a preprocess recipe gives them: (N, D), or of views (N, V, D)."""
    from ..maths import zeroshot

    if recipe.view_pooling != "confident":
        return zeroshot.prompt_probs(image_features, text_features, logit_scale)
    images, views = image_features.shape[:2]
    probs = zeroshot.prompt_probs(image_features.flatten(0, 1), text_features, logit_scale)
    return zeroshot.confident_views(probs.unflatten(0, (images, views)), recipe.keep_views or (views + 1) // 2)


def _first_not_finite(features) -> int | None:
    """The first row with a value that is not finite."""
    finite = features.isfinite().flatten(1).all(dim=1)
    return None if finite.all() else int(finite.int().argmin())


def check_recipe(project: Project, member: str, size: int | None, resize_mode: str | None) -> None:
    """The member's preprocess recipe must make what the model was trained on (None: not declared, not checked)."""
    from ..models import _checks

    model, recipe = split(member)

    def fitting(size: int, mode: str | None) -> list[str]:
        found = {name: project.preprocess(name) for name in project.names("preprocess")}
        return [n for n, r in found.items() if r.size == size and mode in (None, _checks.recipe_resize_mode(r.ops))]

    _checks.recipe(member, project.preprocess(recipe), size, resize_mode, fitting, project.model(model).allow)


class Batches:
    """Runs a model over rows in batches; a batch that does not fit into memory is halved, for good."""

    def __init__(self, size: int):
        self.size = size

    def run(self, encode: Callable, rows) -> Iterator:
        """Yield encode(batch) for consecutive batches of `rows`. UserError when a single row does not fit."""
        import torch

        start = 0
        while start < len(rows):
            try:
                encoded = encode(rows[start : start + self.size])
            except torch.OutOfMemoryError:
                encoded = None  # the error holds on to the failed batch: handled outside, after it is gone
            if encoded is None:
                self._halve(len(rows) - start)
                continue
            yield encoded
            start += len(encoded)

    def _halve(self, rows: int) -> None:
        import torch

        failed = min(self.size, rows)
        if failed == 1:
            raise UserError("out of memory with a batch of 1; choose a smaller model, DTYPE=fp16 or another DEVICE")
        self.size = failed // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        say("infer", "batch", f"out of memory, going on with batches of {self.size}")


def text_file(task: Task, model_name: str) -> Path:
    """Where the features of a model's prompts are kept; grows, and is named after what decides them."""
    digest = digest_of(text_made_from(task, model_name))
    return task.project.root / "cache" / "text" / model_name / f"{digest}.pt"


def text_cache(task: Task, model_name: str, prompts: tuple[str, ...]) -> tuple[dict | None, list[str]]:
    """The cached features of a model's prompts, None where there are none, and those of `prompts` they lack."""
    file = text_file(task, model_name)
    known = artefacts.load(file, file.stem)
    have = set(known["prompts"]) if known else set()
    return known, [prompt for prompt in dict.fromkeys(prompts) if prompt not in have]


def run_text(task: Task, model_name: str, prompts: tuple[str, ...]) -> tuple[Text, int]:
    """Features of `prompts`, encoding those never seen before; also returns how many that were.

    The file cache/text/<model>/<digest>.pt only grows: prompts that are edited away stay for their return.
    """
    file = text_file(task, model_name)
    known, new = text_cache(task, model_name, prompts)
    if new:
        with lock(file.with_suffix(".lock")):  # one process encodes, the others find its work
            known, new = _encode_new(task, model_name, prompts)
    row = {prompt: number for number, prompt in enumerate(known["prompts"])}
    return Text(known["features"][[row[prompt] for prompt in prompts]], known["logit_scale"], file.stem), len(new)


def _encode_new(task: Task, model_name: str, prompts: tuple[str, ...]):
    """Add the prompts that a text cache lacks; returns its content and the new prompts."""
    import torch

    from .. import models

    file = text_file(task, model_name)
    artefacts.load_or_discard(file, file.stem)
    known, new = text_cache(task, model_name, prompts)
    if not new:
        return known, new
    say("infer", model_name, f"encoding {len(new)} new prompts on {task.device}, {task.dtype}")
    model = models.load(model_name, task.project.model(model_name), task.project.root, "text", task.device, task.dtype)
    _check_unchanged(task, model_name)
    rows = []
    with progress(f"infer {model_name} prompts", "prompt", len(new)) as bar:
        try:
            for encoded in Batches(task.batch).run(model.encode_text, new):
                rows.append(encoded.cpu())
                bar.update(len(encoded))
        except PromptsTooLong as error:
            raise UserError(f"{', '.join(task.prompts.files_of(error.prompts))}: {error}") from None
    bad = _first_not_finite(torch.cat(rows))
    if bad is not None:
        why = model.why_not_finite([new[bad]])
        raise UserError(f"{model_name}: features of {new[bad]!r} are not finite: {why}")
    if not math.isfinite(model.logit_scale or 0):
        raise UserError(f"{model_name}: logit_scale is {model.logit_scale}: the weights are damaged, fetch them again")
    _check_unchanged(task, model_name)
    before = known or {"prompts": [], "features": rows[0][:0]}
    content = {
        "prompts": [*before["prompts"], *new],
        "features": torch.cat([before["features"], *rows]),
        "logit_scale": model.logit_scale,
    }
    artefacts.save(file, text_made_from(task, model_name), **content)
    return content, new


def artefact(task: Task, member: str, columns: str = "prompts", prompts: PromptSet | None = None) -> Artefact:
    """What the stage makes: `probs` float32 (N, P); with columns='class_mean' one column per class.

    `prompts` are another set than the task's, or the same with other weights. A trained head has one column per class
    whatever is asked for.
    """
    model, _ = split(member)
    features = features_artefact(task, member)
    if task.project.is_head(member):
        own = {"stage": "probs", "format": FORMAT, "features": features.digest, **head_made_from(task, member)}
        return Artefact(task.cache / "probs" / member, own, features.ids)
    text = digest_of(text_made_from(task, model))
    made_from = {
        "stage": "probs",
        "format": FORMAT,
        "features": features.digest,
        "text": text,
        "prompts": (prompts or task.prompts).digest,
        "columns": columns,
        **kept_views(task, member),
    }
    return Artefact(task.cache / "probs" / member, made_from, features.ids)


def kept_views(task: Task, member: str) -> dict:
    """What decides how confident views are kept; nothing for other recipes."""
    keep = task.project.preprocess(split(member)[1]).keep_views
    return {"keep_views": keep} if keep else {}


def columns_of(task: Task, columns: str, prompts: PromptSet | None = None) -> dict:
    """What the columns of an (N, P) artefact are: prompts, prompt_class (P,), prompt_weight (P,), class_names.

    They are 'prompts', 'class_mean' (of the text features) or 'classes' (pooled already).
    """
    import torch

    names, prompts = list(task.class_names), prompts or task.prompts
    if columns == "prompts":
        texts, labels, weights = list(prompts.prompts), list(prompts.prompt_class), list(prompts.weights)
    else:
        texts, labels, weights = names, list(range(len(names))), [1.0] * len(names)
        if columns == "class_mean":
            texts = [f"mean of {prompts.prompt_class.count(label)} prompts of {names[label]}" for label in labels]
    return {
        "prompts": texts,
        "prompt_class": torch.tensor(labels),
        "prompt_weight": torch.tensor(weights),
        "class_names": names,
    }


def probs_of(task: Task, member: str, columns: str, prompts: PromptSet, features: Artefact, text: Text) -> Callable:
    """A function from a range of images (start, stop) to their probabilities (n, P), with columns as columns_of says.

    `text` are the features of `prompts`.
    """
    import torch

    from ..maths import zeroshot

    text_features, what = text.features, columns_of(task, "prompts", prompts)
    if columns == "class_mean":
        where = what["prompt_class"], what["prompt_weight"], len(task.class_names)
        text_features = zeroshot.class_text_features(text_features, *where)

    def probs(start: int, stop: int):
        return torch.cat(
            [
                member_probs(task, member, rows, text_features, text.logit_scale)
                for rows in features.rows("features", start, stop).split(4096)
            ]
        )

    return probs


def run(task: Task, member: str, columns: str = "prompts", prompts: PromptSet | None = None) -> Artefact:
    """Probabilities of one member for all images, computing only what is not cached."""
    if task.project.is_head(member):
        return _run_head(task, member)
    prompts = prompts or task.prompts
    began, result = time.perf_counter(), artefact(task, member, columns, prompts)
    gaps = result.missing(task.shard_rows)
    if not gaps:
        say_once("infer", member, f"probabilities of {len(result.ids)} images x {len(prompts.prompts)} prompts reused")
        return result
    features, images = run_features(task, member)
    if task.rank:
        return result  # the first process does the rest
    text, new = run_text(task, split(member)[0], prompts.prompts)
    probs = probs_of(task, member, columns, prompts, features, text)
    for start, stop in gaps:
        result.save(start, stop, probs=probs(start, stop), **columns_of(task, columns, prompts))
    n, p = len(result.ids), len(prompts.prompts)
    say(
        "infer",
        member,
        f"{images} images encoded, {n - images} reused; {new} prompts encoded, {p - new} reused; "
        f"{time.perf_counter() - began:.1f} s",
    )
    return result


def head_made_from(task: Task, member: str) -> dict:
    """What decides a trained head's probabilities beside the features; UserError for other classes than the task's."""
    model = split(member)[0]
    head_columns(task, member)
    return {"head": checkpoint(task, model)["checkpoint"], "classes": list(task.class_names)}


def head_columns(task: Task, member: str) -> list[int]:
    """Which of a head's columns are the task's classes, in their order."""
    from ..models import heads

    model = split(member)[0]
    entry, where = task.project.model(model), f"{task.project.model_file(model)}: {model}"
    names = heads.describe(task.project.root / entry.weights, where)["class_names"]
    return heads.columns(names, task.class_names, f"{where}: {task.where}")


def head_probs(task: Task, member: str) -> Callable:
    """A function from image features (n, D) to class probabilities (n, C) of a trained head."""
    from ..models import heads

    model, recipe = split(member)
    where = f"{task.project.model_file(model)}: {model}"
    head, columns = heads.load(task.project.root / task.project.model(model).weights, where), head_columns(task, member)

    def probs(features):
        if features.ndim != 2:
            raise UserError(f"{where}: preprocess/{recipe}.yaml gives several features per image; a head takes one")
        return head.probs(features)[:, columns]

    return probs


def _run_head(task: Task, member: str) -> Artefact:
    """Class probabilities of a trained head for all images, from the cached features of its base."""
    began, result = time.perf_counter(), artefact(task, member)
    gaps = result.missing(task.shard_rows)
    if not gaps:
        say_once("infer", member, f"probabilities of {len(result.ids)} images x {len(task.class_names)} classes reused")
        return result
    features, images = run_features(task, member)
    if task.rank:
        return result  # the first process does the rest
    probs = head_probs(task, member)
    for start, stop in gaps:
        result.save(start, stop, probs=probs(features.rows("features", start, stop)), **columns_of(task, "classes"))
    n = len(result.ids)
    say(
        "infer",
        member,
        f"{images} images encoded, {n - images} reused; a head on {task.project.tower(member)}; "
        f"{time.perf_counter() - began:.1f} s",
    )
    return result
