"""Which checkpoint a model is: what decides its features, found once in a run and compared when it has been loaded."""

from .. import models
from ..core.errors import Changed
from .task import Runtime


def checkpoint(runtime: Runtime, model: str, dtype: str) -> dict:
    """What decides a model's features: checkpoint identity and dtype."""
    return {"checkpoint": identity(runtime, model), "dtype": dtype}


def identity(runtime: Runtime, model: str) -> dict:
    """Which checkpoint it is, as it was when the run first asked."""
    return runtime.once(("checkpoint", model), lambda: _identity(runtime, model))


def _identity(runtime: Runtime, model: str) -> dict:
    return models.identity(model, runtime.project.model(model), runtime.project.root)


def check_unchanged(runtime: Runtime, model: str) -> None:
    """UserError when a checkpoint is not the one this run began with: its features would be kept under that name."""
    if _identity(runtime, model) != identity(runtime, model):
        raise Changed(
            f"{model}: its weights were replaced during the run; what they gave is not kept. Run the same command again"
        )
