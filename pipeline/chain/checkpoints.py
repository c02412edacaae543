"""Which checkpoint a model is: what decides its features, found once in a run and compared when it has been loaded."""

from .. import models
from ..core.errors import Changed
from .task import Runtime


def checkpoint(runtime: Runtime, model: str) -> dict:
    """What decides a model's features: checkpoint identity and dtype."""
    key = ("checkpoint", model, runtime.dtype)
    return runtime.once(key, lambda: {"checkpoint": _identity(runtime, model), "dtype": runtime.dtype})


def _identity(runtime: Runtime, model: str) -> dict:
    return models.identity(model, runtime.project.model(model), runtime.project.root)


def check_unchanged(runtime: Runtime, model: str) -> None:
    """UserError when a checkpoint is not the one this run began with: its features would be kept under that name."""
    if _identity(runtime, model) != checkpoint(runtime, model)["checkpoint"]:
        raise Changed(
            f"{model}: its weights were replaced during the run; what they gave is not kept. Run the same command again"
        )
