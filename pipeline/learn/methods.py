"""Which ways of learning a training recipe may name: a method of heads, or fine-tuning a tower."""

from collections import ChainMap
from typing import Any

from ..core.registry import find
from ..models import heads
from ..recipes.training import FINETUNE
from .finetune import settings


def check_method(method: tuple[str, Any], where: str) -> None:
    """UserError for an unknown method or a wrong argument, before anything slow."""
    name, argument = method
    find(ChainMap(heads.METHODS, {FINETUNE: settings.read}), "method", name, where)
    if name == FINETUNE:
        settings.read(argument, f"{where}.{name}")
    else:
        heads.METHODS.bind(method, where)
