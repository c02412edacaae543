"""What features are made from, but for the dtype, as both machines know it; and in words what differs."""

import json
from collections.abc import Callable

from ..chain import features, text
from ..chain.task import Runtime, Task
from ..recipes.member import Member

Facts = dict  # JSON-able: {what: what it is}
APART = ("stage", "dtype", "pixels")  # the digest of the pixels says less than what they are made from
WORDS: dict[str, Callable[[str, str], str]] = {
    "images": lambda model, recipe: "other images",
    "checkpoint": lambda model, recipe: f"other weights of {model}",
    "preprocess": lambda model, recipe: f"another preprocess/{recipe}.yaml",
    "view_pooling": lambda model, recipe: f"another preprocess/{recipe}.yaml",
    "networks": lambda model, recipe: f"another network of preprocess/{recipe}.yaml",
    "decode": lambda model, recipe: "another 'damaged_images' or 'max_pixels' of the competition",
    "behaviour": lambda model, recipe: (
        "libraries that make other pixels of the same image (Pillow, numpy, torchvision)"
    ),
    "tokenizer": lambda model, recipe: f"another tokenizer of {model}",
    "logit_scale": lambda model, recipe: f"another logit_scale of {model}",
    "context_length": lambda model, recipe: f"another context_length of {model}",
    "format": lambda model, recipe: "another version of this program",
}


def of_images(task: Task, member: Member) -> Facts:
    """Of a member's image features."""
    seen = features.stage(task, member)
    made_from = {**seen.inputs[0].made_from, **seen.made_from}
    return _facts(made_from)


def of_text(runtime: Runtime, model: str) -> Facts:
    """Of a model's prompt features."""
    return _facts(text.made_from(runtime, model))


def _facts(made_from: dict) -> Facts:
    """As they are when they come back from a file of JSON: a tuple is a list there."""
    return json.loads(json.dumps({key: value for key, value in made_from.items() if key not in APART}))


def difference(have: Facts, wanted: Facts, model: str, recipe: str = "") -> str:
    """The first thing that `have` is other in than `wanted`, in words; '' where nothing is."""
    keys = [*WORDS, *have, *wanted]
    other = next((key for key in keys if have.get(key) != wanted.get(key)), None)
    return "" if other is None else WORDS.get(other, lambda *_: f"another {other}")(model, recipe)
