"""Zero-shot image-classification submission pipeline. `python -m pipeline --help` lists the stages."""

from typing import TYPE_CHECKING

from .core.errors import UserError

if TYPE_CHECKING:
    from .classifier import load_classifier

__all__ = ["UserError", "load_classifier"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import classifier  # only now: torch takes a second to import

    return getattr(classifier, name)
