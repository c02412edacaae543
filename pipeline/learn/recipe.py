"""Which ways of learning a training recipe may name."""

from collections import ChainMap
from typing import Any

from ..core.registry import find
from ..recipes import Project
from ..recipes.training import FINETUNE, Training, Unseen  # noqa: F401


def read(project: Project, name: str) -> Training:
    """The recipe training/<name>.yaml."""
    return project.training(name)


def check_method(method: tuple[str, Any], where: str) -> None:
    """UserError for an unknown method or a wrong argument, before anything slow."""
    from ..models import heads
    from .finetune import settings

    name, argument = method
    find(ChainMap(heads.METHODS, {FINETUNE: settings.read}), "method", name, where)
    if name == FINETUNE:
        settings.read(argument, f"{where}.{name}")
    else:
        heads.METHODS.bind(method, where)
