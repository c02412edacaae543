"""Which ways of learning a training recipe may name."""

from typing import Any

from ..core.errors import UserError, did_you_mean
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
    if name == FINETUNE:
        settings.read(argument, f"{where}.{name}")
    elif name not in heads.METHODS:
        raise UserError(f"{where}: unknown method {name!r}.{did_you_mean(name, (*heads.METHODS, FINETUNE))}")
    else:
        heads.check(method, where)
